import { join } from "node:path";
import { writeAtomically } from "../ledger/stack-file";
import { Refusal } from "../ledger/refusal";
import type { NewOutcome } from "../ledger/ledger";
import { refusalIn } from "../release/schema";
import { wayBack } from "../release/way-back";
import { Locked } from "./alone";
import { end, onceBegun, type BegunWayBack } from "./begun";
import { endAsTouched, endRecorded, UNRECORDED, whoIs } from "./bookkeeping";
import { checkName, fetchOrNote, publish, type Context, type Report } from "./context";
import { readFacts } from "./facts";
import { withFollowers } from "./followers";
import { goBack, heldEverywhere, stackFileOf } from "./go-back";
import { recordUnapproved } from "./unapproved";

export interface RollbackOptions {
  /** The tag of a release that was deployed here before. */
  readonly to?: string;
}

/**
 * `baton rollback ENV`: the former release, at once and without anybody's approval; also in the
 * environments that follow.
 */
export async function rollback(
  context: Context,
  environment: string,
  options: RollbackOptions,
): Promise<Report> {
  checkName(environment);
  return endAsTouched(context, environment, async () => {
    await fetchOrNote(context);
    return onceBegun(context, environment, "rollback", (begun, beginNow) => {
      const same = begun?.to === options.to ? begun : undefined;
      return attempt(context, environment, options, same, beginNow);
    });
  });
}

async function attempt(
  context: Context,
  environment: string,
  { to }: RollbackOptions,
  begun: BegunWayBack | undefined,
  beginNow: (begun: BegunWayBack) => Promise<void>,
): Promise<Report | Locked> {
  const { project, pulumi, ledger, books, print } = context;
  const stackFile = await project.read(environment);
  const asked = project.parse(environment, stackFile);
  const outputs = await pulumi.outputs(environment);
  await books.attempt(`${environment}: what was deployed without approvals`, () =>
    recordUnapproved(context, environment, outputs),
  );
  const proven = await (await readFacts(context)).outcomesOf(environment);
  const outcomes = [...(await books.outcomes(environment)), ...proven];
  const [last, before] = outcomes;
  if (begun !== undefined && last?.result === "rolled-back" && before?.ref === begun.after) {
    const { target, left } = begun;
    const text = await stackFileOf(context, environment, stackFile, target, left.tag);
    const isKept = await keepStackFile(context, environment, stackFile, text, begun);
    print(`${environment}: ${target.tag} runs again; ${left.tag} was left (${last.ref}).`);
    return finish(context, environment, { ...target, left, ref: last.ref }, isKept);
  }
  const { release: running } = outputs;
  const same = last?.ref === begun?.after ? begun : undefined;
  const target = running && (same?.target ?? wayBack(outcomes, running, asked, to));
  if (running === undefined || target === undefined) {
    const known = outcomes.filter(({ result }) => result === "deployed").map(({ tag }) => tag);
    throw new Refusal({
      where: environment,
      property: to === undefined ? "the former release" : "--to",
      value: to ?? "missing",
      expected: `a release that \`baton deploy\` has deployed here: ${[...new Set(known)].join(", ") || "none yet"}`,
      fix: "Without one, set baton:imageTag and baton:rollbackOf by hand and run `pulumi up`",
    });
  }

  // What is being left: what runs, or where that is the target already, what did not get to run.
  const left =
    same?.left ??
    (running.imageTag === target.tag
      ? { tag: asked.imageTag ?? target.tag, digest: asked.imageDigest ?? target.digest }
      : { tag: running.imageTag, digest: running.digest });
  // What was only asked for has done no harm yet.
  const ran =
    same?.ran ??
    (running.imageTag !== target.tag || (last?.result === "failed" && last.digest === left.digest));
  const head = same?.head ?? (await ledger.head().catch(() => "HEAD"));
  const now = { command: "rollback", to, target, left, ran, head, after: last?.ref } as const;
  await books.attempt(`${environment}: a file of this checkout`, () => beginNow(now));
  const { text, up } = await goBack(context, environment, stackFile, target, left.tag);
  if (up.lockedBy.length > 0) return new Locked(stackFile, up.lockedBy);
  const summary = { environment, ...target, left };
  const refusal = up.succeeded ? undefined : refusalIn(up.reason);
  if (refusal !== undefined) {
    // Asked before anything else: what runs is as it was.
    print(`${environment}: there is no way back to ${target.tag}: ${refusal}`);
    await end(context, environment);
    return { outcome: "refused", ...summary, reason: refusal, log: up.log };
  }
  if (!up.succeeded) {
    print(up.reason);
    print(
      `${environment}: the way back to ${target.tag} failed; the log is ${up.log}. ` +
        "Settle it, and run this again.",
    );
    if (!up.killed) await end(context, environment);
    return { outcome: "failed", ...summary, reason: up.reason, log: up.log };
  }
  const isKept = await keepStackFile(context, environment, stackFile, text, now);
  const ref = await recordOnce(context, last?.ref, {
    environment,
    result: "rolled-back",
    ...target,
    commit: await ledger.head().catch(() => head),
    left: ran ? left : undefined,
  });
  print(`${environment}: ${target.tag} runs again; ${left.tag} was left (${ref ?? UNRECORDED}).`);
  if (ran && left.digest !== target.digest) print(heldEverywhere(left.tag));
  await context.announce(environment, {
    kind: "rolled-back",
    environment,
    tag: target.tag,
    version: target.version,
    digest: left.digest,
    left: left.tag,
    who: await whoIs(context),
  });
  return finish(context, environment, { ...target, left, ref }, isKept);
}

