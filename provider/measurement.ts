import {
  AppsV1Api,
  type KubeConfig,
  type V1Deployment,
  type V1ReplicaSet,
} from "@kubernetes/client-node";
import type { Criteria, Measured, Sample } from "../release/analysis";
import { QueryError, queryNumber } from "./prometheus";

/** What Prometheus is asked; durations in seconds. */
export interface Analysis extends Omit<Criteria, "bake" | "minRequests" | "limits"> {
  readonly prometheus: string;
  readonly traffic: { readonly query: string; readonly min: number };
  readonly queries: Readonly<
    Record<
      string,
      {
        readonly query: string;
        readonly unit?: string | undefined;
        readonly max?: number | undefined;
        readonly min?: number | undefined;
        readonly maxTimesStable?: number | undefined;
      }
    >
  >;
}

/**
 * What a release is compared with: its Deployments' pods of before, or other Deployments' pods, as
 * they were when the release got their traffic or while both have some.
 */
export type Stable =
  | { readonly kind: "before" }
  | { readonly kind: "former" | "beside"; readonly deployments: readonly string[] };

/** How often the watch of pods alone counts as a sample, in seconds. */
const PODS_INTERVAL = 5;

/** Asks Prometheus what a release does. */
export class Measurement {
  private readonly analysis: Analysis | undefined;
  /** What the stable release showed when it still served, by the query's name. */
  private readonly stable = new Map<string, number | undefined>();

  constructor(
    private readonly kubeconfig: KubeConfig,
    private readonly namespace: string,
    /** An `Analysis` as JSON; empty where only the pods are watched. */
    analysis: string,
    private readonly against: Stable,
  ) {
    this.analysis = analysis === "" ? undefined : (JSON.parse(analysis) as Analysis);
  }

  /** By what a release is judged, for people. */
  get by(): string {
    return this.analysis?.prometheus ?? "the pods alone, as no Prometheus is configured";
  }

  /** @param bake for how long the release must be good, in seconds */
  criteria(bake: number): Criteria {
    const { analysis } = this;
    if (analysis === undefined) {
      return {
        bake,
        interval: Math.min(PODS_INTERVAL, bake),
        window: PODS_INTERVAL,
        failuresInARow: 1,
        minRequests: 0,
        limits: [],
        whenUnavailable: "hold",
        whenTooLittleTraffic: "hold",
      };
    }
    const limits = Object.entries(analysis.queries).map(([name, query]) => ({ name, ...query }));
    return { ...analysis, bake, minRequests: analysis.traffic.min, limits };
  }

  /**
   * @param began when the release got its traffic
   * @throws QueryError when a query can never be answered.
   */
  async measure(deployments: readonly V1Deployment[], began: string): Promise<Sample> {
    const { analysis } = this;
    if (analysis === undefined) return { at: Date.now(), values: {} };
    const { prometheus, traffic, queries } = analysis;
    const ask = async (name: string, query: string, pods: string, at?: Date) => {
      try {
        return await queryNumber(prometheus, this.fill(query, pods), at);
      } catch (error) {
        if (!(error instanceof QueryError)) throw error;
        throw new QueryError(`Prometheus refuses baton:rollout.analysis.${name}: ${error.message}`);
      }
    };
    try {
      const { now, stable } = await this.podPatterns(deployments, began);
      const askStable = async (name: string, query: string): Promise<number | undefined> => {
        if (stable === undefined) return undefined;
        if (stable.at === undefined) return ask(`queries.${name}`, query, stable.pods);
        if (!this.stable.has(name)) {
          this.stable.set(name, await ask(`queries.${name}`, query, stable.pods, stable.at));
        }
        return this.stable.get(name);
      };
      const measureOne = async (name: string): Promise<[string, Measured]> => {
        const { query = "", maxTimesStable } = queries[name] ?? {};
        const [value, of] = await Promise.all([
          ask(`queries.${name}`, query, now),
          maxTimesStable === undefined ? undefined : askStable(name, query),
        ]);
        return [name, { value, stable: of }];
      };
      const [requests, ...measured] = await Promise.all([
        ask("traffic", traffic.query, now),
        ...Object.keys(queries).map(measureOne),
      ]);
      return { at: Date.now(), requests, values: Object.fromEntries(measured) };
    } catch (error) {
      if (error instanceof QueryError) throw error;
      return { at: Date.now(), unavailable: (error as Error).message };
    }
  }

  private fill(query: string, pods: string): string {
    const window = this.analysis?.window ?? PODS_INTERVAL;
    return query
      .replaceAll("$(NAMESPACE)", this.namespace)
      .replaceAll("$(PODS)", pods)
      .replaceAll("$(WINDOW)", `${window}s`);
  }

  /**
   * What the names of the release's pods are like, and of the stable one's; with the time when these
   * served last, unless they still do.
   */
  private async podPatterns(
    deployments: readonly V1Deployment[],
    began: string,
  ): Promise<{ now: string; stable?: { pods: string; at?: Date } }> {
    const { namespace, against } = this;
    const apps = this.kubeconfig.makeApiClient(AppsV1Api);
    const { items } = await apps.listNamespacedReplicaSet({ namespace });
    const now: V1ReplicaSet[] = [];
    const before: V1ReplicaSet[] = [];
    for (const { metadata } of deployments) {
      const own = items
        .filter((set) => set.metadata?.ownerReferences?.some(({ uid }) => uid === metadata?.uid))
        .sort((a, b) => revisionOf(b) - revisionOf(a));
      now.push(...own.slice(0, 1));
      before.push(...own.slice(1, 2));
    }
    if (against.kind === "before") {
      const at = now[0]?.metadata?.creationTimestamp;
      if (before.length === 0 || at === undefined) return { now: patternOf(now) };
      return { now: patternOf(now), stable: { pods: patternOf(before), at: new Date(at) } };
    }
    if (against.deployments.length === 0) return { now: patternOf(now) };
    const owned = items.filter((set) =>
      set.metadata?.ownerReferences?.some(({ name }) => against.deployments.includes(name)),
    );
    const at = against.kind === "former" ? { at: new Date(began) } : {};
    return { now: patternOf(now), stable: { pods: patternOf(owned), ...at } };
  }
}

function revisionOf(object: V1ReplicaSet): number {
  return Number(object.metadata?.annotations?.["deployment.kubernetes.io/revision"] ?? 0);
}

/** As a regular expression inside a query's text, where a backslash would need another one. */
function patternOf(sets: readonly V1ReplicaSet[]): string {
  const names = sets.map(({ metadata }) => metadata?.name?.replaceAll(".", "[.]") ?? "");
  return `(${names.join("|")})-[a-z0-9]+`;
}
