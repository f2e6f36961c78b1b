import { join } from "node:path";
import { listOf, orderTerm, planTerm, startProblems, startTerm } from "../ledger/gate";
import type { Request, Wish } from "../ledger/ledger";
import { Refusal } from "../ledger/refusal";
import type { StackConfig } from "../ledger/stack-config";
import { writeAtomically } from "../ledger/stack-file";
import { openRegistry } from "../registry/registry";
import { cardBlocks, formatCard, type ChangeCard } from "../release/change-card";
import { checkRequest, hotfixFromOf, type Digest } from "../release/eligibility";
import type { Term } from "../release/gate";
import { formatOperations } from "../release/operations";
import { formatParts } from "../release/plan";
import { formatStart, startsOf, type StateResource } from "../release/start";
import { targetOf, type Target } from "../release/way-back";
import { cardOf } from "./card";
import {
  checkName,
  fetchOrRefuse,
  latestRequest,
  publish,
  type Context,
  type Report,
} from "./context";
import { readFacts } from "./facts";
import { gateOf } from "./gate";
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
  const { project, ledger, print } = context;
  const former = await project.read(environment);
  const config = project.parse(environment, former);
  await fetchOrRefuse(context);
  await ledger.person();

  const { earnedTag, ...chosen } = await chooseRelease(context, environment, config, options);
  const hotfix = options.hotfix ?? false;
  // The stack files stay as they are until the previews have succeeded, whatever happens meanwhile.
  const lead = await prepare(context, environment, former, chosen, hotfix);
  const { text } = lead;
  const followers = await prepareFollowers(context, environment, lead, earnedTag);

  const all = [lead, ...followers] as const;
  for (const { environment: name, former: previewed } of all) {
    if ((await project.read(name)) === previewed) continue;
    throw new Refusal({
      where: name,
      property: project.stackFile(name),
      value: "another one than was previewed",
      expected: "no change while the preview ran",
      fix: "Run the same command again",
    });
  }
  for (const one of all) {
    if (one.text === one.former) continue;
    await writeAtomically(join(project.folder, one.wish.file), one.text);
  }
  const open = await Promise.all(all.map(async (one) => isOpen(context, one)));
  const ids = new Set(open.map((request) => request?.id));
  if (open.includes(undefined) || ids.size > 1) {
    const others = followers.map(({ wish }) => wish);
    await ledger.ask([lead.wish, ...others], {
      notes: options.notes ?? "",
      author: options.author,
    });
  }
  const made = await latestRequest(context, environment);
  const differences = (await project.differencesFrom(made.commit)) ?? [];
  if (differences.length > 0) {
    print(
      `${environment}: the plan is of this folder, and not of the request's commit: ${listOf(differences)}. ` +
        "Where only the commit is checked out, it is another plan: commit or remove them, and ask anew.",
    );
  }
  const facts = await readFacts(context);
  const gate = await gateOf(context, made, text, facts);
  const { terms, schema, scan, approvals } = gate;
  const judged = { terms, schema, scan, unattended: approvals.unattended };
  const { card } = await cardOf(context, made, facts, judged, options.source);
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

/** What is about to be asked for in one environment. */
interface Prepared {
  readonly environment: string;
  readonly wish: Wish;
  /** The stack file as it was, and as it would be. */
  readonly former: string;
  readonly text: string;
  readonly preview: Preview;
  /** The stack's resources before the preview. */
  readonly state: readonly StateResource[];
  readonly running: StackOutputs;
}

async function prepare(
  context: Context,
  environment: string,
  former: string,
  target: Target,
  hotfix: boolean,
): Promise<Prepared> {
  const { project, pulumi } = context;
  const { tag, digest, version } = target;
  const text = project.edit(environment, former, {
    imageTag: tag,
    imageDigest: digest,
    version,
    rollbackOf: undefined,
    hotfixFrom: hotfixFromOf(tag, project.parse(environment, former).upstream),
  });
  const [{ hash, parts }, running] = await Promise.all([
    project.plan(environment, text),
    pulumi.outputs(environment),
  ]);
  await recordUnapproved(context, environment, running);
  const state = await pulumi.resources(environment);
  const preview = await context.showProgress(`${environment}: preview ${tag}`, () =>
    pulumi.preview(environment, text),
  );
  const [newest] = await (await readFacts(context)).outcomesOf(environment);
  const releases = { target, former: running.release && targetOf(running.release) };
  const wish: Wish = {
    environment,
    file: project.stackFile(environment),
    ...releases,
    plan: { hash, parts: formatParts(parts) },
    hotfix,
    operations: formatOperations(preview.operations),
    after: newest?.ref,
    starts: (id) => startsOf(preview, state, releases, [id, environment]).map(formatStart),
  };
  return { environment, wish, former, text, preview, state, running };
}

