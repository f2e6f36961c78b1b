import type { LedgerOutcome } from "../ledger/ledger";
import { readHolds } from "../ledger/outcomes";
import { shortHash } from "../release/plan";
import { checkName, fetchOrNote, type Context, type Report } from "./context";
import { readFacts, type Facts } from "./facts";
import { wrap } from "./text";

export interface HistoryOptions {
  readonly environment?: string;
  /** How many of the newest. */
  readonly limit?: number;
}

const LIMIT = 20;

/** `baton history [ENV]`: what happened, the newest first. */
export async function history(
  context: Context,
  { environment, limit = LIMIT }: HistoryOptions = {},
): Promise<Report> {
  if (environment !== undefined) checkName(environment);
  const { ledger, project, now, print } = context;
  await fetchOrNote(context);
  const [facts, outcomes, holds] = await Promise.all([
    readFacts(context),
    ledger.outcomes(environment),
    readHolds(project, ledger, now()),
  ]);
  const shown = outcomes.slice(0, limit);
  const doubts = await doubtsOf(facts, shown);
  const width = Math.max(0, ...shown.map((outcome) => outcome.environment.length));
  for (const outcome of shown) {
    const time = outcome.at.toISOString().slice(0, 16).replace("T", " ");
    const doubt = doubts.get(outcome.ref);
    const said = sentence(outcome) + (doubt === undefined ? "" : `; does not count: ${doubt}`);
    print(wrap(`${time}  ${outcome.environment.padEnd(width)}  `, said));
  }
  const left = outcomes.length - shown.length;
  if (outcomes.length === 0) print("Nothing has been deployed with the tool yet.");
  if (left > 0) {
    const are = left === 1 ? "one is" : "ones are";
    print(wrap("", `${left} older ${are} not shown; --limit NUMBER shows more.`));
  }
  for (const { entry, doubt } of holds.doubted) {
    print(wrap("", `${entry.ref}: ${entry.kind} by ${entry.who} does not count: ${doubt}`));
  }
  const entries = shown.map((outcome) => ({
    ...outcome,
    at: outcome.at.toISOString(),
    doubt: doubts.get(outcome.ref),
  }));
  const doubtedHolds = holds.doubted.map(({ entry, doubt }) => ({
    ...{ ref: entry.ref, kind: entry.kind, who: entry.who, at: entry.at.toISOString(), doubt },
  }));
  return { outcome: "done", entries, total: outcomes.length, doubtedHolds };
}

/** Why outcomes do not count, by their refs. */
async function doubtsOf(
  facts: Facts,
  shown: readonly LedgerOutcome[],
): Promise<ReadonlyMap<string, string>> {
  const names = [...new Set(shown.map(({ environment }) => environment))];
  const read = names.map(async (name) => (await facts.of(name)).doubted);
  const doubted = (await Promise.all(read)).flat();
  return new Map(doubted.map(({ outcome, doubt }) => [outcome.ref, doubt]));
}

function sentence(outcome: LedgerOutcome): string {
  const { who, approvedBy, plan, reason, hotfix } = outcome;
  return [
    `${what(outcome)}${hotfix ? ", a hotfix," : ""} by ${who}`,
    ...(approvedBy.length === 0 ? [] : [`approved by ${approvedBy.join(", ")}`]),
    ...(plan === undefined ? [] : [`plan ${shortHash(plan)}`]),
    ...(reason === undefined ? [] : [`reason: ${reason}`]),
  ].join("; ");
}

function what({ result, tag, version, former, left, returningTo }: LedgerOutcome): string {
  const name = version === undefined ? tag : `${tag} as ${version}`;
  switch (result) {
    case "deployed":
      return former === undefined ? `deployed ${name}` : `deployed ${former.tag} → ${name}`;
    case "unapproved":
      return `deployed ${name} without its approvals`;
    case "went-back":
      return `${name} failed, went back to ${former?.tag ?? "nothing"}`;
    case "failed":
      return returningTo === undefined
        ? `${name} failed`
        : `${name} failed, began to go back to ${returningTo}`;
    case "rolled-back":
      return left === undefined
        ? `rolled back to ${name}`
        : `rolled back from ${left.tag} to ${name}`;
  }
}
