import { execa } from "execa";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { isDeepStrictEqual, stripVTControlCharacters } from "node:util";
import { z } from "zod";
import { parseJson } from "../release/json";
import type { Tree } from "../release/merge";
import { NOT_READY, type Operation } from "../release/operations";
import type { NextResource, StateResource } from "../release/start";
import { ALWAYS, locksOf, NOT_INSTALLED, Runs, type Holder, type RunResult } from "./run";
import { abandonedObjects, parseState, pendingCreates, rootOf, type State } from "./state";
import { isUnreadable, removeEmptyAttributes } from "./state-file";

const Properties = z.record(z.string(), z.unknown());
const StepState = z.object({
  inputs: Properties.nullish(),
  outputs: Properties.nullish(),
  initErrors: z.array(z.string()).nullish(),
});
/**
 * A step of `pulumi preview --json`
 * (https://github.com/pulumi/pulumi/blob/master/pkg/display/json.go).
 */
const Step = z.object({
  op: z.string(),
  urn: z.string(),
  detailedDiff: z.record(z.string(), z.unknown()).nullish(),
  diffReasons: z.array(z.string()).nullish(),
  replaceReasons: z.array(z.string()).nullish(),
  oldState: StepState.nullish(),
  newState: StepState.nullish(),
});

/** What `pulumi preview --json` prints; values are apart from the operations, which are shown. */
export const PreviewOutput = z
  .object({
    steps: z.array(Step).default([]),
    diagnostics: z
      .array(z.object({ severity: z.string(), message: z.string(), urn: z.string().default("") }))
      .default([]),
  })
  .transform(({ steps, diagnostics }) => ({
    steps: steps.map(operationOf),
    next: new Map(steps.flatMap(nextOf)),
    diagnostics,
  }));

function operationOf(step: z.infer<typeof Step>): Operation {
  const { op, urn, detailedDiff, diffReasons, replaceReasons, oldState, newState } = step;
  const paths = Object.keys(detailedDiff ?? {});
  if (paths.length === 0) paths.push(...(diffReasons ?? []), ...(replaceReasons ?? []));
  // What did not get ready is updated without a word on what changes: it is awaited again.
  const waits = (oldState?.initErrors ?? []).length > 0;
  if (paths.length === 0 && waits && isDeepStrictEqual(oldState?.inputs, newState?.inputs)) {
    paths.push(NOT_READY);
  }
  return { op, urn, ...(paths.length === 0 ? {} : { paths: [...new Set(paths)].sort() }) };
}

function nextOf({ urn, newState }: z.infer<typeof Step>): [string, NextResource][] {
  const { inputs, outputs } = newState ?? {};
  return inputs ? [[urn, { inputs, outputs: outputs ?? {} }]] : [];
}

type Diagnostic = z.infer<typeof PreviewOutput>["diagnostics"][number];

/** The output of `pulumi whoami --json`. */
const Backend = z.object({ url: z.string().optional() });

/** What a preview says. */
export interface Preview {
  readonly operations: readonly Operation[];
  /** The resources as they would be, by URN. Not shown: values are in them. */
  readonly next: ReadonlyMap<string, NextResource>;
}

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
  suites: z
    .array(
      z.object({
        name: z.string(),
        result: z.enum(["passed", "failed"]),
        seconds: z.number().optional(),
        log: z.string().optional(),
      }),
    )
    .optional(),
  /** What its database holds. */
  schema: z
    .object({
      version: z.number(),
      points: z.array(
        z.object({ version: z.number(), kind: z.enum(["contract", "irreversible"]) }),
      ),
      backup: z.string().optional(),
      allowDown: z.literal(true).optional(),
    })
    .optional(),
  /** The release that stays beside the one that runs, where there is one. */
  colours: z
    .object({
      kept: z.object({ settings: z.object({ imageTag: z.string() }) }).optional(),
    })
    .optional(),
  /** The layout of the state, by the program that deployed last. */
  layout: z.number().optional(),
  /** Why it was deployed without the approvals it needs. */
  breakGlass: z.string().optional(),
});

