import { oneLine } from "../ledger/entries";
import { targetOf } from "../release/way-back";
import type { Context } from "./context";
import type { StackOutputs } from "./pulumi";

/**
 * Records, once, that a stack runs what was deployed without the approvals it needs: by
 * `pulumi up` with BATON_BREAK_GLASS, which leaves no more than the reason in the stack's outputs.
 * @returns whether it was recorded now.
 */
export async function recordUnapproved(
  context: Context,
  environment: string,
  { release, breakGlass: reason }: StackOutputs,
): Promise<boolean> {
  if (release === undefined || reason === undefined) return false;
  const { ledger, print, now } = context;
  const { tag, digest, version } = targetOf(release);
  const known = (await ledger.outcomes(environment)).some(
    (outcome) =>
      outcome.result === "unapproved" &&
      outcome.digest === digest &&
      outcome.reason === oneLine(reason),
  );
  if (known) return false;
  const ref = await ledger.record(
    {
      environment,
      result: "unapproved",
      tag,
      digest,
      version,
      commit: await ledger.head(),
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
  return true;
}
