import type { LedgerOutcome, NewOutcome, Request } from "../ledger/ledger";
import { Refusal } from "../ledger/refusal";
import type { Term } from "../release/gate";
import { shortHash } from "../release/plan";
import { refusalIn } from "../release/schema";
import { targetOf, type Target } from "../release/way-back";
import { alone, Locked } from "./alone";
import { end, onceBegun, type BegunDeployment } from "./begun";
import { endAsTouched, endRecorded, messageOf, UNRECORDED, whoIs } from "./bookkeeping";
import { clear, clearAgain, newestOf } from "./clearance";
import {
  checkHere,
  checkName,
  fetchOrRefuse,
  latestRequest,
  publish,
  type Context,
  type Report,
} from "./context";
import { detailsOf } from "./details";
import { readFacts } from "./facts";
import { withFollowers } from "./followers";
import { firstReason, goBack, heldEverywhere } from "./go-back";
import type { Preview, UpResult } from "./pulumi";
import { summaryOf, waiting } from "./requested";
import { startRun } from "./start";
import { agrees, needTerminal } from "./terminal";
import { recordUnapproved } from "./unapproved";

export interface DeployOptions {
  /** Without asking. */
  readonly yes?: boolean;
}

/** A request that is being deployed, or has been by somebody else. */
export interface Deployment {
  readonly request: Request;
  readonly stackFile: string;
  /** What ran before. */
  readonly former: Target | undefined;
  readonly approvedBy: readonly string[];
  /** The terms of the gate by which it was let through; none on the way back. */
  readonly terms: readonly Term[];
  /** Why nobody was asked. */
  readonly unattended: boolean;
  /** The run of Pulumi that was not the tool's. */
  readonly update?: string;
}

/**
 * `baton deploy ENV`: deploys the latest request, exactly as it was approved, and goes back at once
 * when that fails. Whatever was begun by a run that was killed is finished. What was asked for
 * together with it in environments that follow is deployed next.
 */
export async function deploy(
  context: Context,
  environment: string,
  { yes = false }: DeployOptions,
): Promise<Report> {
  checkName(environment);
  await context.ledger.check();
  return endAsTouched(context, environment, async () => {
    const report = await onceBegun(context, environment, "deploy", (begun, beginNow) =>
      attempt(context, environment, yes, begun, beginNow),
    );
    return deployFollowers(context, environment, report);
  });
}

/** Deploys next what was asked for together with a request, once that is deployed. */
export async function deployFollowers(
  context: Context,
  environment: string,
  report: Report,
): Promise<Report> {
  if (report.outcome !== "done") return report;
  const { request } = report;
  return withFollowers(context, environment, report, async (follower) => {
    const asked = await context.ledger.request(follower);
    if (asked?.id === request) return deploy(context, follower, { yes: true });
    context.print(
      `${follower}: no part of this request; \`baton request ${follower}\` asks for it by itself.`,
    );
    return undefined;
  });
}

