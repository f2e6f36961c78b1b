import type { FileChange, Moved } from "../release/change-card";
import type { Tree } from "../release/merge";
import { packagesBetween, type PackageChange } from "../release/packages";
import { isSamePart, movedParts, type Plan, type PlanPart } from "../release/plan";
import type { Problem } from "../release/problem";
import { settingsDifference, type SettingsChange } from "../release/settings-difference";
import { committed, type LastDeployed, type Policy } from "./gate";
import type { Ledger, Request } from "./ledger";
import { UncoveredProgram, type Program } from "./program-files";
import type { Project } from "./project";
import { POLICY_KEYS, type StackConfig } from "./stack-config";

/** All that a plan is of, read from where its hash could be checked. */
export interface PlanSource extends Policy {
  readonly parts: Plan["parts"];
  readonly program: Program;
  /** The text of Pulumi.yaml; as it is in the folder unless given. */
  readonly projectFile?: string | undefined;
  /** The commit that the program is read from; the folder itself unless given. */
  readonly commit?: string | undefined;
}

/**
 * All that a request's plan is of: the configuration of the request's commit, and the program as it is
 * here or in that commit, whichever has the hash that the plan has.
 * @returns a problem where neither has: what the plan is of cannot be shown.
 */
export async function sourceOf(
  project: Project,
  ledger: Ledger,
  request: Request,
): Promise<PlanSource | Problem> {
  const { environment, commit } = request;
  const [there, projectFile] = await Promise.all([
    committed(project, ledger, environment, commit),
    ledger.show(commit, "Pulumi.yaml"),
  ]);
  if (there === undefined) return unlike(request, ["stack file"]);
  const read = async (program: Program | undefined, from?: string) => {
    if (program === undefined) return undefined;
    const { config, allowedSigners } = there;
    const known = {
      program,
      allowedSigners,
      ...(projectFile === undefined ? {} : { projectFile }),
    };
    const { hash, parts } = await project.planOf(config, known);
    const moved = movedParts(request.parts, parts);
    const source = { ...there, parts, program, projectFile, commit: from };
    return { source, moved, isWhole: moved.length === 0 && hash === request.plan };
  };
  const here = await read(await project.program().catch(noneOfUncovered));
  if (here?.isWhole === true) return here.source;
  const committedToo = await read(await project.programAt(commit), commit);
  if (committedToo?.isWhole === true) return committedToo.source;
  return unlike(request, committedToo?.moved ?? here?.moved ?? []);
}

export function isProblem(found: PlanSource | Problem): found is Problem {
  return "property" in found;
}

function noneOfUncovered(error: unknown): undefined {
  if (error instanceof UncoveredProgram) return undefined;
  throw error;
}

function unlike({ environment, commit }: Request, parts: readonly string[]): Problem {
  return {
    where: environment,
    property: "the request's plan",
    value: `not of what its commit ${commit.slice(0, 9)} holds (${parts.join(", ") || "its hash"})`,
    expected: "a plan of files that can be shown: those of its commit, or those here",
    fix: `Commit all that belongs to it and ask anew with \`baton request ${environment}\`, or check out what it was asked for with`,
  };
}

/** A commit that a plan is compared with. */
export interface Base extends Policy {
  readonly parts: Plan["parts"];
  readonly commit: string;
  /** The release that was deployed from it, where one was. */
  readonly tag?: string | undefined;
}

/** What was deployed last, to be compared with. */
export function baseOf(last: LastDeployed | undefined): Base | undefined {
  if (last === undefined) return undefined;
  const { config, allowedSigners, parts, outcome } = last;
  return { config, allowedSigners, parts, commit: last.commit ?? outcome.commit, tag: outcome.tag };
}

/** A commit from which nothing need have been deployed. */
export async function baseAt(
  project: Project,
  ledger: Ledger,
  environment: string,
  commit: string,
): Promise<Base | undefined> {
  const [policy, program, projectFile = ""] = await Promise.all([
    committed(project, ledger, environment, commit),
    project.programAt(commit),
    ledger.show(commit, "Pulumi.yaml"),
  ]);
  if (policy === undefined || program === undefined) return undefined;
  const { config, allowedSigners } = policy;
  const { parts } = await project.planOf(config, { program, allowedSigners, projectFile });
  return { config, allowedSigners, parts, commit };
}