/** What a stack says of itself; both absent before its first release. */
export type StackOutputs = z.infer<typeof Outputs>;

/** A stack's history, the newest first: `pulumi stack history --json`. */
const History = z.array(
  z
    .object({
      kind: z.string(),
      startTime: z.string(),
      message: z.string().default(""),
      result: z.enum(["succeeded", "failed", "in-progress"]).catch("in-progress"),
      environment: z.record(z.string(), z.string()).nullish(),
      resourceChanges: z.record(z.string(), z.number()).nullish(),
    })
    .transform(({ kind, startTime, message, result, environment, resourceChanges }) => ({
      kind,
      /** Tells it from the stack's other ones. */
      id: startTime,
      startedAt: new Date(startTime),
      result,
      /** Where it was run by the tool, which records it. */
      byTool: message === BY_TOOL,
      /** What was checked out. */
      commit: environment?.["git.head"],
      /** Whether any resource was changed; what only failed to change is not counted. */
      touched: Object.entries(resourceChanges ?? {}).some(
        ([op, count]) => count > 0 && !UNTOUCHED.includes(op),
      ),
    })),
);
const BY_TOOL = "by baton";
const UNTOUCHED = ["same", "read"];

/** A run of `pulumi up` by anybody. */
export type Update = z.infer<typeof History>[number];

/** Where a run of Pulumi does not run as this process does. */
export interface Surroundings {
  /** What the program finds in its environment besides this process's own. */
  readonly env?: Readonly<Record<string, string>>;
  /** The folder of another Pulumi.yaml than the present one. */
  readonly folder?: string;
}

/** How an `up` ended. */
export interface UpResult {
  readonly succeeded: boolean;
  /** Whether any resource may have been changed. */
  readonly touched: boolean;
  /** Pulumi's reasons, when it failed. */
  readonly reason: string;
  /** Whether somebody stopped it from here. */
  readonly interrupted: boolean;
  /** Whether it was killed, and could not tidy up. */
  readonly killed: boolean;
  /** Who was deploying, when it was refused for that. */
  readonly lockedBy: readonly Holder[];
  /** Where all of its output is. */
  readonly log: string;
}

/** A resource of a stack's state that is an object of a cluster. */
export interface RecordedObject {
  readonly urn: string;
  readonly type: string;
  readonly id: string;
  /** As the program wants it; secrets encrypted. */
  readonly inputs: Tree;
  /** The object as the cluster had it after the last update, with what a webhook had added. */
  readonly outputs: Tree;
  /** The properties that the program leaves to others. */
  readonly ignoreChanges: readonly string[];
}

const Recorded = z.object({
  deployment: z.object({
    resources: z
      .array(
        z.object({
          urn: z.string(),
          type: z.string(),
          id: z.string().default(""),
          inputs: Properties.default({}),
          outputs: Properties.default({}),
          ignoreChanges: z.array(z.string()).default([]),
          modified: z.string().optional(),
          /** What is only looked at, or about to be removed. */
          external: z.boolean().default(false),
          delete: z.boolean().default(false),
        }),
      )
      .default([]),
  }),
});

/**
 * What there is nothing outside to compare with: a random value is in the state only, a rollout, a
 * canary and a bake are waits that are over, and what was shared is looked for by each deployment.
 */
const NOT_OUTSIDE = [
  "**$random:**",
  "**::random:**",
  "**promotion:index:Rollout::**",
  "**promotion:index:Bake::**",
  "**promotion:index:Unshared::**",
  "**promotion:index:Canary::**",
];

/** How often Pulumi is run again while it cannot read a stack's state: another run writes it. */
const ATTEMPTS = 6;
const RETRY_MILLISECONDS = 200;

