import * as pulumi from "@pulumi/pulumi";
import { checkApprovals } from "./approvals";
import { checkCluster } from "./cluster";
import { Refusal, type StackConfig } from "./config";
import { RegistryError } from "./registry/errors";
import { openRegistry } from "./registry/registry";
import { checkCandidate, checkRequest, type Release } from "./release/eligibility";
import { formatProblem, formatProblems } from "./release/problem";

/**
 * Finds out which release the stack may deploy, before any resource.
 * @throws Refusal with every reason against it: the release's, the registry's and the cluster's, then
 * what people's approvals leave open.
 */
export async function preflight(config: StackConfig): Promise<Cleared> {
  const [release, cluster] = await Promise.all([
    resolveRelease(config),
    checkCluster(config.environment, config.cluster.context),
  ]);
  const problems = [
    ...("problems" in release ? release.problems : []),
    ...cluster.map(formatProblem),
  ];
  if (problems.length > 0 || !("ok" in release)) throw new Refusal(problems.join("\n"));
  if (release.ok === undefined) return { release: undefined };
  const approvals = await checkApprovals(config, release.ok);
  if (approvals.problems.length > 0) throw new Refusal(formatProblems(approvals.problems));
  return { release: release.ok, breakGlass: approvals.breakGlass };
}

/** What may be deployed; no release where there is only a foundation to make. */
export interface Cleared {
  readonly release: Release | undefined;
  /** Why it may be without the approvals it needs. */
  readonly breakGlass?: string | undefined;
}

type Resolved = { readonly ok: Release | undefined } | { readonly problems: readonly string[] };

async function resolveRelease(config: StackConfig): Promise<Resolved> {
  const { imageTag } = config;
  if (imageTag === undefined) return resolveFoundation(config.environment);
  const request = checkRequest({ ...config, imageTag });
  if ("problems" in request) return { problems: request.problems.map(formatProblem) };

  const candidate = request.ok;
  try {
    const registry = openRegistry(config.registry);
    const [taken, earned] = await Promise.all([
      registry.resolve(candidate.imageTag),
      registry.resolve(candidate.earnedTag),
    ]);
    const release = checkCandidate(candidate, { imageTag: taken, earnedTag: earned });
    return "ok" in release ? release : { problems: release.problems.map(formatProblem) };
  } catch (error) {
    if (!(error instanceof RegistryError)) throw error;
    return { problems: [`${config.environment}: ${error.message}`] };
  }
}

/** Without a tag there is only the foundation; but never in place of a release that runs. */
async function resolveFoundation(environment: string): Promise<Resolved> {
  const path = [pulumi.getOrganization(), pulumi.getProject(), environment];
  const last = await new pulumi.StackReference(path.join("/")).getOutputDetails("release");
  const running = last.value as Release | undefined;
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
