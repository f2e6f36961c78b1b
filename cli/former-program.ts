import { execa } from "execa";
import { cp, mkdir, readdir, rm, stat, symlink } from "node:fs/promises";
import { isAbsolute, join, relative, resolve } from "node:path";
import { Git } from "../ledger/git";
import type { LedgerOutcome } from "../ledger/ledger";
import { Project } from "../ledger/project";
import type { Program } from "../ledger/program-files";
import { parseJson } from "../release/json";
import { isTree } from "../release/merge";
import { isSamePart } from "../release/plan";
import { STATE_LAYOUT } from "../release/state-layout";
import { reasonOf } from "./bookkeeping";
import type { Context } from "./context";
import { isRunning } from "./run";

/** Which program returns to a release. */
export type ReturningProgram =
  /** The program of the release is the present one. */
  | { readonly kind: "present" }
  | {
      readonly kind: "former";
      /** The folder of its Pulumi.yaml. */
      readonly folder: string;
      readonly env: Readonly<Record<string, string>>;
      readonly remove: () => Promise<void>;
    }
  /** The program of the release cannot be had, or cannot run on this state. */
  | { readonly kind: "missing"; readonly why: string };

/** How long `npm ci` may take, in milliseconds: a way back does not wait for packages for long. */
const PATIENCE = 180_000;
/** Variables of this process that `npm ci` needs. Packages that it builds get no credentials. */
const FOR_NPM =
  /^(PATH|HOME|USER|LANG|LC_\w+|TMPDIR|TEMP|SystemRoot|ComSpec|APPDATA|NODE_EXTRA_CA_CERTS|(NPM|npm)_\w+|(http|https|no|all)_proxy|(HTTP|HTTPS|NO|ALL)_PROXY)$/;

/**
 * The program that was approved for a release, in a git worktree of its own, with its packages. It
 * never throws: where that program cannot be had, it says why.
 * @param commit of the release's request in the reviewed history
 */
export async function programOf(
  context: Context,
  environment: string,
  outcome: LedgerOutcome,
  commit: string,
): Promise<ReturningProgram> {
  try {
    return await prepare(context, environment, outcome, commit);
  } catch (error) {
    return { kind: "missing", why: reasonOf(error).split("\n")[0] ?? "" };
  }
}

async function prepare(
  context: Context,
  environment: string,
  outcome: LedgerOutcome,
  commit: string,
): Promise<ReturningProgram> {
  const { project, pulumi, ledger } = context;
  const missing = (why: string) => ({ kind: "missing", why }) as const;
  const present = await partsOf(project, environment);
  const { program, lockfile } = outcome.parts;
  if (present.program === program && present.lockfile === lockfile) return { kind: "present" };
  const { layout } = await pulumi.knownOutputs(environment);
  if (outcome.layout !== STATE_LAYOUT || layout !== STATE_LAYOUT) {
    const number = (known: number | undefined) => known ?? "not known";
    return missing(
      `its program's state layout is ${number(outcome.layout)}, the stack's is ${number(layout)}, and the present one ${STATE_LAYOUT}`,
    );
  }
  const { root, folder } = await checkOut(context, environment, commit);
  const remove = async () => {
    await ledger.git.run(["worktree", "remove", "--force", root]).catch(() => undefined);
    await rm(root, { recursive: true, force: true }).catch(() => undefined);
  };
  try {
    const then = await Project.open(folder);
    if (!(await sharePackages(project, then, present.lockfile === lockfile))) {
      // Checked before anything of it runs, as packages do that are installed.
      if (!(await isApproved(project, environment, outcome, commit))) {
        const why = `its commit ${commit.slice(0, 9)} has another program than was approved`;
        return await removed(remove, missing(why));
      }
      const title = `${environment}: install the packages of ${outcome.tag}`;
      const failed = await context.showProgress(title, () => installPackages(then.programFolder));
      if (failed !== undefined) return await removed(remove, missing(failed));
    }
    const found = await partsOf(then, environment);
    if (found.program !== program || found.lockfile !== lockfile) {
      const why = `its commit ${commit.slice(0, 9)} has another program than was approved`;
      return await removed(remove, missing(why));
    }
    const env = await absolute(context);
    if (env["PULUMI_BACKEND_URL"] === undefined && then.backend !== project.backend) {
      return await removed(remove, missing("its Pulumi.yaml keeps the state elsewhere"));
    }
    return { kind: "former", folder, env, remove };
  } catch (error) {
    await remove();
    throw error;
  }
}

async function removed<T>(remove: () => Promise<void>, result: T): Promise<T> {
  await remove();
  return result;
}

/** Whether a commit holds the program and the lockfile that were approved with a release. */
async function isApproved(
  project: Project,
  environment: string,
  { parts }: LedgerOutcome,
  commit: string,
): Promise<boolean> {
  const [committed, here, projectFile, text, lockfile] = await Promise.all([
    project.programAt(commit),
    project.program(),
    project.programText("Pulumi.yaml", commit),
    project.read(environment),
    project.text(join(project.main, "package-lock.json")),
  ]);
  if (committed === undefined) return false;
  // What a package in a folder of the project has been built to, git does not have.
  const built = linksOf(lockfile).flatMap((path) =>
    Object.entries(here.files).filter(([name]) => name.startsWith(`${path}/`)),
  );
  const files = { ...Object.fromEntries(built), ...committed.files };
  const config = project.parse(environment, text);
  const program = { ...committed, files };
  const found = await project.planOf(config, { program, projectFile });
  return isSamePart(found.parts, parts, "program") && isSamePart(found.parts, parts, "lockfile");
}

