import {
  AppsV1Api,
  type KubeConfig,
  type V1ContainerStatus,
  type V1Deployment,
  type V1Pod,
} from "@kubernetes/client-node";
import { randomUUID } from "node:crypto";
import { setTimeout } from "node:timers/promises";
import { durationOf, judge, type Sample } from "../release/analysis";
import {
  ABORT,
  abortedBy,
  answerOf,
  patiently,
  podsOf,
  ResourceFailed,
  rolloutStatus,
} from "./cluster";
import type { Measurement } from "./measurement";
import { explainEnds, explainPods } from "./pod-failures";
import { progressOf, writeProgress, type Progress } from "./progress";

/** How a bake is watched, told of and stopped. */
export interface Run {
  /** Aborted when the engine is told to stop. */
  readonly signal: AbortSignal;
  /** Shows a line beside the resource. */
  readonly tell: (line: string) => void;
}

/** What is watched, and what a failure takes. */
export interface Watched {
  readonly kubeconfig: KubeConfig;
  readonly namespace: string;
  /** The release's Deployments; the first carries the progress. */
  readonly names: readonly string[];
  /** Takes the traffic away from a release that fails. @returns what was done, for people. */
  readonly takeBack: () => Promise<string[]>;
  /** Throws where this run may not go on. */
  readonly mayGoOn?: () => Promise<void>;
}

/** For how long a release is watched. */
export interface Stretch {
  /** What it is of the release: `its bake`. */
  readonly what: string;
  /** For how long it must be good, in seconds; for 0, it must only be in place. */
  readonly seconds: number;
  readonly measurement: Measurement;
  /** What is told when it begins. */
  readonly begins: () => string;
  /**
   * Called again and again: brings about what is to be watched. @returns whether it is there; before,
   * nothing counts for the release.
   */
  readonly place?: (deployments: readonly V1Deployment[]) => Promise<boolean>;
  /** Whether the release has requests to be judged by before it is in place. */
  readonly isInUse?: boolean;
  /** What it has come to when it is over. */
  readonly end: Partial<Progress>;
}

const POLL_MILLISECONDS = 500;
/** How often it is tried to take the annotation away, after which the next `up` sees that it failed. */
const ATTEMPTS = 6;
/** How often it is told how far it is, in seconds. */
const TELL_EVERY = 60;

/**
 * Watches a release in use: no container ends, the pods stay available, nobody aborts it, and what
 * Prometheus says of it stays within its limits. How far it has come stands on the cluster; one run
 * at a time writes it.
 */
export class Watch {
  private readonly driver = randomUUID();
  /** How often each container had ended when it was first seen. */
  private readonly restarts = new Map<string, number>();
  private wasMeasured = false;
  private incompleteSince: number | undefined;
  private current: Progress = {
    of: "",
    state: "running",
    driver: this.driver,
    step: 0,
    good: 0,
    abort: "",
    began: "",
  };

  constructor(
    private readonly watched: Watched,
    private readonly run: Run,
  ) {}

  get id(): string {
    return `${this.watched.namespace}/${this.watched.names.join(",")}`;
  }

  get progress(): Progress {
    return this.current;
  }

  /**
   * Says on the cluster that this run watches the release, and learns how far a former run has come.
   * @param identity which bake it is
   * @param again whether it is watched again where it has passed
   * @returns whether it has passed already.
   */
  async begin(
    identity: (first: V1Deployment | undefined) => string,
    again = false,
  ): Promise<boolean> {
    for (;;) {
      try {
        const deployments = await patiently(() => this.read());
        const [first] = deployments;
        const of = identity(first);
        const former = progressOf(first);
        if (former?.of === of && former.state === "passed" && !again) return true;
        const known = former?.of === of && former.state === "running" ? former : undefined;
        const fresh = { step: 0, good: 0, abort: abortsOf(deployments), began: now() };
        const { driver } = this;
        if (await this.write(first, { ...fresh, ...known, of, state: "running", driver })) {
          return false;
        }
      } catch (error) {
        throw this.unwatched(error);
      }
      await setTimeout(POLL_MILLISECONDS);
    }
  }