/** Runs the Pulumi CLI on the project in a folder. */
export class Pulumi {
  /** What stacks have said; of no use once this command changes one, or finds one held. */
  private readonly said = new Map<string, Promise<StackOutputs>>();
  private touched = false;

  constructor(
    private readonly folder: string,
    private readonly runs: Runs,
    private readonly project: string,
    /** Tells people what they should know once the command has ended. */
    private readonly note: (text: string) => void,
  ) {}

  /** Whether this command may have changed anything in a stack. */
  get hasTouched(): boolean {
    return this.touched;
  }

  /** What a stack says now; also of one that does not exist yet. */
  outputs(stack: string): Promise<StackOutputs> {
    const said = this.ask(stack);
    this.said.set(stack, said);
    said.catch(() => this.said.delete(stack));
    return said;
  }

  /** The same as when this command asked last, unless it has changed a stack since. */
  knownOutputs(stack: string): Promise<StackOutputs> {
    return this.said.get(stack) ?? this.outputs(stack);
  }

  private async ask(stack: string): Promise<StackOutputs> {
    // A process of a fifth of a second spends a quarter of it on garbage.
    const args = ["stack", "output", "--json", "--stack", stack];
    const run = await this.start(args, { env: { GOGC: "800" } });
    if (run.failed && /no stack named/.test(run.stderr)) return {};
    const outputs = run.failed ? await this.exportedOutputs(stack) : parseJson(run.stdout);
    if (outputs === undefined) throw new Error(`${stack}: ${reasonOf(run.stdout, run.stderr)}`);
    return Outputs.parse(outputs);
  }

  /**
   * A stack's outputs as its state has them, secrets encrypted: `stack output` decrypts the whole state
   * first, and a role may read its upstream's state without the key. Undefined where there is no state.
   */
  private async exportedOutputs(stack: string): Promise<unknown> {
    const run = await this.start(["stack", "export", "--stack", stack]);
    const parsed = run.failed ? undefined : Recorded.safeParse(parseJson(run.stdout));
    const { resources = [] } = parsed?.data?.deployment ?? {};
    return resources.find(({ type }) => type === "pulumi:pulumi:Stack")?.outputs;
  }

  /** The last run of `pulumi up`; none of a stack that does not exist. */
  async lastUpdate(stack: string): Promise<Update | undefined> {
    const args = ["stack", "history", "--json", "--page-size", "50", "--stack", stack];
    const run = await this.start(args, { env: { GOGC: "800" } });
    if (run.failed && /no stack named/.test(run.stderr)) return undefined;
    if (run.failed) throw new Error(`${stack}: ${reasonOf(run.stdout, run.stderr)}`);
    return History.parse(JSON.parse(run.stdout)).find(({ kind }) => kind === "update");
  }

  /**
   * Previews a stack with this text instead of its stack file.
   * @param env what the program finds in its environment besides this process's own
   * @throws Error with Pulumi's reasons.
   */
  async preview(
    stack: string,
    stackFile: string,
    env: Readonly<Record<string, string>> = {},
  ): Promise<Preview> {
    return withFile(stack, stackFile, async (path) => {
      const args = ["preview", "--json", "--stack", stack, "--config-file", path];
      const { steps: operations, next } = await this.parsed(args, env);
      return { operations, next };
    });
  }

  /**
   * What Pulumi finds changed or gone outside, as the operations that would put it into the state.
   * The state stays as it is.
   * @throws Error with Pulumi's reasons.
   */
  async refreshed(stack: string): Promise<readonly Operation[]> {
    const excluded = NOT_OUTSIDE.flatMap((pattern) => ["--exclude", pattern]);
    const args = ["refresh", "--preview-only", "--json", "--stack", stack, ...excluded];
    const { steps } = await this.parsed(args);
    return steps.filter(({ op }) => op !== "refresh" && op !== "same");
  }

