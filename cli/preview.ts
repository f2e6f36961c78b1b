import { committed } from "../ledger/gate";
import { Refusal } from "../ledger/refusal";
import type { ChangeCard } from "../release/change-card";
import { formatCard, NOT_KNOWN } from "../release/change-card";
import { groupOperations, notRoutine } from "../release/operations";
import { shortHash } from "../release/plan";
import { targetOf } from "../release/way-back";
import type { Context, Report } from "./context";
import { commitsOf, settingsOf } from "./request";

/** What one environment's files would change. */
export interface Previewed {
  readonly environment: string;
  readonly card?: ChangeCard;
  /** Why there is no card. */
  readonly problem?: string;
}

/**
 * `baton preview --base COMMIT`: what the stack files would change that differ from a commit's, as
 * one card each. Nothing is asked for, written or recorded.
 */
export async function preview(context: Context, { base }: { base: string }): Promise<Report> {
  const { ledger, project, print } = context;
  await ledger.check();
  const since = await mergeBase(context, base);
  const changed = (
    await ledger.git.run(["diff", "--name-only", "--relative", since, "HEAD", "--", "."])
  ).split("\n");
  const path = await project.path();
  const touched = changed.includes("Pulumi.yaml")
    ? path
    : path.filter((environment) => changed.includes(project.stackFile(environment)));
  if (touched.length === 0) print(`No environment's file differs from ${base}.`);
  const environments: Previewed[] = [];
  for (const environment of touched) {
    try {
      const card = await cardOf(context, environment, since);
      print(formatCard(card, process.stdout.columns));
      environments.push({ environment, card });
    } catch (error) {
      // The others are previewed all the same.
      const problem = error instanceof Error ? error.message : String(error);
      print(problem);
      environments.push({ environment, problem });
    }
  }
  const failed = environments.some(({ problem }) => problem !== undefined);
  return { outcome: failed ? "refused" : "done", environments };
}

async function mergeBase({ ledger }: Context, base: string): Promise<string> {
  const commit = await ledger.git.try(
    "rev-parse",
    "--verify",
    "--quiet",
    "--end-of-options",
    `${base}^{commit}`,
  );
  const found = commit && (await ledger.git.try("merge-base", "HEAD", commit.trim()));
  if (found) return found.trim();
  throw new Refusal({
    where: "baton",
    property: "--base",
    value: base,
    expected: "a commit that this one has a history with",
    fix: "Fetch it with its history, or correct the name",
  });
}

async function cardOf(
  { project, pulumi, ledger, showProgress }: Context,
  environment: string,
  since: string,
): Promise<ChangeCard> {
  const text = await project.read(environment);
  const config = project.parse(environment, text);
  const former = await committed(project, ledger, environment, since);
  const [plan, { release }, previewed, settings] = await Promise.all([
    project.plan(environment, text),
    pulumi.outputs(environment),
    showProgress(`${environment}: preview`, () => pulumi.preview(environment, text)),
    settingsOf(project, config, former),
  ]);
  const { imageTag: tag, imageDigest: digest, version } = config;
  const { required, notOwnRequest } = config.approval;
  const people = `${required} ${required === 1 ? "person" : "people"}`;
  const others = notOwnRequest ? " other than who asks" : "";
  return {
    environment,
    from: release === undefined ? {} : targetOf(release),
    to: { tag, digest, version },
    plan: shortHash(plan.hash),
    requester: "nobody yet",
    commits:
      digest === undefined || digest === release?.digest
        ? undefined
        : await commitsOf(project.folder, config, release?.digest, digest),
    settings,
    operations: groupOperations(previewed.operations),
    scan: NOT_KNOWN,
    routine: notRoutine(previewed.operations).length === 0,
    notes: required === 0 ? "" : `A request needs the word of ${people}${others}.`,
    missing: [],
  };
}