async function attempt(
  context: Context,
  environment: string,
  yes: boolean,
  begun: BegunDeployment | undefined,
  beginNow: (begun: BegunDeployment) => Promise<void>,
): Promise<Report | Locked> {
  const { project, pulumi, ledger, books, print } = context;
  // What is checked is what is deployed, whatever happens to the file meanwhile.
  const stackFile = await project.read(environment);
  const unfetched = await fetchOrRefuse(context).then(
    () => undefined,
    (error: unknown) => ({ error }),
  );
  const read = Promise.all([latestRequest(context, environment), readFacts(context)]);
  const [request, before] = await read.catch((error: unknown) => {
    throw unfetched === undefined ? error : unfetched.error;
  });
  const proven = await before.outcomesOf(environment);
  const outcomes = [...(await books.outcomes(environment)), ...proven];
  const last = outcomes.find((outcome) => outcome.request === request.id);
  const isNewest = last !== undefined && last === outcomes[0];
  // Going forward waits for the remote, for the ledger and for a person; the way back does not.
  if (isNewest && last.result === "failed" && last.returningTo !== undefined && last.former) {
    if (unfetched !== undefined) context.notes.push(messageOf(unfetched.error));
    print(`${environment}: ${request.tag} had failed; the way back goes on.`);
    const { approvedBy, former } = last;
    const deployment = { request, stackFile, former, approvedBy, terms: [], unattended: false };
    return wayBack(context, deployment, former, last.reason ?? "");
  }
  if (unfetched !== undefined) throw unfetched.error;
  await checkHere(context, request);
  await ledger.person();
  // A deployment by break-glass after the request voids the request, so it is recorded first.
  const known = await pulumi.knownOutputs(environment);
  const isNew = await recordUnapproved(context, environment, known);
  const facts = isNew ? await readFacts(context) : before;
  if (isNewest) {
    if (last.result === "deployed") {
      print(`${environment}: ${request.tag} is deployed already (${last.ref}).`);
      await publish(context);
      await end(context, environment);
      return { outcome: "done", ...summaryOf(request), ref: last.ref };
    }
    if (begun?.request === request.id && begun.after !== last.ref) {
      return tellAgain(context, request, last);
    }
  }

  if (project.parse(environment, stackFile).deployedBy === "pulumi-deployments") {
    return startRun(context, request, facts);
  }
  const clearance = await clear(context, request, stackFile, facts, () =>
    previewAll(context, environment, stackFile),
  );
  if (clearance instanceof Locked) return clearance;
  if (clearance.state === "waits") return waiting(context, request, clearance.terms);
  if (clearance.state === "fails") {
    await publish(context);
    throw new Refusal(clearance.problems);
  }
  const { gate, unattended } = clearance;

  const outputs = await pulumi.outputs(environment);
  await recordUnapproved(context, environment, outputs);
  const { release } = outputs;
  const running = release && targetOf(release);
  const after = outcomes[0]?.ref;
  const same = begun?.request === request.id && begun.after === after ? begun : undefined;
  const former = formerOf(request, running, outcomes, same);
  const change = `${environment}: ${former?.tag ?? "nothing"} → ${request.tag}, plan ${shortHash(request.plan)}`;
  if (!yes) {
    needTerminal("baton deploy", "--yes");
    if (!(await agrees(`${change}\nDeploy?`))) {
      print(`${environment}: nothing was changed.`);
      return { outcome: "refused", ...summaryOf(request) };
    }
  }

  // The preview and the question have taken their time, in which others may have said something.
  const meanwhile = await clearAgain(context, request, stackFile, clearance, newestOf(outcomes));
  if (meanwhile?.state === "overtaken") return attempt(context, environment, yes, begun, beginNow);
  if (meanwhile?.state === "waits") return waiting(context, request, meanwhile.terms);
  if (meanwhile?.state === "fails") {
    await publish(context);
    throw new Refusal(meanwhile.problems);
  }

  await beginNow({ command: "deploy", request: request.id, former, after });
  const up = await context.showProgress(change, (show) => pulumi.up(environment, stackFile, show));
  if (up.lockedBy.length > 0) return new Locked(stackFile, up.lockedBy);
  const { approvedBy } = gate.approvals;
  const { terms } = gate;
  const deployment: Deployment = { request, stackFile, former, approvedBy, terms, unattended };
  return up.succeeded ? succeed(context, deployment) : recover(context, deployment, up);
}

/** Previews once more after settling what a killed run has left. */
async function previewAll(
  { project, pulumi, showProgress }: Context,
  environment: string,
  stackFile: string,
): Promise<Preview | Locked> {
  const preview = () =>
    showProgress(`${environment}: preview again`, async (show) => {
      // A run that still writes the state would be previewed half.
      await pulumi.awaitOrphans(environment, show);
      return pulumi.preview(environment, stackFile);
    });
  const [previewed, pending] = await Promise.all([preview(), pulumi.hasPending(environment)]);
  if (!pending) return previewed;
  const { clusterOf } = await import("./cluster");
  const cluster = clusterOf(environment, project.parse(environment, stackFile));
  const title = `${environment}: settle what a killed run has left`;
  const lockedBy = await showProgress(title, (show) =>
    pulumi.settle(environment, stackFile, (one) => cluster.remove(one, project.name), show),
  );
  if (lockedBy.length > 0) return new Locked(stackFile, lockedBy);
  return preview();
}

