import { AppsV1Api } from "@kubernetes/client-node";
import { setTimeout } from "node:timers/promises";
import { kubeconfigOf } from "../sandbox/cluster";
import { BAKE, Delivery, STRATEGIES, type Trial } from "../sandbox/delivery";
import type { LoadResult } from "../sandbox/load";
import { ArgoRollouts } from "./argo-rollouts";
import { ByHand } from "./by-hand";
import { compare, type Figure } from "./figure";
import type { Show } from "./progress";
import type { Report } from "./report";

const PROJECT = "bench-delivery";
/** Of every namespace this measure makes. */
const PREFIX = "bench-delivery-";
/** As many as two cores bear beside the pods and the tools. */
const PER_SECOND = 100;
/** A load ends with what it measures. */
const LONG = 3600;
/** The bad release answers half of its requests with 500. */
const FAULT = "errors:0.5";
const PODS = 5;
/** The Deployment and the Service that users call. */
const WEB = "web";

/** One way to change releases. */
interface Way {
  /** For people. */
  readonly name: string;
  /** The Service that its pods are called by. */
  readonly service: string;
  /** What is done ahead, while nothing changes yet. */
  readonly prepare?: (trial: Trial) => Promise<void>;
  /** @returns whether it was taken over. */
  readonly change: (trial: Trial) => Promise<boolean>;
}

/** What clients met while releases were changed. */
interface Met {
  readonly good: Answered;
  /** While the bad one came and went. */
  readonly bad: Answered;
  /** How many the bad one has answered. */
  readonly answered: number;
  /** Their share of all between its first answer and its last, in percent. */
  readonly share: number;
  /** From the bad one's first failure to its last answer, in seconds. */
  readonly back: number;
}

interface Answered {
  readonly requests: number;
  /** Not counting those that the bad release has answered. */
  readonly failed: number;
}

/**
 * Changes releases under a constant load: good ones, and one that fails half of its requests. By
 * Baton, with each of its strategies; by a rolling update and a script that watches the same metric;
 * and by the canary of Argo Rollouts, on the same pods.
 *
 * @param enough so many requests at least with each strategy, over as many good releases as it takes
 */
export async function measureDelivery(report: Report, enough: number): Promise<void> {
  const { show } = report;
  const others: Record<"byHand" | "argo", Met | undefined> = { byHand: undefined, argo: undefined };
  const measureOne = async (strategy: string) => {
    const scene = await open(show, strategy);
    const mine = await measure(show, scene, byBaton(scene, strategy), enough);
    if (strategy === "rolling") {
      // The same Deployment, while there is no other.
      const { namespace } = scene;
      const byHand = new ByHand(namespace, WEB, BAKE);
      const change = ({ version }: Trial) => byHand.change(version);
      await report.attempt("delivery, rolling update by hand", async () => {
        const name = "rolling update by hand";
        others.byHand = await measure(show, scene, { name, service: WEB, change });
      });
      await report.attempt("delivery, Argo Rollouts", async () => {
        others.argo = await measureArgo(show, scene);
      });
    }
    report.add(
      ...(strategy === "canary"
        ? figuresOf(strategy, mine, "Argo Rollouts: canary 10/50/100, by pods", others.argo)
        : figuresOf(
            strategy,
            mine,
            "by hand: rolling update, script, rollout undo",
            others.byHand,
          )),
    );
  };
  try {
    for (const strategy of STRATEGIES) {
      await report.attempt(`delivery, ${strategy}`, () => measureOne(strategy));
    }
  } finally {
    await show([
      { title: "remove bench environments", task: () => Delivery.clean(PROJECT, PREFIX) },
    ]);
  }
}

async function measureArgo(show: Show, scene: Delivery): Promise<Met> {
  const apps = kubeconfigOf({}).makeApiClient(AppsV1Api);
  const { namespace } = scene;
  const argo = new ArgoRollouts(namespace, BAKE / 3);
  try {
    const deployment = await apps.readNamespacedDeployment({ namespace, name: WEB });
    await show([
      { title: "start Argo Rollouts, built the first time", task: () => argo.start() },
      { title: "make a Rollout of the Deployment", task: () => argo.takeOver(deployment) },
    ]);
    return await measure(show, scene, {
      name: "Argo Rollouts",
      service: argo.service,
      change: ({ version }) => argo.change(version),
    });
  } finally {
    await argo.stop();
  }
}

