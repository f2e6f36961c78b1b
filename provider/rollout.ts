import {
  ApiException,
  AppsV1Api,
  type KubeConfig,
  type V1Deployment,
} from "@kubernetes/client-node";
import { setTimeout } from "node:timers/promises";
import {
  ABORT,
  abortedBy,
  absent,
  answerOf,
  isAbsent,
  isFinal,
  kubeconfigOf,
  PATIENCE,
  patiently,
  podsOf,
  ResourceFailed,
  rolloutStatus,
  scaleTo,
} from "./cluster";
import { explainPods } from "./pod-failures";
import { namesOf, Undo, undoAll } from "./undo";
import type { Run } from "./watch";

export interface RolloutInputs {
  /** The kubeconfig's context; its current one unless given. */
  readonly context?: string;
  readonly namespace: string;
  readonly deployment: string;
  /** Changes with the Deployment's spec: another one is another rollout. */
  readonly spec: string;
  /** Another Deployment, whose live number of pods this one must have as well. */
  readonly atLeast?: string;
  /** How many pods it must have at least, whatever its manifest says. */
  readonly pods?: number;
  /**
   * Of a Deployment whose releases take each other's place, the pods: one that fails makes way for the
   * one before.
   */
  readonly template?: string;
  /** The Deployments, separated by commas, that make way together. */
  readonly inPlace?: string;
  /** Why one that fails stays all the same. */
  readonly irreversible?: string;
}

const POLL_MILLISECONDS = 500;

/**
 * Waits until the Deployment's pods are the new ones and available, and no old one is left. Where that
 * fails, the former ones come back.
 * @throws Error with the pods' own reasons when the cluster says that the rollout has failed: no
 * progress for the Deployment's `progressDeadlineSeconds`.
 */
export async function create(inputs: RolloutInputs, run: Pick<Run, "signal">): Promise<string> {
  const { context, namespace, deployment, template, spec, irreversible } = inputs;
  const undo = new Undo(kubeconfigOf(context), namespace, deployment);
  try {
    const formerAbort = await undo.begin({ spec, template, irreversible });
    for (;;) {
      const id = await untilComplete(inputs, run, formerAbort);
      if (await undo.complete(formerAbort)) return id;
    }
  } catch (error) {
    throw error instanceof ApiException ? unreadable(namespace, deployment, error) : error;
  }
}

async function untilComplete(
  inputs: RolloutInputs,
  { signal }: Pick<Run, "signal">,
  /** An abort of a former rollout stays there. */
  formerAbort?: string,
): Promise<string> {
  const { context, namespace, deployment, inPlace = deployment, spec, irreversible } = inputs;
  const kubeconfig = kubeconfigOf(context);
  const apps = kubeconfig.makeApiClient(AppsV1Api);
  const failed = async (reasons: readonly string[]) => {
    // Whoever declares another one goes on with that.
    const { isDeclared } = await new Undo(kubeconfig, namespace, deployment).state(spec);
    const names = isDeclared ? namesOf(inPlace) : [];
    const said = await undoAll(kubeconfig, namespace, names, irreversible);
    for (const name of names) await new Undo(kubeconfig, namespace, name).end();
    const [head = "", ...rest] = [...reasons, ...said];
    const text = [head, ...rest.map((line) => `  ${line}`)].join("\n");
    return new ResourceFailed(`${namespace}/${deployment}`, [text]);
  };
  let lastAnswer = Date.now();
  let progress = { pods: "", at: Date.now() };
  for (;;) {
    try {
      const current = await apps.readNamespacedDeployment({ namespace, name: deployment });
      lastAnswer = Date.now();
      const abort = current.metadata?.annotations?.[ABORT] ?? "";
      formerAbort ??= abort;
      if (abort !== formerAbort) {
        const text = `the rollout of ${namespace}/${deployment} was aborted by ${abortedBy(abort)}`;
        throw await failed([text]);
      }
      const status = rolloutStatus(current);
      if (status === "complete") {
        if (!(await scaleUp(kubeconfig, current, inputs))) return `${namespace}/${deployment}`;
      }
      const pods = podsAreAt(current);
      if (pods !== progress.pods) progress = { pods, at: Date.now() };
      // The cluster counts no deadline where the same release is given more pods.
      const isStuck = Date.now() - progress.at > progressDeadline(current) * 1000;
      if (status === "failed" || isStuck) throw await failed(await explain(kubeconfig, current));
    } catch (error) {
      if (error instanceof ResourceFailed) throw error;
      if (isFinal(error) || Date.now() - lastAnswer > PATIENCE) {
        throw unreadable(namespace, deployment, error);
      }
    }
    if (signal.aborted) {
      const text = `the wait for ${namespace}/${deployment} was stopped; the next \`up\` carries it on`;
      throw new ResourceFailed(`${namespace}/${deployment}`, [text]);
    }
    await setTimeout(POLL_MILLISECONDS);
  }
}

