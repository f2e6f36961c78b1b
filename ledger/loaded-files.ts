import fs, { readFileSync, realpathSync } from "node:fs";
import inspector from "node:inspector";
import { syncBuiltinESMExports } from "node:module";
import { isAbsolute, join, relative, resolve, sep } from "node:path";
import { fileURLToPath } from "node:url";
import type { Problem } from "../release/problem";
import { isInside, type Program, type ProgramLayout } from "./program-files";
import { Refusal } from "./refusal";

/**
 * A net below the plan's hash: a running program may load only files that a plan covers, and read
 * none of a folder apart through `fs`. docs/security.md says what the net cannot see.
 */
export class LoadedFiles {
  private hashed: Program | undefined;

  constructor(
    readonly layout: ProgramLayout,
    /** The environment's name, for messages. */
    private readonly where: string,
  ) {}

  /** Refuses, from now on, to read a file apart and to load a library from elsewhere. */
  watch(): void {
    const checkRead = (path: unknown) => this.checkRead(path);
    for (const name of ["readFileSync", "readFile", "openSync", "open", "createReadStream"]) {
      wrap(fs, name, checkRead);
    }
    for (const name of ["readFile", "open"]) {
      wrap(fs.promises, name, async (path) => Promise.resolve(path).then(checkRead));
    }
    wrap(process, "dlopen", (_, path) => this.checkLibrary(path));
    syncBuiltinESMExports();
  }

  /**
   * Names loaded files that no plan covers.
   * @param program the hashed files, from now on; until they are given, a file's folder decides
   * @param thorough asks V8, too, which knows modules of ECMAScript and those that are no longer
   * cached, and takes some tenths of a second
   */
  problems(program?: Program, thorough = false): Problem[] {
    this.hashed = program ?? this.hashed;
    const paths = new Set([
      ...Object.keys(require.cache),
      ...(thorough ? [...scripts(), ...libraries(this.layout)] : []),
    ]);
    return [...paths].flatMap((path) => {
      const value = this.faultOf(path, this.hashed);
      return value === undefined ? [] : this.problem(path, value);
    });
  }

  private problem(path: string, value: string): Problem {
    return {
      where: this.where,
      property: isInside(this.layout.base, path) ? relative(this.layout.base, path) : path,
      value,
      expected: "a file that is part of the plan, or of a package that the lockfile lists",
      fix: "Move it to where the program's own files are, or do without it",
    };
  }

  /** Why a file must not be loaded; undefined where it may be. */
  private faultOf(path: string, program: Program | undefined): string | undefined {
    const { layout } = this;
    const packagePath = this.packagePathOf(path);
    if (packagePath !== undefined) return this.faultOfPackage(packagePath);
    const name = layout.nameOf(path);
    if (program !== undefined && Object.hasOwn(program.files, name)) return undefined;
    const apart = layout.apartOf(path);
    if (isInside(layout.base, path) && apart !== undefined) {
      return `loaded from ${apart}, which is no part of the plan`;
    }
    const isLinked = [...layout.linked.values()].some((folder) => isInside(folder, path));
    if (!isLinked && !isInside(layout.base, path)) {
      return "loaded from outside of the program's folder and packages";
    }
    return program === undefined ? undefined : "loaded, but not among what was hashed";
  }

  /** A package's file, relative to the lockfile's folder; undefined for a file of no package. */
  private packagePathOf(path: string): string | undefined {
    const { installed, root } = this.layout;
    const rest = (folder: string) => path.slice(folder.length + 1).replaceAll("\\", "/");
    if (isInside(installed, path)) return MODULES + rest(installed);
    const isNested = isInside(root, path) && `/${rest(root)}`.includes(`/${MODULES}`);
    return isNested ? rest(root) : undefined;
  }

