import { lastDeployed, type LastDeployed } from "../ledger/gate";
import type { LedgerOutcome } from "../ledger/ledger";
import { holdsOf, type Holds } from "../release/holds";
import type { Context } from "./context";

/** What the ledger says, read once for all that is asked of it. */
export class Facts {
  private readonly byEnvironment = new Map<string, LedgerOutcome[]>();
  private readonly deployed = new Map<string, Promise<LastDeployed | undefined>>();

  /** @param outcomes of all environments, the newest first */
  constructor(
    private readonly context: Pick<Context, "project" | "ledger">,
    outcomes: readonly LedgerOutcome[],
    readonly holds: Holds,
  ) {
    for (const outcome of outcomes) {
      const known = this.byEnvironment.get(outcome.environment);
      if (known === undefined) this.byEnvironment.set(outcome.environment, [outcome]);
      else known.push(outcome);
    }
  }

  /** Of an environment, the newest first. */
  outcomesOf(environment: string): readonly LedgerOutcome[] {
    return this.byEnvironment.get(environment) ?? [];
  }

  /** @throws Refusal where its policy cannot be read. */
  async lastDeployed(environment: string): Promise<LastDeployed | undefined> {
    const { project, ledger } = this.context;
    const found =
      this.deployed.get(environment) ??
      lastDeployed(project, ledger, environment, this.outcomesOf(environment));
    this.deployed.set(environment, found);
    return found;
  }
}

export async function readFacts(context: Context): Promise<Facts> {
  const { ledger } = context;
  const [outcomes, entries] = await Promise.all([ledger.outcomes(), ledger.holds()]);
  const left = outcomes.flatMap((outcome) => {
    const { result } = outcome;
    if (result !== "went-back" && result !== "rolled-back") return [];
    const { environment, left: gone, digest, former, who, at } = outcome;
    if (gone === undefined) return [];
    // An outcome that went back names what failed; what runs is what had run before.
    const runs = result === "went-back" ? (former?.digest ?? "") : digest;
    const names = { leftTag: gone.tag, leftDigest: gone.digest };
    return [{ result, environment, ...names, digest: runs, who, at }];
  });
  return new Facts(context, outcomes, holdsOf(entries, left));
}