/** What is progress when it changes. */
function podsAreAt({ metadata, status }: V1Deployment): string {
  const { replicas, updatedReplicas, readyReplicas, availableReplicas } = status ?? {};
  const { generation } = metadata ?? {};
  return [generation, replicas, updatedReplicas, readyReplicas, availableReplicas].join(" ");
}

function progressDeadline({ spec }: V1Deployment): number {
  return spec?.progressDeadlineSeconds ?? 600;
}

/**
 * Gives a Deployment as many pods as it must have.
 * @returns whether it had fewer.
 */
async function scaleUp(
  kubeconfig: KubeConfig,
  deployment: V1Deployment,
  { namespace, atLeast, pods = 0 }: RolloutInputs,
): Promise<boolean> {
  const other =
    atLeast === undefined
      ? undefined
      : await kubeconfig
          .makeApiClient(AppsV1Api)
          .readNamespacedDeployment({ namespace, name: atLeast })
          .catch(absent);
  const replicas = Math.max(pods, other?.spec?.replicas ?? 0);
  if ((deployment.spec?.replicas ?? 1) >= replicas) return false;
  await scaleTo(kubeconfig, deployment, replicas);
  return true;
}

/** Gives a Deployment exactly so many pods, and waits for them. */
export async function scale(
  inputs: RolloutInputs,
  replicas: number,
  run: Pick<Run, "signal">,
): Promise<void> {
  const { context, namespace, deployment: name } = inputs;
  const kubeconfig = kubeconfigOf(context);
  const apps = kubeconfig.makeApiClient(AppsV1Api);
  const isChanged = await patiently(async () => {
    const deployment = await apps.readNamespacedDeployment({ namespace, name });
    if (deployment.spec?.replicas === replicas) return false;
    await scaleTo(kubeconfig, deployment, replicas);
    return true;
  });
  if (isChanged) await untilComplete(inputs, run);
}

/** Gone unless the rollout is complete now: a refresh must not let one pass that has failed. */
export async function read(inputs: RolloutInputs): Promise<RolloutInputs | undefined> {
  const { context, namespace, deployment } = inputs;
  try {
    const apps = kubeconfigOf(context).makeApiClient(AppsV1Api);
    const current = await apps.readNamespacedDeployment({ namespace, name: deployment });
    return rolloutStatus(current) === "complete" ? await find(inputs) : undefined;
  } catch (error) {
    if (isAbsent(error)) return undefined;
    throw unreadable(namespace, deployment, error);
  }
}

/** Gone where it has made way since, or another release was rolled out. */
export async function find(inputs: RolloutInputs): Promise<RolloutInputs | undefined> {
  const { context, namespace, deployment, template, spec } = inputs;
  if (template === undefined) return inputs;
  const undo = new Undo(kubeconfigOf(context), namespace, deployment);
  const { isDeclared, isUndone } = await undo.state(spec);
  return isDeclared && !isUndone ? inputs : undefined;
}

function unreadable(namespace: string, deployment: string, error: unknown): Error {
  const what = `the rollout of ${namespace}/${deployment}`;
  return new Error(`${what} cannot be watched: ${answerOf(error)}`);
}

async function explain(kubeconfig: KubeConfig, deployment: V1Deployment): Promise<string[]> {
  const { namespace = "", name = "" } = deployment.metadata ?? {};
  const causes = explainPods(await podsOf(kubeconfig, deployment), deployment);
  return [
    `the rollout of ${namespace}/${name} made no progress for ${progressDeadline(deployment)} s (baton:rollout.progressDeadlineSeconds)`,
    ...(causes.length > 0 ? causes : ["its pods report no reason"]),
  ];
}
