import { execa } from "execa";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { stripVTControlCharacters } from "node:util";
import { z } from "zod";
import type { Operation } from "../release/change-card";

/** What `pulumi preview --json` prints. */
const Preview = z.object({
  steps: z.array(z.object({ op: z.string(), urn: z.string() })).default([]),
  diagnostics: z.array(z.object({ severity: z.string(), message: z.string() })).default([]),
});

const Outputs = z.object({
  earnedTag: z.string().optional(),
  release: z
    .object({
      imageTag: z.string(),
      digest: z.string(),
      version: z.string().optional(),
      rollbackOf: z.string().optional(),
    })
    .optional(),
});

/** What a stack says of itself; both absent before its first release. */
export type StackOutputs = z.infer<typeof Outputs>;

/** How an `up` ended. */
export interface UpResult {
  readonly succeeded: boolean;
  /** Whether any resource may have been changed. */
  readonly touched: boolean;
  /** Pulumi's reasons, when it failed. */
  readonly reason: string;
  /** Whether somebody stopped it. */
  readonly interrupted: boolean;
}

/** Runs the Pulumi CLI on the project in a folder. */
export class Pulumi {
  constructor(private readonly folder: string) {}

  /** Also of a stack that does not exist yet. */
  async outputs(stack: string): Promise<StackOutputs> {
    const run = await this.start(["stack", "output", "--json", "--stack", stack]);
    if (run.failed && /no stack named/.test(run.stderr)) return {};
    if (run.failed) throw new Error(`${stack}: ${reasonOf(run.stdout, run.stderr)}`);
    return Outputs.parse(JSON.parse(run.stdout));
  }

  /**
   * Previews a stack with this text instead of its stack file.
   * @throws Error with Pulumi's reasons.
   */
  async preview(stack: string, stackFile: string): Promise<Operation[]> {
    return withFile(stack, stackFile, async (path) => {
      const args = ["preview", "--json", "--stack", stack, "--config-file", path];
      const run = await this.start(args);
      const parsed = Preview.safeParse(jsonOf(run.stdout));
      if (parsed.success && !run.failed) return parsed.data.steps;
      const errors = parsed.success
        ? parsed.data.diagnostics.filter(({ severity }) => severity === "error")
        : [];
      const reasons = errors.map(({ message }) => clean(message)).filter((text) => text !== "");
      const reason = reasons.length > 0 ? reasons.join("\n") : reasonOf(run.stdout, run.stderr);
      throw new Error(reason);
    });
  }

  /** Deploys a stack with this text instead of its stack file; each line goes to `show`. */
  async up(stack: string, stackFile: string, show: (line: string) => void): Promise<UpResult> {
    return withFile(stack, stackFile, async (path) => {
      const lines: string[] = [];
      const args = ["up", "--yes", "--skip-preview", "--stack", stack, "--config-file", path];
      const run = execa("pulumi", [...args, ...ALWAYS], {
        cwd: this.folder,
        reject: false,
        stdin: "ignore",
        // Out of the terminal's reach: each signal gets to Pulumi once, from here.
        detached: true,
        forceKillAfterDelay: false,
        stdout: function* (line: unknown) {
          const text = stripVTControlCharacters(String(line));
          lines.push(text);
          if (text.trim() !== "" && !text.startsWith("@")) show(text.trim());
          yield text;
        },
      });
      // Pulumi ends what it has begun when it is interrupted; leaving it alone would orphan it.
      let interrupted = false;
      const interrupt = () => {
        run.kill("SIGINT");
        interrupted = true;
      };
      const signals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
      for (const signal of signals) process.on(signal, interrupt);
      try {
        const { failed, stdout, stderr, code } = await run;
        if (code === "ENOENT") throw new Error(NOT_INSTALLED);
        const reason = failed ? reasonOf(stdout, stderr) : "";
        return { succeeded: !failed, touched: hasTouched(lines), reason, interrupted };
      } finally {
        for (const signal of signals) process.off(signal, interrupt);
      }
    });
  }

  private async start(args: string[]) {
    const run = await execa("pulumi", [...args, ...ALWAYS], { cwd: this.folder, reject: false });
    if (run.code === "ENOENT") throw new Error(NOT_INSTALLED);
    return run;
  }
}

const ALWAYS = ["--non-interactive", "--color", "never"];
const NOT_INSTALLED =
  "pulumi: the command is missing; expected Pulumi's CLI on PATH. Install it, or correct PATH.";

/** Runs an action with a file that only this user can read, and that is gone afterwards. */
async function withFile<T>(
  stack: string,
  text: string,
  action: (path: string) => Promise<T>,
): Promise<T> {
  const folder = await mkdtemp(join(tmpdir(), "baton-"));
  try {
    const path = join(folder, `Pulumi.${stack}.yaml`);
    await writeFile(path, text);
    return await action(path);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}

/**
 * Whether a line of progress says that a resource is or was being changed. The stack itself is
 * none, and `@ updating....` only says that time passes.
 */
export function hasTouched(lines: readonly string[]): boolean {
  const change = /\b(creating|updating|replacing|deleting|created|updated|replaced|deleted)\b/;
  return lines
    .slice(0, indexOr(lines, "Diagnostics:"))
    .filter((line) => !line.startsWith("@") && !line.includes("pulumi:pulumi:Stack"))
    .some((line) => change.test(line));
}

function indexOr(lines: readonly string[], heading: string): number {
  const index = lines.indexOf(heading);
  return index < 0 ? lines.length : index;
}

/** What Pulumi says went wrong, without the progress above it. */
export function diagnostics(output: string): string {
  const start = output.indexOf("Diagnostics:");
  const end = output.search(/\n(Outputs|Resources):/);
  return start < 0 ? output : output.slice(start, end < start ? undefined : end).trimEnd();
}

function reasonOf(stdout: string, stderr: string): string {
  const text = stdout.includes("Diagnostics:") ? diagnostics(stdout) : stderr.trim() || stdout;
  return clean(text);
}

/** Without Pulumi's marks for colours. */
function clean(text: string): string {
  return stripVTControlCharacters(text.replace(/<\{%[^%]*%\}>/g, "")).trim();
}
