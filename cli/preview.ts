import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { parse, stringify } from "yaml";
import { baseAt, baseOf, filesBetween, movedSince } from "../ledger/changes";
import { Refusal } from "../ledger/refusal";
import type { ChangeCard, FileChange } from "../release/change-card";
import { formatCard, NOT_KNOWN } from "../release/change-card";
import { isTree, type Tree } from "../release/merge";
import { groupOperations, notRoutine } from "../release/operations";
import { shortHash } from "../release/plan";
import { targetOf } from "../release/way-back";
import { commitsOf, isRoutine, sourceHere, wayBackOf } from "./card";
import { checkName, type Context, type Report } from "./context";
import { readFacts } from "./facts";
import { schemaFacts } from "./schema";

/** What one environment's files would change. */
export interface Previewed {
  readonly environment: string;
  readonly card?: ChangeCard;
  /** Why there is no card. */
  readonly problem?: string;
}

export interface PreviewOptions {
  /** A commit: each stack file that differs from it is previewed. */
  readonly base?: string;
  /** A commit: its stack file of one environment is previewed, and nothing else of it is read. */
  readonly of?: string;
}

/**
 * `baton preview --base COMMIT`: what the stack files would change that differ from a commit's, as
 * one card each. `baton preview ENV --of COMMIT`: what a commit's stack file would change, by the
 * program that is checked out. Nothing is asked for, written or recorded.
 */
export async function preview(
  context: Context,
  environment: string | undefined,
  { base, of }: PreviewOptions,
): Promise<Report> {
  await context.ledger.check();
  if (environment !== undefined && of !== undefined && base === undefined) {
    checkName(environment);
    const commit = await commitOf(context, "--of", of);
    const since = await mergeBase(context, "--of", commit);
    return previewEach(context, [environment], (name) => foreignCard(context, name, commit, since));
  }
  if (environment !== undefined || of !== undefined || base === undefined) {
    throw new Refusal({
      where: "baton",
      property: "preview",
      value: "ambiguous",
      expected: "--base COMMIT, or ENV --of COMMIT",
      fix: "`baton preview --help` says more",
    });
  }
  const since = await mergeBase(context, "--base", await commitOf(context, "--base", base));
  const touched = await touchedSince(context, since);
  if (touched.length === 0) context.print(`No environment's file differs from ${base}.`);
  return previewEach(context, touched, async (name) =>
    cardOf(context, name, await context.project.read(name), { since, files: [] }),
  );
}

async function previewEach(
  { print }: Context,
  names: readonly string[],
  cardOf: (environment: string) => Promise<ChangeCard>,
): Promise<Report> {
  const environments: Previewed[] = [];
  for (const environment of names) {
    try {
      const card = await cardOf(environment);
      print(formatCard(card, process.stdout.columns));
      environments.push({ environment, card });
    } catch (error) {
      // The others are previewed all the same.
      const problem = error instanceof Error ? error.message : String(error);
      print(problem);
      environments.push({ environment, problem });
    }
  }
  const failed = environments.some(({ problem }) => problem !== undefined);
  return { outcome: failed ? "refused" : "done", environments };
}

async function touchedSince({ ledger, project }: Context, since: string): Promise<string[]> {
  const diff = ["diff-tree", "-r", "-z", "--name-only", "--relative", since, "HEAD", "--", "."];
  const changed = (await ledger.git.run(diff)).split("\0");
  const path = await project.path();
  if (changed.includes("Pulumi.yaml")) return path;
  return path.filter((environment) => changed.includes(project.stackFile(environment)));
}

/** @throws Refusal where there is no such commit. */
async function commitOf({ ledger }: Context, option: string, name: string): Promise<string> {
  const args = ["rev-parse", "--verify", "--quiet", "--end-of-options", `${name}^{commit}`];
  const commit = await ledger.git.try(...args);
  if (commit !== undefined) return commit.trim();
  throw noHistory(option, name);
}

async function mergeBase({ ledger }: Context, option: string, commit: string): Promise<string> {
  const found = await ledger.git.try("merge-base", "HEAD", commit);
  if (found !== undefined) return found.trim();
  throw noHistory(option, commit);
}

function noHistory(property: string, value: string): Refusal {
  return new Refusal({
    where: "baton",
    property,
    value,
    expected: "a commit that this one has a history with",
    fix: "Fetch it with its history, or correct the name",
  });
}

