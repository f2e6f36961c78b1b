import { CoreV1Api, KubeConfig } from "@kubernetes/client-node";
import { setTimeout } from "node:timers/promises";
import type { Place } from "./engine";
import { KUBECONFIG } from "./folder";

/** Often enough to lose no time, seldom enough to take none from the cluster. */
const POLL_MILLISECONDS = 100;

/** The way to a place's cluster. */
export function kubeconfigOf({ context }: Place): KubeConfig {
  const kubeconfig = new KubeConfig();
  if (context === undefined) {
    kubeconfig.loadFromFile(KUBECONFIG);
  } else {
    kubeconfig.loadFromDefault();
    kubeconfig.setCurrentContext(context);
  }
  return kubeconfig;
}

/**
 * Deletes every namespace whose name begins so, and waits until all that was in them is gone.
 * @throws Error when that takes longer than `patience`, in seconds.
 */
export async function deleteNamespaces(
  kubeconfig: KubeConfig,
  prefix: string,
  patience: number,
): Promise<void> {
  const core = kubeconfig.makeApiClient(CoreV1Api);
  const list = async () =>
    (await core.listNamespace()).items.filter(({ metadata }) => metadata?.name?.startsWith(prefix));
  for (const { metadata, status } of await list()) {
    // The cluster refuses to delete what is on its way out.
    if (status?.phase === "Terminating") continue;
    await core.deleteNamespace({ name: metadata?.name ?? "" });
  }
  const gone = async () => (await list()).length === 0;
  await until(`the end of namespaces ${prefix}*`, gone, patience);
}

/** @throws Error when `done` does not come to hold within `patience`, in seconds. */
export async function until(
  what: string,
  done: () => Promise<boolean>,
  patience: number,
): Promise<void> {
  const deadline = Date.now() + patience * 1000;
  while (!(await done())) {
    if (Date.now() > deadline) throw new Error(`${what} takes more than ${patience} s`);
    await setTimeout(POLL_MILLISECONDS);
  }
}
