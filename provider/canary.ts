import { AppsV1Api, type KubeConfig, type V1Deployment } from "@kubernetes/client-node";
import { durationOf } from "../release/analysis";
import { podsFor, shareOf, type By, type Step } from "../release/canary";
import {
  absent,
  answerOf,
  isAbsent,
  kubeconfigOf,
  labelSelectorOf,
  patiently,
  ResourceFailed,
  rolloutStatus,
  scaleTo,
} from "./cluster";
import { Lease } from "./lease";
import { Measurement } from "./measurement";
import { identityOf, progressOf } from "./progress";
import { scale } from "./rollout";
import { backOf, Traffic, type SharedSwitch } from "./traffic";
import { Watch, type Run } from "./watch";

export interface CanaryInputs {
  /** The kubeconfig's context; its current one unless given. */
  readonly context?: string;
  readonly namespace: string;
  /** The release's Deployments, separated by commas. */
  readonly deployments: string;
  /** Changes with what was deployed: another one is another canary. */
  readonly spec: string;
  /** `Step`s as JSON, the last one to the whole traffic left out. */
  readonly steps: string;
  /** An `Analysis` as JSON; empty where only the pods are watched. */
  readonly analysis: string;
  /** `CanarySwitch`es as JSON: what leads to the release, and to how many pods of it. */
  readonly traffic: string;
  /** Those of them, separated by commas, whose releases take each other's place. */
  readonly inPlace?: string;
  /** The Lease that whoever drives must hold. */
  readonly lease: string;
}

interface CanarySwitch extends SharedSwitch {
  /** The Deployment that serves now, and keeps its pods. */
  readonly stable: string;
  /** How many pods the release has in the end; at least, where an autoscaler takes it over. */
  readonly replicas: number;
  readonly isAutoscaled: boolean;
}

/**
 * Gives a release its traffic step by step, and watches it in each. Where it was killed, exactly one
 * run carries on. A release that fails loses all traffic first.
 * @throws Error that says what was wrong, what was expected and since when.
 */
export async function create(inputs: CanaryInputs, run: Run): Promise<string> {
  return new Canary(inputs, run).drive();
}

/** Gone unless the release has all traffic: then its steps are over, whoever has gone through them. */
export async function read(inputs: CanaryInputs): Promise<CanaryInputs | undefined> {
  const { context, namespace } = inputs;
  const switches = JSON.parse(inputs.traffic) as CanarySwitch[];
  try {
    const traffic = new Traffic(kubeconfigOf(context), namespace);
    return (await traffic.isGiven(switches)) ? inputs : undefined;
  } catch (error) {
    if (isAbsent(error)) return undefined;
    throw new Error(`the canary of ${namespace} cannot be read: ${answerOf(error)}`);
  }
}

type Identified = Pick<CanaryInputs, "spec" | "steps" | "analysis">;

/** Whether it goes on, or can be carried on. */
export function isUnderWay(inputs: Identified, first: V1Deployment | undefined): boolean {
  const progress = progressOf(first);
  return progress?.state === "running" && progress.of === identity(inputs, first);
}

function identity({ spec, steps, analysis }: Identified, first: V1Deployment | undefined): string {
  return identityOf(["canary", spec, steps, analysis], first);
}

class Canary {
  private readonly kubeconfig: KubeConfig;
  private readonly switches: readonly CanarySwitch[];
  private readonly steps: readonly Step[];
  private readonly traffic: Traffic;
  private readonly watch: Watch;
  private readonly lease: Lease;
  /** What the numbers of pods come to, for people. */
  private shares = "";
  /** Whether it is this release's canary that another run drives, or has driven. */
  private wasUnderWay = false;
  /** Since when no pod of the stable release could take the traffic of another one. */
  private waitsSince: number | undefined;

  constructor(
    private readonly inputs: CanaryInputs,
    private readonly run: Run,
  ) {
    const { namespace, deployments } = inputs;
    this.kubeconfig = kubeconfigOf(inputs.context);
    this.switches = JSON.parse(inputs.traffic) as CanarySwitch[];
    this.steps = JSON.parse(inputs.steps) as Step[];
    this.lease = new Lease(this.kubeconfig, namespace, inputs.lease);
    const mayGoOn = () => this.lease.keep(this.watch.id);
    this.traffic = new Traffic(this.kubeconfig, namespace, mayGoOn);
    const takeBack = () => this.traffic.takeBack(this.switches, inputs.inPlace);
    const watched = { kubeconfig: this.kubeconfig, namespace, names: deployments.split(",") };
    this.watch = new Watch({ ...watched, takeBack, mayGoOn }, run);
  }

