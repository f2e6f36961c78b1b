import { approvalsOf, committed } from "../ledger/gate";
import type { LedgerOutcome, Request } from "../ledger/ledger";
import { Refusal } from "../ledger/refusal";
import { formatTime } from "../release/time";
import { targetOf, type Running } from "../release/way-back";
import { alone } from "./alone";
import { endAsTouched, endRecorded, UNRECORDED, whoIs } from "./bookkeeping";
import {
  checkName,
  EXIT_CODES,
  fetchOrNote,
  fetchOrRefuse,
  publish,
  type Context,
  type Report,
} from "./context";
import {
  deployFollowers,
  formerOf,
  recordOutcome,
  succeed,
  tellFailure,
  wayBack,
  type Deployment,
} from "./deploy";
import { readFacts, type Facts } from "./facts";
import type { StackOutputs, Update } from "./pulumi";
import { summaryOf } from "./requested";
import { rollbackFollowers } from "./rollback";
import { recordUnapproved } from "./unapproved";
import { newsOf } from "./updates";

export interface RecordOptions {
  /** Whether a deployment that failed is taken back at once, as `deploy` does. */
  readonly goBack?: boolean;
}

/**
 * `baton record [ENV]`: puts into the ledger how the last `pulumi up` ended that the tool did not run
 * itself, as `deploy` would have; what follows the environment is deployed, or goes back, next. Without an environment, of all that Pulumi Deployments deploys.
 */
export async function record(
  context: Context,
  environment: string | undefined,
  options: RecordOptions,
): Promise<Report> {
  const { project, ledger, print } = context;
  if (environment !== undefined) {
    checkName(environment);
    await project.read(environment);
  }
  // What goes back at once waits neither for the remote nor for a person.
  await (options.goBack ? fetchOrNote(context) : fetchOrRefuse(context));
  if (!options.goBack) await ledger.person();
  if (environment !== undefined) return recordOne(context, environment, options);
  const reports: Report[] = [];
  for (const name of await project.path()) {
    const { deployedBy } = await project.config(name);
    if (deployedBy !== "pulumi-deployments") continue;
    // What cannot be recorded of one hides no other.
    const report = recordOne(context, name, options).catch((error: unknown): Report => {
      const problems = [error instanceof Error ? error.message : String(error)];
      for (const problem of problems) print(problem);
      return { outcome: "refused", environment: name, problems };
    });
    reports.push(await report);
  }
  const [worst = "done"] = reports
    .map(({ outcome }) => outcome)
    .sort((one, other) => EXIT_CODES[other] - EXIT_CODES[one]);
  return { outcome: worst, environments: reports };
}

async function recordOne(
  context: Context,
  environment: string,
  options: RecordOptions,
): Promise<Report> {
  return endAsTouched(context, environment, () => recordUpdate(context, environment, options));
}

async function recordUpdate(
  context: Context,
  environment: string,
  { goBack = false }: RecordOptions,
): Promise<Report> {
  const { pulumi, books, print } = context;
  const [outputs, update] = await Promise.all([
    pulumi.outputs(environment),
    pulumi.lastUpdate(environment),
  ]);
  await books.attempt(`${environment}: what was deployed without approvals`, () =>
    recordUnapproved(context, environment, outputs),
  );
  const facts = await readFacts(context);
  const proven = await facts.outcomesOf(environment);
  const outcomes = [...(await books.outcomes(environment)), ...proven];
  const [last] = outcomes;
  const news = newsOf(update, outputs, outcomes);
  if (news === undefined || update === undefined) {
    if (goBack && last?.result === "failed" && last.returningTo !== undefined) {
      return finishWayBack(context, last);
    }
    print(`${environment}: there is nothing to record.`);
    await publish(context);
    return { outcome: "done", environment };
  }
  if (news === "running") {
    print(`${environment}: the update of ${formatTime(update.startedAt)} has not ended.`);
    return { outcome: "waiting", environment };
  }
  const { release } = outputs;
  if (news === "succeeded" && release?.rollbackOf !== undefined) {
    return recordRollback(context, environment, update, release, facts);
  }
  const request = await requestOf(context, environment, update);
  const isAsked =
    request !== undefined &&
    (news === "failed" || (release?.imageTag === request.tag && release.digest === request.digest));
  if (!isAsked) {
    throw new Refusal({
      where: environment,
      property: `the update of ${formatTime(update.startedAt)}`,
      value: `of nobody's request; it ${news === "failed" ? "failed" : `deployed ${release?.imageTag ?? ""}`}`,
      expected: "the commit of a request for what was deployed",
      fix:
        `Find out who ran it; \`baton rollback ${environment}\` goes back, ` +
        `\`baton request ${environment}\` asks for it`,
    });
  }
  const deployment = await deploymentOf(context, request, update, outputs, facts);
  if (news === "failed") return recordFailure(context, deployment, update, goBack);
  return deployment.missing === undefined
    ? deployFollowers(context, environment, await succeed(context, deployment))
    : recordMissing(context, deployment, deployment.missing);
}

/** A deployment by somebody else. */
interface FoundDeployment extends Deployment {
  /** What people's words did not cover of it. */
  readonly missing: string | undefined;
}

/** The request whose commit an update deployed, if its stack file asked for just that. */
async function requestOf(
  { project, ledger }: Context,
  environment: string,
  { commit }: Update,
): Promise<Request | undefined> {
  if (commit === undefined) return undefined;
  const [request, there] = await Promise.all([
    ledger.requestAt(environment, commit),
    committed(project, ledger, environment, commit),
  ]);
  const isAsked =
    request !== undefined &&
    there?.config.imageTag === request.tag &&
    there.config.imageDigest === request.digest &&
    there.config.rollbackOf === undefined;
  return isAsked ? request : undefined;
}

