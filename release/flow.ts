import { compare } from "semver";
import { z } from "zod";
import type { Problem } from "./problem";
import { isEnvironmentName, isVersion, parseTag } from "./tags";

/*
 * What a push means: the table that maps branches and tags to what happens, and which release a
 * merge or a version names. Every message completes the sentence "… is X; expected …".
 */

/** Beside the stack files. */
export const FLOW_FILE = "pipelines/flow.yaml";

const NAME = /^[^\s~^:?[\\]+$/;
const PATTERN = "a name of a branch or tag, with * or one {version} for what varies";
const pattern = z
  .string({ error: PATTERN })
  .regex(NAME, PATTERN)
  .refine((text) => text.split("{version}").length <= 2, PATTERN);
const branch = z
  .string({ error: "a branch, such as main" })
  .regex(/^[^\s~^:?[\\*{}]+$/, "a branch, such as main");
const environment = z
  .string({ error: "the name of an environment" })
  .refine(isEnvironmentName, "the name of an environment");

const BranchRow = z.strictObject({
  /** `*` stands for any text without a slash, `**` for any, `{version}` for `1.4.0` and the like. */
  branch: pattern,
  /** Whether a push is built and checked. */
  build: z.boolean({ error: "true or false" }).default(false),
  /** Where it is deployed. */
  promote: environment.optional(),
  /** A branch that a pull request then brings it to. */
  pullRequest: branch.optional(),
});
const TagRow = z.strictObject({
  /** As `branch` above; what `{version}` stands for is the release's version. */
  tag: pattern,
  /** The branch that the tagged commit must be on. */
  on: branch,
  promote: environment,
  pullRequest: branch.optional(),
});
/** The branch whose history is reviewed, unless `protected` names another for an environment. */
export const PROTECTED_BRANCH = "main";

export const ProtectedBranches = z
  .record(z.string(), pattern, { error: "a map of environments" })
  .default({});

const Table = z.strictObject({
  /** The folder of the repository whose content is the application. */
  application: z
    .string({ error: "a folder of the repository, or ." })
    .regex(/^(?!\/|.*(^|\/)\.\.(\/|$)).+$/, "a folder of the repository, or ."),
  /** By environment: the branch whose pipelines get its credentials. Default: `main`. */
  protected: ProtectedBranches,
  rows: z
    .array(z.union([BranchRow, TagRow]), { error: "a list of rows" })
    .min(1, "at least one row"),
});

export type Flow = z.infer<typeof Table>;
export type Row = Flow["rows"][number];

/** An environment as far as the table depends on it. */
export interface FlowEnvironment {
  readonly takesBuilds: boolean;
  /** Whether a deployment needs approvals. */
  readonly asksApproval: boolean;
}

/** The branch, or the pattern of branches, whose pipelines get an environment's credentials. */
export function protectedBranch(flow: Pick<Flow, "protected">, environment: string): string {
  return flow.protected[environment] ?? PROTECTED_BRANCH;
}

/**
 * The table as it stands in a file.
 * @param environments those that exist
 */
export function parseFlow(
  values: unknown,
  where: string,
  environments: Readonly<Record<string, FlowEnvironment>>,
): { readonly ok: Flow } | { readonly problems: readonly Problem[] } {
  const problems: Problem[] = [];
  const add = (property: string, value: unknown, expected: string, fix = "Correct it") => {
    problems.push({ where, property, value: valueOf(value), expected, fix });
  };
  const explain = (issues: readonly z.core.$ZodIssue[], base: readonly PropertyKey[]): void => {
    for (const issue of issues) {
      const path = [...base, ...issue.path];
      if (issue.code === "unrecognized_keys") {
        for (const key of issue.keys) add(nameOf([...path, key]), "not known", "no such key");
      } else if (issue.code === "invalid_union") {
        const row = at(values, path);
        const kind = isObject(row) && "tag" in row ? 1 : 0;
        explain(issue.errors[kind] ?? [], path);
      } else {
        add(nameOf(path), at(values, path), issue.message);
      }
    }
  };
  const parsed = Table.safeParse(values);
  if (!parsed.success) {
    explain(parsed.error.issues, []);
    return { problems };
  }
  const names = Object.keys(environments).join(", ");
  for (const [environment, name] of Object.entries(parsed.data.protected)) {
    const property = `protected.${environment}`;
    const known = environments[environment];
    if (known === undefined) {
      add(property, "no environment", `one of ${names}`, "Correct or remove it");
    } else if (known.asksApproval && isPattern(name)) {
      const fix = "Name one: the tag of an approval starts the deployment there";
      add(property, name, "one branch, as baton:approval.required is more than 0", fix);
    }
  }
  for (const [index, row] of parsed.data.rows.entries()) {
    const property = `rows[${index}].promote`;
    const { promote } = row;
    const builds = "branch" in row && row.build;
    if (promote === undefined) {
      if (!builds) {
        const fix = "Say what happens, or remove the row";
        add(`rows[${index}]`, "without build and promote", "one of them", fix);
      }
      continue;
    }
    const known = environments[promote];
    if (known === undefined) {
      add(property, promote, `one of ${names}`);
      continue;
    }
    const from = "tag" in row ? row.on : row.branch;
    const trusted = protectedBranch(parsed.data, promote);
    if (from !== trusted) {
      const key = `rows[${index}].${"tag" in row ? "on" : "branch"}`;
      const fix = `Correct it, or protected.${promote}, whose pipelines get its credentials`;
      add(key, from, `${trusted}, the protected branch of ${promote}`, fix);
    }
    if (known.takesBuilds && !builds) {
      const fix = "Set build, or promote to an environment that has an upstream";
      add(property, promote, "build: true beside it, as it takes builds", fix);
    } else if (!known.takesBuilds && builds) {
      const fix = "Remove build, or promote to an environment without an upstream";
      add(property, promote, "no build beside it, as it takes what its upstream has earned", fix);
    }
  }
  return problems.length > 0 ? { problems } : { ok: parsed.data };
}

/** Whether a name stands for more than one branch. */
function isPattern(name: string): boolean {
  return /\*|\{version\}/.test(name);
}

/** A branch or tag that was pushed. */
export interface Ref {
  readonly kind: "branch" | "tag";
  readonly name: string;
}

/** `refs/heads/NAME` and `refs/tags/NAME`; `undefined` for anything else. */
export function parseRef(text: string): Ref | undefined {
  const [, folder, name] = /^refs\/(heads|tags)\/(.+)$/.exec(text) ?? [];
  if (name === undefined) return undefined;
  return { kind: folder === "heads" ? "branch" : "tag", name };
}

/** The row that decides on a push, and the version that its name carries, as `v1.4.0`. */
export interface Match {
  readonly row: Row;
  readonly version: string | undefined;
}

/** The first row that fits. */
export function rowFor(flow: Flow, { kind, name }: Ref): Match | undefined {
  for (const row of flow.rows) {
    const found =
      kind === "branch" ? ("branch" in row ? row.branch : "") : "tag" in row ? row.tag : "";
    const matched = matches(found, name);
    if (matched !== undefined) return { row, version: matched.version };
  }
  return undefined;
}

/**
 * Whether a pattern stands for a name: `*` for any text without a slash, `**` for any text,
 * `{version}` for a semantic version without build metadata.
 */
export function matches(text: string, name: string): { version: string | undefined } | undefined {
  const parts = text.split(/(\*\*|\*|\{version\})/).map((part) => {
    if (part === "**") return ".+";
    if (part === "*") return "[^/]+";
    if (part === "{version}") return "(?<version>[0-9][0-9A-Za-z.-]*)";
    return part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  });
  const found = new RegExp(`^${parts.join("")}$`).exec(name);
  if (found === null) return undefined;
  const version =
    found.groups?.["version"] === undefined ? undefined : `v${found.groups["version"]}`;
  return version === undefined || isVersion(version) ? { version } : undefined;
}

/** The tags that a giver has given, the newest release first; of all other tags none. */
export function newestFirst(tags: readonly string[], giver: string): string[] {
  const given = tags.flatMap((tag) => {
    const parsed = parseTag(tag);
    return parsed?.giver === giver ? [{ tag, release: parsed.release }] : [];
  });
  return given.sort((one, other) => order(other.release, one.release)).map(({ tag }) => tag);
}

/** Build numbers by their value, before versions by theirs. */
function order(one: string, other: string): number {
  const [first, second] = [one, other].map((release) => (isVersion(release) ? 1 : 0));
  if (first !== second) return (first ?? 0) - (second ?? 0);
  return first === 1 ? compare(one, other) : Number(one) - Number(other);
}

/** What git says of the revision that an image was built from, beside what was pushed. */
export interface Ancestry {
  /** Whether it is that commit, or one of its history. */
  readonly contained: boolean;
  /** Whether the application is the same in both. */
  readonly sameApplication: boolean;
}

/** Whether an image is the one that a push names: a merge contains it, a version is of it. */
export function names({ kind }: Ref, { contained, sameApplication }: Ancestry): boolean {
  return contained && (kind === "branch" || sameApplication);
}

/** Whether a build number is free, or what it names is of the same revision. */
export function checkBuild(
  tag: string,
  revision: string,
  existing: { readonly revision: string | undefined } | undefined,
): { readonly ok: "push" | "reuse" } | { readonly problems: readonly Problem[] } {
  const problem = (property: string, value: string, expected: string, fix: string) => ({
    problems: [{ where: tag, property, value, expected, fix }],
  });
  if (parseTag(tag)?.giver !== "build") {
    return problem("the tag", tag, "build and a number, such as build-45", "Correct it");
  }
  if (existing === undefined) return { ok: "push" };
  if (existing.revision === revision) return { ok: "reuse" };
  return problem(
    "the registry",
    `holding it already, built from ${existing.revision ?? "an unknown revision"}`,
    `no such tag, or one of ${revision}`,
    "Tags never move: build under a new number",
  );
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null;
}

/** `rows[2].promote`. */
function nameOf(path: readonly PropertyKey[]): string {
  const text = path.map((key) => (typeof key === "number" ? `[${key}]` : `.${String(key)}`));
  return text.join("").replace(/^\./, "") || "the file";
}

function at(values: unknown, path: readonly PropertyKey[]): unknown {
  return path.reduce<unknown>(
    (value, key) => (isObject(value) ? value[key as string] : undefined),
    values,
  );
}

function valueOf(value: unknown): string {
  if (value === undefined) return "not set";
  return typeof value === "string" ? value || "empty" : JSON.stringify(value);
}
