import { createHash } from "node:crypto";
import { join } from "node:path";
import { lastDeployed, orderTerm, planTerm } from "../ledger/gate";
import type { Request } from "../ledger/ledger";
import { Refusal } from "../ledger/refusal";
import { POLICY_KEYS, type StackConfig } from "../ledger/stack-config";
import { writeAtomically } from "../ledger/stack-file";
import { RegistryError } from "../registry/errors";
import { openRegistry } from "../registry/registry";
import { cardBlocks, formatCard, type ChangeCard } from "../release/change-card";
import { checkRequest, hotfixFromOf, type Digest } from "../release/eligibility";
import { problemsOf, type Term } from "../release/gate";
import { isTree, type Tree } from "../release/merge";
import { formatOperations, groupOperations, notRoutine } from "../release/operations";
import { formatParts, shortHash } from "../release/plan";
import { formatProblem } from "../release/problem";
import { describeScan } from "../release/scan";
import { settingsDifference } from "../release/settings-difference";
import { targetOf } from "../release/way-back";
import { commitsBetween } from "./commits";
import {
  checkName,
  fetchOrRefuse,
  latestRequest,
  publish,
  type Context,
  type Report,
} from "./context";
import { readFacts, type Facts } from "./facts";
import { gateOf, scanOf, type Gate } from "./gate";
import type { Preview, StackOutputs } from "./pulumi";
import { announceRequest } from "./requested";
import { recordUnapproved } from "./unapproved";

export interface RequestOptions {
  readonly tag?: string;
  readonly version?: string;
  /** Through the fast lane. */
  readonly hotfix?: boolean;
  /** For people, as release notes. */
  readonly notes?: string;
  /** The application's repository, where it is not this one. */
  readonly source?: string;
  /** Who asks, as git writes it: `Ann <ann@example.com>`; whoever runs the command unless given. */
  readonly author?: string;
}

/** `baton request ENV`: asks for a release, behind a preview of what it would change. */
export async function request(
  context: Context,
  environment: string,
  options: RequestOptions,
): Promise<Report & { readonly card: ChangeCard; readonly gate: Term["state"] }> {
  checkName(environment);
  const { project, pulumi, ledger, print } = context;
  const former = await project.read(environment);
  const config = project.parse(environment, former);
  await fetchOrRefuse(context);
  await ledger.person();

  const chosen = await chooseRelease(context, environment, config, options);
  const { tag, digest, version } = chosen;
  const text = project.edit(environment, former, {
    imageTag: tag,
    imageDigest: digest,
    version,
    rollbackOf: undefined,
    hotfixFrom: hotfixFromOf(tag, config.upstream),
  });
  const [plan, running] = await Promise.all([
    project.plan(environment, text),
    pulumi.outputs(environment),
  ]);
  await recordUnapproved(context, environment, running);
  // The stack file stays as it is until the preview has succeeded, whatever happens meanwhile.
  const preview = await context.showProgress(`${environment}: preview ${tag}`, () =>
    pulumi.preview(environment, text),
  );

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
  const hotfix = options.hotfix ?? false;
  if (!(await isOpen(context, environment, plan.hash, text, hotfix))) {
    await ledger.ask(
      environment,
      project.stackFile(environment),
      chosen,
      { hash: plan.hash, parts: formatParts(plan.parts) },
      {
        hotfix,
        operations: formatOperations(preview.operations),
        notes: options.notes ?? "",
        author: options.author,
      },
    );
  }
  const made = await latestRequest(context, environment);
  const facts = await readFacts(context);
  const gate = await gateOf(context, made, text, facts);
  const card = await cardOf(context, made, config, { gate, preview, running, facts, options });
  print(formatCard(card, process.stdout.columns));
  if (card.missing.length === 0) print(`Go on with \`baton deploy ${environment}\`.`);
  await publish(context);
  await announceRequest(context, made, {
    card: cardBlocks(card),
    approvals: gate.approvals.approvedBy,
    missing: card.missing,
  });
  const states = gate.terms.map(({ state }) => state);
  const gateState =
    card.missing.length === 0 ? "passes" : states.includes("fails") ? "fails" : "waits";
  return { outcome: "done", environment, request: made.id, card, gate: gateState };
}

