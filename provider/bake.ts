import {
  ApiException,
  AppsV1Api,
  CoreV1Api,
  PatchStrategy,
  setHeaderOptions,
  type KubeConfig,
  type V1Deployment,
  type V1Pod,
  type V1ReplicaSet,
} from "@kubernetes/client-node";
import { createHash, randomUUID } from "node:crypto";
import { setTimeout } from "node:timers/promises";
import { isDeepStrictEqual } from "node:util";
import { z } from "zod";
import { durationOf, judge, type Criteria, type Measured, type Sample } from "../release/analysis";
import {
  ABORT,
  abortedBy,
  answerOf,
  isFinal,
  kubeconfigOf,
  PATIENCE,
  podsOf,
  ResourceFailed,
} from "./cluster";
import { explainPods } from "./pod-failures";
import { QueryError, queryNumber } from "./prometheus";
import { rolloutStatus } from "./rollout";

export interface BakeInputs {
  /** The kubeconfig's context; its current one unless given. */
  readonly context?: string;
  readonly namespace: string;
  /** The release's Deployments, separated by commas. */
  readonly deployments: string;
  /** Changes with what was deployed: another one is another bake. */
  readonly spec: string;
  /** How long the release must have been good. */
  readonly seconds: number;
  /** An `Analysis` as JSON; empty where only the pods are watched. */
  readonly analysis: string;
  /** `Switch`es as JSON: the Services that lead to the release. */
  readonly traffic?: string;
  /** The former release's Deployments, separated by commas, where they stand beside these. */
  readonly former?: string;
}

/** A Service that leads to one release at a time, and where it led before. */
interface Switch {
  readonly service: string;
  readonly to: Readonly<Record<string, string>>;
  readonly from?: Readonly<Record<string, string>>;
}

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

/** How a bake is watched, told of and stopped. */
export interface Run {
  /** Aborted when the engine is told to stop. */
  readonly signal: AbortSignal;
  /** Shows a line beside the resource. */
  readonly tell: (line: string) => void;
}

/** An annotation of the first Deployment: what the bake has come to, for whoever carries it on. */
export const BAKE = "baton/bake";

const Progress = z.object({
  /** Which bake of which rollout. */
  of: z.string(),
  state: z.enum(["running", "passed"]),
  /** Who writes it. */
  driver: z.string(),
  /** For how long the release was good, in seconds. */
  good: z.number(),
  /** The abort that was there before. */
  abort: z.string(),
  /** When the release got its traffic. */
  began: z.string(),
});
type Progress = z.infer<typeof Progress>;

/** Which bake of a Deployment's release goes on now, by its annotations. */
export function runningBake(
  annotations: Readonly<Record<string, string>> = {},
): string | undefined {
  const progress = progressOf(annotations);
  return progress?.state === "running" ? progress.of : undefined;
}

const POLL_MILLISECONDS = 1000;
/** How often it is tried to take the annotation away, after which the next `up` sees that it failed. */
const ATTEMPTS = 3;
/** How often the watch of pods alone counts as a sample, in seconds. */
const PODS_INTERVAL = 5;
/** How often it is told how far the bake is, in seconds. */
const TELL_EVERY = 60;

/**
 * Watches a release in use until it has been good for long enough: no container ends, the pods stay
 * available, and what Prometheus says of them stays within its limits. A bake that was killed is
 * carried on from where it stood. One that fails gives the traffic back first.
 * @throws Error that says what was wrong, what was expected and since when.
 */
export async function create(inputs: BakeInputs, run: Run): Promise<string> {
  return new Bake(inputs, run).watch();
}

/** Gone unless the bake has passed: a refresh must not let one pass that has not. */
export async function read(inputs: BakeInputs): Promise<BakeInputs | undefined> {
  try {
    const apps = kubeconfigOf(inputs.context).makeApiClient(AppsV1Api);
    const [name = ""] = inputs.deployments.split(",");
    const deployment = await apps.readNamespacedDeployment({ namespace: inputs.namespace, name });
    if (inputs.seconds === 0) return inputs;
    const progress = progressOf(deployment.metadata?.annotations ?? {});
    const passed = progress?.state === "passed" && progress.of === identity(inputs, deployment);
    return passed ? inputs : undefined;
  } catch (error) {
    if (error instanceof ApiException && error.code === 404) return undefined;
    throw new Error(`the bake of ${inputs.namespace} cannot be read: ${answerOf(error)}`);
  }
}

