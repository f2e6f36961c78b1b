import {
  ApiException,
  AppsV1Api,
  BatchV1Api,
  KubernetesObjectApi,
  PatchStrategy,
  type KubeConfig,
  type KubernetesObject,
  type V1Deployment,
  type V1Job,
} from "@kubernetes/client-node";
import { STACK, VERIFICATION } from "../components/internal/labels";
import type { StackConfig } from "../ledger/stack-config";
import { Refusal } from "../ledger/refusal";
import { ABORT, abortOf, absent, isAbsent, kubeconfigOf, rolloutStatus } from "../provider/cluster";
import { runningBake } from "../provider/progress";
import { isRolledOut, isUndone, Undo } from "../provider/undo";
import { isTree, type Tree } from "../release/merge";

/** What an environment consists of, of those kinds that a release makes. */
const KINDS = [
  ["v1", "ConfigMap"],
  ["v1", "Secret"],
  ["v1", "Service"],
  ["apps/v1", "Deployment"],
  ["batch/v1", "CronJob"],
  ["batch/v1", "Job"],
  ["policy/v1", "PodDisruptionBudget"],
  ["autoscaling/v2", "HorizontalPodAutoscaler"],
  ["networking.k8s.io/v1", "Ingress"],
] as const;

/** The namespace of an environment, as its stack file says where it is. */
export class Cluster {
  readonly kubeconfig: KubeConfig;

  constructor(
    private readonly environment: string,
    context: string | undefined,
    readonly namespace: string,
  ) {
    this.kubeconfig = kubeconfigOf(context);
  }

  /** An object as it is now; nothing where there is none. */
  async read(object: Tree): Promise<KubernetesObject | undefined> {
    const { apiVersion, kind, metadata } = object;
    const { name, namespace } = isTree(metadata) ? metadata : {};
    if (typeof name !== "string") return undefined;
    const api = KubernetesObjectApi.makeApiClient(this.kubeconfig);
    const header = {
      apiVersion: String(apiVersion),
      kind: String(kind),
      metadata: { name, namespace: typeof namespace === "string" ? namespace : "" },
    };
    return this.ask(() => api.read(header)).catch(absent);
  }

  /** Removes an object, if there is one and it is of this environment's stack of a project. */
  async remove(object: Tree, project: string): Promise<void> {
    const live = await this.read(object);
    const { annotations = {}, uid, resourceVersion } = live?.metadata ?? {};
    if (live === undefined || annotations[STACK] !== `${project}/${this.environment}`) return;
    const api = KubernetesObjectApi.makeApiClient(this.kubeconfig);
    const preconditions = {
      ...(uid === undefined ? {} : { uid }),
      ...(resourceVersion === undefined ? {} : { resourceVersion }),
    };
    const body = { propagationPolicy: "Background", preconditions };
    await this.ask(() =>
      api.delete(live, ...([undefined, undefined, undefined, undefined, undefined] as const), body),
    ).catch(absent);
  }

  /**
   * Makes what is being rolled out or verified fail now.
   * @param begun what an earlier try has stopped; nothing else is stopped then, as it is the way back
   * @returns what was stopped, and which pods it is about; what of it nobody has heard of so far, where
   * that can be seen; and what else was done, for people.
   */
  async abort(
    who: string,
    reason: string,
    begun?: ReadonlyMap<string, string>,
  ): Promise<{ stopped: Map<string, string>; unheard: string[]; said: string[] }> {
    const labelSelector = this.selector();
    const { namespace } = this;
    const { items: deployments } = await this.ask(() =>
      this.kubeconfig
        .makeApiClient(AppsV1Api)
        .listNamespacedDeployment({ namespace, labelSelector }),
    );
    const { items: jobs } = await this.ask(() =>
      this.kubeconfig.makeApiClient(BatchV1Api).listNamespacedJob({ namespace, labelSelector }),
    );
    const stopped = new Map<string, string>();
    const unheard: string[] = [];
    for (const deployment of deployments) {
      const marked = await this.mark(deployment, abortOf(new Date(), who, reason), begun);
      if (marked === undefined) continue;
      stopped.set(marked.what, marked.pods);
      if (marked.isUnheard) unheard.push(marked.what);
    }
    const said: string[] = [];
    if (begun !== undefined) return { stopped, unheard, said };
    const running = jobs.filter((job) => endOf(job) === undefined);
    for (const { metadata } of running) {
      // Its deadline is over: the Job fails, and whoever waits for it hears so.
      const spec = { activeDeadlineSeconds: 1 };
      const isThere = await this.patch("batch/v1", "Job", metadata?.name ?? "", { spec });
      if (isThere) stopped.set(`the suite ${metadata?.name ?? ""}`, "");
    }
    // Whoever waits for a suite leaves what runs as it is; and before a rollout, it is as it was.
    const isVerified = running.some(({ metadata }) => isSuite(metadata?.labels ?? {}));
    for (const { metadata } of isVerified ? deployments : []) {
      const undo = new Undo(this.kubeconfig, namespace, metadata?.name ?? "");
      said.push(...(await undo.undo()).said);
    }
    return { stopped, unheard, said };
  }

