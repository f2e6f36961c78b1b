import type {
  V1ContainerStateTerminated,
  V1ContainerStatus,
  V1Deployment,
  V1Pod,
} from "@kubernetes/client-node";

/** How much of a log an error shows, in characters. */
const LOG_TAIL = 1_000;

/**
 * Says in plain words why pods are not ready, from what the cluster reports of them: one line a
 * cause, the log's end below it. Pods that fail alike are counted, not repeated.
 */
export function explainPods(pods: readonly V1Pod[], deployment?: V1Deployment): string[] {
  const causes = new Map<string, number>();
  for (const cause of pods.flatMap(explainPod)) causes.set(cause, (causes.get(cause) ?? 0) + 1);
  const lines = [...causes].map(([cause, count]) =>
    count > 1 ? `${count} pods: ${cause}` : cause,
  );
  // Where no pod could be made, the Deployment itself has the reason: quota or Pod Security.
  const refused = deployment?.status?.conditions?.find(
    ({ type, status }) => type === "ReplicaFailure" && status === "True",
  );
  if (refused?.message !== undefined) lines.push(`no pod can be created: ${refused.message}`);
  return lines;
}

/**
 * Names those of these containers that ended without an error, which `explainPods` does not call a
 * failure: one that is to serve must not end at all.
 */
export function explainEnds(
  pods: readonly V1Pod[],
  ended: ReadonlySet<V1ContainerStatus>,
): string[] {
  return pods.flatMap(({ metadata, status }) =>
    (status?.containerStatuses ?? []).flatMap((container) => {
      const { name, state, restartCount } = container;
      const { exitCode } = endOf(container) ?? {};
      if (!ended.has(container) || (exitCode ?? 0) !== 0) return [];
      const count = state?.running === undefined ? restartCount + 1 : restartCount;
      const times = count === 1 ? "once" : `${count} times`;
      const how = exitCode === undefined ? "" : ` (exit code ${exitCode})`;
      return [`container ${name} of pod ${metadata?.name ?? ""} has ended ${times}${how}`];
    }),
  );
}

/** How a container has ended last. */
function endOf({ state, lastState }: V1ContainerStatus): V1ContainerStateTerminated | undefined {
  return state?.terminated ?? lastState?.terminated;
}

function explainPod({ status }: V1Pod): string[] {
  const scheduled = status?.conditions?.find(({ type }) => type === "PodScheduled");
  if (scheduled?.status === "False") return [`cannot be scheduled: ${scheduled.message ?? ""}`];
  return [
    ...(status?.initContainerStatuses ?? []).flatMap((container) =>
      explainContainer("init container", container),
    ),
    ...(status?.containerStatuses ?? []).flatMap((container) =>
      explainContainer("container", container),
    ),
  ];
}

/** Waiting states that say why by themselves; the others follow from how the last run ended. */
const SELF_EXPLAINING =
  /^(ErrImagePull|ImagePullBackOff|InvalidImageName|CreateContainer.*Error|RunContainerError)$/;

function explainContainer(kind: string, container: V1ContainerStatus): string[] {
  const { name, state, restartCount } = container;
  const what = `${kind} ${name}`;
  if (SELF_EXPLAINING.test(state?.waiting?.reason ?? "")) {
    return [`${what}: ${state?.waiting?.reason}: ${state?.waiting?.message ?? ""}`];
  }
  const ended = endOf(container);
  if (ended !== undefined && ended.exitCode !== 0) {
    const times = restartCount > 0 ? ` ${restartCount + 1} times` : "";
    const reason =
      ended.reason === "OOMKilled"
        ? "was killed for using more memory than its limit (OOMKilled)"
        : `ended${times} with exit code ${ended.exitCode}`;
    const log = ended.message?.trim();
    return [`${what} ${reason}${log ? `; its last words:\n${tail(log)}` : ""}`];
  }
  return state?.running !== undefined && !container.ready
    ? [`${what} runs, but is not ready: its readiness or startup probe fails`]
    : [];
}

function tail(log: string): string {
  const text = log.length > LOG_TAIL ? `…${log.slice(-LOG_TAIL)}` : log;
  return text.replace(/^/gm, "    ");
}