class Bake {
  private readonly kubeconfig: KubeConfig;
  private readonly names: readonly string[];
  private readonly analysis: Analysis | undefined;
  private readonly criteria: Criteria;
  private readonly driver = randomUUID();
  private readonly samples: Sample[] = [];
  /** How often each container had ended when it was first seen. */
  private readonly restarts = new Map<string, number>();
  /** What the stable release showed, by the query's name. */
  private readonly stable = new Map<string, number | undefined>();
  private readonly switches: readonly Switch[];
  private readonly former: readonly string[];
  private progress: Progress = {
    of: "",
    state: "running",
    driver: this.driver,
    good: 0,
    abort: "",
    began: "",
  };
  private incompleteSince: number | undefined;

  constructor(
    private readonly inputs: BakeInputs,
    private readonly run: Run,
  ) {
    this.kubeconfig = kubeconfigOf(inputs.context);
    this.names = inputs.deployments.split(",");
    this.analysis = inputs.analysis === "" ? undefined : (JSON.parse(inputs.analysis) as Analysis);
    this.criteria = criteriaOf(inputs.seconds, this.analysis);
    this.switches = JSON.parse(inputs.traffic ?? "[]") as Switch[];
    this.former = (inputs.former ?? "").split(",").filter((name) => name !== "");
  }

  async watch(): Promise<string> {
    await this.giveTraffic();
    if (this.inputs.seconds === 0 || (await this.begin())) return this.id;
    const already = this.progress.good;
    const length = durationOf(this.criteria.bake);
    const carriedOn = already > 0 ? `, carried on after ${durationOf(already)}` : "";
    const by = this.analysis?.prometheus ?? "the pods alone, as no Prometheus is configured";
    this.run.tell(`baking for ${length}${carriedOn}, judged by ${by}`);

    let told = { at: Date.now(), held: false };
    let nextSample = Date.now();
    let measuring: Promise<Sample | Error> | undefined;
    for (;;) {
      const first = await this.look();
      if (this.run.signal.aborted) {
        throw new ResourceFailed(this.id, ["the bake was stopped; the next `up` carries it on"]);
      }
      if (measuring === undefined && Date.now() >= nextSample) {
        nextSample = Date.now() + this.criteria.interval * 1000;
        measuring = this.measure().catch((error: unknown) => error as Error);
      }
      // An abort must be heard also while Prometheus takes its time.
      const pause = setTimeout(POLL_MILLISECONDS, undefined);
      const sample = await Promise.race([measuring, pause]);
      if (sample !== undefined) {
        measuring = undefined;
        if (sample instanceof Error) throw await this.failed(first, [sample.message]);
        this.samples.push(sample);
        const verdict = judge(this.criteria, this.samples, already);
        if (verdict.kind === "failed") throw await this.failed(first, verdict.reasons);
        const passed = verdict.kind === "passed" && this.incompleteSince === undefined;
        const state = passed ? "passed" : "running";
        const written = await this.write(first, { ...this.progress, state, good: verdict.good });
        if (passed && written) return this.id;
        const held = verdict.kind === "held";
        if (held !== told.held || Date.now() - told.at >= TELL_EVERY * 1000) {
          told = { at: Date.now(), held };
          this.run.tell(
            held ? `held: ${verdict.reason}` : `good for ${durationOf(verdict.good)} of ${length}`,
          );
        }
      }
      await pause;
    }
  }

  private get id(): string {
    return `${this.inputs.namespace}/${this.names.join(",")}`;
  }

