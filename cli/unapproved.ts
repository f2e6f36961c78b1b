import { oneLine } from "../ledger/ledger";
import { parseParts } from "../release/plan";
import type { Context } from "./context";
import type { StackOutputs } from "./pulumi";

/**
 * Records, once, that a stack runs what was deployed without the approvals it needs: by
 * `pulumi up` with BATON_BREAK_GLASS, which leaves no more than the reason in the stack's outputs.
 */
export async function recordUnapproved(
  context: Context,
  environment: string,
  { release, breakGlass: reason }: StackOutputs,
): Promise<void> {
  if (release === undefined || reason === undefined) return;
  const { ledger, print, now } = context;
  const { imageTag: tag, digest, version } = release;
  const known = (await ledger.outcomes(environment)).some(
    (outcome) =>
      outcome.result === "unapproved" &&
      outcome.digest === digest &&
      outcome.reason === oneLine(reason),
  );
  if (known) return;
  const ref = await ledger.record(
    {
      environment,
      result: "unapproved",
      tag,
      digest,
      version,
      commit: await ledger.head(),
      former: undefined,
      request: undefined,
      plan: undefined,
      parts: parseParts(""),
      hotfix: false,
      approvedBy: [],
      left: undefined,
      returningTo: undefined,
      reason,
    },
    now(),
  );
  print(
    `${environment}: ${tag} was deployed without approval, for the reason “${reason}” (${ref}).`,
  );
  // The outputs do not say who it was.
  const who = `somebody; found by ${await ledger.person()}`;
  await context.announce(environment, {
    kind: "break-glass",
    environment,
    tag,
    digest,
    version,
    who,
    reason,
  });
}
