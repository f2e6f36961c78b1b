import {
  AppsV1Api,
  BatchV1Api,
  CoreV1Api,
  KubernetesObjectApi,
  type KubernetesObject,
  type V1Job,
} from "@kubernetes/client-node";
import { rolloutStatus } from "../provider/cluster";
import { kubeconfigOf, until } from "../sandbox/cluster";

/** How long anything may take, in seconds. */
export const PATIENCE = 600;

const kubeconfig = kubeconfigOf({});
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
  const isRolledOut = async () => {
    const current = await apps.readNamespacedDeployment({ namespace, name: deployment });
    const status = rolloutStatus(current);
    if (status === "failed") throw new Error(`the rollout of ${namespace}/${deployment} failed`);
    return status === "complete";
  };
  await until(`the rollout of ${namespace}/${deployment}`, isRolledOut, PATIENCE);
}

async function waitForJob({ metadata }: V1Job): Promise<void> {
  const { namespace = "", name = "" } = metadata ?? {};
  const isComplete = async () => {
    const { status } = await batch.readNamespacedJob({ namespace, name });
    const is = (type: string) =>
      status?.conditions?.some(
        (condition) => condition.type === type && condition.status === "True",
      );
    if (is("Failed")) throw new Error(`Job ${namespace}/${name} failed`);
    return is("Complete") ?? false;
  };
  await until(`Job ${namespace}/${name}`, isComplete, PATIENCE);
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
