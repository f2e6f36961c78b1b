import { AppsV1Api } from "@kubernetes/client-node";
import { durationOf } from "../release/analysis";
import { answerOf, isAbsent, kubeconfigOf, patiently, ResourceFailed } from "./cluster";
import { Lease } from "./lease";
import { Measurement, type Stable } from "./measurement";
import { forgetProgress, identityOf, progressOf } from "./progress";
import { Traffic, type Switch } from "./traffic";
import { namesOf, Undo } from "./undo";
import { Watch, type Run } from "./watch";

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
  /** Why a release that fails keeps its traffic, where the former one must not have it back. */
  readonly irreversible?: string;
  /** The former release's Deployments, separated by commas, where they stand beside these. */
  readonly former?: string;
  /** Those of them, separated by commas, whose releases take each other's place. */
  readonly inPlace?: string;
  /** The Lease under which a canary is driven, where there may be one. */
  readonly lease?: string;
}

/**
 * Watches a release in use until it has been good for long enough. A bake that was killed is carried
 * on from where it stood. One that fails gives the traffic back first.
 * @throws Error that says what was wrong, what was expected and since when.
 */
export async function create(inputs: BakeInputs, run: Run): Promise<string> {
  const { namespace, seconds, spec, analysis } = inputs;
  const kubeconfig = kubeconfigOf(inputs.context);
  const switches = switchesOf(inputs);
  const former = namesOf(inputs.former);
  const inPlace = namesOf(inputs.inPlace);
  const traffic = new Traffic(kubeconfig, namespace);
  // Another machine may deploy another release while this run watches its own: this run must neither
  // take the traffic from that release, nor pass without any.
  const mayGoOn = async () => {
    if (await traffic.isGiven(switches)) return;
    const text = "it does not have all traffic any more; this run has stopped";
    throw new ResourceFailed(watch.id, [`${watch.id}: ${text}, and leaves all as it is`]);
  };
  const watch = new Watch(
    {
      kubeconfig,
      namespace,
      names: inputs.deployments.split(","),
      mayGoOn,
      takeBack: () => traffic.takeBack(switches, inputs.inPlace, inputs.irreversible),
    },
    run,
  );
  const lease =
    inputs.lease === undefined ? undefined : new Lease(kubeconfig, namespace, inputs.lease);
  // A canary that is still driven from another machine must not take the traffic back.
  await lease?.seize().catch((error: unknown) => {
    run.tell(`whoever else drives a canary cannot be stopped: ${answerOf(error)}`);
  });
  try {
    await patiently(() => traffic.give(switches));
    // What the former release has shown counts no more: another try of it begins anew.
    await patiently(async () => {
      for (const name of former) await forgetProgress(kubeconfig, namespace, name);
    });
  } catch (error) {
    throw watch.unwatched(error);
  } finally {
    await lease?.release();
  }
  const pass = async () => {
    try {
      for (const name of inPlace) await new Undo(kubeconfig, namespace, name).pass();
    } catch (error) {
      throw watch.unwatched(error);
    }
    return watch.id;
  };
  if (seconds === 0) return pass();
  if (await watch.begin((first) => identityOf([spec, seconds, analysis], first))) return pass();
  const stable: Stable =
    switches.length === 0 ? { kind: "before" } : { kind: "former", deployments: former };
  const measurement = new Measurement(kubeconfig, namespace, analysis, stable);
  const { good } = watch.progress;
  const carriedOn = good > 0 ? `, carried on after ${durationOf(good)}` : "";
  await watch.untilGood({
    what: "its bake",
    seconds,
    measurement,
    begins: () => `baking for ${durationOf(seconds)}${carriedOn}, judged by ${measurement.by}`,
    end: { state: "passed" },
  });
  return pass();
}

/** Gone unless the bake has passed: a refresh must not let one pass that has not. */
export async function read(inputs: BakeInputs): Promise<BakeInputs | undefined> {
  const { namespace, seconds, spec, analysis } = inputs;
  try {
    const kubeconfig = kubeconfigOf(inputs.context);
    const apps = kubeconfig.makeApiClient(AppsV1Api);
    const [name = ""] = inputs.deployments.split(",");
    const deployment = await apps.readNamespacedDeployment({ namespace, name });
    for (const one of namesOf(inputs.inPlace)) {
      if ((await new Undo(kubeconfig, namespace, one).state()).isUndone) return undefined;
    }
    if (seconds === 0) return inputs;
    const progress = progressOf(deployment);
    const identity = identityOf([spec, seconds, analysis], deployment);
    return progress?.state === "passed" && progress.of === identity ? inputs : undefined;
  } catch (error) {
    if (isAbsent(error)) return undefined;
    throw new Error(`the bake of ${namespace} cannot be read: ${answerOf(error)}`);
  }
}

/** Gone where others have a share of its traffic. */
export async function find(inputs: BakeInputs): Promise<BakeInputs | undefined> {
  const traffic = new Traffic(kubeconfigOf(inputs.context), inputs.namespace);
  return (await traffic.isGiven(switchesOf(inputs))) ? inputs : undefined;
}

function switchesOf({ traffic = "[]" }: BakeInputs): Switch[] {
  return JSON.parse(traffic) as Switch[];
}
