import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import fs from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import type { ToolScene } from "./tool";

/** Which of the calls that are counted fail: one, or each from one on. */
export interface Fault {
  readonly of: "git" | "files";
  /** From 1; 0 lets all pass, and counts them. */
  readonly at: number;
  readonly then: "heals" | "stays";
}

/** Counts its calls once Pulumi has begun to change a stack, and fails at some. */
const GIT = String.raw`#!/bin/sh
if [ -f "SCENE/.pulumi/armed" ]; then
  set -C
  n=1
  until echo "$*" > "CALLS/$n"; do n=$((n + 1)); done 2> /dev/null
  set +C
  fails=
  case $FAULT_THEN in
    heals) [ $n != $FAULT_AT ] || fails=yes ;;
    stays) [ $FAULT_AT = 0 ] || [ $n -lt $FAULT_AT ] || fails=yes ;;
  esac
  if [ -n "$fails" ]; then echo "fatal: no space left on device" >&2; exit 128; fi
fi
exec REAL "$@"
`;

/** What writes files; each is refused as on a full disk. */
const WRITES = ["mkdir", "writeFile", "open", "rename", "rm", "cp", "symlink"] as const;

/** Lets git or the file system fail while a command of the tool runs, after Pulumi has begun. */
export class Faults {
  private readonly folder = mkdtempSync(join(tmpdir(), "baton-faults-"));
  private readonly real = execFileSync("sh", ["-c", "command -v git"], { encoding: "utf8" }).trim();

  constructor(private readonly scene: ToolScene) {
    mkdirSync(join(this.folder, "bin"));
  }

  remove(): void {
    rmSync(this.folder, { recursive: true });
  }

  /** @returns how many calls there were that could have failed. */
  async during(fault: Fault, action: () => Promise<void>): Promise<number> {
    const calls = mkdtempSync(join(this.folder, "calls-"));
    const text = GIT.replaceAll("SCENE", this.scene.folder)
      .replaceAll("CALLS", calls)
      .replaceAll("REAL", this.real);
    writeFileSync(join(this.folder, "bin/git"), text, { mode: 0o755 });
    const before = process.env;
    process.env = {
      ...before,
      PATH: [join(this.folder, "bin"), before["PATH"]].join(delimiter),
      MIDDLE: ": > armed",
      FAULT_AT: fault.of === "git" ? String(fault.at) : "0",
      FAULT_THEN: fault.then,
    };
    const files = this.failWrites(fault);
    try {
      await action();
    } finally {
      files.end();
      process.env = before;
      this.scene.pulumi("armed", undefined);
    }
    return fault.of === "git" ? readdirSync(calls).length : files.count();
  }

  /** One that stays is in git's own folder, such as one that may not be written any more. */
  private failWrites({ of, at, then }: Fault) {
    const own = join(this.scene.folder, ".git");
    const real = WRITES.map((name) => [name, fs[name]] as const);
    let count = 0;
    const refuses = (path: unknown) => {
      if (of !== "files" || !existsSync(join(this.scene.folder, ".pulumi/armed"))) return false;
      if (then === "stays" && !String(path).startsWith(own)) return false;
      count += 1;
      return then === "stays" ? at > 0 && count >= at : count === at;
    };
    for (const [name, call] of real) {
      const wrapped = async (...args: unknown[]): Promise<unknown> => {
        if (refuses(args[0])) throw new Error(`ENOSPC: no space left on device, ${name}`);
        return (call as (...all: unknown[]) => Promise<unknown>)(...args);
      };
      Object.assign(fs, { [name]: wrapped });
    }
    return {
      count: () => count,
      end: () => {
        for (const [name, call] of real) Object.assign(fs, { [name]: call });
      },
    };
  }
}
