import { ApiException, KubeConfig } from "@kubernetes/client-node";

/** How long the cluster may be out of reach before a wait gives up, in milliseconds. */
export const PATIENCE = 30_000;

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

/** Whether asking again cannot help. */
export function isFinal(error: unknown): boolean {
  return error instanceof ApiException && error.code < 500 && error.code !== 429;
}

/** Whether an object was changed since it was read. */
export function isConflict(error: unknown): boolean {
  return error instanceof ApiException && error.code === 409;
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
