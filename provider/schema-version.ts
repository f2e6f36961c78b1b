import { CoreV1Api } from "@kubernetes/client-node";
import { z } from "zod";
import { kubeconfigOf } from "./cluster";

export interface SchemaVersionInputs {
  /** The kubeconfig's context; its current one unless given. */
  readonly context?: string;
  readonly namespace: string;
  readonly job: string;
}

const Message = z.object({ version: z.int(), backup: z.string() });
export type Reading = z.infer<typeof Message>;

/** What is known where the pod is gone, with its node for one: the migration finds out itself. */
const UNKNOWN: Reading = { version: -1, backup: "" };

/**
 * Reads what the Job's pod has said last.
 * @throws Error when the cluster cannot be asked, or the pod has said something else.
 */
export async function create(
  inputs: SchemaVersionInputs,
): Promise<{ readonly id: string; readonly outs: SchemaVersionInputs & Reading }> {
  const { context, namespace, job } = inputs;
  const { items } = await kubeconfigOf(context)
    .makeApiClient(CoreV1Api)
    .listNamespacedPod({ namespace, labelSelector: `job-name=${job}` });
  const ended = items
    .flatMap(({ status }) => status?.containerStatuses ?? [])
    .flatMap(({ state }) => (state?.terminated?.exitCode === 0 ? [state.terminated] : []));
  const outs = { ...inputs, ...readingOf(ended.at(-1)?.message) };
  return { id: `${namespace}/${job}`, outs };
}

/** @throws Error for a message that another container has left. */
export function readingOf(message: string | undefined): Reading {
  if (message === undefined) return UNKNOWN;
  let said: unknown;
  try {
    said = JSON.parse(message);
  } catch {
    said = message;
  }
  const parsed = Message.safeParse(said);
  if (parsed.success) return parsed.data;
  throw new Error(
    `the database's Job said ${message.slice(0, 200)}; expected the schema's version`,
  );
}

/** As it was read: the past does not change. */
export function read(inputs: SchemaVersionInputs): Promise<SchemaVersionInputs> {
  return Promise.resolve(inputs);
}