  /**
   * Leads the Services to the release, where they do not yet: another try of one that has failed.
   * What the former release has shown counts no more.
   */
  private async giveTraffic(): Promise<void> {
    const { namespace } = this.inputs;
    const apps = this.kubeconfig.makeApiClient(AppsV1Api);
    const forget = async (name: string) => {
      const body = { metadata: { annotations: { [BAKE]: null } } };
      const merge = setHeaderOptions("Content-Type", PatchStrategy.MergePatch);
      await apps.patchNamespacedDeployment({ namespace, name, body }, merge);
    };
    const began = Date.now();
    for (;;) {
      try {
        for (const { service, to } of this.switches) await this.lead(service, to);
        for (const name of this.former) {
          await forget(name).catch((error: unknown) => {
            if (!(error instanceof ApiException && error.code === 404)) throw error;
          });
        }
        return;
      } catch (error) {
        if (isFinal(error) || Date.now() - began > PATIENCE) throw this.unwatched(error);
      }
      await setTimeout(POLL_MILLISECONDS);
    }
  }

  /** Takes the traffic back, as fast as can be. @returns what was done, or why not. */
  private async takeTraffic(): Promise<string[]> {
    const said: string[] = [];
    for (const { service, from } of this.switches) {
      if (from === undefined) continue;
      const began = Date.now();
      for (;;) {
        try {
          await this.lead(service, from);
          said.push(`${service} leads to the former release again`);
          break;
        } catch (error) {
          if (isFinal(error) || Date.now() - began > PATIENCE) {
            said.push(`${service} could not be led back to the former release: ${answerOf(error)}`);
            break;
          }
        }
        await setTimeout(POLL_MILLISECONDS);
      }
    }
    return said;
  }

  private async lead(name: string, to: Readonly<Record<string, string>>): Promise<void> {
    const { namespace } = this.inputs;
    const core = this.kubeconfig.makeApiClient(CoreV1Api);
    const { metadata, spec } = await core.readNamespacedService({ namespace, name });
    const present = spec?.selector ?? {};
    if (isDeepStrictEqual({ ...present }, { ...to })) return;
    const gone = Object.fromEntries(Object.keys(present).map((key) => [key, null]));
    const { resourceVersion } = metadata ?? {};
    await core.patchNamespacedService(
      {
        namespace,
        name,
        body: { metadata: { resourceVersion }, spec: { selector: { ...gone, ...to } } },
      },
      setHeaderOptions("Content-Type", PatchStrategy.MergePatch),
    );
  }

  /**
   * Says on the cluster that this run bakes the release, and learns how far a former run has come.
   * @returns whether it has passed already.
   */
  private async begin(): Promise<boolean> {
    let lastAnswer = Date.now();
    for (;;) {
      try {
        const deployments = await this.read();
        lastAnswer = Date.now();
        const [first] = deployments;
        const of = identity(this.inputs, first);
        const former = progressOf(first?.metadata?.annotations ?? {});
        const known = former?.of === of ? former : undefined;
        if (known?.state === "passed") return true;
        const { good, abort, began } = known ?? {
          good: 0,
          abort: abortsOf(deployments),
          began: new Date().toISOString(),
        };
        const { driver } = this;
        if (await this.write(first, { of, state: "running", driver, good, abort, began })) {
          return false;
        }
      } catch (error) {
        if (isFinal(error) || Date.now() - lastAnswer > PATIENCE) throw this.unwatched(error);
      }
      await setTimeout(POLL_MILLISECONDS);
    }
  }

