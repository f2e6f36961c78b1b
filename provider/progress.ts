import { AppsV1Api, type KubeConfig, type V1Deployment } from "@kubernetes/client-node";
import { createHash } from "node:crypto";
import { z } from "zod";
import { absent, isFinal, MERGE } from "./cluster";

/** An annotation of the first Deployment: what the bake has come to, for whoever carries it on. */
export const BAKE = "baton/bake";

const Progress = z.object({
  /** Which bake of which rollout. */
  of: z.string(),
  state: z.enum(["running", "passed"]),
  /** Who writes it. */
  driver: z.string(),
  /** How many steps of a canary are over. */
  step: z.int().default(0),
  /** For how long the release was good, in seconds; in a canary's step. */
  good: z.number(),
  /** The abort that was there before. */
  abort: z.string(),
  /** When the release got its traffic. */
  began: z.string(),
});
export type Progress = z.infer<typeof Progress>;

export function progressOf(deployment: V1Deployment | undefined): Progress | undefined {
  try {
    return Progress.parse(JSON.parse(deployment?.metadata?.annotations?.[BAKE] ?? ""));
  } catch {
    return undefined;
  }
}

/** Which bake of a Deployment's release goes on now. */
export function runningBake(deployment: V1Deployment): string | undefined {
  const progress = progressOf(deployment);
  return progress?.state === "running" ? progress.of : undefined;
}

/** Another one for each rollout, so that a release that comes a second time bakes again. */
export function identityOf(
  inputs: readonly unknown[],
  deployment: V1Deployment | undefined,
): string {
  const revision = deployment?.metadata?.annotations?.["deployment.kubernetes.io/revision"];
  const text = JSON.stringify([...inputs, Number(revision ?? 0)]);
  return createHash("sha256").update(text).digest("hex").slice(0, 16);
}

/**
 * Writes how far a bake is, unless the Deployment has changed since it was read; or takes it away,
 * whatever else has changed.
 * @returns whether it is written.
 */
export async function writeProgress(
  kubeconfig: KubeConfig,
  { metadata }: Pick<V1Deployment, "metadata">,
  progress: Progress | undefined,
): Promise<boolean> {
  const { name = "", namespace = "", resourceVersion } = metadata ?? {};
  const unchanged = progress === undefined ? {} : { resourceVersion };
  try {
    await annotate(kubeconfig, { name, namespace }, progress, unchanged);
    return true;
  } catch (error) {
    // Changed meanwhile, or out of reach: it is read again, and written the next time.
    if (isFinal(error)) throw error;
    return false;
  }
}

/** Takes away what a Deployment has come to, where there is one. */
export async function forgetProgress(
  kubeconfig: KubeConfig,
  namespace: string,
  name: string,
): Promise<void> {
  await annotate(kubeconfig, { name, namespace }, undefined).catch(absent);
}

async function annotate(
  kubeconfig: KubeConfig,
  deployment: { readonly name: string; readonly namespace: string },
  progress: Progress | undefined,
  unchanged: { readonly resourceVersion?: string | undefined } = {},
): Promise<void> {
  const annotations = { [BAKE]: progress === undefined ? null : JSON.stringify(progress) };
  const body = { metadata: { annotations, ...unchanged } };
  await kubeconfig
    .makeApiClient(AppsV1Api)
    .patchNamespacedDeployment({ ...deployment, body }, MERGE);
}
