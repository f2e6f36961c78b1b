import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { parse } from "yaml";
import { matches, type Ref } from "../../release/flow";

export const ROOT = join(__dirname, "..", "..");
const FOLDER = join(ROOT, ".github/workflows");

export interface Step {
  readonly name?: string;
  readonly uses?: string;
  readonly run?: string;
  readonly if?: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly with?: Readonly<Record<string, string | number | boolean>>;
}

export interface Job {
  readonly needs?: string | readonly string[];
  readonly if?: string;
  readonly environment?: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly permissions?: Readonly<Record<string, string>>;
  readonly concurrency?: { readonly group: string; readonly "cancel-in-progress": boolean };
  /** Its combinations are listed under `include`, or given by an expression. */
  readonly strategy?: {
    readonly matrix: {
      readonly include?: readonly Readonly<Record<string, string>>[];
      readonly environment?: string;
    };
  };
  readonly steps: readonly Step[];
}

interface Push {
  readonly branches?: readonly string[];
  readonly tags?: readonly string[];
}

export interface Workflow {
  readonly name: string;
  /** As it is written. */
  readonly text: string;
  readonly on: {
    readonly push?: Push;
    readonly workflow_dispatch?: {
      readonly inputs?: Readonly<Record<string, { readonly options?: readonly string[] }>>;
    };
  } & Readonly<Record<string, unknown>>;
  readonly env?: Readonly<Record<string, string>>;
  readonly permissions?: Readonly<Record<string, string>>;
  readonly jobs: Readonly<Record<string, Job>>;
}

export function readWorkflows(): Workflow[] {
  return readdirSync(FOLDER)
    .sort()
    .map((file) => parseWorkflow(readFileSync(join(FOLDER, file), "utf8")));
}

export function parseWorkflow(text: string): Workflow {
  return { ...(parse(text) as Omit<Workflow, "text">), text };
}

/** The steps of an action of the repository's own. */
export function readAction(path: string): readonly Step[] {
  const text = readFileSync(join(ROOT, path, "action.yml"), "utf8");
  return (parse(text) as { runs: { steps: Step[] } }).runs.steps;
}

/**
 * Whether a push starts a workflow, by its filters: of branches or tags, those that are named; of
 * what is not named at all, none
 * (https://docs.github.com/actions/reference/workflows-and-actions/workflow-syntax#onpushbranchestagsbranches-ignoretags-ignore).
 */
export function startsOn({ on }: Workflow, { kind, name }: Ref): boolean {
  const filters = (kind === "branch" ? on.push?.branches : on.push?.tags) ?? [];
  return filters.some((pattern) => matches(pattern, name) !== undefined);
}