  /** Looks whether the bake may go on, as the cluster sees it. */
  private async look(): Promise<V1Deployment | undefined> {
    const began = Date.now();
    for (;;) {
      try {
        const deployments = await this.read();
        const [first] = deployments;
        const now = progressOf(first?.metadata?.annotations ?? {});
        const abort = abortsOf(deployments);
        if (abort !== this.progress.abort) {
          const [latest = ""] = abort
            .split("\n")
            .filter((line) => line !== "" && !this.progress.abort.split("\n").includes(line));
          throw await this.failed(first, [`aborted by ${abortedBy(latest)}`]);
        }
        if (now?.of !== this.progress.of || now.driver !== this.driver) {
          const text = "another run has taken the bake over, or another release was rolled out";
          throw new ResourceFailed(this.id, [`${this.id}: ${text}; this run has stopped`]);
        }
        const pods = await Promise.all(
          deployments.map((deployment) => podsOf(this.kubeconfig, deployment)),
        );
        const ended = deployments.flatMap((deployment, index) =>
          this.hasRestarted(pods[index] ?? []) ? explainPods(pods[index] ?? [], deployment) : [],
        );
        if (ended.length > 0) throw await this.failed(first, ended);
        const late = deployments.filter((deployment) => rolloutStatus(deployment) !== "complete");
        this.incompleteSince = late.length === 0 ? undefined : (this.incompleteSince ?? Date.now());
        const patience = Math.max(
          ...deployments.map(({ spec }) => spec?.progressDeadlineSeconds ?? 600),
        );
        if (
          this.incompleteSince !== undefined &&
          Date.now() - this.incompleteSince > patience * 1000
        ) {
          const causes = deployments.flatMap((deployment, index) =>
            explainPods(pods[index] ?? [], deployment),
          );
          const names = late.map(({ metadata }) => metadata?.name ?? "").join(", ");
          const text = `${names} has had too few available pods for ${durationOf(patience)}`;
          throw await this.failed(first, [text, ...causes]);
        }
        return first;
      } catch (error) {
        if (error instanceof ResourceFailed) throw error;
        if (isFinal(error) || Date.now() - began > PATIENCE) throw this.unwatched(error);
      }
      await setTimeout(POLL_MILLISECONDS);
    }
  }

  private async read(): Promise<V1Deployment[]> {
    const { namespace } = this.inputs;
    const apps = this.kubeconfig.makeApiClient(AppsV1Api);
    return Promise.all(
      this.names.map((name) => apps.readNamespacedDeployment({ namespace, name })),
    );
  }

  /** Whether a container has ended since it was first seen. */
  private hasRestarted(pods: readonly V1Pod[]): boolean {
    let restarted = false;
    for (const { metadata, status } of pods) {
      for (const { name, restartCount } of status?.containerStatuses ?? []) {
        const key = `${metadata?.uid ?? ""}/${name}`;
        const before = this.restarts.get(key) ?? (this.samples.length === 0 ? restartCount : 0);
        this.restarts.set(key, before);
        if (restartCount > before) restarted = true;
      }
    }
    return restarted;
  }