/** What a plan changes in comparison with what was deployed last, by git and not by any message. */
export async function movedSince(
  project: Project,
  ledger: Ledger,
  next: PlanSource,
  base: Base | undefined,
): Promise<Moved> {
  if (base === undefined) return { since: "nothing", ...NONE };
  const { commit, tag } = base;
  const differs = (part: PlanPart) => !isSamePart(next.parts, base.parts, part);
  const settings = [
    ...settingsDifference(base.config.settings, next.config.settings),
    ...settingsDifference(besideOf(base.config), besideOf(next.config)),
  ];
  const isHidden = ({ from, to }: SettingsChange) => from === undefined && to === undefined;
  const isSuite = ({ path }: SettingsChange) => /^verification(\.|\[|$)/.test(path);
  const [program, packages] = await Promise.all([
    differs("program") ? programMoved(project, ledger, next, commit) : NONE.program,
    differs("lockfile") ? packagesMoved(project, next, commit) : NONE.packages,
  ]);
  const moved = {
    settings: settings.filter((one) => !isHidden(one) && !isSuite(one)),
    secrets: settings.filter((one) => isHidden(one) && !isSuite(one)),
    suites: settings.filter(isSuite),
    policy: policyMoved(base, next),
    program,
    packages,
  };
  const named: Partial<Record<PlanPart, number>> = {
    settings: settings.length,
    secrets: settings.filter(isHidden).length,
    policy: moved.policy.length,
    program: program.files.length + program.project.length,
    lockfile: packages.length,
  };
  const unnamed = (Object.keys(named) as PlanPart[])
    .filter((part) => differs(part) && named[part] === 0)
    .map((part) => `${part} moved, and comparing with ${commit.slice(0, 9)} does not tell how`);
  return { since: { tag, commit }, ...moved, unnamed };
}

const NONE = {
  settings: [],
  secrets: [],
  policy: [],
  suites: [],
  program: { files: [], project: [] },
  packages: [],
  unnamed: [],
} as const satisfies Omit<Moved, "since">;

/** What the stack file says beside its configuration; keys and salts are no text for people. */
function besideOf({ beside }: StackConfig): Tree {
  const secret = ["encryptionsalt", "encryptedkey"];
  const entries = Object.entries(beside).map(([key, value]) => [
    key,
    secret.includes(key) ? { secure: JSON.stringify(value) } : value,
  ]);
  return { others: Object.fromEntries(entries) as Tree };
}

function policyMoved(former: Policy, next: Policy): SettingsChange[] {
  const tree = ({ config }: Policy): Tree => ({
    own: Object.fromEntries(
      POLICY_KEYS.filter((key) => config[key] !== undefined).map((key) => [key, config[key]]),
    ),
  });
  const signers = ({ allowedSigners }: Policy) =>
    allowedSigners.split("\n").flatMap((line) => (line.trim() === "" ? [] : [line.trim()]));
  const [before, after] = [signers(former), signers(next)];
  const path = next.config.approval.allowedSigners;
  return [
    ...settingsDifference(tree(former), tree(next)),
    ...after
      .filter((line) => !before.includes(line))
      .map((to) => ({ path, kind: "added", to }) as const),
    ...before
      .filter((line) => !after.includes(line))
      .map((from) => ({ path, kind: "removed", from }) as const),
  ];
}

async function programMoved(
  project: Project,
  ledger: Ledger,
  { program, projectFile }: PlanSource,
  commit: string,
): Promise<Moved["program"]> {
  const [former, formerFile] = await Promise.all([
    project.programAt(commit),
    ledger.show(commit, "Pulumi.yaml"),
  ]);
  const [one, other] = [formerFile, projectFile].map((text): Tree => ({
    others: project.otherThanConfig(text),
  }));
  return {
    files: former === undefined ? [] : filesBetween(former.files, program.files),
    project:
      formerFile === undefined || one === undefined || other === undefined
        ? []
        : settingsDifference(one, other),
  };
}

/** The files in which two programs differ, by name. */
export function filesBetween(former: Program["files"], next: Program["files"]): FileChange[] {
  const names = [...new Set([...Object.keys(former), ...Object.keys(next)])].sort();
  return names.flatMap((name): FileChange[] => {
    if (former[name] === next[name]) return [];
    if (former[name] === undefined) return [{ name, kind: "added" }];
    return [{ name, kind: next[name] === undefined ? "removed" : "changed" }];
  });
}

async function packagesMoved(
  project: Project,
  { program, commit }: PlanSource,
  formerCommit: string,
): Promise<PackageChange[]> {
  const changes = Object.keys(program.lockfile).map(async (name) => {
    const [former, next] = await Promise.all([
      project.programText(name, formerCommit),
      project.programText(name, commit),
    ]);
    return packagesBetween(former, next) ?? [];
  });
  return (await Promise.all(changes)).flat();
}