async function partsOf(project: Project, environment: string) {
  const [text, program] = [await project.read(environment), await project.program()];
  const { parts } = await project.planOf(project.parse(environment, text), { program });
  return parts;
}

/** Checks a commit out beside git's own files; the project's folder of it only, where that is all. */
async function checkOut(
  { project, ledger }: Context,
  environment: string,
  commit: string,
): Promise<{ readonly root: string; readonly folder: string }> {
  const { git } = ledger;
  const own = await ledger.privateFolder();
  await mkdir(own, { recursive: true });
  await removeLeftovers(own, environment);
  await git.run(["worktree", "prune"]);
  const root = join(own, `${environment}${WORKTREE}${process.pid}`);
  await git.run(["worktree", "add", "--quiet", "--detach", "--no-checkout", root, commit]);
  const prefix = await git.run(["rev-parse", "--show-prefix"]);
  const isWithin = !relative(project.folder, project.programFolder).startsWith("..");
  const paths = isWithin && prefix !== "" ? prefix : ".";
  await new Git(root).run(["checkout", "--quiet", "HEAD", "--", paths]);
  return { root, folder: join(root, prefix) };
}

const WORKTREE = ".program-";

/** Those of processes that are no more, and whose Pulumi has ended. */
async function removeLeftovers(own: string, environment: string): Promise<void> {
  for (const name of await readdir(own)) {
    if (!name.startsWith(`${environment}${WORKTREE}`)) continue;
    const pid = Number(name.slice(environment.length + WORKTREE.length));
    if (pid !== process.pid && (await isRunning(pid, "node"))) continue;
    await rm(join(own, name), { recursive: true, force: true });
  }
}

/**
 * Gives a former program the present packages, where the lockfile is the same: a way back does not
 * wait for those that are here.
 */
async function sharePackages(
  present: Project,
  then: Project,
  isSameLockfile: boolean,
): Promise<boolean> {
  const [from, to] = [present.programFolder, then.programFolder];
  const installed = join(from, "node_modules");
  if ((await stat(installed).catch(() => undefined)) === undefined) return true;
  if (!isSameLockfile) return false;
  const [now, before] = await Promise.all([present.program(), then.program()]);
  const links = linksOf(await present.text(join(present.main, "package-lock.json")));
  if (!links.every((path) => isSame(path, now, before))) return false;
  // A package in a folder of the project may have been built there, which git does not have.
  for (const path of links) {
    await cp(join(from, path), join(to, path), { recursive: true, verbatimSymlinks: true });
  }
  await symlink(installed, join(to, "node_modules"));
  return true;
}

/** @returns why the packages of a lockfile cannot be had, or nothing. */
async function installPackages(folder: string): Promise<string | undefined> {
  const env = Object.entries(process.env).filter(([name]) => FOR_NPM.test(name));
  const run = await execa("npm", ["ci", "--prefer-offline", "--no-audit", "--no-fund"], {
    cwd: folder,
    env: Object.fromEntries(env),
    extendEnv: false,
    reject: false,
    timeout: PATIENCE,
    stdin: "ignore",
  });
  if (!run.failed) return undefined;
  const said = run.stderr.split("\n").find((line) => /^npm (ERR!|error) (?!code)/.test(line));
  return `its packages cannot be had (npm ci: ${said ?? run.shortMessage})`;
}

/** The folders of the project that a lockfile has as packages. */
function linksOf(lockfile: string): string[] {
  const lock = parseJson(lockfile);
  const packages = isTree(lock) && isTree(lock["packages"]) ? lock["packages"] : {};
  return Object.values(packages).flatMap((one) =>
    isTree(one) && one["link"] === true && typeof one["resolved"] === "string"
      ? [one["resolved"]]
      : [],
  );
}

/** Whether all that a former program has in a folder is there now. */
function isSame(path: string, now: Program, before: Program): boolean {
  const files = Object.entries(before.files).filter(([name]) => name.startsWith(`${path}/`));
  return files.length > 0 && files.every(([name, hash]) => now.files[name] === hash);
}

/** Variables with paths that begin at the present project's folder. */
async function absolute({ project, pulumi }: Context): Promise<Record<string, string>> {
  const env: Record<string, string> = {};
  const within = (path: string) => resolve(project.folder, path);
  const { PULUMI_CONFIG_PASSPHRASE_FILE: passphrase, KUBECONFIG: kubeconfig } = process.env;
  if (passphrase) env["PULUMI_CONFIG_PASSPHRASE_FILE"] = within(passphrase);
  if (kubeconfig) env["KUBECONFIG"] = kubeconfig.split(":").map(within).join(":");
  // The state is where the present project has it, whatever the former Pulumi.yaml says.
  const backend = await pulumi.backend();
  const path = /^file:\/\/([^?]+)/.exec(backend)?.[1];
  if (path === undefined) {
    if (project.backend !== undefined) env["PULUMI_BACKEND_URL"] = project.backend;
  } else if (isAbsolute(path) || path.startsWith("~")) {
    env["PULUMI_BACKEND_URL"] = backend;
  } else {
    env["PULUMI_BACKEND_URL"] = backend.replace(path, within(path));
  }
  return env;
}
