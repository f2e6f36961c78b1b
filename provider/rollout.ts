import { AppsV1Api, type KubeConfig, type V1Deployment } from "@kubernetes/client-node";
import { setTimeout } from "node:timers/promises";
import {
  ABORT,
  abortedBy,
  absent,
  answerOf,
  isAbsent,
  isFinal,
  kubeconfigOf,
  PATIENCE,
  podsOf,
  ResourceFailed,
  scaleTo,
} from "./cluster";
import { explainPods } from "./pod-failures";

export interface RolloutInputs {
  /** The kubeconfig's context; its current one unless given. */
  readonly context?: string;
  readonly namespace: string;
  readonly deployment: string;
  /** Changes with the Deployment's spec: another one is another rollout. */
  readonly spec: string;
  /** Another Deployment, whose live number of pods this one must have as well. */
  readonly atLeast?: string;
  /** How many pods it must have at least, where its manifest does not say. */
  readonly pods?: number;
}

const POLL_MILLISECONDS = 500;

/**
 * Waits until the Deployment's pods are the new ones and available, and no old one is left.
 * @throws Error with the pods' own reasons when the cluster says that the rollout has failed: no
 * progress for the Deployment's `progressDeadlineSeconds`.
 */
export async function create(inputs: RolloutInputs): Promise<string> {
  const { context, namespace, deployment } = inputs;
  const kubeconfig = kubeconfigOf(context);
  const apps = kubeconfig.makeApiClient(AppsV1Api);
  let lastAnswer = Date.now();
  // An abort of a former rollout stays there.
  let formerAbort: string | undefined;
  for (;;) {
    try {
      const current = await apps.readNamespacedDeployment({ namespace, name: deployment });
      lastAnswer = Date.now();
      const abort = current.metadata?.annotations?.[ABORT] ?? "";
      formerAbort ??= abort;
      if (abort !== formerAbort) {
        const text = `the rollout of ${namespace}/${deployment} was aborted by ${abortedBy(abort)}`;
        throw new ResourceFailed(`${namespace}/${deployment}`, [text]);
      }
      const status = rolloutStatus(current);
      if (status === "complete") {
        if (!(await scaleUp(kubeconfig, current, inputs))) return `${namespace}/${deployment}`;
      }
      if (status === "failed") throw await explain(kubeconfig, current);
    } catch (error) {
      if (error instanceof ResourceFailed) throw error;
      if (isFinal(error) || Date.now() - lastAnswer > PATIENCE) {
        throw unreadable(namespace, deployment, error);
      }
    }
    await setTimeout(POLL_MILLISECONDS);
  }
}

/**
 * Gives a Deployment as many pods as it must have.
 * @returns whether it had fewer.
 */
async function scaleUp(
  kubeconfig: KubeConfig,
  deployment: V1Deployment,
  { namespace, atLeast, pods = 0 }: RolloutInputs,
): Promise<boolean> {
  const other =
    atLeast === undefined
      ? undefined
      : await kubeconfig
          .makeApiClient(AppsV1Api)
          .readNamespacedDeployment({ namespace, name: atLeast })
          .catch(absent);
  const replicas = Math.max(pods, other?.spec?.replicas ?? 0);
  if ((deployment.spec?.replicas ?? 1) >= replicas) return false;
  await scaleTo(kubeconfig, deployment, replicas);
  return true;
}

/** Gone unless the rollout is complete now: a refresh must not let one pass that has failed. */
export async function read(inputs: RolloutInputs): Promise<RolloutInputs | undefined> {
  const { context, namespace, deployment } = inputs;
  try {
    const apps = kubeconfigOf(context).makeApiClient(AppsV1Api);
    const current = await apps.readNamespacedDeployment({ namespace, name: deployment });
    return rolloutStatus(current) === "complete" ? inputs : undefined;
  } catch (error) {
    if (isAbsent(error)) return undefined;
    throw unreadable(namespace, deployment, error);
  }
}

function unreadable(namespace: string, deployment: string, error: unknown): Error {
  const what = `the rollout of ${namespace}/${deployment}`;
  return new Error(`${what} cannot be watched: ${answerOf(error)}`);
}

/**
 * As `kubectl rollout status` decides it
 * (https://github.com/kubernetes/kubectl/blob/master/pkg/polymorphichelpers/rollout_status.go).
 */
export function rolloutStatus({
  metadata,
  spec,
  status,
}: V1Deployment): "complete" | "progressing" | "failed" {
  if ((metadata?.generation ?? 0) > (status?.observedGeneration ?? 0)) return "progressing";
  const progressing = status?.conditions?.find(({ type }) => type === "Progressing");
  if (progressing?.reason === "ProgressDeadlineExceeded") return "failed";
  const wanted = spec?.replicas ?? 1;
  const { replicas = 0, updatedReplicas = 0, availableReplicas = 0 } = status ?? {};
  const complete =
    updatedReplicas >= wanted &&
    replicas <= updatedReplicas &&
    availableReplicas >= updatedReplicas;
  return complete ? "complete" : "progressing";
}

async function explain(kubeconfig: KubeConfig, deployment: V1Deployment): Promise<ResourceFailed> {
  const { namespace = "", name = "" } = deployment.metadata ?? {};
  const causes = explainPods(await podsOf(kubeconfig, deployment), deployment);
  const seconds = deployment.spec?.progressDeadlineSeconds ?? 600;
  const text = [
    `the rollout of ${namespace}/${name} made no progress for ${seconds} s (baton:rollout.progressDeadlineSeconds)`,
    ...(causes.length > 0 ? causes : ["its pods report no reason"]).map((cause) => `  ${cause}`),
  ].join("\n");
  return new ResourceFailed(`${namespace}/${name}`, [text]);
}
