import { isDeepStrictEqual } from "node:util";
import { parse } from "yaml";
import { isTree, type Tree } from "./merge";

/** A package that two lockfiles have in different ways. */
export interface PackageChange {
  /** As `node_modules` has it: `semver`, or `a/node_modules/semver` for one of another package's own. */
  readonly name: string;
  readonly from?: string | undefined;
  readonly to?: string | undefined;
  /** Whether the version is the same, and its source, its hash or what it asks for is another. */
  readonly isOther?: true;
}

interface Locked {
  readonly name: string;
  readonly version: string;
  readonly entry: unknown;
}

/**
 * The packages in which two texts of a lockfile differ, by name. Reads lockfiles of npm and pnpm;
 * undefined for the others, and for what cannot be read.
 */
export function packagesBetween(from: string, to: string): PackageChange[] | undefined {
  const [former, next] = [packagesOf(from), packagesOf(to)];
  if (former === undefined || next === undefined) return undefined;
  const keys = [...new Set([...former.keys(), ...next.keys()])].sort();
  return keys.flatMap((key): PackageChange[] => {
    const [one, other] = [former.get(key), next.get(key)];
    if (isDeepStrictEqual(one?.entry, other?.entry)) return [];
    const name = one?.name ?? other?.name ?? key;
    const versions = { from: one?.version, to: other?.version };
    return [{ name, ...versions, ...(versions.from === versions.to ? { isOther: true } : {}) }];
  });
}

function packagesOf(lockfile: string): ReadonlyMap<string, Locked> | undefined {
  const tree = read(lockfile);
  const packages = tree["packages"];
  if (!isTree(packages)) return lockfile.trim() === "" ? new Map() : undefined;
  const entries = Object.entries(packages).map(([key, entry]) => {
    const [name, version] = nameOf(key, entry);
    return [key, { name, version, entry }] as const;
  });
  return new Map(entries);
}

function nameOf(key: string, entry: unknown): [name: string, version: string] {
  const version = isTree(entry) ? entry["version"] : undefined;
  // npm has folders for keys, an empty one for its own package; pnpm has names with versions.
  const [, name, given] = /^\/?(@?[^@(]+)@([^(]+)/.exec(key) ?? [];
  if (typeof version !== "string" && name && given) return [name, given];
  const folder = key.replace(/^node_modules\//, "") || "this package";
  return [folder, typeof version === "string" ? version : ""];
}

function read(text: string): Tree {
  try {
    const values: unknown = text.trimStart().startsWith("{") ? JSON.parse(text) : parse(text);
    return isTree(values) ? values : {};
  } catch {
    return {};
  }
}
