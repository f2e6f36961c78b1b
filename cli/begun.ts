import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { readStackFile, writeAtomically } from "../ledger/stack-file";
import type { Target } from "../release/way-back";
import { parseJson } from "../release/json";
import { alone, type Locked } from "./alone";
import type { Context } from "./context";

/**
 * What a command is about to do to an environment. It is kept beside git's own files from before
 * anything is changed until all is recorded and told, so that the same command finishes what a
 * killed one has begun, instead of doing the next thing.
 */
export type Begun = BegunDeployment | BegunWayBack;

interface Beginning {
  /** The environment's newest outcome at that time. */
  readonly after: string | undefined;
}

export interface BegunDeployment extends Beginning {
  readonly command: "deploy";
  /** The request's id. */
  readonly request: string;
  /** What ran before. */
  readonly former: Target | undefined;
}

export interface BegunWayBack extends Beginning {
  readonly command: "rollback";
  /** As it was told. */
  readonly to: string | undefined;
  readonly target: Target;
  readonly left: { readonly tag: string; readonly digest: string };
  /** Whether what is left has run. */
  readonly ran: boolean;
  /** What was checked out. */
  readonly head: string;
}

type BegunBy<C extends Begun["command"]> = Extract<Begun, { command: C }>;

/**
 * Does alone what a command does to an environment. Each attempt is told what the command has begun
 * here and not ended, also in an attempt before that found somebody else at work: two that run at
 * once do not take one for the other's.
 */
export async function onceBegun<C extends Begun["command"], T>(
  context: Context,
  environment: string,
  command: C,
  attempt: (
    begun: BegunBy<C> | undefined,
    beginNow: (begun: BegunBy<C>) => Promise<void>,
  ) => Promise<T | Locked>,
): Promise<T> {
  let begun = await begunBy(context, environment, command);
  return alone(context, environment, () =>
    attempt(begun, async (now) => {
      begun = now;
      await begin(context, environment, now);
    }),
  );
}

async function begunBy<C extends Begun["command"]>(
  context: Context,
  environment: string,
  command: C,
): Promise<BegunBy<C> | undefined> {
  // A file that cannot be read must not stand in the way of a way back.
  const text = await pathOf(context, environment)
    .then(readStackFile)
    .catch(() => "");
  const begun = parseJson(text) as Begun | undefined;
  return begun?.command === command ? (begun as BegunBy<C>) : undefined;
}

async function begin(context: Context, environment: string, begun: Begun): Promise<void> {
  const path = await pathOf(context, environment);
  await mkdir(join(path, ".."), { recursive: true });
  await writeAtomically(path, JSON.stringify(begun));
}

/** Unless the same command is what has to record what it did. */
export async function end(context: Context, environment: string): Promise<void> {
  if (!context.books.isKept(environment)) return;
  await context.books.attempt(`${environment}: a file of this checkout`, async () =>
    rm(await pathOf(context, environment), { force: true }),
  );
}

/** Beside the environment's runs; no environment's name has a dot. */
async function pathOf({ ledger }: Context, environment: string): Promise<string> {
  return join(await ledger.privateFolder(), `${environment}.begun`);
}
