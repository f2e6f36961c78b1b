import {
  ApiException,
  AppsV1Api,
  CoreV1Api,
  KubeConfig,
  type V1Deployment,
} from "@kubernetes/client-node";
import { setTimeout } from "node:timers/promises";
import { explainPods } from "./pod-failures";

export interface RolloutInputs {
  /** The kubeconfig's context; its current one unless given. */
  readonly context?: string;
  readonly namespace: string;
  readonly deployment: string;
  /** Changes with the Deployment's spec: another one is another rollout. */
  readonly spec: string;
}

/** An annotation of the Deployment; one that is put while it is awaited stops the rollout. */
export const ABORT = "baton/abort";

/** Another one each time: `TIME WHO: REASON`. */
export function abortOf(at: Date, who: string, reason: string): string {
  return `${at.toISOString()} ${who}: ${reason}`;
}

const POLL_MILLISECONDS = 500;
/** How long the cluster may be out of reach before the wait gives up, in milliseconds. */
const PATIENCE = 30_000;

/**
 * Waits until the Deployment's pods are the new ones and available, and no old one is left.
 * @throws Error with the pods' own reasons when the cluster says that the rollout has failed: no
 * progress for the Deployment's `progressDeadlineSeconds`.
 */
export async function create({ context, namespace, deployment }: RolloutInputs): Promise<string> {
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
        const by = abort.slice(abort.indexOf(" ") + 1);
        const text = `the rollout of ${namespace}/${deployment} was aborted by ${by}`;
        throw new RolloutFailed(`${namespace}/${deployment}`, [text]);
      }
      const status = rolloutStatus(current);
      if (status === "complete") return `${namespace}/${deployment}`;
      if (status === "failed") throw await explain(kubeconfig, current);
    } catch (error) {
      if (error instanceof RolloutFailed) throw error;
      const final = error instanceof ApiException && error.code < 500;
      if (final || Date.now() - lastAnswer > PATIENCE)
        throw unreadable(namespace, deployment, error);
    }
    await setTimeout(POLL_MILLISECONDS);
  }
}

/** Gone unless the rollout is complete now: a refresh must not let one pass that has failed. */
export async function read(inputs: RolloutInputs): Promise<RolloutInputs | undefined> {
  const { context, namespace, deployment } = inputs;
  try {
    const apps = kubeconfigOf(context).makeApiClient(AppsV1Api);
    const current = await apps.readNamespacedDeployment({ namespace, name: deployment });
    return rolloutStatus(current) === "complete" ? inputs : undefined;
  } catch (error) {
    if (error instanceof ApiException && error.code === 404) return undefined;
    throw unreadable(namespace, deployment, error);
  }
}

function kubeconfigOf(context: string | undefined): KubeConfig {
  const kubeconfig = new KubeConfig();
  kubeconfig.loadFromDefault();
  if (context !== undefined) kubeconfig.setCurrentContext(context);
  return kubeconfig;
}

class RolloutFailed extends Error {
  constructor(
    /** Of the resource: a rollout that failed is there, and must be awaited again. */
    readonly id: string,
    readonly reasons: readonly string[],
  ) {
    super("the rollout has failed");
  }
}

/** The client's own message holds every header; the cluster's is one sentence. */
function unreadable(namespace: string, deployment: string, error: unknown): Error {
  const said =
    error instanceof ApiException
      ? `the cluster answered ${error.code}: ${messageOf(error.body)}`
      : (error as Error).message;
  return new Error(`the rollout of ${namespace}/${deployment} cannot be watched: ${said}`);
}

function messageOf(body: unknown): string {
  try {
    return (JSON.parse(String(body)) as { message?: string }).message ?? String(body);
  } catch {
    return String(body);
  }
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

async function explain(kubeconfig: KubeConfig, deployment: V1Deployment): Promise<RolloutFailed> {
  const { namespace = "", name = "" } = deployment.metadata ?? {};
  const { matchLabels = {} } = deployment.spec?.selector ?? {};
  // The selector finds the former release's pods too; the tag tells the new ones apart.
  const labels = { ...deployment.spec?.template.metadata?.labels, ...matchLabels };
  const labelSelector = Object.entries(labels)
    .map(([key, value]) => `${key}=${value}`)
    .join(",");
  const pods = await kubeconfig
    .makeApiClient(CoreV1Api)
    .listNamespacedPod({ namespace, labelSelector });
  const causes = explainPods(pods.items, deployment);
  const seconds = deployment.spec?.progressDeadlineSeconds ?? 600;
  const text = [
    `the rollout of ${namespace}/${name} made no progress for ${seconds} s (baton:rollout.progressDeadlineSeconds)`,
    ...(causes.length > 0 ? causes : ["its pods report no reason"]).map((cause) => `  ${cause}`),
  ].join("\n");
  return new RolloutFailed(`${namespace}/${name}`, [text]);
}