async function deploymentOf(
  { project, ledger }: Context,
  request: Request,
  update: Update,
  { release }: StackOutputs,
  facts: Facts,
): Promise<FoundDeployment> {
  const { environment, commit } = request;
  const [stackFile, there, { lastDeployed: last, proven }] = await Promise.all([
    project.read(environment),
    committed(project, ledger, environment, commit),
    facts.of(environment),
  ]);
  const present = there?.config ?? project.parse(environment, stackFile);
  // As it was when the program let it through: words may expire.
  const at = update.startedAt;
  // What it did to the database is done; the program has asked for the approval which that needs.
  const approvals = await approvalsOf(
    ...([project, ledger, request, present, last, proven, undefined, at] as const),
  );
  const words = approvals.terms.find(({ name }) => name === "approvals");
  const isApproved = words?.state === "passes";
  const outcomes = await facts.outcomesOf(environment);
  return {
    request,
    stackFile,
    former: formerOf(request, release && targetOf(release), outcomes, undefined),
    approvedBy: approvals.approvedBy,
    terms: approvals.terms,
    unattended: !isApproved && approvals.unattended,
    update: update.id,
    missing: isApproved || approvals.unattended ? undefined : (words?.says ?? "no approvals"),
  };
}

async function recordFailure(
  context: Context,
  deployment: Deployment,
  update: Update,
  goBack: boolean,
): Promise<Report> {
  const { request, former } = deployment;
  const { environment, tag } = request;
  const reason = `the update of ${formatTime(update.startedAt)} failed; Pulumi has its log`;
  const details = { former, reason, returningTo: former?.tag };
  const ref = await recordOutcome(context, deployment, "failed", details);
  if (former === undefined) {
    context.print(
      `${environment}: ${tag} failed, and there is no former release (${ref ?? UNRECORDED}).`,
    );
    await tellFailure(context, deployment, reason);
  } else if (goBack) {
    context.print(
      `${environment}: ${tag} failed (${ref ?? UNRECORDED}); going back to ${former.tag}.`,
    );
    return alone(context, environment, () => wayBack(context, deployment, former, reason));
  } else {
    const command = `\`baton rollback ${environment}\` goes back to ${former.tag}`;
    context.print(`${environment}: ${tag} failed (${ref ?? UNRECORDED}). ${command}.`);
    await tellFailure(context, deployment, `${reason}. ${command}`);
  }
  return end(context, environment, { outcome: "failed", ...summaryOf(request), reason, ref });
}

/** From a failure that was recorded before. */
async function finishWayBack(context: Context, failed: LedgerOutcome): Promise<Report> {
  const { environment, commit, former, approvedBy, tag, reason = "" } = failed;
  const request = await context.ledger.requestAt(environment, commit);
  if (request === undefined || former === undefined) {
    throw new Refusal({
      where: environment,
      property: failed.ref,
      value: "without its request or a former release",
      expected: "both, to go back by itself",
      fix: `Run \`baton rollback ${environment}\``,
    });
  }
  context.print(`${environment}: ${tag} had failed; the way back goes on.`);
  const stackFile = await context.project.read(environment);
  const deployment = { request, stackFile, former, approvedBy, terms: [], unattended: false };
  return alone(context, environment, () => wayBack(context, deployment, former, reason));
}

/** What the program should have refused: somebody has changed it, or the ledger since. */
async function recordMissing(
  context: Context,
  deployment: Deployment,
  missing: string,
): Promise<Report> {
  const { request, former } = deployment;
  const { environment, tag, digest, version } = request;
  const reason = `the approvals that the ledger has: ${missing}`;
  const ref = await recordOutcome(context, deployment, "unapproved", { former, reason });
  context.print(
    `${environment}: ${tag} was deployed without its approvals (${ref ?? UNRECORDED}): ${missing}.`,
  );
  const who = `somebody; found by ${await whoIs(context)}`;
  const release = { environment, tag, digest, version };
  await context.announce(environment, { kind: "break-glass", ...release, who, reason });
  return end(context, environment, { outcome: "refused", ...summaryOf(request), reason, ref });
}

/** A way back by somebody who set `rollbackOf`. */
async function recordRollback(
  context: Context,
  environment: string,
  update: Update,
  release: Running,
  facts: Facts,
): Promise<Report> {
  const { ledger } = context;
  const target = targetOf(release);
  const { rollbackOf: leaving = "" } = release;
  const known = (await facts.outcomesOf(environment)).find(({ tag }) => tag === leaving);
  const left = known && { tag: leaving, digest: known.digest };
  const commit = update.commit ?? (await ledger.head());
  const what = { environment, result: "rolled-back", ...target, commit, left } as const;
  const ref = await context.books.record({ ...what, update: update.id });
  context.print(
    `${environment}: ${target.tag} runs again; ${leaving} was left (${ref ?? UNRECORDED}).`,
  );
  await context.announce(environment, {
    kind: "rolled-back",
    environment,
    tag: target.tag,
    version: target.version,
    digest: known?.digest ?? target.digest,
    left: leaving,
    who: await whoIs(context),
  });
  const report = { outcome: "done", environment, ...target, left, ref } as const;
  return rollbackFollowers(context, environment, await end(context, environment, report));
}

/** Records what could not be recorded before, and tells others. */
async function end(context: Context, environment: string, report: Report): Promise<Report> {
  const ended = await endRecorded(context, environment, report);
  await publish(context);
  return ended;
}
