import { createHash } from "node:crypto";
import { existsSync, lstatSync, readdirSync, readFileSync, realpathSync, statSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { basename, dirname, join, relative, resolve, sep } from "node:path";
import { parseJson } from "../release/json";
import { isTree, type Tree } from "../release/merge";
import type { Problem } from "../release/problem";
import { Refusal } from "./refusal";

/** SHA-256 of each file that could run, by its path. */
export interface Program {
  readonly files: Readonly<Record<string, string>>;
  /** The lockfiles, of which several may stand side by side; empty without one. */
  readonly lockfile: Readonly<Record<string, string>>;
}

/** Thrown for a program with files of which no hash says what runs. */
export class UncoveredProgram extends Refusal {
  constructor(readonly problems: readonly [Problem, ...Problem[]]) {
    super(problems);
  }
}

/** For a `catch`: gives the error for a program that no plan covers, and throws any other. */
export function uncovered(error: unknown): UncoveredProgram {
  if (error instanceof UncoveredProgram) return error;
  throw error;
}

/**
 * Folders at the top that no plan covers: a change to them voids no approval, and to load or read a
 * file of theirs is refused while the program runs. The lockfile covers packages.
 */
const APART = [
  ...[".git", ".pulumi", ".sandbox", "node_modules"],
  ...["app", "bench", "coverage", "docs", "sandbox", "test"],
];
/** Git's own folder, also of a submodule; at the top, a worktree has a file of that name. */
const GIT = ".git";
const MODULES = "node_modules";
/** Pulumi.yaml, stack files and drafts of them: a plan has their values. */
const STACK_FILE = /^Pulumi(\.[^./]+)?\.yaml(\.\d+\.tmp)?$/;
const LOCKFILES = ["package-lock.json", "npm-shrinkwrap.json", "pnpm-lock.yaml", "yarn.lock"];
const PLUG_AND_PLAY = [".pnp.cjs", ".pnp.js", ".pnp.loader.mjs"];
/** Files above the program that decide how Node, package managers, git or TypeScript read it. */
const DECIDING =
  /^(package\.json|tsconfig[^/]*\.json|\.npmrc|\.yarnrc(\.yml)?|\.pnpmfile\.cjs|pnpm-workspace\.yaml|\.swcrc|\.gitattributes|\.nvmrc|\.node-version|\.tool-versions)$/;

/** The folders in which a program and its packages are. */
export class ProgramLayout {
  /** The folder of the program: all that is below it is hashed, but for folders apart. */
  readonly base: string;
  /** The folder of the lockfile that governs the program; the program's own without one. */
  readonly root: string;
  readonly lockfiles: readonly string[];
  /** The folder of the installed packages, links followed. */
  readonly installed: string;
  /** Packages outside the base that dependencies link, by name. */
  readonly linked = new Map<string, string>();
  /** Packages in the base that dependencies link; their install scripts may write files there. */
  readonly local = new Set<string>();
  private readonly project: string;
  private known: Tree | undefined;

  /**
   * @param folder the Pulumi project's
   * @param main the program's folder or file, relative to that
   * @throws UncoveredProgram when there is no such folder or file
   */
  constructor(folder: string, main = ".") {
    this.project = realpathSync(folder);
    const named = resolve(folder, main);
    if (!existsSync(named)) throw new UncoveredProgram([noProgram(main)]);
    const path = realpathSync(named);
    const program = statSync(path).isDirectory() ? path : dirname(path);
    this.base = isInside(this.project, program) ? this.project : program;
    const { root, lockfiles } = findLockfiles(program);
    this.root = root;
    this.lockfiles = lockfiles;
    const modules = join(root, MODULES);
    this.installed = existsSync(modules) ? realpathSync(modules) : modules;
    for (const from of [this.base, program]) this.findLinked(from);
  }

  /** A file's path as plans have it: relative to the base, or below its linked package. */
  nameOf(path: string): string {
    for (const [name, folder] of this.linked) {
      if (isInside(folder, path)) return slashed(join(MODULES, name, relative(folder, path)));
    }
    return slashed(relative(this.base, path));
  }

  /** Name of the folder apart that holds a file, or of the file if it is apart; else undefined. */
  apartOf(file: string): string | undefined {
    const folders = relative(this.base, file).split(sep);
    const name = folders.pop() ?? "";
    const [first = ""] = folders;
    // A disk that takes Docs for docs finds the same file by both.
    if (APART.includes(first.toLowerCase())) return first;
    if (folders.includes(GIT) || file === join(this.base, GIT)) return GIT;
    return this.isStackFile(file) ? name : undefined;
  }

  isStackFile(file: string): boolean {
    const isAtTop = [this.base, this.project].includes(dirname(file));
    return isAtTop && STACK_FILE.test(basename(file));
  }

  /**
   * What a file is by its place, whether or not it is there: one of the program's, a lockfile of its, or
   * neither. Packages are the lockfile's.
   */
  kindOf(file: string): "program" | "lockfile" | undefined {
    if (this.lockfiles.some((name) => join(this.root, name) === file)) return "lockfile";
    const folder = [this.base, ...this.linked.values()].find((one) => isInside(one, file));
    if (folder === undefined) {
      const isAbove = isInside(this.root, file) && isInside(dirname(file), this.base);
      return isAbove && DECIDING.test(basename(file)) ? "program" : undefined;
    }
    const folders = relative(folder, dirname(file)).split(sep);
    if (folders.some((name) => name === MODULES || name === GIT)) return undefined;
    return folder === this.base && this.apartOf(file) !== undefined ? undefined : "program";
  }

  /** Whether installing packages may have written a file. */
  isInstalled(file: string): boolean {
    return [...this.local, ...this.linked.values()].some((folder) => isInside(folder, file));
  }

  /** The path of a file by the name that plans have for it. */
  pathOf(name: string): string {
    for (const [linked, folder] of this.linked) {
      const start = `${MODULES}/${linked}/`;
      if (name.startsWith(start)) return join(folder, name.slice(start.length));
    }
    return join(this.base, name);
  }

  /** Whether a plan covers the files of a folder of the base. */
  isCovered(folder: string): boolean {
    return this.apartOf(join(folder, "any")) === undefined;
  }

  /** Whether the lockfile describes a folder of packages. */
  describes(modules: string): boolean {
    if (modules === join(this.root, MODULES)) return true;
    const names = readdirSync(modules, { withFileTypes: true });
    if (this.lockfiles.includes("pnpm-lock.yaml")) {
      const scoped = names.flatMap((entry) =>
        entry.isDirectory() && entry.name.startsWith("@")
          ? readdirSync(join(modules, entry.name), { withFileTypes: true })
          : [entry],
      );
      return scoped.every((entry) => entry.isSymbolicLink() || entry.name.startsWith("."));
    }
    const start = `${slashed(relative(this.root, modules))}/`;
    const listed = Object.keys(this.packages ?? {});
    return listed.some((key) => key.startsWith(start));
  }

  /** The packages of npm's lockfile, by their folders; undefined for another lockfile. */
  get packages(): Tree | undefined {
    const name = this.lockfiles.find((lockfile) => lockfile.endsWith(".json"));
    if (name === undefined) return undefined;
    this.known ??= (parseJson(readFileSync(join(this.root, name), "utf8")) ?? {}) as Tree;
    return isTree(this.known["packages"]) ? this.known["packages"] : undefined;
  }

  /** Finds dependencies of a package that are links to folders of the repository, and theirs. */
  private findLinked(from: string): void {
    const manifest = join(from, "package.json");
    const values = existsSync(manifest) ? parseJson(readFileSync(manifest, "utf8")) : undefined;
    const groups = ["dependencies", "devDependencies", "optionalDependencies", "peerDependencies"];
    const names = groups.flatMap((group) => {
      const dependencies = isTree(values) ? values[group] : undefined;
      return isTree(dependencies) ? Object.keys(dependencies) : [];
    });
    for (const name of names) {
      const path = upwards(from).find((folder) => existsSync(join(folder, MODULES, name)));
      const target = path && realpathSync(join(path, MODULES, name));
      if (target === undefined || target.split(sep).includes(MODULES)) continue;
      if (this.local.has(target) || this.linked.has(name)) continue;
      if (isInside(this.base, target) && this.isCovered(target)) this.local.add(target);
      else this.linked.set(name, target);
      this.findLinked(target);
    }
  }
}

/**
 * SHA-256 of every file that the program could load, byte for byte as they are on disk: neither git
 * nor its filters take part, and what git ignores is in it. Paths are relative to the program's
 * folder; it need not be in a repository.
 * @param folder the Pulumi project's
 * @param main the program's folder or file, relative to that
 * @throws UncoveredProgram when a file is there of which a hash would not say what runs.
 */
export async function hashProgram(folder: string, main = "."): Promise<Program> {
  const layout = new ProgramLayout(folder, main);
  const problems: Problem[] = [];
  const paths = [layout.base, ...layout.linked.values()].flatMap((top) =>
    filesBelow(layout, top, problems),
  );
  paths.push(...decidingAbove(layout, problems));
  const locks = layout.lockfiles.map((name) => join(layout.root, name));
  const others = paths.filter((path) => !locks.includes(path));
  const [files, lockfile] = await Promise.all([
    hashFiles(layout, others),
    hashFiles(layout, locks),
  ]);
  if (locks.length === 0 && existsSync(layout.installed)) problems.push(noLockfile());
  problems.push(...outsideTypeScript(layout, files));
  const [first, ...more] = problems;
  if (first !== undefined) throw new UncoveredProgram([first, ...more]);
  return { files, lockfile };
}

/** The hash of a file's bytes, as plans have it. */
export function sha256(bytes: Buffer): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/** Git's id of a file with these bytes, as long as the one that it is compared with. */
export function blobId(bytes: Buffer, like: string): string {
  const hash = createHash(like.length > 40 ? "sha256" : "sha1");
  return hash.update(`blob ${bytes.length}\0`).update(bytes).digest("hex");
}

export function isInside(folder: string, path: string): boolean {
  return path === folder || path.startsWith(folder.endsWith(sep) ? folder : folder + sep);
}

async function hashFiles(
  layout: ProgramLayout,
  paths: readonly string[],
): Promise<Record<string, string>> {
  const entries = paths.map(async (path) => {
    return [layout.nameOf(path), sha256(await readFile(path))] as const;
  });
  const hashes = await Promise.all(entries);
  return Object.fromEntries(hashes.sort(([one], [other]) => (one < other ? -1 : 1)));
}

function filesBelow(layout: ProgramLayout, folder: string, problems: Problem[]): string[] {
  const inBase = isInside(layout.base, folder);
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    const refuse = (value: string, expected: string, fix: string) => {
      const property = slashed(relative(layout.base, path));
      problems.push({ where: WHERE, property: shown(property), value, expected, fix });
      return [];
    };
    if (entry.name === GIT && (entry.isDirectory() || folder === layout.base)) return [];
    if (inBase && entry.isFile() && layout.apartOf(path) !== undefined) return [];
    if (inBase && entry.isDirectory() && entry.name !== MODULES && !layout.isCovered(path)) {
      return [];
    }
    if (/[\p{Cc}\uFFFD]/u.test(entry.name)) {
      const fix = "Give it another name, or remove it";
      return refuse("a name that cannot be shown", "a name of visible characters", fix);
    }
    if (entry.name === MODULES) {
      if (path === join(layout.root, MODULES)) return [];
      if (entry.isDirectory() && layout.describes(path)) return [];
      const expected = `packages in ${shown(join(layout.root, MODULES))} only, which the lockfile describes`;
      return refuse("none of the lockfile's", expected, "Remove it, and install anew");
    }
    if (PLUG_AND_PLAY.includes(entry.name)) {
      const fix = "Set nodeLinker: node-modules in .yarnrc.yml, and install anew";
      return refuse("Yarn's Plug'n'Play", "packages in node_modules", fix);
    }
    if (entry.isDirectory()) return filesBelow(layout, path, problems);
    if (entry.isFile()) return [path];
    const value = entry.isSymbolicLink() ? "a link" : "no regular file";
    const expected = "a regular file, as all that is here is part of the plan";
    return refuse(value, expected, "Put a copy in its place, or remove it");
  });
}

