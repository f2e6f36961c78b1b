import { readFileSync, readlinkSync } from "node:fs";
import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { parse } from "yaml";
import { isTree, type Tree } from "../release/merge";
import type { Problem } from "../release/problem";

/** The `pulumi` process that runs this program, as it was started. */
export interface Caller {
  /** Its environment, without the variables that imported environments (ESC) give. */
  readonly environment: Readonly<Record<string, string>>;
  /** The environment that it gave the language host, with those variables. */
  readonly given: Readonly<Record<string, string>>;
  readonly args: readonly string[];
  /** The folder to which paths among its arguments are relative. */
  readonly folder: string;
}

/** Nix puts a script before the program itself. */
const PULUMI = /^(pulumi|\.pulumi-wrapped)$/;

/** Finds the `pulumi` above this process; undefined where the system does not tell, as on macOS. */
export function findCaller(pid = process.pid): Caller | undefined {
  let below = pid;
  try {
    for (;;) {
      const above = parentOf(below);
      if (above <= 1) return undefined;
      if (PULUMI.test(textOf(above, "comm").trim())) {
        return {
          environment: variablesOf(above),
          given: variablesOf(below),
          args: textOf(above, "cmdline").split("\0").slice(1, -1),
          folder: readlinkSync(`/proc/${above}/cwd`),
        };
      }
      below = above;
    }
  } catch {
    return undefined;
  }
}

/**
 * Whether the caller has set a variable of this process, and not an imported environment: break-glass
 * is a person's decision. Where the system does not tell, it is false for a stack file with imports.
 */