  /** The objects that a stack's state says are in the cluster; none of a stack that does not exist. */
  async objects(stack: string): Promise<readonly RecordedObject[]> {
    return (await this.recorded(stack)).filter(({ type }) => type.startsWith("kubernetes:"));
  }

  /** The resources of a stack's state, secrets encrypted; none of a stack that does not exist. */
  async resources(stack: string): Promise<readonly StateResource[]> {
    return this.recorded(stack);
  }

  private async recorded(stack: string) {
    const run = await this.start(["stack", "export", "--stack", stack]);
    if (run.failed && /no stack named/.test(run.stderr)) return [];
    if (run.failed) throw new Error(`${stack}: ${clean(run.stderr)}`);
    const { deployment } = Recorded.parse(JSON.parse(run.stdout));
    return deployment.resources.filter((resource) => !resource.external && !resource.delete);
  }

  /**
   * Deploys a stack with this text instead of its stack file; each line goes to `show`.
   * @param how where it does not run as this process does
   */
  async up(
    stack: string,
    stackFile: string,
    show: (line: string) => void,
    how: Surroundings = {},
  ): Promise<UpResult> {
    const args = ["up", "--yes", "--skip-preview", "--message", BY_TOOL];
    this.said.clear();
    const run = await this.change(stack, stackFile, args, steps(show), how);
    const lines = run.output.split("\n");
    const lockedBy = run.succeeded ? [] : locksOf(run.output);
    if (lockedBy.length === 0 && !run.killed) await this.runs.forgetEnded(stack);
    // A log without a reason is not whole, as on a disk that is full.
    const isWhole = run.succeeded || /\berror: /.test(run.output);
    const touched = lockedBy.length === 0 && (hasTouched(lines) || !isWhole);
    this.touched ||= touched;
    return {
      ...run,
      touched,
      reason: run.succeeded ? "" : clean(diagnostics(run.output)),
      lockedBy,
    };
  }

  /**
   * Takes what is gone from the cluster out of the state, of these resources only.
   * @returns whether it could: somebody else may be at work on the stack.
   */
  async forget(
    stack: string,
    stackFile: string,
    urns: readonly string[],
    show: (line: string) => void,
  ): Promise<boolean> {
    const targets = urns.flatMap((urn) => ["--target", urn]);
    const args = ["refresh", "--yes", "--skip-preview", "--suppress-outputs", ...targets];
    this.said.clear();
    const run = await this.change(stack, stackFile, args, show);
    this.touched ||= run.succeeded;
    return run.succeeded;
  }

  /**
   * Makes a stack deployable again that others hold: removes what a killed run of ours has left,
   * and waits for one that still goes on without anybody waiting for it.
   * @param remove removes an object from the cluster, if it is this stack's
   * @returns whether it did; otherwise somebody else is at work.
   */
  async recover(
    stack: string,
    stackFile: string,
    holders: readonly Holder[],
    remove: (object: Tree) => Promise<void>,
    show: (line: string) => void,
  ): Promise<boolean> {
    const known = await Promise.all(
      holders.map(async (holder) => ({ holder, is: await this.runs.whoIs(stack, holder) })),
    );
    if (known.some(({ is }) => is === "other")) return false;
    for (const { holder, is } of known) {
      if (is !== "orphan") continue;
      show(`waiting for the run that was begun at ${holder.since}`);
      await this.runs.ended(holder.pid);
    }
    const dead = known.filter(({ is }) => is === "dead").map(({ holder }) => holder.pid);
    if (dead.length === 0) return true;
    show("removing what a killed run has left");
    const cancelled = await this.start(["cancel", "--yes", "--stack", stack]);
    if (cancelled.failed) throw new Error(`${stack}: ${clean(cancelled.stderr)}`);
    const lockedBy = await this.settle(stack, stackFile, remove, show);
    // Another run that was faster has found the same; what is left then is seen the next time.
    if (lockedBy.length === 0) await this.runs.forget(stack, dead);
    return true;
  }

