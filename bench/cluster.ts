import {
  AppsV1Api,
  BatchV1Api,
  CoreV1Api,
  KubeConfig,
  KubernetesObjectApi,
  type KubernetesObject,
  type V1Job,
} from "@kubernetes/client-node";
import { setTimeout } from "node:timers/promises";
import { rolloutStatus } from "../provider/rollout";
import { KUBECONFIG } from "../sandbox/folder";

/** Often enough to lose no time, seldom enough to take none from the cluster. */
const POLL_MILLISECONDS = 100;
const PATIENCE_MILLISECONDS = 600_000;

const kubeconfig = new KubeConfig();
kubeconfig.loadFromFile(KUBECONFIG);
const core = kubeconfig.makeApiClient(CoreV1Api);
const apps = kubeconfig.makeApiClient(AppsV1Api);
const batch = kubeconfig.makeApiClient(BatchV1Api);
const objects = KubernetesObjectApi.makeApiClient(kubeconfig);

/** Creates an object; a Job is also waited for. */
export async function create(object: KubernetesObject): Promise<void> {
  const created = await objects.create(object);
  if (created.kind === "Job") await waitForJob(created);
}

/** @throws Error when the cluster gives the rollout up. */
export async function waitForRollout(namespace: string, deployment: string): Promise<void> {
  await until(`the rollout of ${namespace}/${deployment}`, async () => {
    const current = await apps.readNamespacedDeployment({ namespace, name: deployment });
    const status = rolloutStatus(current);
    if (status === "failed") throw new Error(`the rollout of ${namespace}/${deployment} failed`);
    return status === "complete";
  });
}

async function waitForJob({ metadata }: V1Job): Promise<void> {
  const { namespace = "", name = "" } = metadata ?? {};
  await until(`Job ${namespace}/${name}`, async () => {
    const { status } = await batch.readNamespacedJob({ namespace, name });
    const is = (type: string) =>
      status?.conditions?.some(
        (condition) => condition.type === type && condition.status === "True",
      );
    if (is("Failed")) throw new Error(`Job ${namespace}/${name} failed`);
    return is("Complete") ?? false;
  });
}

/** Makes the node pull an image, so that whoever runs it first has no more to do than the next. */
export async function pull(namespace: string, image: string, command: string[]): Promise<void> {
  await core.createNamespace({ body: { metadata: { name: namespace } } });
  await create({
    apiVersion: "batch/v1",
    kind: "Job",
    metadata: { name: "pull", namespace },
    spec: {
      template: {
        spec: { restartPolicy: "Never", containers: [{ name: "pull", image, command }] },
      },
    },
  } as KubernetesObject);
}

/** Deletes every namespace whose name begins so, and waits until all that was in them is gone. */
export async function deleteNamespaces(prefix: string): Promise<void> {
  const list = async () =>
    (await core.listNamespace()).items.filter(({ metadata }) => metadata?.name?.startsWith(prefix));
  for (const { metadata, status } of await list()) {
    // The cluster refuses to delete what is on its way out.
    if (status?.phase === "Terminating") continue;
    await core.deleteNamespace({ name: metadata?.name ?? "" });
  }
  await until(`the end of namespaces ${prefix}*`, async () => (await list()).length === 0);
}

async function until(what: string, done: () => Promise<boolean>): Promise<void> {
  const deadline = Date.now() + PATIENCE_MILLISECONDS;
  while (!(await done())) {
    if (Date.now() > deadline) {
      throw new Error(`${what} takes more than ${PATIENCE_MILLISECONDS / 1000} s`);
    }
    await setTimeout(POLL_MILLISECONDS);
  }
}