/**
 * What follows an environment, with the tag that it will earn. One that cannot be previewed is left
 * out, and said: another region's trouble is no reason to change nothing in this one.
 */
async function prepareFollowers(
  context: Context,
  environment: string,
  { wish }: Prepared,
  imageTag: string,
): Promise<Prepared[]> {
  const { project, print } = context;
  const prepared: Prepared[] = [];
  for (const name of await project.followersOf(environment)) {
    const former = await project.read(name);
    const { upstream, versioned, approval } = project.parse(name, former);
    const asked = { environment: name, upstream, versioned, imageTag };
    const checked = checkRequest({
      ...asked,
      version: versioned ? wish.target.version : undefined,
    });
    if ("problems" in checked) throw new Refusal(checked.problems);
    const { version, earnedTag } = checked.ok;
    const target = {
      tag: imageTag,
      digest: wish.target.digest,
      version: versioned ? version : undefined,
    };
    // Without a fast lane of its own it takes the ordinary one.
    const hotfix = wish.hotfix && approval.hotfix !== undefined;
    try {
      const one = await prepare(context, name, former, target, hotfix);
      prepared.push(one, ...(await prepareFollowers(context, name, one, earnedTag)));
    } catch (error) {
      const why = (error instanceof Error ? error.message : String(error)).split("\n")[0] ?? "";
      print(
        `${name}: left out of this request, as it cannot be previewed (${why.replace(/\.$/, "")}). ` +
          `Once that is settled, ask by itself with \`baton request ${name}\`.`,
      );
    }
  }
  return prepared;
}

/**
 * The latest request where it is for this plan, and neither rejected, done, over nor overtaken.
 */
async function isOpen(
  context: Context,
  { environment, wish, text: stackFile, preview, state }: Prepared,
): Promise<Request | undefined> {
  const { ledger, project, now } = context;
  const { plan, hotfix } = wish;
  const latest = await ledger.request(environment);
  if (latest?.plan !== plan.hash || latest.hotfix !== hotfix) return undefined;
  const committed = await ledger.show("HEAD", project.stackFile(environment));
  const words = await ledger.words(latest);
  const facts = await readFacts(context);
  const { proven: outcomes, lastDeployed } = await facts.of(environment);
  const stands = await Promise.all([
    planTerm(project, ledger, latest, stackFile),
    orderTerm(ledger, latest, lastDeployed),
  ]);
  const releases = { target: latest, former: latest.former };
  const starts = startsOf(preview, state, releases, [latest.id, environment]);
  const { approval } = project.parse(environment, stackFile);
  const lane = hotfix ? approval.hotfix : undefined;
  const over = latest.at.getTime() + (lane?.expiresAfter ?? Infinity) * 1000 <= now().getTime();
  const open =
    committed === stackFile &&
    [...stands, startTerm(latest, outcomes)].every((term) => term.state === "passes") &&
    startProblems(latest, state, starts).length === 0 &&
    !over &&
    !words.some(({ kind }) => kind === "reject") &&
    !outcomes.some(({ request: id, result }) => id === latest.id && result === "deployed");
  return open ? latest : undefined;
}

/** Which release moves: the one the upstream runs and has earned, unless another is named. */
async function chooseRelease(
  { pulumi }: Context,
  environment: string,
  config: StackConfig,
  options: RequestOptions,
): Promise<{ tag: string; digest: Digest; version: string | undefined; earnedTag: string }> {
  const { versioned, registry, approval } = config;
  const upstream = (options.hotfix ? approval.hotfix?.upstream : undefined) ?? config.upstream;
  const given: StackOutputs =
    upstream === undefined
      ? {}
      : await pulumi.outputs(upstream).catch((error: unknown) => {
          // Whoever names a tag needs nothing of the upstream, whose region may be away.
          if (options.tag === undefined) throw error;
          return {};
        });
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
  const { earnedTag } = checked.ok;
  return { tag, digest, version: versioned ? checked.ok.version : undefined, earnedTag };
}