  async drive(): Promise<string> {
    const { watch } = this;
    try {
      if (await this.isOver()) return await this.settle();
      const isGivenUp = await this.lease.acquire(this.run, async () => {
        this.wasUnderWay ||= await this.isUnderWay();
      });
      try {
        if (await this.isOver()) return await this.settle();
        if (isGivenUp && this.wasUnderWay && !(await this.isUnderWay())) {
          const text = "another run has ended it, and the former release has the traffic";
          throw new ResourceFailed(watch.id, [`${watch.id}: ${text}`]);
        }
        await this.goThrough();
      } finally {
        await this.lease.release();
      }
    } catch (error) {
      throw watch.unwatched(error);
    }
    return watch.id;
  }

  private async isOver(): Promise<boolean> {
    return patiently(() => this.traffic.isGiven(this.switches));
  }

  /** Its number of pods may be another one now; an autoscaler sees to that itself. */
  private async settle(): Promise<string> {
    const { context, namespace, spec } = this.inputs;
    const where = context === undefined ? {} : { context };
    for (const { canary, replicas, isAutoscaled } of this.switches) {
      if (isAutoscaled) continue;
      await scale({ ...where, namespace, deployment: canary, spec }, replicas, this.run);
    }
    return this.watch.id;
  }

  private async isUnderWay(): Promise<boolean> {
    const [name = ""] = this.inputs.deployments.split(",");
    return isUnderWay(this.inputs, await patiently(() => this.deployment(name)));
  }

  private async goThrough(): Promise<void> {
    const { watch } = this;
    const { namespace, analysis } = this.inputs;
    const idle = await this.idle();
    const steps = idle === undefined ? this.steps : [];
    await watch.begin((first) => identity(this.inputs, first), true);
    const deployments = this.switches.map(({ stable }) => stable);
    const against = { kind: "beside", deployments } as const;
    const measurement = new Measurement(this.kubeconfig, namespace, analysis, against);
    const { step: begun, good } = watch.progress;
    for (const [index, { weight, duration }] of steps.entries()) {
      if (index < begun) continue;
      const carriedOn = index === begun && good > 0 ? `, carried on after ${durationOf(good)}` : "";
      const step = `step ${index + 1} of ${steps.length}`;
      await watch.untilGood({
        what: `its ${step} (${weight} %)`,
        seconds: duration,
        measurement,
        place: (found) => this.place(found, weight),
        isInUse: index > 0,
        begins: () =>
          `${step}, ${weight} % for ${durationOf(duration)}${carriedOn}: ${this.shares}; judged by ${measurement.by}`,
        end: { step: index + 1, good: 0 },
      });
    }
    await watch.untilGood({
      what: "its last step",
      seconds: 0,
      measurement,
      place: (found) => this.takeOver(found),
      isInUse: idle === undefined,
      begins: () => `${idle ?? "all steps are over"}: it has all traffic`,
      end: { state: "passed" },
    });
  }

  /** Why it gets all traffic at once: another canary, which was killed, has taken the other's pods. */
  private async idle(): Promise<string | undefined> {
    for (const { stable } of this.switches) {
      const replicas = await patiently(() => this.replicasOf(stable));
      if (replicas === 0) return `${stable} has no pods to share the traffic with`;
    }
    return undefined;
  }