/** The card of another commit's stack file, of which nothing decides how the program runs. */
async function foreignCard(
  context: Context,
  environment: string,
  commit: string,
  since: string,
): Promise<ChangeCard> {
  const { project, ledger } = context;
  const file = project.stackFile(environment);
  const present = await project.read(environment);
  const [before = "", after] = await Promise.all(
    [since, commit].map((at) => ledger.show(at, file)),
  );
  const problem = (value: string, expected: string, fix: string) =>
    new Refusal({ where: environment, property: file, value, expected, fix });
  if (after === undefined) {
    throw problem("removed", "a stack file to preview", "Take the environment away first");
  }
  const merged = before === present ? after : await mergeTexts(context, [present, before, after]);
  if (merged === undefined) {
    throw problem(
      "in conflict with the branch that the environment is deployed from",
      "a file that can be merged",
      "Merge that branch first",
    );
  }
  const values = valuesOf(merged);
  const differing = values && notData(project.name, valuesOf(present) ?? {}, values);
  if (values === undefined || differing === undefined || differing.length > 0) {
    throw problem(
      differing === undefined ? "no map" : `different in ${differing.join(", ")}`,
      `no change but in keys that begin with ${project.name}:`,
      "Preview it where it is checked out: the rest decides how the program runs",
    );
  }
  const [formerly, proposed] = await Promise.all([
    project.programAt(since),
    project.programAt(commit),
  ]);
  const files = filesBetween(formerly?.files ?? {}, proposed?.files ?? {});
  // Written anew, as another parser may read the file's own text in another way.
  const card = await cardOf(context, environment, stringify(values, { lineWidth: 0 }), {
    since: await ledger.head(),
    files,
  });
  const names = ["diff-tree", "-r", "-z", "--name-only", "--relative", since, commit, "--", "."];
  const others = (await ledger.git.run(names)).split("\0");
  if (others.every((name) => name === "" || name === file)) return card;
  const note = `Other files that the commit changes are not part of this preview.`;
  return { ...card, notes: [card.notes, note].filter((text) => text !== "").join(" ") };
}

/** Three versions of a text merged, as git does; nothing where they conflict. */
async function mergeTexts(
  { ledger }: Context,
  texts: readonly string[],
): Promise<string | undefined> {
  const folder = await mkdtemp(join(tmpdir(), "baton-"));
  try {
    const files = texts.map((_, index) => join(folder, String(index)));
    for (const [index, file] of files.entries()) await writeFile(file, texts[index] ?? "");
    return await ledger.git.try("merge-file", "--stdout", ...files);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

function valuesOf(stackFile: string): Tree | undefined {
  try {
    const values: unknown = parse(stackFile);
    return isTree(values) ? values : undefined;
  } catch {
    return undefined;
  }
}

/**
 * The keys in which two stack files differ beside the program's own configuration: key and
 * providers, plugins and environments that Pulumi imports, and the configuration of providers.
 */
function notData(project: string, one: Tree, other: Tree): string[] {
  const rest = ({ config, ...beside }: Tree): Tree => {
    const keys = isTree(config) ? Object.entries(config) : [["config", config] as const];
    return { ...beside, ...Object.fromEntries(keys.filter(([key]) => !isOwn(key))) };
  };
  const isOwn = (key: string) => key.startsWith(`${project}:`);
  const [former, next] = [rest(one), rest(other)];
  const keys = [...new Set([...Object.keys(former), ...Object.keys(next)])];
  return keys.filter((key) => !isDeepStrictEqual(former[key], next[key]));
}

interface Compared {
  /** The commit to compare with where nothing was deployed before. */
  readonly since: string;
  /** Files of the program that another commit changes, and that no preview runs. */
  readonly files: readonly FileChange[];
}

async function cardOf(
  context: Context,
  environment: string,
  text: string,
  { since, files }: Compared,
): Promise<ChangeCard> {
  const { project, pulumi, ledger, showProgress } = context;
  const config = project.parse(environment, text);
  const [plan, { release }, previewed, last] = await Promise.all([
    project.plan(environment, text),
    pulumi.outputs(environment),
    showProgress(`${environment}: preview`, () => pulumi.preview(environment, text)),
    readFacts(context).then((facts) => facts.lastDeployed(environment)),
  ]);
  const here = await movedSince(
    project,
    ledger,
    await sourceHere(context, environment, text),
    baseOf(last) ?? (await baseAt(project, ledger, environment, since)),
  );
  const program = { ...here.program, files: unite(here.program.files, files) };
  const moved = { ...here, program };
  const { imageTag: tag, imageDigest: digest, version } = config;
  const schema =
    tag === undefined || digest === undefined
      ? undefined
      : await schemaFacts(context, environment, config, { tag, digest });
  const { required, notOwnRequest } = config.approval;
  const people = `${required} ${required === 1 ? "person" : "people"}`;
  const others = notOwnRequest ? " other than who asks" : "";
  const from = release === undefined ? {} : targetOf(release);
  return {
    environment,
    from,
    to: { tag, digest, version },
    plan: shortHash(plan.hash),
    requester: "nobody yet",
    commits:
      digest === undefined || digest === release?.digest
        ? undefined
        : await commitsOf(project.folder, config, release?.digest, digest),
    moved,
    schema: schema?.says,
    operations: groupOperations(previewed.operations),
    scan: NOT_KNOWN,
    wayBack: wayBackOf(environment, from, schema?.change),
    routine:
      schema?.change === undefined &&
      notRoutine(previewed.operations).length === 0 &&
      isRoutine(moved, last),
    notes:
      required === 0
        ? ""
        : `A request needs the word of ${people}${others}, by \`baton approve ${environment} PLAN\`.`,
    missing: [],
  };
}

/** Files of both lists, each once. */
function unite(one: readonly FileChange[], other: readonly FileChange[]): FileChange[] {
  const names = other.map(({ name }) => name);
  return [...one.filter(({ name }) => !names.includes(name)), ...other].sort((a, b) =>
    a.name < b.name ? -1 : 1,
  );
}
