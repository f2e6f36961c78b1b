import * as pulumi from "@pulumi/pulumi";
import { checkApprovals, pardon, projectFolder } from "./approvals";
import { checkCluster } from "./cluster";
import { asksApproval, Refusal, type StackConfig } from "./config";
import type { LoadedFiles } from "./ledger/loaded-files";
import type { StackState } from "./stack-state";
import { RegistryError } from "./registry/errors";
import { openRegistry } from "./registry/registry";
import { arrive } from "./registry/replica";
import { findScan } from "./registry/scans";
import { planDatabase } from "./database-plan";
import {
  checkCandidate,
  checkRequest,
  type Digest,
  type Release,
  type ReleaseCandidate,
} from "./release/eligibility";
import { formatProblem, formatProblems, type Problem } from "./release/problem";
import { scanTerm } from "./release/scan";
import type { DatabasePlan } from "./release/schema";

/**
 * Finds out which release the stack may deploy, before any resource.
 * @throws Refusal with every reason against it: the release's, the registry's, the cluster's and those
 * of shared keys, then what people's approvals leave open.
 */
export async function preflight(
  config: StackConfig,
  state: StackState,
  loaded?: LoadedFiles,
): Promise<Cleared> {
  const [release, cluster, keys] = await Promise.all([
    resolveRelease(config, state),
    checkCluster(config.environment, config.cluster.context),
    checkKeys(config),
  ]);
  const problems = [
    ...("problems" in release ? release.problems : []),
    ...[...cluster, ...keys].map(formatProblem),
  ];
  if (problems.length > 0 || !("ok" in release)) throw new Refusal(problems.join("\n"));
  if (release.ok === undefined) return clearFoundation(config);
  const database = await planDatabase(config, release.ok, state);
  const approvals = await checkApprovals(
    ...([config, release.ok, database, loaded] as const),
    () => lastRelease(state),
    async () =>
      Object.entries(await state.resources()).map(([urn, { outputs }]) => ({ urn, outputs })),
  );
  if (approvals.problems.length > 0) throw new Refusal(formatProblems(approvals.problems));
  return { release: release.ok, database, breakGlass: approvals.breakGlass };
}

/**
 * Namespace and role bindings are as much of a deployment as a release: where people approve, the
 * first `up` of an environment deploys a request, too.
 */
async function clearFoundation(config: StackConfig): Promise<Cleared> {
  if (!asksApproval(config) || pulumi.runtime.isDryRun()) return { release: undefined };
  const { environment, upstream } = config;
  const problem = {
    where: environment,
    property: "baton:imageTag",
    value: "not set",
    expected: "a request that people have approved, as everything here is made for the first time",
    fix: `Deploy ${upstream ?? "a build"} first, and ask with \`baton request ${environment}\``,
  };
  const { problems, breakGlass } = await pardon(environment, [problem]);
  if (problems.length > 0) throw new Refusal(formatProblems(problems));
  return { release: undefined, breakGlass };
}

/** What may be deployed; no release where there is only a foundation to make. */
export interface Cleared {
  readonly release: Release | undefined;
  /** What it means for the environment's database; nothing where it has none to change. */
  readonly database?: DatabasePlan | undefined;
  /** Why it may be without the approvals it needs. */
  readonly breakGlass?: string | undefined;
}

/** Problems of a key or secret that another stack file has, too. A way back stays open, as it brings in no secret. */
async function checkKeys({ environment, rollbackOf }: StackConfig): Promise<Problem[]> {
  if (rollbackOf !== undefined) return [];
  const { sharedKeys } = await import("./ledger/stack-keys");
  return sharedKeys(projectFolder(), environment);
}

type Resolved = { readonly ok: Release | undefined } | { readonly problems: readonly string[] };

async function resolveRelease(config: StackConfig, state: StackState): Promise<Resolved> {
  const { imageTag } = config;
  if (imageTag === undefined) return resolveFoundation(config.environment, state);
  const request = checkRequest({ ...config, imageTag });
  if ("problems" in request) return { problems: request.problems.map(formatProblem) };

  const candidate = request.ok;
  try {
    const [taken, earned] = await Promise.all([
      takenOf(config, candidate),
      openRegistry(config.registry).resolve(candidate.earnedTag),
    ]);
    const release = checkCandidate(candidate, { imageTag: taken, earnedTag: earned });
    if (!("ok" in release)) return { problems: release.problems.map(formatProblem) };
    const problems = await scanProblems(config, release.ok, state);
    return problems.length === 0 ? release : { problems };
  } catch (error) {
    if (!(error instanceof RegistryError)) throw error;
    return { problems: [`${config.environment}: ${error.message}`] };
  }
}

/**
 * What the tag names, once it is there. A preview waits for nothing: what follows its upstream is
 * previewed before the upstream has earned the tag, by the pin alone.
 */
async function takenOf(
  { registry, follows }: StackConfig,
  { imageTag, imageDigest }: ReleaseCandidate,
): Promise<Digest | undefined> {
  if (!pulumi.runtime.isDryRun()) {
    return arrive(registry, imageTag, imageDigest, (text) => void pulumi.log.info(text));
  }
  const there = await openRegistry(registry).resolve(imageTag);
  return there ?? (follows ? imageDigest : undefined);
}

/**
 * What the image's scan says against a release. Not on the way back: what is returned to has run
 * here, and waiting for a scanner is worse.
 */
async function scanProblems(
  { environment, registry, scan }: StackConfig,
  { digest, rollbackOf }: Release,
  state: StackState,
): Promise<string[]> {
  if (scan === undefined || rollbackOf !== undefined) return [];
  const answer = await findScan(registry, digest, scan.source);
  const { problem } = scanTerm(environment, scan, answer, new Date());
  if (problem === undefined) return [];
  // What a scanner has learnt since must not stop whoever changes anything else.
  if ((await lastRelease(state))?.digest !== digest) return [formatProblem(problem)];
  void pulumi.log.warn(`${formatProblem(problem)} It is not stopped, as this image runs already.`);
  return [];
}

/** What the stack runs, by its outputs. */
async function lastRelease(state: StackState): Promise<Release | undefined> {
  return (await state.output("release")) as Release | undefined;
}

/** Without a tag there is only the foundation; but never in place of a release that runs. */
async function resolveFoundation(environment: string, state: StackState): Promise<Resolved> {
  const running = await lastRelease(state);
  if (running === undefined) return { ok: undefined };
  const problem = formatProblem({
    where: environment,
    property: "baton:imageTag",
    value: "not set",
    expected: `a tag, as ${running.imageTag} runs here and would be removed`,
    fix: "Set it, or take the whole environment away with `pulumi destroy`",
  });
  return { problems: [problem] };
}