  /** Gives the release as many pods as its share needs, and then its share. */
  private async place(found: readonly V1Deployment[], weight: number): Promise<boolean> {
    if (!(await this.retireOthers())) return false;
    const shares: string[] = [];
    const ready = await this.scale(found, async (one, stable, present) => {
      const by: By = one.route === undefined ? "pods" : "route";
      const needed = podsFor(weight, stable, by);
      // With its share, an autoscaled release loses no pods; without, those that a former try has left.
      const mayShrink = !one.isAutoscaled || (await this.traffic.isGiven(backOf(one)));
      // Beside a release that has lost its pods, a share of them would be none.
      const pods = mayShrink && stable > 0 ? needed : Math.max(needed, present);
      const share = Math.round(shareOf(pods, stable));
      shares.push(
        by === "route"
          ? `${one.service} gives it ${weight} % by its HTTPRoute`
          : `${pods} of ${pods + stable} pods of ${one.service}, ${share} %`,
      );
      return pods;
    });
    if (!ready) return false;
    this.shares = shares.join(", ");
    await this.traffic.share(this.switches, weight);
    return true;
  }

  /**
   * Takes the pods of releases before the stable one, which go when this one has succeeded: what
   * selects both releases selects them too. @returns whether they have none.
   */
  private async retireOthers(): Promise<boolean> {
    const { namespace } = this.inputs;
    const apps = this.kubeconfig.makeApiClient(AppsV1Api);
    let gone = true;
    for (const one of this.switches) {
      const { both, canary, stable } = one;
      const labelSelector = labelSelectorOf(both);
      const { items } = await apps.listNamespacedDeployment({ namespace, labelSelector });
      for (const other of items) {
        if ([canary, stable].includes(other.metadata?.name ?? "")) continue;
        if (other.spec?.replicas !== 0) {
          // A release that serves without having passed, as its run was killed, is no one to go back to.
          if (!(await this.giveStable(one))) return false;
          await scaleTo(this.kubeconfig, other, 0);
        }
        gone &&= other.spec?.replicas === 0 && (other.status?.replicas ?? 0) === 0;
      }
    }
    return gone;
  }

  /** @returns whether the stable release has all traffic: not while it has no pod that could take it. */
  private async giveStable(one: CanarySwitch): Promise<boolean> {
    const { service, stable } = one;
    const back = backOf(one);
    if (await this.traffic.isGiven(back)) return true;
    const { spec, status } = await this.deployment(stable);
    if ((status?.availableReplicas ?? 0) > 0) {
      await this.traffic.give(back);
      return true;
    }
    if (this.waitsSince === undefined) {
      this.run.tell(`waiting for a pod of ${stable}, which ${service} is to lead to first`);
    }
    this.waitsSince ??= Date.now();
    const patience = spec?.progressDeadlineSeconds ?? 600;
    if (Date.now() - this.waitsSince > patience * 1000) {
      const { id } = this.watch;
      const is = `${stable} has had no available pod for ${durationOf(patience)}`;
      const text = `${is}; expected one that ${service} can lead to. It stays where it is.`;
      throw new ResourceFailed(id, [`${id}: ${text}`]);
    }
    return false;
  }

  /** Gives the release all pods, and then all traffic. */
  private async takeOver(found: readonly V1Deployment[]): Promise<boolean> {
    const ready = await this.scale(found, ({ replicas, isAutoscaled }, stable, present) =>
      isAutoscaled ? Math.max(replicas, stable, present) : replicas,
    );
    if (!ready) return false;
    await this.traffic.give(this.switches);
    return true;
  }

  /** @returns whether all pods are there. */
  private async scale(
    found: readonly V1Deployment[],
    wanted: (one: CanarySwitch, stable: number, present: number) => number | Promise<number>,
  ): Promise<boolean> {
    let ready = true;
    for (const one of this.switches) {
      const deployment = found.find(({ metadata }) => metadata?.name === one.canary);
      if (deployment === undefined) throw new Error(`${one.canary} is not watched`);
      const present = deployment.spec?.replicas ?? 1;
      const replicas = await wanted(one, await this.replicasOf(one.stable), present);
      if (replicas !== present) {
        await scaleTo(this.kubeconfig, deployment, replicas);
        ready = false;
      }
      ready &&= rolloutStatus(deployment) === "complete";
    }
    return ready;
  }

  private async deployment(name: string): Promise<V1Deployment> {
    const { namespace } = this.inputs;
    return this.kubeconfig.makeApiClient(AppsV1Api).readNamespacedDeployment({ namespace, name });
  }

  private async replicasOf(name: string): Promise<number> {
    const deployment = await this.deployment(name).catch(absent);
    return deployment === undefined ? 0 : (deployment.spec?.replicas ?? 1);
  }
}