  /** Waits for a run that was begun here and goes on although its command was killed. */
  async awaitOrphans(stack: string, show: (line: string) => void): Promise<void> {
    for (const { pid, since } of await this.runs.orphans(stack)) {
      show(`waiting for the run that was begun at ${since}`);
      await this.runs.ended(pid);
    }
  }

  /** Whether a killed run has left a create in the state that only `settle` takes out of it. */
  async hasPending(stack: string): Promise<boolean> {
    return pendingCreates(await this.state(stack)).length > 0;
  }

  /**
   * Takes out of the state what a killed run had begun to create, and out of the cluster what no run
   * would find again. All other objects are carried on with by the next `up`. Every change is made
   * by Pulumi itself, under its lock: a state that a run still writes stays as it is.
   * @param remove removes an object from the cluster, if it is this stack's
   * @returns the runs that hold the stack; where there is one, nothing was settled.
   */
  async settle(
    stack: string,
    stackFile: string,
    remove: (object: Tree) => Promise<void>,
    show: (line: string) => void,
  ): Promise<readonly Holder[]> {
    const before = await this.state(stack);
    if (pendingCreates(before).length === 0) return [];
    this.said.clear();
    const root = rootOf(before);
    const target = root === undefined ? [] : ["--target", root];
    const refresh = ["refresh", "--yes", "--skip-preview", "--suppress-outputs", ...target];
    // Takes the lock, and so shows that no run is at work, or refuses.
    const free = await this.change(stack, stackFile, refresh, show);
    if (!free.succeeded) return lockedOrFailed(stack, free);
    for (const object of abandonedObjects(before, await this.state(stack))) await remove(object);
    const clear = [...refresh, "--clear-pending-creates"];
    const cleared = await this.change(stack, stackFile, clear, show);
    return cleared.succeeded ? [] : lockedOrFailed(stack, cleared);
  }

  /** The URL of the backend, which may begin at the project's folder; empty where it is not known. */
  async backend(): Promise<string> {
    const { stdout } = await execa("pulumi", ["whoami", "--json", ...ALWAYS], {
      cwd: this.folder,
      reject: false,
    });
    return Backend.safeParse(parseJson(stdout)).data?.url ?? "";
  }

  private async state(stack: string): Promise<State> {
    const run = await this.start(["stack", "export", "--stack", stack]);
    if (run.failed) throw new Error(`${stack}: ${clean(run.stderr)}`);
    return parseState(run.stdout);
  }

  /**
   * What a preview prints as JSON.
   * @throws Error with Pulumi's reasons.
   */
  private async parsed(
    args: string[],
    env: Readonly<Record<string, string>> = {},
  ): Promise<z.infer<typeof PreviewOutput>> {
    const run = await this.start(args, { env });
    const parsed = PreviewOutput.safeParse(parseJson(run.stdout));
    if (parsed.success && !run.failed) return parsed.data;
    const reasons = parsed.success ? reasonsOf(parsed.data.diagnostics) : [];
    throw new Error(reasons.length > 0 ? reasons.join("\n") : reasonOf(run.stdout, run.stderr));
  }

  private async start(args: string[], options: { env?: Readonly<Record<string, string>> } = {}) {
    const start = async () => {
      const run = await execa("pulumi", [...args, ...ALWAYS], {
        ...options,
        cwd: this.folder,
        reject: false,
      });
      if (run.code === "ENOENT") throw new Error(NOT_INSTALLED);
      return run;
    };
    const stack = args[args.indexOf("--stack") + 1] ?? "";
    return this.retryWhileUnreadable(stack, start, ({ stderr }) => stderr);
  }