  /** Watches until the release has been good for long enough. @throws ResourceFailed otherwise. */
  async untilGood(stretch: Stretch): Promise<void> {
    const { seconds, measurement, place, isInUse = false, end } = stretch;
    const criteria = measurement.criteria(seconds);
    const length = durationOf(seconds);
    let already = this.current.good;
    let samples: Sample[] = [];
    let isInPlace = false;
    let told = { at: Date.now(), held: false };
    let nextSample = Date.now();
    let measuring: Promise<Sample | Error> | undefined;
    for (;;) {
      const looked = await this.look(stretch, place);
      const [first] = looked.deployments;
      if (this.run.signal.aborted) {
        throw new ResourceFailed(this.id, ["the bake was stopped; the next `up` carries it on"]);
      }
      if (looked.isInPlace && !isInPlace) {
        isInPlace = true;
        // What was seen before says nothing of what is there now.
        samples = [];
        already = this.current.good;
        measuring = undefined;
        this.run.tell(stretch.begins());
      }
      if (isInPlace && seconds === 0 && (await this.write(first, { ...this.current, ...end }))) {
        return;
      }
      if ((isInPlace || isInUse) && measuring === undefined && Date.now() >= nextSample) {
        nextSample = Date.now() + criteria.interval * 1000;
        this.wasMeasured = true;
        measuring = measurement
          .measure(looked.deployments, this.current.began)
          .catch((error: unknown) => error as Error);
      }
      // An abort must be heard also while Prometheus takes its time.
      const pause = setTimeout(POLL_MILLISECONDS, undefined);
      const sample = await Promise.race([measuring, pause]);
      if (sample !== undefined) {
        measuring = undefined;
        if (sample instanceof Error) throw await this.failed(first, stretch, [sample.message]);
        samples.push(sample);
        const verdict = judge(criteria, samples, already);
        if (verdict.kind === "failed") throw await this.failed(first, stretch, verdict.reasons);
        const { good } = verdict;
        if (isInPlace) {
          const passed = verdict.kind === "passed" && this.incompleteSince === undefined;
          const progress = { ...this.current, good, ...(passed ? end : {}) };
          if ((await this.write(first, progress)) && passed) return;
        }
        const held = verdict.kind === "held";
        if (held !== told.held || Date.now() - told.at >= TELL_EVERY * 1000) {
          told = { at: Date.now(), held };
          this.run.tell(
            held ? `held: ${verdict.reason}` : `good for ${durationOf(good)} of ${length}`,
          );
        }
      }
      await pause;
    }
  }

  /** Looks whether it may go on, as the cluster sees it. */
  private async look(
    stretch: Stretch,
    place: Stretch["place"] = () => Promise.resolve(true),
  ): Promise<{ readonly deployments: readonly V1Deployment[]; readonly isInPlace: boolean }> {
    try {
      return await patiently(async () => {
        await this.watched.mayGoOn?.();
        const deployments = await this.read();
        await this.check(stretch, deployments);
        return { deployments, isInPlace: await place(deployments) };
      });
    } catch (error) {
      if (error instanceof ResourceFailed) throw error;
      throw this.unwatched(error);
    }
  }

