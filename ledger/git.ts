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
  async run(args: readonly string[], input?: string): Promise<string> {
    const given = input === undefined ? {} : { input };
    const options = { cwd: this.folder, env: QUIET, reject: false, ...given } as const;
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

  /** Both what git prints and what it says on its standard error; nothing where it refuses. */
  async said(args: readonly string[]): Promise<string | undefined> {
    const run = await execa("git", args, {
      cwd: this.folder,
      env: QUIET,
      reject: false,
      all: true,
    });
    return run.failed ? undefined : run.all;
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
