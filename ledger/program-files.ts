import { execa } from "execa";
import { readdir } from "node:fs/promises";
import { join } from "node:path";

/** The folders the program loads from, beside the files at the root of its own. */
export const PROGRAM_FOLDERS = ["components", "ledger", "provider", "registry", "release", "sdks"];
const LOCKFILE = "package-lock.json";
/** What an import without an ending may find, and what says where the program begins. */
const ROOT_FILE = /^(?!\.|package-lock\.json$).*\.(ts|js|json|node)$/;

/** Hashes of what runs, by its path. */
export interface Program {
  readonly files: Readonly<Record<string, string>>;
  /** Empty where there is none. */
  readonly lockfile: Readonly<Record<string, string>>;
}

/**
 * Git's hash of every file that the program loads, as they are in the working tree: what would
 * run. Paths are relative to the program's folder; it need not be a repository.
 */
export async function hashProgram(folder: string): Promise<Program> {
  const root = await readdir(folder, { withFileTypes: true });
  const paths = root
    .filter((entry) => !entry.isDirectory() && ROOT_FILE.test(entry.name))
    .map(({ name }) => name);
  for (const name of PROGRAM_FOLDERS) {
    if (root.some((entry) => entry.name === name)) paths.push(...(await filesIn(folder, name)));
  }
  const files = paths.sort();
  const lockfile = root.some(({ name }) => name === LOCKFILE) ? [LOCKFILE] : [];
  const hashes = await hashFiles(folder, [...files, ...lockfile]);
  const of = (names: readonly string[]) =>
    Object.fromEntries(names.map((name) => [name, hashes.get(name) ?? ""]));
  return { files: of(files), lockfile: of(lockfile) };
}

async function filesIn(folder: string, path: string): Promise<string[]> {
  const entries = await readdir(join(folder, path), { withFileTypes: true });
  const nested = entries.map(async (entry) => {
    // Installed packages are the lockfile's.
    if (entry.name === "node_modules") return [];
    const child = `${path}/${entry.name}`;
    return entry.isDirectory() ? filesIn(folder, child) : [child];
  });
  return (await Promise.all(nested)).flat();
}

async function hashFiles(folder: string, paths: string[]): Promise<Map<string, string>> {
  if (paths.length === 0) return new Map();
  const { stdout } = await execa("git", ["hash-object", "--stdin-paths"], {
    cwd: folder,
    input: paths.join("\n"),
  });
  const hashes = stdout.split("\n");
  return new Map(paths.map((path, index) => [path, hashes[index] ?? ""]));
}
