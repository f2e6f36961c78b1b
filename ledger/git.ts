import { execa } from "execa";
import { COMMON_FOLDER, GitLocks, lockOf } from "./git-locks";

/** What git does in a folder. */
export class Git {
  private ownFolder: Promise<string> | undefined;

  constructor(readonly folder: string) {}

  /**
   * What git prints.
   * @throws Error with git's own words.
   */
  async run(
    args: readonly string[],
    input?: string,
    env: Readonly<Record<string, string>> = {},
  ): Promise<string> {
    const given = input === undefined ? {} : { input };
    const options = { cwd: this.folder, env: { ...QUIET, ...env }, reject: false, ...given };
    const run = await this.patiently(() => execa("git", args, options));
    if (!run.failed) return run.stdout;
    throw new Error(
      `git ${args[0] ?? ""}: ${saidBy(run)}. Settle it, and run the same command again.`,
    );
  }

  /** What git prints, byte for byte; nothing where it refuses. */
  async try(...args: string[]): Promise<string | undefined> {
    const options = { cwd: this.folder, env: QUIET, reject: false, stripFinalNewline: false };
    const run = await execa("git", args, options);
    return run.failed ? undefined : run.stdout;
  }

  /** Talks to a remote; what git says where that fails, or nothing. */
  async exchange(args: readonly string[]): Promise<string | undefined> {
    const options = { cwd: this.folder, env: QUIET, reject: false, timeout: PATIENCE } as const;
    const run = await this.patiently(() => execa("git", args, options));
    if (!run.failed) return undefined;
    return run.timedOut ? `no answer in ${PATIENCE / 1000} s` : saidBy(run);
  }

  /**
   * The contents of objects by their names, in that order; undefined for a name without an object.
   * Files are read as UTF-8.
   */
  async contents(names: readonly string[]): Promise<(string | undefined)[]> {
    if (names.length === 0) return [];
    const options = {
      cwd: this.folder,
      env: QUIET,
      encoding: "buffer",
      input: `${names.join("\n")}\n`,
    } as const;
    const { stdout } = await execa("git", ["cat-file", "--batch"], options);
    const bytes = Buffer.from(stdout);
    const texts: (string | undefined)[] = [];
    let start = 0;
    while (texts.length < names.length) {
      const end = bytes.indexOf("\n", start);
      const header = bytes.toString("utf8", start, end);
      start = end + 1;
      const size = Number(/^[0-9a-f]+ \w+ (\d+)$/.exec(header)?.[1] ?? NaN);
      texts.push(Number.isNaN(size) ? undefined : bytes.toString("utf8", start, start + size));
      if (!Number.isNaN(size)) start += size + 1;
    }
    return texts;
  }

  /** What git prints and what it says on its standard error, also where it refuses. */
  async told(args: readonly string[]): Promise<string> {
    const options = { cwd: this.folder, env: QUIET, reject: false, all: true } as const;
    return (await execa("git", args, options)).all;
  }

  /** A folder for what is this checkout's own business. */
  async privateFolder(): Promise<string> {
    this.ownFolder ??= this.run(["rev-parse", "--path-format=absolute", "--git-path", "baton"]);
    return this.ownFolder;
  }

  /** Runs git anew for as long as another one is in its way. */
  private async patiently<T extends Ended>(start: () => Promise<T>): Promise<T> {
    const locks = new GitLocks(() => this.run(COMMON_FOLDER));
    for (;;) {
      const run = await start();
      if (!run.failed || !(await locks.havePassed(run.stderr))) return run;
    }
  }
}

/** How long a remote may take, in milliseconds. */
const PATIENCE = 30_000;
/** Nobody is asked for a password in the middle of a command; and its words are matched. */
const QUIET = { GIT_TERMINAL_PROMPT: "0", LC_ALL: "C" };

interface Ended {
  readonly failed: boolean;
  readonly stderr: string;
  readonly shortMessage?: string | undefined;
}

function saidBy(run: Ended): string {
  const said = run.stderr.trim() || (run.shortMessage ?? "");
  const lock = lockOf(said);
  if (lock !== undefined) {
    return `${lock} is there: another git is at work, or was killed. Wait for it, or delete that file`;
  }
  return said.replace(/\.$/, "");
}
