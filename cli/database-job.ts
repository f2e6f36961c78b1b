import { BatchV1Api, CoreV1Api, type V1CronJob, type V1Job } from "@kubernetes/client-node";
import { setTimeout } from "node:timers/promises";
import { Refusal } from "../ledger/refusal";
import { endOf, type Cluster } from "./cluster";

const POLL_MILLISECONDS = 1000;
/** How long the cluster keeps what was asked of a Job, in seconds. */
const KEPT_SECONDS = 86_400;
/** What a Job was asked, so that one that still runs is found by whoever asks again. */
const ASKED = "baton/asked";

export interface Answer {
  readonly succeeded: boolean;
  /** What it has printed, all of its containers in order. */
  readonly lines: readonly string[];
  readonly job: string;
}

/**
 * Makes a Job of one of the database's CronJobs, as `kubectl create job --from` does, and waits for
 * its end. One that was asked the same and still runs is waited for in place of another one.
 * @param words what the script is to do, unless it is what the CronJob does
 * @throws Refusal where the environment has no such CronJob.
 */
export async function runDatabaseJob(
  { kubeconfig, namespace }: Cluster,
  environment: string,
  cronJob: string,
  asked: { readonly words?: readonly string[]; readonly env?: Readonly<Record<string, string>> },
): Promise<Answer> {
  const batch = kubeconfig.makeApiClient(BatchV1Api);
  const { items } = await batch.listNamespacedCronJob({ namespace });
  const template = items.find(({ metadata }) => metadata?.name === cronJob);
  if (template === undefined) {
    throw new Refusal({
      where: environment,
      property: `the CronJob ${cronJob}`,
      value: "missing",
      expected: `what a deployment makes where baton:database asks for it`,
      fix: "Declare it, and deploy",
    });
  }
  const question = JSON.stringify(asked);
  const all = await batch.listNamespacedJob({ namespace });
  const running = all.items.find(
    (job) => job.metadata?.annotations?.[ASKED] === question && endOf(job) === undefined,
  );
  const made =
    running ??
    (await batch.createNamespacedJob({ namespace, body: jobOf(template, question, asked) }));
  const job = made.metadata?.name ?? "";
  for (;;) {
    const current = await batch.readNamespacedJob({ namespace, name: job });
    const end = endOf(current);
    if (end !== undefined) {
      const lines = await logOf(kubeconfig.makeApiClient(CoreV1Api), namespace, job);
      return { succeeded: end === "Complete", lines, job };
    }
    await setTimeout(POLL_MILLISECONDS);
  }
}

function jobOf(
  { metadata, spec }: V1CronJob,
  question: string,
  { words, env = {} }: { words?: readonly string[]; env?: Readonly<Record<string, string>> },
): V1Job {
  const { name = "", namespace = "", uid = "" } = metadata ?? {};
  const job = spec?.jobTemplate.spec;
  const pod = job?.template.spec;
  if (job === undefined || pod === undefined) throw new Error(`${name} makes no Jobs`);
  // It was read for this Job alone.
  for (const container of pod.containers) {
    if (words !== undefined) container.args = [...words];
    for (const variable of container.env ?? []) {
      const value = env[variable.name];
      if (value !== undefined) variable.value = value;
    }
  }
  job.ttlSecondsAfterFinished = KEPT_SECONDS;
  return {
    apiVersion: "batch/v1",
    kind: "Job",
    metadata: {
      namespace,
      generateName: `${name}-`,
      annotations: { [ASKED]: question },
      ownerReferences: [{ apiVersion: "batch/v1", kind: "CronJob", name, uid }],
    },
    spec: job,
  };
}

async function logOf(core: CoreV1Api, namespace: string, job: string): Promise<string[]> {
  const labelSelector = `job-name=${job}`;
  const { items } = await core.listNamespacedPod({ namespace, labelSelector });
  const [pod] = items;
  if (pod === undefined) return [];
  const name = pod.metadata?.name ?? "";
  const containers = [...(pod.spec?.initContainers ?? []), ...(pod.spec?.containers ?? [])];
  const logs: string[] = [];
  for (const { name: container } of containers) {
    // One that was never started has none.
    const log = await core.readNamespacedPodLog({ namespace, name, container }).catch(() => "");
    logs.push(...log.split("\n").filter((line) => line !== ""));
  }
  return logs;
}