async function open(show: Show, strategy: string): Promise<Delivery> {
  let scene: Delivery | undefined;
  await show([
    {
      title: `${strategy}: deploy a first release of ${PODS} pods`,
      task: async () => {
        scene = await Delivery.open(PROJECT, PREFIX, strategy, { pods: PODS });
        await scene.begin(await scene.make(""));
      },
    },
  ]);
  return there(scene);
}

function byBaton(scene: Delivery, strategy: string): Way {
  const change = async (trial: Trial) => {
    const { exitCode, text } = await scene.deploy();
    const runs = await scene.runs();
    if ((exitCode === 0) !== (runs === trial.tag)) throw new Error(text);
    return exitCode === 0;
  };
  const prepare = (trial: Trial) => scene.request(trial);
  return { name: `Baton, ${strategy}`, service: WEB, prepare, change };
}

/** A bad release, and good ones until there were `enough` requests in all. */
async function measure(show: Show, scene: Delivery, way: Way, enough = 0): Promise<Met> {
  let bad: Omit<Met, "good"> | undefined;
  const good = { requests: 0, failed: 0 };
  await show([
    {
      title: `${way.name}: a bad release`,
      task: async (_, task) => {
        const trial = await scene.make(FAULT);
        bad = metBy(await underLoad(scene, way, trial, false), trial);
        task.title += `: ${JSON.stringify(bad)}`;
      },
    },
    {
      title: `${way.name}: good releases`,
      task: async (_, task) => {
        do {
          const trial = await scene.make("");
          const { requests, failures } = await underLoad(scene, way, trial, true);
          good.requests += requests;
          good.failed += failures;
        } while (there(bad).bad.requests + good.requests < enough);
        task.title += `: ${JSON.stringify(good)}`;
      },
    },
  ]);
  return { good, ...there(bad) };
}

async function underLoad(
  scene: Delivery,
  way: Way,
  trial: Trial,
  isGood: boolean,
): Promise<LoadResult> {
  await way.prepare?.(trial);
  const load = await scene.load(PER_SECOND, LONG, [trial], way.service);
  try {
    // What clients meet before and after belongs to the change as well.
    await setTimeout(2000);
    if ((await way.change(trial)) !== isGood) {
      throw new Error(`${way.name}: ${trial.version} was ${isGood ? "withdrawn" : "taken over"}`);
    }
    await setTimeout(2000);
  } finally {
    load.stop();
  }
  return load.result;
}

function metBy(
  { requests, failures, byVersion }: LoadResult,
  { version }: Trial,
): Omit<Met, "good"> {
  const its = byVersion[version];
  return {
    bad: { requests, failed: failures - (its?.failures ?? 0) },
    answered: its?.requests ?? 0,
    share: (100_000 * (its?.requests ?? 0)) / PER_SECOND / ((its?.last ?? 0) - (its?.first ?? 0)),
    back: ((its?.last ?? 0) - (its?.firstFailure ?? its?.last ?? 0)) / 1000,
  };
}

function figuresOf(
  strategy: string,
  mine: Met,
  comparedWith: string,
  other: Met | undefined,
): Figure[] {
  const of = ({ requests }: Answered) => `of ${requests.toLocaleString("en")}`;
  const withRequests = (answered: Answered | undefined) =>
    answered === undefined ? comparedWith : `${comparedWith}; ${of(answered)}`;
  const limit = { of: "baton", most: 0 } as const;
  return [
    compare({
      measure: `${strategy}: failed ${of(mine.good)}, good releases`,
      unit: "requests",
      baton: mine.good.failed,
      comparedWith: withRequests(other?.good),
      compared: other?.good.failed ?? NaN,
      limit,
    }),
    compare({
      measure: `${strategy}: failed ${of(mine.bad)}, a bad one and back; not its own`,
      unit: "requests",
      baton: mine.bad.failed,
      comparedWith: withRequests(other?.bad),
      compared: other?.bad.failed ?? NaN,
      limit,
    }),
    compare({
      measure: `${strategy}: answered by the bad release, ${PER_SECOND} a second`,
      unit: "requests",
      baton: mine.answered,
      comparedWith,
      compared: other?.answered ?? NaN,
    }),
    compare({
      measure: `${strategy}: their share from the first to the last of them`,
      unit: "%",
      baton: mine.share,
      comparedWith,
      compared: other?.share ?? NaN,
    }),
    compare({
      measure: `${strategy}: from its first failure to its last answer`,
      unit: "s",
      baton: mine.back,
      comparedWith,
      compared: other?.back ?? NaN,
    }),
  ];
}

function there<T>(value: T | undefined): T {
  if (value === undefined) throw new Error("nothing was measured");
  return value;
}
