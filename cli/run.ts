import { execa } from "execa";
import { open, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { stripVTControlCharacters } from "node:util";
import { stampOf } from "../ledger/entries";

/** How a run of Pulumi ended. */
export interface RunResult {
  readonly succeeded: boolean;
  /** All that it printed. */
  readonly output: string;
  /** Where that is kept. */
  readonly log: string;
  /** Whether it was told to stop from here. */
  readonly interrupted: boolean;
  /** Whether it was killed, and so could not tidy up. */
  readonly killed: boolean;
}

/** Who holds a stack's lock. */
export interface Holder {
  readonly user: string;
  readonly host: string;
  readonly pid: number;
  /** As Pulumi writes it. */
  readonly since: string;
}

const POLL_MILLISECONDS = 200;
/** How many runs' logs are kept for an environment. */
const KEPT = 10;
/** Says its own process id before it becomes Pulumi, so that a kill at any moment leaves a trace. */
const BECOME_PULUMI = 'echo $$ > "$1"; shift; exec pulumi "$@"';

/**
 * Runs of Pulumi that change a stack. Each leaves a folder with its log and, until it has ended
 * properly, its process id: whoever was killed can be told from whoever is at work.
 */
export class Runs {
  constructor(private readonly folderOf: () => Promise<string>) {}

  /**
   * Runs Pulumi with a text as the stack file; each line it prints goes to `show`. Its output goes
   * to a file, so that it ends its work even if this process is killed.
   */
  async start(
    project: string,
    stack: string,
    stackFile: string,
    args: readonly string[],
    show: (line: string) => void,
    env: Readonly<Record<string, string>> = {},
  ): Promise<RunResult> {
    const { log, pid, config, output } = await this.prepare(stack, stackFile);
    await this.tidy(stack).catch(() => undefined);
    try {
      const all = [...args, "--stack", stack, "--config-file", config, ...ALWAYS];
      const run = execa("sh", ["-c", BECOME_PULUMI, "sh", pid, ...all], {
        cwd: project,
        env,
        reject: false,
        stdin: "ignore",
        stdout: output.fd as unknown as "ignore",
        stderr: output.fd as unknown as "ignore",
        // Out of the terminal's reach: each signal gets to Pulumi once, from here.
        detached: true,
        forceKillAfterDelay: false,
        cleanup: false,
      });
      // Pulumi ends what it has begun when it is interrupted; leaving it alone would orphan it.
      let interrupted = false;
      const interrupt = () => {
        run.kill("SIGINT");
        interrupted = true;
      };
      const signals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
      for (const signal of signals) process.on(signal, interrupt);
      const ended = new AbortController();
      const follow = followFile(log, ended.signal, show);
      try {
        const { failed, exitCode, signal } = await run;
        ended.abort();
        const text = await follow;
        if (exitCode === 127) throw new Error(NOT_INSTALLED);
        const killed = signal !== undefined;
        // A file that stays is in the way of nothing.
        if (!killed) await rm(pid, { force: true }).catch(() => undefined);
        await rm(config, { force: true }).catch(() => undefined);
        return { succeeded: !failed, output: text, log, interrupted, killed };
      } finally {
        ended.abort();
        for (const signal of signals) process.off(signal, interrupt);
      }
    } finally {
      await output.close().catch(() => undefined);
    }
  }

  /**
   * Makes a run's files: beside git's own, or where that is not possible, as on a full disk, in the
   * machine's folder for temporary files. A release that failed must be able to go back.
   */
  private async prepare(stack: string, stackFile: string) {
    const own = async () => {
      const folder = join(await this.folderOf(), stack, `${stampOf(new Date())}-${process.pid}`);
      await mkdir(folder, { recursive: true });
      return folder;
    };
    const write = async (folder: string) => {
      const log = join(folder, "log");
      const config = join(folder, `Pulumi.${stack}.yaml`);
      await writeFile(config, stackFile, { mode: 0o600 });
      return { log, pid: join(folder, "pid"), config, output: await open(log, "w+", 0o600) };
    };
    return own()
      .then(write)
      .catch(async () => write(await mkdtemp(join(tmpdir(), "baton-"))));
  }

  /**
   * What is known here of whoever holds a lock: `dead` was started from here and killed, `orphan`
   * was started from here and goes on without anybody waiting for it, `other` is none of ours.
   */
  async whoIs(stack: string, holder: Holder): Promise<"dead" | "orphan" | "other"> {
    if (holder.host !== hostname()) return "other";
    for (const name of await this.names(stack)) {
      const pid = await this.pidOf(stack, name);
      if (pid !== holder.pid) continue;
      if (!(await isRunning(pid, "pulumi"))) return "dead";
      const starter = Number(name.split("-")[1]);
      return (await isRunning(starter, "node")) ? "other" : "orphan";
    }
    return "other";
  }

  /** The runs that were started from here and go on without anybody waiting for them. */
  async orphans(stack: string): Promise<{ readonly pid: number; readonly since: string }[]> {
    const found = await Promise.all(
      (await this.names(stack)).map(async (name) => {
        const pid = await this.pidOf(stack, name);
        if (pid === undefined || !(await isRunning(pid, "pulumi"))) return [];
        const [since = "", starter] = name.split("-");
        return (await isRunning(Number(starter), "node")) ? [] : [{ pid, since }];
      }),
    );
    return found.flat();
  }

  /** Waits until a process has ended. */
  async ended(pid: number): Promise<void> {
    while (await isRunning(pid, "pulumi")) await setTimeout(POLL_MILLISECONDS);
  }

  /** Forgets the runs that were killed, once what they left is repaired. */
  async forget(stack: string, pids: readonly number[]): Promise<void> {
    for (const name of await this.names(stack)) {
      const pid = await this.pidOf(stack, name);
      if (pid !== undefined && pids.includes(pid)) {
        for (const file of ["pid", `Pulumi.${stack}.yaml`]) {
          await rm(join(await this.folderOf(), stack, name, file), { force: true });
        }
      }
    }
  }

  /** Forgets the runs that ended without anybody waiting for them; whoever gets the lock knows so. */
  async forgetEnded(stack: string): Promise<void> {
    await this.tryToForgetEnded(stack).catch(() => undefined);
  }

  private async tryToForgetEnded(stack: string): Promise<void> {
    const pids = await Promise.all(
      (await this.names(stack)).map(async (name) => this.pidOf(stack, name)),
    );
    for (const pid of pids.filter((found) => found !== undefined)) {
      if (!(await isRunning(pid, "pulumi"))) await this.forget(stack, [pid]);
    }
  }

  private async names(stack: string): Promise<string[]> {
    return (await readdir(join(await this.folderOf(), stack)).catch(() => [])).sort();
  }

  private async pidOf(stack: string, name: string): Promise<number | undefined> {
    const text = await readFile(join(await this.folderOf(), stack, name, "pid"), "utf8").catch(
      () => "",
    );
    return text.trim() === "" ? undefined : Number(text);
  }

  /** Removes the oldest runs, but none that may still have left something. */
  private async tidy(stack: string): Promise<void> {
    for (const name of (await this.names(stack)).slice(0, -KEPT)) {
      if ((await this.pidOf(stack, name)) === undefined) {
        await rm(join(await this.folderOf(), stack, name), { recursive: true, force: true });
      }
    }
  }
}

export const ALWAYS = ["--non-interactive", "--color", "never"];
export const NOT_INSTALLED =
  "pulumi: the command is missing; expected Pulumi's CLI on PATH. Install it, or correct PATH.";

/** Shows each line that is added to a file, until its writer has ended. */
async function followFile(
  path: string,
  ended: AbortSignal,
  show: (line: string) => void,
): Promise<string> {
  let text = "";
  let shown = 0;
  for (;;) {
    const last = ended.aborted;
    text = stripVTControlCharacters(await readFile(path, "utf8").catch(() => text));
    const end = last ? text.length : text.lastIndexOf("\n") + 1;
    for (const line of text.slice(shown, Math.max(end, shown)).split("\n")) {
      if (line.trim() !== "" && !line.startsWith("@")) tryTo(() => show(line.trim()));
    }
    shown = Math.max(end, shown);
    if (last) return text;
    await setTimeout(POLL_MILLISECONDS, undefined, { signal: ended }).catch(() => undefined);
  }
}

/** What is shown may have been closed by people; the run it is about goes on. */
function tryTo(action: () => void): void {
  try {
    action();
  } catch {
    // Nothing depends on it.
  }
}

/** Whether a process of this name is there: a number alone may belong to another by now. */
export async function isRunning(pid: number, name: string): Promise<boolean> {
  const run = await execa("ps", ["-p", String(pid), "-o", "stat=,args="], { reject: false });
  // A process that has ended and that nobody has asked about yet is a zombie.
  return !run.failed && !run.stdout.trim().startsWith("Z") && run.stdout.includes(name);
}

/** Who holds the lock, by the error of Pulumi's file and object store backends. */
export function locksOf(output: string): Holder[] {
  if (!output.includes("the stack is currently locked by")) return [];
  const pattern = /created by (\S+)@(\S+) \(pid (\d+)\) at (\S+)/g;
  return [...output.matchAll(pattern)].map(([, user = "", host = "", pid, since = ""]) => ({
    user,
    host,
    pid: Number(pid),
    since,
  }));
}
