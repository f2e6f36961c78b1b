import { join } from "node:path";
import { writeAtomically } from "../ledger/stack-file";
import { Refusal } from "../ledger/refusal";
import { refusalIn } from "../release/schema";
import { wayBack } from "../release/way-back";
import { Locked } from "./alone";
import { end, onceBegun, type BegunWayBack } from "./begun";
import { checkName, fetchOrNote, publish, type Context, type Report } from "./context";
import { readFacts } from "./facts";
import { withFollowers } from "./followers";
import { goBack, heldEverywhere } from "./go-back";
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
  await fetchOrNote(context);
  return onceBegun(context, environment, "rollback", (begun, beginNow) =>
    attempt(context, environment, options, begun?.to === options.to ? begun : undefined, beginNow),
  );
}

async function attempt(
  context: Context,
  environment: string,
  { to }: RollbackOptions,
  begun: BegunWayBack | undefined,
  beginNow: (begun: BegunWayBack) => Promise<void>,
): Promise<Report | Locked> {
  const { project, pulumi, ledger, print } = context;
  const stackFile = await project.read(environment);
  await ledger.person();
  const asked = project.parse(environment, stackFile);
  const outputs = await pulumi.outputs(environment);
  await recordUnapproved(context, environment, outputs);
  const outcomes = await (await readFacts(context)).outcomesOf(environment);
  const [last, before] = outcomes;
  if (begun !== undefined && last?.result === "rolled-back" && before?.ref === begun.after) {
    const { target, left } = begun;
    print(`${environment}: ${target.tag} runs again; ${left.tag} was left (${last.ref}).`);
    return finish(context, environment, { ...target, left, ref: last.ref });
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
  const head = same?.head ?? (await ledger.head());
  await beginNow({ command: "rollback", to, target, left, ran, head, after: last?.ref });
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
  const file = project.stackFile(environment);
  const path = join(project.folder, file);
  if (stackFile !== text && stackFile !== (await ledger.show("HEAD", file))) {
    await writeAtomically(`${path}.orig`, stackFile);
    print(`${environment}: what was not committed of ${file} is in ${file}.orig.`);
  }
  await writeAtomically(path, text);
  await ledger.commitWayBack(environment, file, left.tag, target, head);
  // Another run may have done the same, and have said so by now.
  const [newest] = await ledger.outcomes(environment);
  const isRecorded =
    newest?.ref !== last?.ref &&
    newest?.result === "rolled-back" &&
    newest.tag === target.tag &&
    newest.digest === target.digest;
  const ref = isRecorded
    ? newest.ref
    : await ledger.record(
        {
          environment,
          result: "rolled-back",
          ...target,
          commit: await ledger.head(),
          left: ran ? left : undefined,
        },
        context.now(),
      );
  print(`${environment}: ${target.tag} runs again; ${left.tag} was left (${ref}).`);
  if (ran && left.digest !== target.digest) print(heldEverywhere(left.tag));
  await context.announce(environment, {
    kind: "rolled-back",
    environment,
    tag: target.tag,
    version: target.version,
    digest: left.digest,
    left: left.tag,
    who: await ledger.person(),
  });
  return finish(context, environment, { ...target, left, ref });
}

/** Tells others, and takes back what follows, before the way back is over. */
async function finish(
  context: Context,
  environment: string,
  summary: Readonly<Record<string, unknown>>,
): Promise<Report> {
  await publish(context);
  const report = { outcome: "done", environment, ...summary } as const;
  const followed = await rollbackFollowers(context, environment, report);
  await end(context, environment);
  return followed;
}

/** Takes what follows an environment back to what runs there. */
export async function rollbackFollowers(
  context: Context,
  environment: string,
  report: Report,
): Promise<Report> {
  const { earnedTag: to } = await context.pulumi.outputs(environment);
  return withFollowers(context, environment, report, async (follower) => {
    const { release } = await context.pulumi.outputs(follower);
    if (release === undefined || to === undefined || release.imageTag === to) return undefined;
    return rollback(context, follower, { to });
  });
}
