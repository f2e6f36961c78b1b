import { CoreV1Api, type KubeConfig } from "@kubernetes/client-node";
import { explainPods } from "./pod-failures";

/**
 * Says why a Job's pods have failed, with the end of their logs.
 *
 * @param known what is shown of the failure already: a cause whose log is in it is left out. The
 * Kubernetes provider shows the log unless it hears of the Job's end before that of the pods.
 * @returns no line where all is shown already, or where the cluster does not answer.
 */
export async function explainJob(
  kubeconfig: KubeConfig,
  namespace: string,
  name: string,
  known: string,
): Promise<string[]> {
  const core = kubeconfig.makeApiClient(CoreV1Api);
  const labelSelector = `batch.kubernetes.io/job-name=${name}`;
  try {
    const { items } = await core.listNamespacedPod({ namespace, labelSelector });
    return explainPods(items).filter((cause) => !isShown(cause, known));
  } catch {
    return [];
  }
}

/** Whether the last line of a cause, which ends its log, is shown. */
function isShown(cause: string, known: string): boolean {
  const [head, ...log] = cause.split("\n");
  const last = log.at(-1)?.trim() ?? "";
  return head !== undefined && last !== "" && known.includes(last);
}