  private async check(stretch: Stretch, deployments: readonly V1Deployment[]): Promise<void> {
    const [first] = deployments;
    const known = progressOf(first);
    const abort = abortsOf(deployments);
    if (abort !== this.current.abort) {
      const [latest = ""] = abort
        .split("\n")
        .filter((line) => line !== "" && !this.current.abort.split("\n").includes(line));
      throw await this.failed(first, stretch, [`aborted by ${abortedBy(latest)}`]);
    }
    if (known?.of !== this.current.of || known.driver !== this.driver) {
      const text = "another run has taken the bake over, or another release was rolled out";
      throw new ResourceFailed(this.id, [`${this.id}: ${text}; this run has stopped`]);
    }
    const pods = await Promise.all(
      deployments.map((deployment) => podsOf(this.watched.kubeconfig, deployment)),
    );
    const ended = deployments.flatMap((deployment, index) => {
      const own = pods[index] ?? [];
      const restarted = this.restarted(own);
      if (restarted.size === 0) return [];
      return [...explainPods(own, deployment), ...explainEnds(own, restarted)];
    });
    if (ended.length > 0) throw await this.failed(first, stretch, ended);
    const late = deployments.filter((deployment) => rolloutStatus(deployment) !== "complete");
    this.incompleteSince = late.length === 0 ? undefined : (this.incompleteSince ?? Date.now());
    const patience = Math.max(
      ...deployments.map(({ spec }) => spec?.progressDeadlineSeconds ?? 600),
    );
    if (this.incompleteSince === undefined) return;
    if (Date.now() - this.incompleteSince <= patience * 1000) return;
    const causes = deployments.flatMap((deployment, index) =>
      explainPods(pods[index] ?? [], deployment),
    );
    const names = late.map(({ metadata }) => metadata?.name ?? "").join(", ");
    const text = `${names} has had too few available pods for ${durationOf(patience)}`;
    throw await this.failed(first, stretch, [text, ...causes]);
  }

  private async read(): Promise<V1Deployment[]> {
    const { kubeconfig, namespace, names } = this.watched;
    const apps = kubeconfig.makeApiClient(AppsV1Api);
    return Promise.all(names.map((name) => apps.readNamespacedDeployment({ namespace, name })));
  }

  /** The containers that have ended since they were first seen. */
  private restarted(pods: readonly V1Pod[]): Set<V1ContainerStatus> {
    const restarted = new Set<V1ContainerStatus>();
    for (const { metadata, status } of pods) {
      for (const container of status?.containerStatuses ?? []) {
        const { name, restartCount } = container;
        const key = `${metadata?.uid ?? ""}/${name}`;
        const before = this.restarts.get(key) ?? (this.wasMeasured ? 0 : restartCount);
        this.restarts.set(key, before);
        if (restartCount > before) restarted.add(container);
      }
    }
    return restarted;
  }

  private async write(
    deployment: V1Deployment | undefined,
    progress: Progress | undefined,
  ): Promise<boolean> {
    const written = await writeProgress(this.watched.kubeconfig, deployment ?? {}, progress);
    if (written && progress !== undefined) this.current = progress;
    return written;
  }

  /** What it ends with; another try begins anew. */
  private async failed(
    first: V1Deployment | undefined,
    { what, seconds }: Stretch,
    reasons: readonly string[],
  ): Promise<ResourceFailed> {
    const said = await this.watched.takeBack();
    let current = first;
    for (let attempt = 1; attempt <= ATTEMPTS; attempt += 1) {
      if (await this.write(current, undefined).catch(() => false)) break;
      await setTimeout(POLL_MILLISECONDS);
      current = (await this.read().catch(() => []))[0] ?? current;
    }
    const after = `${durationOf(this.current.good)} of ${durationOf(seconds)}`;
    const head = `${this.id} failed ${what}, after ${after}:`;
    return new ResourceFailed(this.id, [
      [head, ...[...reasons, ...said].map((line) => `  ${line}`)].join("\n"),
    ]);
  }

  unwatched(error: unknown): ResourceFailed {
    if (error instanceof ResourceFailed) return error;
    return new ResourceFailed(this.id, [
      `${this.id}: the bake cannot be watched: ${answerOf(error)}`,
    ]);
  }
}

function now(): string {
  return new Date().toISOString();
}

function abortsOf(deployments: readonly V1Deployment[]): string {
  return deployments.map(({ metadata }) => metadata?.annotations?.[ABORT] ?? "").join("\n");
}
