import { mkdir, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import type { Ledger, LedgerOutcome, NewOutcome } from "../ledger/ledger";
import { readStackFile, writeAtomically } from "../ledger/stack-file";
import { parseJson } from "../release/json";
import { parseParts } from "../release/plan";
import type { Context, Report } from "./context";

/** An outcome that came about, and that the ledger does not have yet. */
interface Unrecorded {
  readonly outcome: NewOutcome;
  /** When it came about, in ISO 8601. */
  readonly at: string;
}

/** How long the ledger may take to record an outcome, in milliseconds. */
const PATIENCE = 20_000;
const ENDING = ".unrecorded";

/**
 * The records of a deployment: the ledger, Slack and a command's own files. A failure of theirs never
 * stops a way back. An outcome that cannot be recorded is kept beside git's own files until a later
 * command records it; all else that fails is noted.
 */
export class Bookkeeping {
  /** By environment, the oldest first; also those that could not be kept on disk. */
  private readonly unrecorded = new Map<string, Unrecorded[]>();
  private readonly unkept = new Set<string>();

  constructor(
    private readonly ledger: Ledger,
    private readonly notes: string[],
    private readonly now: () => Date,
  ) {}

  /** Does something that no release depends on; where it fails, that is noted. */
  async attempt<T>(what: string, action: () => Promise<T>): Promise<T | undefined> {
    try {
      return await action();
    } catch (error) {
      this.notes.push(`${what}: ${messageOf(error)}`);
      return undefined;
    }
  }

  /**
   * Records how a deployment ended, or keeps it for a later command.
   * @returns the name of the outcome's tag; nothing where it could not be recorded.
   */
  async record(outcome: NewOutcome): Promise<string | undefined> {
    const at = this.now();
    // A former outcome that is kept comes first: outcomes are in the order they were made.
    if (this.of(outcome.environment).length === 0) {
      const ref = await this.tryToRecord(outcome, at).catch(() => undefined);
      if (ref !== undefined) return ref;
    }
    const kept = [...this.of(outcome.environment), { outcome, at: at.toISOString() }];
    await this.keep(outcome.environment, kept);
    return undefined;
  }

  /** The outcomes of an environment that the ledger does not have yet, the newest first. */
  async outcomes(environment: string): Promise<LedgerOutcome[]> {
    await this.read();
    return this.of(environment).map(asOutcome).reverse();
  }

  /**
   * Records what could not be recorded before, by this command or a former one.
   * @param only of this environment; of all unless given
   * @returns why it still cannot be, or nothing.
   */
  async catchUp(only?: string): Promise<string | undefined> {
    await this.read();
    for (const [environment, all] of this.unrecorded) {
      if (only !== undefined && environment !== only) continue;
      for (let [first, ...others] = all; first !== undefined; [first, ...others] = others) {
        const { outcome, at } = first;
        try {
          if (!(await this.has(first))) await this.tryToRecord(outcome, new Date(at));
        } catch (error) {
          const why = reasonOf(error);
          return `${environment}: how ${outcome.tag} ended (${outcome.result}) cannot be recorded: ${why}`;
        }
        await this.keep(environment, others);
      }
    }
    return undefined;
  }

  /** Whether a later command will find all that is not recorded of an environment. */
  isKept(environment: string): boolean {
    return !this.unkept.has(environment);
  }

  private of(environment: string): readonly Unrecorded[] {
    return this.unrecorded.get(environment) ?? [];
  }

  private async tryToRecord(outcome: NewOutcome, at: Date): Promise<string> {
    const late = `git has not ended within ${PATIENCE / 1000} s`;
    return within(PATIENCE, late, this.ledger.record(outcome, at));
  }

  /** Whether an outcome was recorded after all, by a command that was killed before it could tell. */
  private async has({ outcome, at }: Unrecorded): Promise<boolean> {
    const { environment, result, tag, digest, request } = outcome;
    const recorded = await this.ledger.outcomes(environment);
    return recorded.some(
      (one) =>
        one.at >= new Date(at) &&
        one.result === result &&
        one.tag === tag &&
        one.digest === digest &&
        one.request === request,
    );
  }

  /** Reads what former commands have kept. */
  private async read(): Promise<void> {
    const names = await this.folder()
      .then(async (folder) => readdir(folder))
      .catch(() => []);
    for (const name of names.filter((one) => one.endsWith(ENDING))) {
      const environment = name.slice(0, -ENDING.length);
      if (this.unrecorded.has(environment)) continue;
      const path = join(await this.folder(), name);
      const kept = parseJson(await readStackFile(path).catch(() => ""));
      if (Array.isArray(kept)) this.unrecorded.set(environment, kept as Unrecorded[]);
    }
  }

  private async keep(environment: string, kept: Unrecorded[]): Promise<void> {
    const had = this.of(environment).length > 0;
    if (kept.length === 0) this.unrecorded.delete(environment);
    else this.unrecorded.set(environment, kept);
    this.unkept.delete(environment);
    if (kept.length === 0 && !had) return;
    try {
      const path = join(await this.folder(), `${environment}${ENDING}`);
      if (kept.length === 0) {
        await rm(path, { force: true });
        return;
      }
      await mkdir(join(path, ".."), { recursive: true });
      await writeAtomically(path, JSON.stringify(kept));
    } catch (error) {
      this.unkept.add(environment);
      this.notes.push(`${environment}: a file of this checkout: ${messageOf(error)}`);
    }
  }

  private async folder(): Promise<string> {
    return this.ledger.privateFolder();
  }
}

/**
 * The result of an action that has to end in time. An action that is late goes on by itself.
 * @param late the message of the error for a late action
 */
export async function within<T>(
  milliseconds: number,
  late: string,
  action: Promise<T>,
): Promise<T> {
  const stop = new AbortController();
  const limit = setTimeout(milliseconds, undefined, { signal: stop.signal }).then(() => {
    throw new Error(late);
  });
  limit.catch(() => undefined);
  try {
    return await Promise.race([action, limit]);
  } finally {
    stop.abort();
  }
}

/**
 * Ends a command that may change a stack: once Pulumi has touched anything, an error is a failure
 * and no refusal.
 */
export async function endAsTouched(
  context: Context,
  environment: string,
  action: () => Promise<Report>,
): Promise<Report> {
  const { pulumi, print } = context;
  try {
    const report = await action();
    const isUntrue = report.outcome === "refused" && pulumi.hasTouched;
    return isUntrue ? { ...report, outcome: "failed" } : report;
  } catch (error) {
    if (!pulumi.hasTouched) throw error;
    const problem = messageOf(error);
    print(`${problem}\n${environment}: Pulumi had begun by then. Settle that, and run this again.`);
    return { outcome: "failed", environment, problems: problem.split("\n") };
  }
}

/**
 * Ends a command whose deployment has come to its end: tries once more to record what could not be
 * recorded. A deployment that the ledger does not have has not ended as it was asked for.
 */
export async function endRecorded(
  { books, print }: Context,
  environment: string,
  report: Report,
): Promise<Report> {
  const unrecorded = await books.catchUp(environment);
  if (unrecorded === undefined) return report;
  const later = books.isKept(environment)
    ? "Settle that; the next command records it"
    : "Settle that, and run the same command again, which records it";
  print(`${unrecorded}. ${later}.`);
  const outcome = report.outcome === "done" ? "failed" : report.outcome;
  return { ...report, outcome, unrecorded };
}

/** In place of an outcome's name. */
export const UNRECORDED = "not recorded yet";

/** Who deploys; a person who cannot be told from others stops no way back. */
export async function whoIs({ ledger }: Context): Promise<string> {
  return ledger.person().catch(() => "somebody");
}

function asOutcome({ outcome, at }: Unrecorded): LedgerOutcome {
  return {
    ref: UNRECORDED,
    at: new Date(at),
    taggedAt: new Date(at),
    who: "",
    request: undefined,
    plan: undefined,
    parts: parseParts(""),
    approvedBy: [],
    hotfix: false,
    left: undefined,
    returningTo: undefined,
    reason: undefined,
    update: undefined,
    layout: undefined,
    details: undefined,
    ...outcome,
  };
}

/** The message of an error without its advice and its full stop, for the middle of a sentence. */
export function reasonOf(error: unknown): string {
  return messageOf(error).replace(/(\. Settle it, and run the same command again)?\.$/, "");
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