/** What ran before; where the request runs already, what had run before it. */
export function formerOf(
  request: Request,
  running: Target | undefined,
  outcomes: readonly LedgerOutcome[],
  begun: BegunDeployment | undefined,
): Target | undefined {
  if (running?.tag !== request.tag) return running;
  if (begun !== undefined) return begun.former;
  const recorded = outcomes.find((outcome) => outcome.request === request.id);
  if (recorded !== undefined) return recorded.former;
  const last = outcomes.find(({ result }) => result === "deployed" || result === "rolled-back");
  return last === undefined
    ? running
    : { tag: last.tag, digest: last.digest, version: last.version };
}

/** After an `up` that succeeded. */
export async function succeed(context: Context, deployment: Deployment): Promise<Report> {
  const { request, former, unattended, approvedBy } = deployment;
  const { environment, tag, digest, version } = request;
  const reason = unattended ? "routine: nobody's word was needed" : undefined;
  const outputs = await context.books.attempt(`${environment}: what it has earned`, () =>
    context.pulumi.outputs(environment),
  );
  const { earnedTag, layout } = outputs ?? {};
  const details = await detailsOf(context, deployment, outputs);
  const said = { former, reason, layout, details };
  const ref = await recordOutcome(context, deployment, "deployed", said);
  context.print(`${environment}: ${tag} is deployed and verified (${ref ?? UNRECORDED}).`);
  if (request.hotfix) {
    context.print(
      `It was a hotfix: let somebody look at it and run \`baton review ${environment}\`.`,
    );
  }
  const { upstream } = context.project.parse(environment, deployment.stackFile);
  const who = await whoIs(context);
  await context.announce(environment, {
    kind: "deployed",
    environment,
    tag,
    digest,
    version,
    who,
    earnedTag,
    readyForTesting: upstream === undefined,
  });
  return finish(context, environment, {
    outcome: "done",
    ...summaryOf(request),
    ref,
    earnedTag,
    approvedBy,
  });
}

/** Records what could not be recorded before, tells others, and ends a deployment. */
async function finish(context: Context, environment: string, report: Report): Promise<Report> {
  const ended = await endRecorded(context, environment, report);
  await publish(context);
  await end(context, environment);
  return ended;
}

/** After an `up` that failed. */
async function recover(
  context: Context,
  deployment: Deployment,
  up: UpResult,
): Promise<Report | Locked> {
  const { print } = context;
  const { request, former } = deployment;
  const { environment, tag } = request;
  print(up.reason);
  const report = { ...summaryOf(request), reason: up.reason, log: up.log };
  if (up.killed) {
    print(
      `${environment}: Pulumi was killed on the way to ${tag}; the log is ${up.log}. ` +
        "Run the same command again.",
    );
    return { outcome: "failed", ...report };
  }
  if (!up.touched) {
    print(`${environment}: ${tag} was refused before anything was changed. See above.`);
    return { outcome: "refused", ...report };
  }
  const reason = firstReason(up.reason);
  if (up.interrupted || former === undefined) {
    const ref = await recordOutcome(context, deployment, "failed", { former, reason });
    print(
      up.interrupted
        ? `${environment}: stopped on the way to ${tag} (${ref ?? UNRECORDED}). Carry on with ` +
            `\`baton deploy ${environment}\`, or go back with \`baton rollback ${environment}\`.`
        : `${environment}: ${tag} failed, and there is no former release (${ref ?? UNRECORDED}). The log is ${up.log}.`,
    );
    await tellFailure(context, deployment, reason);
    return finish(context, environment, { outcome: "failed", ...report, ref });
  }
  // Whoever is killed from here on knows by this that the way back was begun.
  await recordOutcome(context, deployment, "failed", { former, reason, returningTo: former.tag });
  print(`${environment}: ${tag} failed; going back to ${former.tag}. The log is ${up.log}.`);
  try {
    return await alone(context, environment, () => wayBack(context, deployment, former, reason));
  } catch (error) {
    await tellFailure(context, deployment, reason, { tag: former.tag, succeeded: false });
    await publish(context);
    throw error;
  }
}

