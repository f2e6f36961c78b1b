import type { Announcement } from "../release/announcement";
import { formatTime } from "../release/time";
import { isEnvironmentName } from "../release/tags";
import { Ledger, type Request } from "../ledger/ledger";
import { Project } from "../ledger/project";
import { Refusal } from "../ledger/refusal";
import { Bookkeeping, messageOf } from "./bookkeeping";
import { showProgress } from "./progress";
import { Pulumi } from "./pulumi";
import { Runs } from "./run";
import type { Slack } from "./slack";
import { printable } from "./text";

/** How a command ended, and its exit code. */
export const EXIT_CODES = {
  /** What was asked for is so. */
  done: 0,
  /** A gate, the input, or something that could not be reached stood in the way. */
  refused: 1,
  /** The command line could not be understood. */
  usage: 2,
  /** People's words, or time, are missing. */
  waiting: 3,
  /** The deployment failed, and the former release runs. */
  "went-back": 4,
  /** The deployment failed, or was stopped, and the environment is left as it is. */
  failed: 5,
} as const;
export type Ending = keyof typeof EXIT_CODES;

/** What a command says to the next program. */
export interface Report {
  readonly outcome: Ending;
  readonly [key: string]: unknown;
}

/** What every command works on. */
export interface Context {
  readonly project: Project;
  readonly pulumi: Pulumi;
  readonly ledger: Ledger;
  /** All of the ledger, and besides, that a way back must not wait for. */
  readonly books: Bookkeeping;
  /** Prints for people, as `printable` leaves it; never fails. */
  readonly print: (text: string) => void;
  /** Whether nothing is printed for people. */
  readonly isQuiet: boolean;
  /** What people should know once the command has ended. */
  readonly notes: string[];
  readonly now: () => Date;
  /** Shows how far something is that takes its time. */
  readonly showProgress: typeof showProgress;
  /** Tells the channels of an environment; never waits, never fails. */
  readonly announce: (environment: string, announcement: Announcement) => Promise<void>;
  /** Tells every channel that hears of any environment's outcomes. */
  readonly announceToAll: (said: Omit<LineAnnouncement, "environment">) => Promise<void>;
  /** Waits for what is being told, for some seconds at most; notes what could not be. */
  readonly settle: () => Promise<void>;
}

type LineAnnouncement = Extract<Announcement, { kind: "stopped" | "resumed" }>;

export interface Surroundings {
  readonly print: Context["print"];
  readonly isQuiet?: Context["isQuiet"];
  readonly showProgress?: Context["showProgress"];
  readonly now?: Context["now"];
}

export async function openContext(
  folder: string,
  {
    print,
    isQuiet = false,
    showProgress: show = showProgress,
    now = () => new Date(),
  }: Surroundings,
): Promise<Context> {
  const project = await Project.open(folder);
  const ledger = new Ledger(project);
  const notes: string[] = [];
  const runs = new Runs(() => ledger.privateFolder());
  const pulumi = new Pulumi(folder, runs, project.name, (text) => notes.push(text));
  const slacks = new Map<string, Slack>();
  const books = new Bookkeeping(ledger, notes, now);
  return {
    project,
    pulumi,
    ledger,
    books,
    print(text) {
      try {
        print(printable(text));
      } catch {
        // People may have closed what they read it in: a way back goes on.
      }
    },
    isQuiet,
    notes,
    now,
    showProgress: show,
    async announce(environment, announcement) {
      await books.attempt(`${environment}: Slack was not told`, async () => {
        const { Slack } = await import("./slack");
        const slack = slacks.get(environment) ?? new Slack(await project.config(environment));
        slacks.set(environment, slack);
        slack.announce(announcement);
      });
    },
    async announceToAll(said) {
      const { Slack } = await import("./slack");
      const path = await project.path();
      const configs = await Promise.all(path.map(async (name) => project.config(name)));
      const outcomes = [...new Set(configs.flatMap(({ announce }) => announce.outcomes))];
      const [first] = configs;
      if (first === undefined) return;
      const slack = new Slack({ slack: first.slack, announce: { ...first.announce, outcomes } });
      slacks.set("", slack);
      slack.announce({ ...said, environment: path.join(" → ") });
    },
    async settle() {
      for (const slack of slacks.values()) {
        const unsent = await books.attempt("Slack", async () => slack.settle());
        notes.push(...(unsent ?? []));
      }
    },
  };
}

/** @throws Refusal for what cannot be an environment's name, or part of a ref. */
export function checkName(environment: string): void {
  if (isEnvironmentName(environment)) return;
  throw new Refusal({
    where: "baton",
    property: "ENV",
    value: environment,
    expected: "an environment's name: lower-case letters and digits",
    fix: "`baton status` lists them",
  });
}

/**
 * Gets what others have said, and records what a former command could not. Going forward without it
 * could pass over a rejection or a hold.
 * @throws Refusal when the remote cannot be reached, or an outcome cannot be recorded.
 */
export async function fetchOrRefuse({ ledger, books }: Context): Promise<void> {
  await ledger.check();
  const said = await ledger.fetch();
  if (said !== undefined) {
    throw new Refusal({
      where: "git",
      property: "the remote",
      value: `out of reach (${said})`,
      expected: "an answer, as others may have approved, rejected or held something",
      fix: "Run the same command again once it answers; the way back is open without it",
    });
  }
  const unrecorded = await books.catchUp();
  if (unrecorded === undefined) return;
  throw new Refusal({
    where: "git",
    property: "the ledger",
    value: `not complete (${unrecorded})`,
    expected: "each deployment recorded before the next",
    fix: "Settle that, and run the same command again; the way back is open without it",
  });
}

/** Gets what others have said, as far as it can be had. */
export async function fetchOrNote({ ledger, books, notes }: Context): Promise<void> {
  await ledger.check();
  const said = await ledger.fetch().catch(messageOf);
  if (said !== undefined) notes.push(`What others have said could not be fetched: ${said}`);
  const unrecorded = await books.catchUp();
  if (unrecorded !== undefined) notes.push(unrecorded);
}

/** Gives others what was said here; what they cannot be given now, the next command gives them. */
export async function publish({ ledger, notes }: Context): Promise<void> {
  const said = await ledger.push().catch(messageOf);
  if (said === undefined) return;
  const behind = /\((fetch first|non-fast-forward)\)/.test(said);
  notes.push(
    `Kept here until the next command, as it could not be pushed: ${said}` +
      (behind ? "\nOthers were faster: run `git pull --no-rebase` first." : ""),
  );
}

/**
 * The latest request, as it is checked out.
 * @throws Refusal when nobody has made one, or a later one is at the remote only.
 */
export async function latestRequest({ ledger }: Context, environment: string): Promise<Request> {
  const request = await ledger.request(environment);
  if (request === undefined) {
    throw new Refusal({
      where: environment,
      property: "the request",
      value: "missing",
      expected: "a commit that asks for a deployment",
      fix: `Make one with \`baton request ${environment}\``,
    });
  }
  return request;
}

/** @throws Refusal unless the request is part of what is checked out. */
export async function checkHere({ ledger }: Context, request: Request): Promise<void> {
  if (await ledger.isHere(request.commit)) return;
  throw new Refusal({
    where: request.environment,
    property: "the checkout",
    value: `without the request of ${formatTime(request.at)} for ${request.tag}`,
    expected: "it, as it is the latest at the remote",
    fix: "Run `git pull`, and the same command again",
  });
}
