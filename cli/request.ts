import { join } from "node:path";
import { openRegistry } from "../registry/registry";
import { formatCard, groupOperations, type ChangeCard } from "../release/change-card";
import { checkRequest, type Digest } from "../release/eligibility";
import { formatParts, shortHash } from "../release/plan";
import { formatProblem } from "../release/problem";
import { checkName, latestRequest, type Context } from "./context";
import { approvalsOf } from "./gate";
import { Refusal } from "./refusal";
import type { StackConfig } from "./stack-config";
import { writeAtomically } from "./stack-file";

export interface RequestOptions {
  readonly tag?: string;
  readonly version?: string;
}

/** `baton request ENV`: asks for a release, behind a preview of what it would change. */
export async function request(context: Context, environment: string, options: RequestOptions) {
  checkName(environment);
  const { project, pulumi, ledger, print } = context;
  const former = await project.read(environment);
  const config = project.parse(environment, former);
  await ledger.check();
  await ledger.person();

  const { tag, digest, version } = await chooseRelease(context, environment, config, options);
  const text = project.edit(environment, former, {
    imageTag: tag,
    imageDigest: digest,
    version,
    rollbackOf: undefined,
  });
  const [plan, { release: running }] = await Promise.all([
    project.plan(environment, text),
    pulumi.outputs(environment),
  ]);
  // The stack file stays as it is until the preview has succeeded, whatever happens meanwhile.
  const operations = await pulumi.preview(environment, text);

  if ((await project.read(environment)) !== former) {
    throw new Refusal({
      where: environment,
      property: project.stackFile(environment),
      value: "another one than was previewed",
      expected: "no change while the preview ran",
      fix: "Run the same command again",
    });
  }
  if (text !== former) {
    await writeAtomically(join(project.folder, project.stackFile(environment)), text);
  }
  if (!(await isOpen(context, environment, plan.hash, text))) {
    const subject = `Request ${tag} for ${environment}`;
    await ledger.commit(project.stackFile(environment), subject, {
      "Baton-Request": environment,
      "Baton-Tag": tag,
      "Baton-Digest": digest,
      "Baton-Version": version,
      "Baton-Plan": plan.hash,
      "Baton-Parts": formatParts(plan.parts),
    });
  }
  const made = await latestRequest(ledger, environment);
  const { missing } = await approvalsOf(project, ledger, made);
  const card: ChangeCard = {
    environment,
    from: { tag: running?.imageTag, digest: running?.digest, version: running?.version },
    to: { tag, digest, version },
    plan: shortHash(plan.hash),
    requester: made.requesters[0] ?? "",
    operations: groupOperations(operations),
    missing: missing.map(formatProblem),
  };
  print(formatCard(card));
  if (missing.length === 0) print(`Go on with \`baton deploy ${environment}\`.`);
}

/** Whether the latest request is for this plan, and neither rejected, done nor overtaken. */
async function isOpen(
  { ledger, project }: Context,
  environment: string,
  plan: string,
  stackFile: string,
): Promise<boolean> {
  const latest = await ledger.request(environment);
  if (latest?.plan !== plan) return false;
  const committed = await ledger.show("HEAD", project.stackFile(environment));
  const words = await ledger.words(latest);
  const outcomes = await ledger.outcomes(environment);
  return (
    committed === stackFile &&
    !words.some(({ kind }) => kind === "reject") &&
    !outcomes.some(({ commit, result }) => commit === latest.commit && result === "deployed")
  );
}

/** Which release moves: the one the upstream runs and has earned, unless another is named. */
async function chooseRelease(
  { pulumi }: Context,
  environment: string,
  config: StackConfig,
  options: RequestOptions,
): Promise<{ tag: string; digest: Digest; version: string | undefined }> {
  const { upstream, versioned, registry } = config;
  const given = upstream === undefined ? {} : await pulumi.outputs(upstream);
  const tag = options.tag ?? given.earnedTag;
  if (tag === undefined) {
    throw new Refusal({
      where: environment,
      property: upstream === undefined ? "--tag" : `${upstream}'s earnedTag`,
      value: "not set",
      expected:
        upstream === undefined
          ? "a build's tag, such as build-45, as it takes no environment's"
          : `a release that ${upstream} has verified`,
      fix: upstream === undefined ? "Name the build with --tag" : `Deploy ${upstream} first`,
    });
  }
  const checked = checkRequest({
    environment,
    upstream,
    versioned,
    imageTag: tag,
    version: options.version,
  });
  if ("problems" in checked) {
    throw new Refusal(
      checked.problems.map((problem) =>
        problem.property === "baton:version" && problem.value === "not set"
          ? { ...problem, fix: "Releases are versioned here: name it with --version" }
          : problem,
      ),
    );
  }
  const known = tag === given.earnedTag ? given.release?.digest : undefined;
  const digest = known ?? (await openRegistry(registry).resolve(tag));
  if (digest === undefined) {
    throw new Refusal({
      where: environment,
      property: "--tag",
      value: tag,
      expected: "a tag that exists in the registry",
      fix:
        upstream === undefined
          ? "Push the build first, or correct the tag"
          : `Deploy and verify it in ${upstream} first, or correct the tag`,
    });
  }
  return { tag, digest, version: versioned ? checked.ok.version : undefined };
}
