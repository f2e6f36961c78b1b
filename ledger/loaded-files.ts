import fs, { readFileSync, realpathSync } from "node:fs";
import inspector from "node:inspector";
import { syncBuiltinESMExports } from "node:module";
import { isAbsolute, join, relative, resolve, sep } from "node:path";
import { fileURLToPath } from "node:url";
import type { Problem } from "../release/problem";
import { isInside, type Program, type ProgramLayout } from "./program-files";
import { Refusal } from "./refusal";

/**
 * A net below the plan's hash: what a running program loads, and reads through `fs`, has to be what
 * a plan covers. docs/security.md says what it cannot see.
 */
export class LoadedFiles {
  private unwatch: (() => void) | undefined;

  constructor(
    readonly layout: ProgramLayout,
    /** The environment, for people. */
    private readonly where: string,
  ) {}

  /** From now on, to read a file that is apart or to load a library of elsewhere is refused. */
  watch(): void {
    const undo = [
      ...["readFileSync", "readFile", "openSync", "open", "createReadStream"].map((name) =>
        wrap(fs, name, (path) => this.checkRead(path)),
      ),
      ...["readFile", "open"].map((name) =>
        wrap(fs.promises, name, async (path) => Promise.resolve(this.checkRead(path))),
      ),
      wrap(process, "dlopen", (_, path) => this.checkLibrary(path)),
    ];
    syncBuiltinESMExports();
    this.unwatch = () => {
      for (const one of undo) one();
      syncBuiltinESMExports();
    };
  }

  stop(): void {
    this.unwatch?.();
  }

  /**
   * What was loaded and is no part of a plan.
   * @param program what was hashed; without it, files count by where they are
   * @param thorough asks the engine of JavaScript too, which knows each module of ECMAScript and
   * what is no longer cached, and takes some tenths of a second
   */
  problems(program?: Program, thorough = false): Problem[] {
    const paths = new Set([
      ...Object.keys(require.cache),
      ...(thorough ? [...scripts(), ...libraries(this.layout)] : []),
    ]);
    return [...paths].flatMap((path) => {
      const value = this.faultOf(path, program);
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

  /** Why a file must not be loaded; nothing where it may be. */
  private faultOf(path: string, program: Program | undefined): string | undefined {
    const { layout } = this;
    if (isInside(layout.installed, path)) return this.faultOfPackage(path);
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
    if (name.replace(/^node_modules\//, "").includes("node_modules/")) {
      return "loaded from packages that the lockfile does not describe";
    }
    return program === undefined ? undefined : "loaded, but not among what was hashed";
  }

  /** By npm's lockfile; those of other package managers list no folders. */
  private faultOfPackage(path: string): string | undefined {
    const { packages, installed } = this.layout;
    if (packages === undefined) return undefined;
    const inside = MODULES + path.slice(installed.length + 1).replaceAll("\\", "/");
    const start = inside.lastIndexOf(MODULES) + MODULES.length;
    const scope = inside[start] === "@" ? inside.indexOf("/", start) + 1 : start;
    const end = inside.indexOf("/", scope);
    const folder = inside.slice(0, end < 0 ? undefined : end);
    return Object.hasOwn(packages, folder)
      ? undefined
      : `loaded, but ${folder} is not in the lockfile`;
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
/** Apart, but read by git, by Pulumi and by the sandbox's own tools, and packages by all. */
const UNREAD = [".git", ".pulumi", ".sandbox", "node_modules"];

/** Puts a check before a function, which waits for one that is a promise. */
function wrap(
  owner: object,
  name: string,
  check: (...args: readonly unknown[]) => unknown,
): () => void {
  const functions = owner as Record<string, (...args: unknown[]) => unknown>;
  const original = functions[name];
  if (original === undefined) return () => undefined;
  functions[name] = function (this: unknown, ...args: unknown[]) {
    const checked = check(...args);
    const call = () => original.apply(this, args);
    return checked instanceof Promise ? checked.then(call) : call();
  };
  return () => void (functions[name] = original);
}

/** What `fs` takes for a path; nothing for an open file. */
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

/** The files of all scripts that the engine of JavaScript has compiled, ECMAScript's modules too. */
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
 * Native libraries of the program or its packages that are in this process, where that is known. One
 * from elsewhere is what a library has loaded itself, as swc does with the copy in its user's cache.
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
 * The net for the program of an environment; none where another than Pulumi's language host runs
 * it, as tests do.
 * @param open gives the layout, which is only asked for where there is a host
 */
export function loadedFilesOf(where: string, open: () => ProgramLayout): LoadedFiles | undefined {
  const host = join("@pulumi", "pulumi", "cmd", "run", "index.js");
  if (require.main?.filename.endsWith(sep + host) !== true) return undefined;
  return new LoadedFiles(open(), where);
}
