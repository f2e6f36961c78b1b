import {
  ApiException,
  AppsV1Api,
  CoreV1Api,
  KubeConfig,
  PatchStrategy,
  setHeaderOptions,
  type V1Deployment,
  type V1Pod,
} from "@kubernetes/client-node";
import { setTimeout } from "node:timers/promises";

/** How long the cluster may be out of reach before a wait gives up, in milliseconds. */
export const PATIENCE = 30_000;
const RETRY_MILLISECONDS = 1000;

/** An annotation of a Deployment; one that is put while it is waited for stops what goes on. */
export const ABORT = "baton/abort";

/** Another one each time: `TIME WHO: REASON`. */
export function abortOf(at: Date, who: string, reason: string): string {
  return `${at.toISOString()} ${who}: ${reason}`;
}

/** `WHO: REASON`. */
export function abortedBy(abort: string): string {
  return abort.slice(abort.indexOf(" ") + 1);
}

export function kubeconfigOf(context: string | undefined): KubeConfig {
  const kubeconfig = new KubeConfig();
  kubeconfig.loadFromDefault();
  if (context !== undefined) kubeconfig.setCurrentContext(context);
  return kubeconfig;
}

/** Of a resource that is there, and must be tried again by the next `up`. */
export class ResourceFailed extends Error {
  constructor(
    readonly id: string,
    readonly reasons: readonly string[],
  ) {
    super("the release has failed");
  }
}

/** Answers after which it is tried again: an object has changed since it was read, or too much is asked. */
const PASSING = [409, 429];

/** Whether trying again cannot help. */
export function isFinal(error: unknown): boolean {
  return error instanceof ApiException && error.code < 500 && !PASSING.includes(error.code);
}

/** Whether what was asked for is not there. */
export function isAbsent(error: unknown): boolean {
  return error instanceof ApiException && error.code === 404;
}

/** For `catch`: nothing where there is nothing. */
export function absent(error: unknown): undefined {
  if (!isAbsent(error)) throw error;
}

/** As a list takes it. */
export function labelSelectorOf(labels: Readonly<Record<string, string>>): string {
  return Object.entries(labels)
    .map(([key, value]) => `${key}=${value}`)
    .join(",");
}

/** Changes what is named, and leaves all else. */
export const MERGE = setHeaderOptions("Content-Type", PatchStrategy.MergePatch);

/** Tries again as long as that can help. @throws the last answer, or a verdict. */
export async function patiently<T>(action: () => Promise<T>): Promise<T> {
  const began = Date.now();
  for (;;) {
    try {
      return await action();
    } catch (error) {
      const over = error instanceof ResourceFailed || isFinal(error);
      if (over || Date.now() - began > PATIENCE) throw error;
    }
    await setTimeout(RETRY_MILLISECONDS);
  }
}

/** Gives a Deployment so many pods, unless it has changed since it was read. */
export async function scaleTo(
  kubeconfig: KubeConfig,
  { metadata }: V1Deployment,
  replicas: number,
): Promise<void> {
  const { name = "", namespace = "", resourceVersion } = metadata ?? {};
  await kubeconfig
    .makeApiClient(AppsV1Api)
    .patchNamespacedDeployment(
      { namespace, name, body: { metadata: { resourceVersion }, spec: { replicas } } },
      MERGE,
    );
}

/** The pods of what the Deployment runs now: the release's own labels tell them from the former ones. */
export async function podsOf(
  kubeconfig: KubeConfig,
  { metadata, spec }: V1Deployment,
): Promise<V1Pod[]> {
  const labels = { ...spec?.template.metadata?.labels, ...spec?.selector.matchLabels };
  const labelSelector = labelSelectorOf(labels);
  const namespace = metadata?.namespace ?? "";
  const core = kubeconfig.makeApiClient(CoreV1Api);
  return (await core.listNamespacedPod({ namespace, labelSelector })).items;
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

/** What the cluster said; the client's own message holds every header. */
export function answerOf(error: unknown): string {
  return error instanceof ApiException
    ? `the cluster answered ${error.code}: ${messageOf(error.body)}`
    : (error as Error).message;
}

function messageOf(body: unknown): string {
  try {
    return (JSON.parse(String(body)) as { message?: string }).message ?? String(body);
  } catch {
    return String(body);
  }
}