  /** @throws QueryError when a query can never be answered. */
  private async measure(): Promise<Sample> {
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
      const { now, before } = await this.podPatterns();
      const measureOne = async (name: string): Promise<[string, Measured]> => {
        const { query = "", maxTimesStable } = queries[name] ?? {};
        const value = await ask(`queries.${name}`, query, now);
        if (maxTimesStable === undefined || before === undefined) return [name, { value }];
        if (!this.stable.has(name)) {
          this.stable.set(name, await ask(`queries.${name}`, query, before.pods, before.at));
        }
        return [name, { value, stable: this.stable.get(name) }];
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
    return query
      .replaceAll("$(NAMESPACE)", this.inputs.namespace)
      .replaceAll("$(PODS)", pods)
      .replaceAll("$(WINDOW)", `${this.criteria.window}s`);
  }

  /**
   * What the names of the release's pods are like, and of those before it, with the time when these
   * served last.
   */
  private async podPatterns(): Promise<{ now: string; before?: { pods: string; at: Date } }> {
    const { namespace } = this.inputs;
    const apps = this.kubeconfig.makeApiClient(AppsV1Api);
    const [deployments, { items }] = await Promise.all([
      this.read(),
      apps.listNamespacedReplicaSet({ namespace }),
    ]);
    const now: V1ReplicaSet[] = [];
    const before: V1ReplicaSet[] = [];
    const owned = (name: string) =>
      items.filter((set) => set.metadata?.ownerReferences?.some((owner) => owner.name === name));
    for (const { metadata } of deployments) {
      const own = items
        .filter((set) => set.metadata?.ownerReferences?.some(({ uid }) => uid === metadata?.uid))
        .sort((a, b) => revisionOf(b) - revisionOf(a));
      now.push(...own.slice(0, 1));
      before.push(...own.slice(1, 2));
    }
    if (this.switches.length > 0) {
      // The former release, whole, until the switch.
      const pods = patternOf(this.former.flatMap(owned));
      const at = new Date(this.progress.began);
      return { now: patternOf(now), ...(this.former.length > 0 ? { before: { pods, at } } : {}) };
    }
    const at = now[0]?.metadata?.creationTimestamp;
    return {
      now: patternOf(now),
      ...(before.length === 0 || at === undefined
        ? {}
        : { before: { pods: patternOf(before), at: new Date(at) } }),
    };
  }

  /**
   * Writes how far the bake is, unless the Deployment has changed since it was read.
   * @returns whether it is written.
   */
  private async write(
    deployment: V1Deployment | undefined,
    progress: Progress | undefined,
  ): Promise<boolean> {
    const { name = "", namespace = "", resourceVersion } = deployment?.metadata ?? {};
    // What is over is taken away whatever else has changed: an abort may be told once more.
    const unchanged = progress === undefined ? {} : { resourceVersion };
    const annotations = { [BAKE]: progress === undefined ? null : JSON.stringify(progress) };
    try {
      await this.kubeconfig
        .makeApiClient(AppsV1Api)
        .patchNamespacedDeployment(
          { namespace, name, body: { metadata: { annotations, ...unchanged } } },
          setHeaderOptions("Content-Type", PatchStrategy.MergePatch),
        );
      if (progress !== undefined) this.progress = progress;
      return true;
    } catch (error) {
      // Changed meanwhile, or out of reach: it is read again, and written the next time.
      if (isFinal(error)) throw error;
      return false;
    }
  }

  /** What the bake ends with; another try begins anew. */
  private async failed(
    first: V1Deployment | undefined,
    reasons: readonly string[],
  ): Promise<ResourceFailed> {
    const said = await this.takeTraffic();
    let current = first;
    for (let attempt = 1; attempt <= ATTEMPTS; attempt += 1) {
      if (await this.write(current, undefined).catch(() => false)) break;
      await setTimeout(POLL_MILLISECONDS);
      current = (await this.read().catch(() => []))[0] ?? current;
    }
    const { good } = this.progress;
    const head = `${this.id} failed its bake, after ${durationOf(good)} of ${durationOf(this.criteria.bake)}:`;
    return new ResourceFailed(this.id, [
      [head, ...[...reasons, ...said].map((line) => `  ${line}`)].join("\n"),
    ]);
  }

  private unwatched(error: unknown): ResourceFailed {
    return new ResourceFailed(this.id, [
      `${this.id}: the bake cannot be watched: ${answerOf(error)}`,
    ]);
  }
}

function criteriaOf(bake: number, analysis: Analysis | undefined): Criteria {
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

function progressOf(annotations: Readonly<Record<string, string>>): Progress | undefined {
  try {
    return Progress.parse(JSON.parse(annotations[BAKE] ?? ""));
  } catch {
    return undefined;
  }
}

/** Another one for each rollout, so that a release that comes a second time bakes again. */
function identity(
  { spec, seconds, analysis }: BakeInputs,
  deployment: V1Deployment | undefined,
): string {
  const text = JSON.stringify([spec, seconds, analysis, revisionOf(deployment)]);
  return createHash("sha256").update(text).digest("hex").slice(0, 16);
}

function revisionOf(object: V1Deployment | V1ReplicaSet | undefined): number {
  return Number(object?.metadata?.annotations?.["deployment.kubernetes.io/revision"] ?? 0);
}

function abortsOf(deployments: readonly V1Deployment[]): string {
  return deployments.map(({ metadata }) => metadata?.annotations?.[ABORT] ?? "").join("\n");
}

/** As a regular expression inside a query's text, where a backslash would need another one. */
function patternOf(sets: readonly V1ReplicaSet[]): string {
  const names = sets.map(({ metadata }) => metadata?.name?.replaceAll(".", "[.]") ?? "");
  return `(${names.join("|")})-[a-z0-9]+`;
}