  /** Asks npm's lockfile; lockfiles of other package managers list no folders. */
  private faultOfPackage(path: string): string | undefined {
    const { packages } = this.layout;
    const start = path.lastIndexOf(MODULES) + MODULES.length;
    const scope = path[start] === "@" ? path.indexOf("/", start) + 1 : start;
    const end = path.indexOf("/", scope);
    const folder = path.slice(0, end < 0 ? undefined : end);
    const isListed =
      packages === undefined ? path.startsWith(MODULES) : Object.hasOwn(packages, folder);
    return isListed ? undefined : `loaded, but ${folder} is not in the lockfile`;
  }

  private checkRead(given: unknown): void {
    const path = pathOf(given);
    if (path === undefined || !isInside(this.layout.base, path)) return;
    const apart = this.layout.apartOf(path);
    if (apart === undefined || UNREAD.includes(apart) || this.layout.isStackFile(path)) return;
    throw new Refusal(this.problem(path, `read from ${apart}, which is no part of the plan`));
  }

  private checkLibrary(given: unknown): void {
    const path = pathOf(given);
    const fault = path && this.faultOf(path, undefined);
    if (path && fault) throw new Refusal(this.problem(path, fault));
  }
}

const MODULES = "node_modules/";
/** Folders apart whose files may be read as data: git's, Pulumi's, the sandbox's, packages. */
const UNREAD = [".git", ".pulumi", ".sandbox", "node_modules"];

/** Puts a check before a function, which waits for the check if that is a promise. */
function wrap(owner: object, name: string, check: (...args: readonly unknown[]) => unknown): void {
  const functions = owner as Record<string, (...args: unknown[]) => unknown>;
  const original = functions[name];
  if (original === undefined) return;
  functions[name] = function (this: unknown, ...args: unknown[]) {
    const checked = check(...args);
    const call = () => original.apply(this, args);
    return checked instanceof Promise ? checked.then(call) : call();
  };
}

/** The path that a function of `fs` was given; undefined for an open file. */
function pathOf(given: unknown): string | undefined {
  try {
    if (given instanceof URL) return real(fileURLToPath(given));
    if (typeof given === "string") return real(resolve(given));
    return Buffer.isBuffer(given) ? real(resolve(given.toString())) : undefined;
  } catch {
    return undefined;
  }
}

function real(path: string): string {
  try {
    return realpathSync.native(path);
  } catch {
    return path;
  }
}

/** The files of all scripts that V8 has compiled, modules of ECMAScript too. */
function scripts(): string[] {
  const session = new inspector.Session();
  const urls: string[] = [];
  session.connect();
  try {
    session.on("Debugger.scriptParsed", ({ params }) => urls.push(params.url));
    session.post("Debugger.enable");
    session.post("Debugger.disable");
  } finally {
    session.disconnect();
  }
  return urls.flatMap((url) => {
    if (isAbsolute(url)) return url;
    return /^file:\/\//.test(url) ? fileURLToPath(url) : [];
  });
}

/**
 * Native libraries of the program or its packages in this process; none where the system has no
 * /proc. A library from elsewhere was loaded by another, as swc does with its copy in the user's cache.
 */
function libraries({ base, root }: ProgramLayout): string[] {
  let maps: string;
  try {
    maps = readFileSync("/proc/self/maps", "utf8");
  } catch {
    return [];
  }
  const paths = maps.split("\n").map((line) => line.slice(line.indexOf("/")));
  return [...new Set(paths)].filter((path) => isInside(base, path) || isInside(root, path));
}

/**
 * The net for an environment's program; undefined where Pulumi's language host does not run it, as
 * in tests.
 * @param open gives the layout; only called where a language host runs the program
 */
export function loadedFilesOf(where: string, open: () => ProgramLayout): LoadedFiles | undefined {
  const host = join("@pulumi", "pulumi", "cmd", "run", "index.js");
  if (require.main?.filename.endsWith(sep + host) !== true) return undefined;
  return new LoadedFiles(open(), where);
}