/** From a release that failed to the one before. */
export async function wayBack(
  context: Context,
  deployment: Deployment,
  former: Target,
  reason: string,
): Promise<Report | Locked> {
  const { print } = context;
  const { request, stackFile } = deployment;
  const { environment, tag, digest } = request;
  const back = await goBack(context, environment, stackFile, former, tag);
  if (back.up.lockedBy.length > 0) return new Locked(stackFile, back.up.lockedBy);
  const report = { ...summaryOf(request), reason, runs: former };
  if (back.up.succeeded) {
    const left = { tag, digest };
    const ref = await recordOutcome(context, deployment, "went-back", { former, reason, left });
    print(
      `${environment}: ${tag} failed; ${former.tag} runs again, as before (${ref ?? UNRECORDED}).`,
    );
    if (former.digest !== digest) print(heldEverywhere(tag));
    await tellFailure(context, deployment, reason, { tag: former.tag, succeeded: true });
    return finish(context, environment, { outcome: "went-back", ...report, ref });
  }
  const refusal = refusalIn(back.up.reason);
  if (refusal !== undefined) {
    print(`${environment}: ${tag} failed, and there is no way back to ${former.tag}: ${refusal}`);
    await tellFailure(context, deployment, reason, { tag: former.tag, succeeded: false });
    const said = { refused: refusal, log: back.up.log };
    return finish(context, environment, { outcome: "failed", ...report, ...said });
  }
  print(back.up.reason);
  print(
    `${environment}: ${tag} failed, and so did the way back to ${former.tag}; the log is ` +
      `${back.up.log}. Settle what is said above, and run \`baton rollback ${environment}\`.`,
  );
  await tellFailure(context, deployment, reason, { tag: former.tag, succeeded: false });
  return finish(context, environment, { outcome: "failed", ...report, log: back.up.log });
}

/** How a deployment ended whose command could not say so any more. */
async function tellAgain(
  context: Context,
  request: Request,
  { result, former, reason, ref }: LedgerOutcome,
): Promise<Report> {
  const { environment, tag } = request;
  const back = result === "went-back" && former !== undefined;
  context.print(
    back
      ? `${environment}: ${tag} failed; ${former.tag} runs again, as before (${ref}).`
      : `${environment}: ${tag} failed (${ref}).`,
  );
  await publish(context);
  await end(context, environment);
  const report = { ...summaryOf(request), reason, ref };
  return back
    ? { outcome: "went-back", ...report, runs: former }
    : { outcome: "failed", ...report };
}

export async function tellFailure(
  context: Context,
  { request }: Deployment,
  reason: string,
  back?: { tag: string; succeeded: boolean },
): Promise<void> {
  const { environment, tag, digest, version } = request;
  const who = await whoIs(context);
  const release = { environment, tag, digest, version };
  await context.announce(environment, { kind: "failed", ...release, who, reason, back });
}

/**
 * Once, however often it is said: another run may have been faster.
 * @returns the name of the outcome's tag; nothing where it could not be recorded yet.
 */
export async function recordOutcome(
  { ledger, books }: Context,
  { request, approvedBy, update }: Deployment,
  result: LedgerOutcome["result"],
  details: Pick<NewOutcome, "former" | "left" | "reason" | "returningTo" | "layout" | "details">,
): Promise<string | undefined> {
  const { environment, commit, tag, digest, version, plan, parts, id, hotfix } = request;
  if (result !== "failed") {
    const [last] = await ledger.outcomes(environment).catch(() => []);
    if (last?.request === id && last.result === result) return last.ref;
  }
  return books.record({
    ...{ environment, result, tag, digest, version, commit, ...details },
    ...{ request: id, plan, parts, hotfix, approvedBy, update },
  });
}