/** Files that decide how the program is read, from the folders up to its lockfile's. */
function decidingAbove({ base, root }: ProgramLayout, problems: Problem[]): string[] {
  if (base === root || !isInside(root, base)) return [];
  const folders = upwards(dirname(base)).filter((folder) => isInside(root, folder));
  return folders.flatMap((folder) =>
    readdirSync(folder)
      .filter((name) => DECIDING.test(name) || PLUG_AND_PLAY.includes(name))
      .map((name) => join(folder, name))
      .filter((path) => {
        const isPlain =
          lstatSync(path).isFile() && !PLUG_AND_PLAY.some((one) => path.endsWith(one));
        if (isPlain) return true;
        problems.push({
          where: WHERE,
          property: shown(path),
          value: "a link, or Yarn's Plug'n'Play",
          expected: "a regular file, as it decides how the program is read",
          fix: "Put a copy in its place, or remove it",
        });
        return false;
      }),
  );
}

/** Problems of a tsconfig.json that extends a file which is not hashed. */
function outsideTypeScript(
  layout: ProgramLayout,
  hashed: Readonly<Record<string, string>>,
): Problem[] {
  const configs = Object.keys(hashed).filter((name) => /(^|\/)tsconfig[^/]*\.json$/.test(name));
  return configs
    .filter((name) => !name.startsWith(`${MODULES}/`))
    .flatMap((name) => {
      const path = join(layout.base, name);
      const [, extended = ""] = EXTENDS.exec(readFileSync(path, "utf8")) ?? [];
      return [...extended.matchAll(/"((?:\.|\/)[^"]*)"/g)].flatMap(([, given = ""]) => {
        const target = resolve(dirname(path), given);
        const names = [target, `${target}.json`].map((one) => layout.nameOf(one));
        if (names.some((one) => Object.hasOwn(hashed, one))) return [];
        const expected = "a file of the program, or of the folders up to its lockfile";
        const fix = "Take over what is needed of it";
        return [{ where: WHERE, property: `${name}: extends`, value: given, expected, fix }];
      });
    });
}
const EXTENDS = /"extends"\s*:\s*("[^"]*"|\[[^\]]*\])/;

