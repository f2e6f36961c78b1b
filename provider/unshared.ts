import { AppsV1Api } from "@kubernetes/client-node";
import { isUnderWay, type CanaryInputs } from "./canary";
import { absent, answerOf, kubeconfigOf, patiently } from "./cluster";
import { Lease } from "./lease";
import { Traffic, type SharedSwitch } from "./traffic";
import type { Run } from "./watch";

export type UnsharedInputs = Omit<CanaryInputs, "inPlace">;

/**
 * Gives the former release the traffic that it shares with a canary which was killed.
 * @throws Error when the cluster cannot be asked, or it was stopped while another run drives.
 */
export async function create(inputs: UnsharedInputs, run: Run): Promise<string> {
  const { context, namespace } = inputs;
  const id = `${namespace}/${inputs.deployments}`;
  const kubeconfig = kubeconfigOf(context);
  const lease = new Lease(kubeconfig, namespace, inputs.lease);
  const traffic = new Traffic(kubeconfig, namespace, () => lease.keep(id));
  try {
    if ((await patiently(() => othersShare(inputs))).length === 0) return id;
    await lease.acquire(run);
    try {
      const said = await patiently(async () => traffic.giveBack(await othersShare(inputs)));
      said.forEach(run.tell);
    } finally {
      await lease.release();
    }
  } catch (error) {
    throw unreadable(namespace, error);
  }
  return id;
}

/** Gone where others have a share. */
export async function read(inputs: UnsharedInputs): Promise<UnsharedInputs | undefined> {
  try {
    return (await othersShare(inputs)).length === 0 ? inputs : undefined;
  } catch (error) {
    throw unreadable(inputs.namespace, error);
  }
}

/** What is shared, and not with the release's own canary. */
async function othersShare(inputs: UnsharedInputs): Promise<SharedSwitch[]> {
  const { context, namespace } = inputs;
  const kubeconfig = kubeconfigOf(context);
  const switches = JSON.parse(inputs.traffic) as SharedSwitch[];
  const shared = await new Traffic(kubeconfig, namespace).shared(switches);
  if (shared.length === 0) return [];
  const [name = ""] = inputs.deployments.split(",");
  const apps = kubeconfig.makeApiClient(AppsV1Api);
  const first = await apps.readNamespacedDeployment({ namespace, name }).catch(absent);
  return isUnderWay(inputs, first) ? [] : shared;
}

function unreadable(namespace: string, error: unknown): Error {
  return new Error(`who shares the traffic of ${namespace} cannot be seen: ${answerOf(error)}`);
}