  /** Puts an abort to what goes on of a Deployment. @returns what that is; nothing where nothing does. */
  private async mark(
    deployment: V1Deployment,
    abort: string,
    begun: ReadonlyMap<string, string> | undefined,
  ): Promise<
    { readonly what: string; readonly pods: string; readonly isUnheard: boolean } | undefined
  > {
    const { name = "", resourceVersion = "" } = deployment.metadata ?? {};
    const bake = runningBake(deployment);
    // Its pods may all be there, and nobody has seen it.
    const isAwaited = isRolledOut(deployment);
    const progressing = isAwaited || rolloutStatus(deployment) === "progressing";
    if (bake === undefined && !progressing) return undefined;
    const what = bake === undefined ? `the rollout of ${name}` : `the bake of ${name}`;
    const pods = bake ?? JSON.stringify(deployment.spec?.template);
    if (begun !== undefined && begun.get(what) !== pods) return undefined;
    const annotations = { [ABORT]: abort };
    const change = { metadata: { annotations, resourceVersion } };
    if (await this.patch("apps/v1", "Deployment", name, change)) {
      const isUnheard = isAwaited || (bake !== undefined && !isUndone(deployment));
      return { what, pods, isUnheard };
    }
    // It has changed meanwhile: it may go back already, or go on to its bake.
    const { namespace } = this;
    const apps = this.kubeconfig.makeApiClient(AppsV1Api);
    const now = await this.ask(() => apps.readNamespacedDeployment({ namespace, name })).catch(
      absent,
    );
    return now === undefined ? undefined : this.mark(now, abort, begun);
  }

  /**
   * The ids, `NAMESPACE/NAME`, of what is there and labelled as this environment's, by kind; without
   * what a controller has made of it, such as a CronJob's Jobs.
   */
  async objects(): Promise<{ readonly kind: string; readonly id: string }[]> {
    const api = KubernetesObjectApi.makeApiClient(this.kubeconfig);
    const lists = KINDS.map(async ([apiVersion, kind]) => {
      const list = await this.ask(() =>
        api.list<KubernetesObject>(
          apiVersion,
          kind,
          this.namespace,
          ...([undefined, undefined, undefined, undefined, this.selector()] as const),
        ),
      );
      const own = list.items.filter(({ metadata }) => !metadata?.ownerReferences?.length);
      return own.map(({ metadata }) => ({
        kind,
        id: `${this.namespace}/${metadata?.name ?? ""}`,
      }));
    });
    return (await Promise.all(lists)).flat();
  }

  /** How many pods each Deployment wants and has ready. */
  async readiness(): Promise<{ name: string; ready: number; wanted: number }[]> {
    const { namespace } = this;
    const { items } = await this.ask(() =>
      this.kubeconfig
        .makeApiClient(AppsV1Api)
        .listNamespacedDeployment({ namespace, labelSelector: this.selector() }),
    );
    return items.map(({ metadata, spec, status }) => ({
      name: metadata?.name ?? "",
      ready: status?.readyReplicas ?? 0,
      wanted: spec?.replicas ?? 1,
    }));
  }

  private selector(): string {
    return `app.kubernetes.io/managed-by=pulumi,app.kubernetes.io/instance=${this.environment}`;
  }

  /** @returns whether it was changed: not where it is gone, or has changed since it was read. */
  private async patch(
    apiVersion: string,
    kind: string,
    name: string,
    change: Tree,
  ): Promise<boolean> {
    const api = KubernetesObjectApi.makeApiClient(this.kubeconfig);
    const { namespace } = this;
    const metadata = isTree(change["metadata"]) ? change["metadata"] : {};
    const body = { ...change, apiVersion, kind, metadata: { ...metadata, name, namespace } };
    try {
      await this.ask(() =>
        api.patch(
          body,
          ...([undefined, undefined, undefined, undefined] as const),
          PatchStrategy.MergePatch,
        ),
      );
      return true;
    } catch (error) {
      const passed = isAbsent(error) || (error instanceof ApiException && error.code === 409);
      if (!passed) throw error;
      return false;
    }
  }

  /** @throws Refusal when the cluster does not answer; its own answers as they are. */
  private async ask<T>(question: () => Promise<T>): Promise<T> {
    try {
      return await question();
    } catch (error) {
      if (error instanceof ApiException) throw error;
      throw new Refusal({
        where: this.environment,
        property: "the cluster",
        value: `out of reach (${error instanceof Error ? error.message : String(error)})`,
        expected: "an answer",
        fix: "Check the network and the kubeconfig, and run the same command again",
      });
    }
  }
}

export function clusterOf(environment: string, config: StackConfig): Cluster {
  const { cluster, namespace } = config;
  return new Cluster(environment, cluster.context, namespace.name ?? environment);
}

function isSuite(labels: Readonly<Record<string, string>>): boolean {
  return Object.entries(VERIFICATION).every(([key, value]) => labels[key] === value);
}

/** How a Job has ended, `Complete` or `Failed`; nothing while it runs. */
export function endOf({ status }: V1Job): string | undefined {
  return status?.conditions?.find(
    ({ type, status: is }) => (type === "Complete" || type === "Failed") && is === "True",
  )?.type;
}