  /** Runs what changes a stack. */
  private change(
    stack: string,
    stackFile: string,
    args: readonly string[],
    show: (line: string) => void,
    { env = {}, folder = this.folder }: Surroundings = {},
  ): Promise<RunResult> {
    const start = () => this.runs.start(folder, stack, stackFile, args, show, env);
    return this.retryWhileUnreadable(stack, start, ({ output }) => output);
  }

  /**
   * Runs Pulumi again while it cannot read a stack's state, because another run is writing it or was
   * killed while it wrote. Pulumi has done nothing then.
   */
  private async retryWhileUnreadable<T>(
    stack: string,
    start: () => Promise<T>,
    printed: (run: T) => string,
  ): Promise<T> {
    for (let attempt = 1; ; attempt += 1) {
      const run = await start();
      if (!isUnreadable(printed(run))) return run;
      const { folder, project } = this;
      const url = await this.backend();
      const found = await removeEmptyAttributes({ url, folder, project, stack });
      const isLast = attempt === ATTEMPTS;
      if (found !== undefined && (found.isRemoved || isLast)) this.note(found.said);
      if (isLast) return run;
      if (found?.isRemoved !== true) await setTimeout(attempt * RETRY_MILLISECONDS);
    }
  }
}

/** Shows what is being changed; what has been only, where lines stay: the log has all of them. */
function steps(show: (line: string) => void): (line: string) => void {
  const told = process.stdout.isTTY
    ? /^[-+~<>=]+ /
    : /^[-+~<>=]+ .* (created|updated|replaced|deleted|failed\*\*)/;
  return (line) => {
    if (told.test(line) && line.includes(":")) show(line.replace(/ \[diff: .*/, ""));
  };
}

/**
 * Who holds a stack that could not be settled.
 * @throws Error with Pulumi's reasons, where it is for another one.
 */
function lockedOrFailed(stack: string, { output, log }: RunResult): readonly Holder[] {
  const lockedBy = locksOf(output);
  if (lockedBy.length > 0) return lockedBy;
  throw new Error(
    `${stack}: what a killed run has left cannot be settled: ${clean(diagnostics(output))}\n` +
      `The log is ${log}. Run \`pulumi refresh --clear-pending-creates --stack ${stack}\`, ` +
      "and then the same command again.",
  );
}

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

/**
 * The reasons of a failed preview, each once: what the API server refuses by environment, object and
 * field; all else in Pulumi's words.
 */
export function reasonsOf(diagnostics: readonly Diagnostic[]): string[] {
  const errors = diagnostics.filter(({ severity }) => severity === "error");
  const reasons = errors.map(({ message, urn }) => refused(urn, clean(message)) ?? clean(message));
  // The stack's own, beside that of a resource.
  const known = reasons.filter((text) => text !== "" && !/^(error: )?preview failed$/.test(text));
  return [...new Set(known)];
}

/** A server's answer to an invalid object, whose fields are listed in brackets where they are several. */
const INVALID = /(\w+)(?:\.[\w.]+)? "([^"]+)" is invalid: \[?([^]*?)\]?$/;
/** Between two fields: the path of the next one, and a colon. */
const NEXT_FIELD = /, (?=[a-z]\w*(?:\.\w+|\[[^\]]*\])*: )/;

function refused(urn: string, message: string): string | undefined {
  const [, kind = "", name = "", list = ""] = INVALID.exec(message) ?? [];
  const environment = urn.split(":")[2] ?? "";
  if (!urn.includes("$kubernetes:") || list === "") return undefined;
  // Several rules may refuse one field.
  const fields = new Map(
    list
      .split(NEXT_FIELD)
      .map((text) => [text.slice(0, text.indexOf(": ")), text] as const)
      .reverse(),
  );
  const reasons = [...fields.values()].reverse().join("; ");
  return `${environment}: the cluster refuses ${kind} ${name}: ${reasons}`;
}

/** Without Pulumi's marks for colours. */
function clean(text: string): string {
  return stripVTControlCharacters(text.replace(/<\{%[^%]*%\}>/g, "")).trim();
}