/**
 * Makes the stack file say what runs again, and commits that.
 * @returns whether it could; otherwise the same command does it later.
 */
async function keepStackFile(
  context: Context,
  environment: string,
  stackFile: string,
  text: string,
  { left, target, head }: BegunWayBack,
): Promise<boolean> {
  const { project, ledger, books, print } = context;
  const file = project.stackFile(environment);
  const path = join(project.folder, file);
  const kept = await books.attempt(`${environment}: ${file} is not committed`, async () => {
    if (stackFile !== text && stackFile !== (await ledger.show("HEAD", file))) {
      await writeAtomically(`${path}.orig`, stackFile);
      print(`${environment}: what was not committed of ${file} is in ${file}.orig.`);
    }
    await writeAtomically(path, text);
    await ledger.commitWayBack(environment, file, left.tag, target, head);
    return true;
  });
  return kept === true;
}

/** Records a way back, unless another run has done the same since an outcome, and has said so. */
async function recordOnce(
  { ledger, books }: Context,
  since: string | undefined,
  outcome: NewOutcome,
): Promise<string | undefined> {
  const { environment, result, tag, digest } = outcome;
  const [newest] = await ledger.outcomes(environment).catch(() => []);
  const isRecorded =
    newest?.ref !== since &&
    newest?.result === result &&
    newest.tag === tag &&
    newest.digest === digest;
  return isRecorded ? newest.ref : books.record(outcome);
}

/** Tells others, and takes back what follows, before the way back is over. */
async function finish(
  context: Context,
  environment: string,
  summary: Readonly<Record<string, unknown>>,
  isKept: boolean,
): Promise<Report> {
  const report = { outcome: "done", environment, ...summary } as const;
  const ended = await endRecorded(context, environment, report);
  await publish(context);
  const followed = await rollbackFollowers(context, environment, ended);
  if (isKept) {
    await end(context, environment);
    return followed;
  }
  context.print(`${environment}: run \`baton rollback ${environment}\` again for its stack file.`);
  return { ...followed, outcome: followed.outcome === "done" ? "failed" : followed.outcome };
}

/** Takes what follows an environment back to what runs there. */
export async function rollbackFollowers(
  context: Context,
  environment: string,
  report: Report,
): Promise<Report> {
  const outputs = await context.books.attempt(`${environment}: what it has earned`, () =>
    context.pulumi.outputs(environment),
  );
  const to = outputs?.earnedTag;
  return withFollowers(context, environment, report, async (follower) => {
    const { release } = await context.pulumi.outputs(follower);
    if (release === undefined || to === undefined || release.imageTag === to) return undefined;
    return rollback(context, follower, { to });
  });
}