/** Whether the latest request is for this plan, and neither rejected, done, over nor overtaken. */
async function isOpen(
  { ledger, project, now }: Context,
  environment: string,
  plan: string,
  stackFile: string,
  hotfix: boolean,
): Promise<boolean> {
  const latest = await ledger.request(environment);
  if (latest?.plan !== plan || latest.hotfix !== hotfix) return false;
  const committed = await ledger.show("HEAD", project.stackFile(environment));
  const words = await ledger.words(latest);
  const outcomes = await ledger.outcomes(environment);
  const last = await lastDeployed(project, ledger, environment, outcomes);
  const stands = await Promise.all([
    planTerm(project, ledger, latest, stackFile),
    orderTerm(ledger, latest, last),
  ]);
  const { approval } = project.parse(environment, stackFile);
  const lane = hotfix ? approval.hotfix : undefined;
  const over = latest.at.getTime() + (lane?.expiresAfter ?? Infinity) * 1000 <= now().getTime();
  return (
    committed === stackFile &&
    stands.every(({ state }) => state === "passes") &&
    !over &&
    !words.some(({ kind }) => kind === "reject") &&
    !outcomes.some(({ request: id, result }) => id === latest.id && result === "deployed")
  );
}

/** What people decide on. */
async function cardOf(
  { project, pulumi, now }: Context,
  made: Request,
  config: StackConfig,
  known: {
    readonly gate: Gate;
    readonly preview: Preview;
    readonly running: StackOutputs;
    readonly facts: Facts;
    readonly options: RequestOptions;
  },
): Promise<ChangeCard> {
  const { environment, tag, digest, version } = made;
  const { gate, preview, running, facts, options } = known;
  const { release } = running;
  const giver = hotfixFromOf(tag, config.upstream) ?? config.upstream;
  const [commits, last, given, scan] = await Promise.all([
    commitsOf(options.source ?? project.folder, config, release?.digest, digest),
    facts.lastDeployed(environment),
    giver === undefined ? undefined : pulumi.outputs(giver),
    gate.scan ?? scanOf(config, digest),
  ]);
  const extraordinary = notRoutine(preview.operations);
  const unattended = gate.approvals.unattended && extraordinary.length === 0;
  const missing = problemsOf(
    gate.terms.filter(({ name }) => name !== "approvals" || !unattended),
  ).map(formatProblem);
  return {
    environment,
    from: release === undefined ? {} : targetOf(release),
    to: { tag, digest, version },
    plan: shortHash(made.plan),
    requester: made.requesters[0] ?? "",
    commits,
    settings:
      last === undefined
        ? []
        : settingsDifference(
            withPolicy(last.config, last.allowedSigners),
            withPolicy(config, await project.text(config.approval.allowedSigners)),
          ),
    operations: groupOperations(preview.operations),
    suites: given?.earnedTag === tag ? (given.suites ?? []) : [],
    scan: describeScan(scan, config.scan, now()),
    notes: made.notes,
    schema: gate.schema.says,
    routine: extraordinary.length === 0 && gate.schema.change === undefined,
    missing,
  };
}

/** The policy is approved with the settings, so it is shown with them. */
export function withPolicy(config: StackConfig, allowedSigners: string): Tree {
  const set = POLICY_KEYS.filter((key) => config[key] !== undefined);
  const policy = Object.fromEntries(set.map((key) => [key, config[key]]));
  const signers = createHash("sha256").update(allowedSigners).digest("hex");
  const own = isTree(config.settings["own"]) ? config.settings["own"] : {};
  const file = config.approval.signed
    ? { [config.approval.allowedSigners]: shortHash(signers) }
    : {};
  return { ...config.settings, own: { ...own, ...policy, ...file } };
}

export async function commitsOf(
  folder: string,
  { registry: location }: StackConfig,
  former: string | undefined,
  next: string,
) {
  const registry = openRegistry(location);
  try {
    const [from, to] = await Promise.all([
      former === undefined ? undefined : registry.labels(former),
      registry.labels(next),
    ]);
    return await commitsBetween(folder, from, to);
  } catch (error) {
    // The card is the better for it, and no worse than its absence.
    if (!(error instanceof RegistryError)) throw error;
    const why = "the images' labels cannot be read";
    return { state: "unknown", why, commits: [], behind: 0, total: 0 } as const;
  }
}

/** Which release moves: the one the upstream runs and has earned, unless another is named. */
async function chooseRelease(
  { pulumi }: Context,
  environment: string,
  config: StackConfig,
  options: RequestOptions,
): Promise<{ tag: string; digest: Digest; version: string | undefined }> {
  const { versioned, registry, approval } = config;
  const upstream = (options.hotfix ? approval.hotfix?.upstream : undefined) ?? config.upstream;
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
    upstream: config.upstream,
    hotfixFrom: upstream === config.upstream ? undefined : upstream,
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
