import type { LastDeployed } from "../ledger/gate";
import type { LedgerOutcome } from "../ledger/ledger";
import { readHolds, readOutcomes, type EnvironmentOutcomes } from "../ledger/outcomes";
import { holdsOf, type Holds } from "../release/holds";
import { targetOf, type Target } from "../release/way-back";
import type { Context } from "./context";

/** What the ledger says, read once for all that is asked of it. */
export class Facts {
  private readonly byEnvironment = new Map<string, Promise<EnvironmentOutcomes>>();

  constructor(
    private readonly context: Pick<Context, "project" | "ledger" | "pulumi" | "now">,
    readonly holds: Holds,
  ) {}

  /** The outcomes of an environment, and which of them count. */
  async of(environment: string): Promise<EnvironmentOutcomes> {
    const { project, ledger, now } = this.context;
    const found =
      this.byEnvironment.get(environment) ??
      readOutcomes(project, ledger, environment, now(), () => this.running(environment));
    this.byEnvironment.set(environment, found);
    return found;
  }

  /** The outcomes of an environment that count, the newest first. */
  async outcomesOf(environment: string): Promise<readonly LedgerOutcome[]> {
    return (await this.of(environment)).proven;
  }

  async lastDeployed(environment: string): Promise<LastDeployed | undefined> {
    return (await this.of(environment)).lastDeployed;
  }

  /** The release that the stack's own state names; none where the state cannot be read. */
  private async running(environment: string): Promise<Target | undefined> {
    const outputs = await this.context.pulumi.knownOutputs(environment).catch(() => undefined);
    return outputs?.release && targetOf(outputs.release);
  }
}

export async function readFacts(context: Context): Promise<Facts> {
  const { ledger, project, now } = context;
  const [outcomes, holds] = await Promise.all([
    ledger.outcomes(),
    readHolds(project, ledger, now()),
  ]);
  // A forged outcome may stop something, and lets nothing go on.
  const left = outcomes.flatMap((outcome) => {
    const { result } = outcome;
    if (result !== "went-back" && result !== "rolled-back") return [];
    const { environment, left: gone, digest, former, who, at } = outcome;
    if (gone === undefined) return [];
    // An outcome that went back names the release that failed; its former release runs.
    const runs = result === "went-back" ? (former?.digest ?? "") : digest;
    const names = { leftTag: gone.tag, leftDigest: gone.digest };
    return [{ result, environment, ...names, digest: runs, who, at }];
  });
  return new Facts(context, holdsOf(holds.counted, left));
}
