import type { LedgerOutcome } from "../ledger/ledger";
import type { Target } from "../release/way-back";
import type { StackOutputs, Update } from "./pulumi";

/**
 * What runs in an environment by its ledger, and the outcome that says so.
 * @param outcomes of the environment, the newest first
 */
export function runsBy(
  outcomes: readonly LedgerOutcome[],
): { readonly target: Target | undefined; readonly outcome: LedgerOutcome } | undefined {
  const outcome = outcomes.find(({ result }) => result !== "failed");
  if (outcome === undefined) return undefined;
  const { tag, digest, version, former } = outcome;
  const target = outcome.result === "went-back" ? former : { tag, digest, version };
  return { target, outcome };
}

/** What the ledger does not know of an environment's last update. */
export type News =
  /** It has not ended. */
  | "running"
  | "succeeded"
  /** After something had been changed. */
  | "failed";

/**
 * Whether somebody else than the tool has run `pulumi up` last, and how that ended. The tool records
 * its own runs, and one that was refused has changed nothing.
 * @param outcomes of the environment, the newest first
 */
export function newsOf(
  update: Update | undefined,
  { release }: StackOutputs,
  outcomes: readonly LedgerOutcome[],
): News | undefined {
  if (update === undefined || update.byTool) return undefined;
  if (outcomes.some((outcome) => outcome.update === update.id)) return undefined;
  switch (update.result) {
    case "in-progress":
      return "running";
    case "failed":
      return update.touched ? "failed" : undefined;
    case "succeeded": {
      const [last] = outcomes;
      const target = runsBy(outcomes)?.target;
      const isKnown = target?.tag === release?.imageTag && target?.digest === release?.digest;
      return release === undefined || (isKnown && last?.result !== "failed")
        ? undefined
        : "succeeded";
    }
  }
}
