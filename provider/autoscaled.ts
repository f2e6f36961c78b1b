import { AppsV1Api } from "@kubernetes/client-node";
import { REPLICAS } from "../components/internal/labels";
import { absent, answerOf, kubeconfigOf, patiently } from "./cluster";
import { scale } from "./rollout";
import type { Run } from "./watch";

export interface AutoscaledInputs {
  /** The kubeconfig's context; its current one unless given. */
  readonly context?: string;
  readonly namespace: string;
  readonly deployment: string;
}

export function create({ namespace, deployment }: AutoscaledInputs): Promise<string> {
  return Promise.resolve(`${namespace}/${deployment}`);
}

export function read(inputs: AutoscaledInputs): Promise<AutoscaledInputs> {
  return Promise.resolve(inputs);
}

/**
 * The autoscaler is gone: the Deployment has as many pods as it declares, where it does.
 * @throws Error when the cluster cannot be asked, or the pods do not come up.
 */
export async function remove(inputs: AutoscaledInputs, run: Run): Promise<void> {
  const { context, namespace, deployment } = inputs;
  const kubeconfig = kubeconfigOf(context);
  // The state says what it was called then; a context that was renamed since must not stop an `up`.
  if (context !== undefined && kubeconfig.getContextObject(context) === null) {
    run.tell(`${namespace}/${deployment} keeps its pods: the kubeconfig has no context ${context}`);
    return;
  }
  const apps = kubeconfig.makeApiClient(AppsV1Api);
  const read = () => apps.readNamespacedDeployment({ namespace, name: deployment }).catch(absent);
  const current = await patiently(read).catch((error: unknown) => {
    throw new Error(`${namespace}/${deployment} cannot be read: ${answerOf(error)}`);
  });
  const declared = current?.metadata?.annotations?.[REPLICAS];
  if (declared === undefined) return;
  await scale({ ...inputs, spec: "" }, Number(declared), run);
}
