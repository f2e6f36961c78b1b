import { execa } from "execa";
import { readdir, readFile, readlink, rm, stat } from "node:fs/promises";
import { setTimeout } from "node:timers/promises";

/** How long one git waits for another, in milliseconds. */
const PATIENCE = 15_000;
/** How long a lock must lie there while no git is at work. */
const WATCHED = 2000;
const POLL = 100;

/** A lock of this repository; one of the remote's is the remote's own business. */
const LOCKED = /^(?!remote: ).*Unable to create '([^']+\.lock)': File exists/m;
/** Another git has moved the same ref at the same time. */
const OVERTAKEN = /cannot lock ref '[^']*': is at [0-9a-f]+ but expected/;

/**
 * What stands in the way of a git command: another git, which is waited for, or a lock that a killed
 * one has left, which is removed once no git is at work in this repository any more.
 */
export class GitLocks {
  private readonly end = performance.now() + PATIENCE;
  private seen: { readonly lock: string; readonly since: number } | undefined;

  /**
   * @param folder in the repository
   * @param commonOf the folder that all worktrees of a folder's repository share
   */
  constructor(
    private readonly folder: string,
    private readonly commonOf: CommonFolderOf,
  ) {}

  /** Whether git, which said this as it failed, may be run again. */
  async havePassed(said: string): Promise<boolean> {
    if (OVERTAKEN.test(said)) {
      await setTimeout(POLL * (1 + Math.random()));
      return performance.now() < this.end;
    }
    const path = lockOf(said);
    if (path === undefined) return false;
    while (performance.now() < this.end) {
      const found = await stat(path).catch(() => undefined);
      if (found === undefined) return true;
      const lock = `${path} ${found.ino} ${found.mtimeMs}`;
      if (this.seen?.lock !== lock || (await this.isAnyAtWork())) {
        this.seen = { lock, since: performance.now() };
      } else if (performance.now() - this.seen.since > WATCHED) {
        await rm(path, { force: true });
        return true;
      }
      await setTimeout(POLL);
    }
    return false;
  }

  private async isAnyAtWork(): Promise<boolean> {
    const common = await this.commonOf(this.folder);
    return common === undefined || isAnyAtWork(common, this.commonOf);
  }
}

type CommonFolderOf = (folder: string) => Promise<string | undefined>;

/** The lock that git found, by its own words. */
export function lockOf(said: string): string | undefined {
  return LOCKED.exec(said)?.[1];
}

/** Whether any git works on a repository. Whatever cannot be looked into counts as if it did. */
async function isAnyAtWork(common: string, commonOf: CommonFolderOf): Promise<boolean> {
  const pids = (await readdir("/proc").catch(() => [])).filter((name) => /^\d+$/.test(name));
  if (pids.length === 0) {
    const { stdout } = await execa("ps", ["-A", "-o", "comm="], { reject: false });
    return stdout.split("\n").some((name) => /^(.*\/)?git(-|$)/.test(name.trim()));
  }
  const found = await Promise.all(pids.map(async (pid) => isAtWork(pid, common, commonOf)));
  return found.includes(true);
}

async function isAtWork(pid: string, common: string, commonOf: CommonFolderOf): Promise<boolean> {
  const read = (name: string) => readFile(`/proc/${pid}/${name}`, "utf8").catch(() => undefined);
  const status = await read("stat");
  // `PID (NAME) STATE …`; a zombie has ended.
  if (status === undefined || !/^\d+ \(git(-[^)]*)?\) [^ZX]/.test(status)) return false;
  const cwd = await readlink(`/proc/${pid}/cwd`).catch(() => undefined);
  const [told, environment] = [await read("cmdline"), await read("environ")];
  if (cwd === undefined || told === undefined || environment === undefined) {
    return (await read("stat")) !== undefined;
  }
  if (told.includes(common) || environment.includes(common)) return true;
  return (await commonOf(cwd)) === common;
}

/** What git is asked for the folder that all worktrees of a repository share. */
export const COMMON_FOLDER = ["rev-parse", "--path-format=absolute", "--git-common-dir"];