function noProgram(value: string): Problem {
  const fix = "Correct it in Pulumi.yaml";
  return { where: WHERE, property: "main", value, expected: "its folder or first file", fix };
}

function noLockfile(): Problem {
  return {
    where: WHERE,
    property: "the lockfile",
    value: "missing",
    expected: `one of ${LOCKFILES.join(", ")} beside ${MODULES}`,
    fix: "Let your package manager write it, and commit it",
  };
}

const WHERE = "the program";

/** The nearest folder with a lockfile, up to the repository's own. */
function findLockfiles(program: string): { root: string; lockfiles: string[] } {
  for (const folder of upwards(program)) {
    const lockfiles = LOCKFILES.filter((name) => existsSync(join(folder, name)));
    if (lockfiles.length > 0) return { root: folder, lockfiles };
    if (existsSync(join(folder, GIT))) break;
  }
  return { root: program, lockfiles: [] };
}

/** A folder and all above it. */
function upwards(folder: string): string[] {
  const above = dirname(folder);
  return above === folder ? [folder] : [folder, ...upwards(above)];
}

function slashed(path: string): string {
  return path.split(sep).join("/");
}

/** A path as it may stand in a line of text. */
function shown(path: string): string {
  return /[\p{Cc}\uFFFD]/u.test(path) ? JSON.stringify(path) : path;
}