export function isCallersOwn(name: string, stackFile: string, caller = findCaller()): boolean {
  const value = process.env[name];
  if (value === undefined) return false;
  return caller === undefined
    ? !/^["']?environment["']?\s*:/m.test(stackFile)
    : caller.environment[name] === value;
}

/** Variables that decide what Node, TypeScript and Pulumi run. */
const DECIDING =
  /^(NODE_(OPTIONS|PATH)|TS_NODE_.+|SWC_.+|NAPI_RS_.+|LD_(PRELOAD|AUDIT)|DYLD_INSERT_LIBRARIES|PULUMI_DEBUG_(PROVIDERS|LANGUAGES)|PULUMI_LANGUAGE_NODEJS_RUN_PATH|PULUMI_PLUGIN_DOWNLOAD_URL_OVERRIDES)$/;
/** Variables that Pulumi itself sets for its language host. */
const PULUMIS = /^(PULUMI_|OTEL_|TRACE|PWD$|OLDPWD$)/;
const PINNED = /@\d+$/;
/** Keys of a person's own `.npmrc` that decide what npm installs and runs. */
const DECIDING_NPM =
  /^(script-shell|node-options|ignore-scripts|package-lock|shrinkwrap|install-(links|strategy)|global-style|legacy-bundling|git|python|node-gyp|omit|include|only|production|optional|workspaces?|globalconfig)$/;

/**
 * Problems of a run that no plan covers: variables of Node and Pulumi, imported environments that
 * may change, and keys of a person's own `.npmrc`.
 * @param tsconfig TypeScript's configuration as Pulumi.yaml names it
 */
export function runProblems(
  environment: string,
  file: { readonly name: string; readonly text: string },
  tsconfig: unknown,
  caller = findCaller(),
): Problem[] {
  return [
    ...variableProblems(environment, tsconfig),
    ...importProblems(environment, file, caller),
    ...npmProblems(environment),
  ];
}

function variableProblems(where: string, tsconfig: unknown): Problem[] {
  const names = Object.keys(process.env).filter((name) => {
    if (process.env[name] === "") return false;
    // Pulumi's language host sets it to what Pulumi.yaml says.
    if (name === "PULUMI_NODEJS_TSCONFIG_PATH") return process.env[name] !== tsconfig;
    return DECIDING.test(name);
  });
  return names.map((property) => ({
    where,
    property,
    value: "set",
    expected: "no value, as it decides what is run and is no part of the plan",
    fix:
      property === "NODE_OPTIONS"
        ? "Unset it, also in imported environments; what it is for belongs into `runtime.options.nodeargs` of Pulumi.yaml"
        : "Unset it, also in imported environments",
  }));
}

function importProblems(
  where: string,
  { name, text }: { readonly name: string; readonly text: string },
  caller: Caller | undefined,
): Problem[] {
  const imports = readImports(text);
  const list = Array.isArray(imports) ? imports : isTree(imports) ? imports["imports"] : undefined;
  const names = (Array.isArray(list) ? list : []).flatMap((entry: unknown) =>
    isTree(entry) ? Object.keys(entry) : String(entry),
  );
  const problems: Problem[] = names
    .filter((imported) => !PINNED.test(imported))
    .map((imported) => ({
      where,
      property: `the imported environment ${imported}`,
      value: "not pinned",
      expected: `a revision, such as ${imported.replace(/@.*$/, "")}@12, as what it gives is part of the plan`,
      fix: `Name its revision in ${name}`,
    }));
  const args = caller?.args ?? [];
  const overrides = args.some((arg) => /^--override-env(=|$)/.test(arg));
  if (overrides || process.env["PULUMI_OPTION_OVERRIDE_ENV"]) {
    problems.push({
      where,
      property: overrides ? "--override-env" : "PULUMI_OPTION_OVERRIDE_ENV",
      value: "set",
      expected: `the imported environments that ${name} names`,
      fix: "Deploy without it",
    });
  }
  const other = caller && configFileOf(caller);
  if (other !== undefined && !isDeepStrictEqual(readImports(other), imports)) {
    problems.push({
      where,
      property: "the imported environments",
      value: `others than those of ${name}`,
      expected: "the stack file that was approved",
      fix: "Deploy without --config-file",
    });
  } else if (other !== undefined && !isDeepStrictEqual(parseMap(other), parseMap(text))) {
    // Of a secret the program knows no ciphertext; the two files have it.
    problems.push({
      where,
      property: "--config-file",
      value: `another file than ${name}`,
      expected: "the stack file that was approved",
      fix: "Deploy without --config-file",
    });
  } else if (caller !== undefined && imports === undefined) {
    const added = Object.keys(caller.given).filter(
      (key) => !PULUMIS.test(key) && caller.given[key] !== caller.environment[key],
    );
    if (added.length > 0) {
      problems.push({
        where,
        property: "the imported environments",
        value: `of another stack file: ${added.sort().join(", ")} come from one`,
        expected: `those of ${name}, which has none`,
        fix: `Name it in ${name} with its revision, and ask anew with \`baton request ${where}\``,
      });
    }
  }
  return problems;
}

function npmProblems(where: string): Problem[] {
  const { NPM_CONFIG_USERCONFIG, npm_config_userconfig } = process.env;
  const path = NPM_CONFIG_USERCONFIG ?? npm_config_userconfig ?? join(homedir(), ".npmrc");
  const lines = readText(path).split(/\r?\n/);
  const keys = lines.flatMap(
    (line) => /^\s*([^\s;#=[][^=]*?)\s*(\[\])?\s*(=|$)/.exec(line)?.[1] ?? [],
  );
  return [...new Set(keys)]
    .filter((key) => DECIDING_NPM.test(key))
    .map((key) => ({
      where,
      property: `${key} of ${path}`,
      value: "set",
      expected: "no value, as it decides what npm installs or runs and is no part of the plan",
      fix: "Move it to the .npmrc beside package.json",
    }));
}

/** The text of the file that `pulumi` was told to take for the stack file. */
function configFileOf({ args, folder }: Caller): string | undefined {
  const index = args.findIndex((arg) => /^--config-file(=|$)/.test(arg));
  const flag = args[index];
  const given = flag === "--config-file" ? args[index + 1] : flag?.slice("--config-file=".length);
  const named = given ?? process.env["PULUMI_OPTION_CONFIG_FILE"];
  return named ? readText(resolve(folder, named)) : undefined;
}

/** The imported environments (ESC) that a stack file names, or describes in itself. */
function readImports(text: string): unknown {
  return parseMap(text)["environment"] ?? undefined;
}

function parseMap(text: string): Tree {
  // As Pulumi reads it, which merges what `<<` names.
  const values: unknown = parse(text, { merge: true });
  return isTree(values) ? values : {};
}

function readText(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

function textOf(pid: number, name: string): string {
  return readFileSync(`/proc/${pid}/${name}`, "utf8");
}

function parentOf(pid: number): number {
  return Number(/^PPid:\s*(\d+)$/m.exec(textOf(pid, "status"))?.[1] ?? 0);
}

function variablesOf(pid: number): Record<string, string> {
  const entries = textOf(pid, "environ")
    .split("\0")
    .filter((entry) => entry.includes("="))
    .map((entry) => [entry.slice(0, entry.indexOf("=")), entry.slice(entry.indexOf("=") + 1)]);
  return Object.fromEntries(entries) as Record<string, string>;
}
