import { open, readdir, readFile, rename, rm } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import {
  isMap,
  isNode,
  isScalar,
  parseDocument,
  stringify,
  type Document,
  type Pair,
  type YAMLMap,
} from "yaml";
import { isCiphertext, isTree, type Tree } from "../release/merge";
import { Refusal } from "./refusal";

/** New values of a stack file's keys; `undefined` removes one. */
export type StackFileChanges = Readonly<Record<string, unknown>>;

/**
 * Sets keys of a stack file's `config`. All else, comments, order and layout, stays byte for byte
 * where values are plain texts; a structured value has the whole file written anew by the YAML
 * library, which keeps comments and order.
 * @throws Refusal when the text is no stack file.
 */
export function editStackFile(text: string, changes: StackFileChanges, where: string): string {
  const edited = parseStackFile(text, where);
  for (const [key, value] of Object.entries(changes)) {
    if (value === undefined) edited.deleteIn(["config", key]);
    else edited.setIn(["config", key], value);
  }
  const spliced = spliceKeys(text, changes, where);
  if (spliced !== undefined && isDeepStrictEqual(valuesOf(spliced), edited.toJS())) return spliced;
  return edited.toString({ lineWidth: 0 });
}

/**
 * A former stack file with what must not go back with it: the present values of its secrets, the
 * key they are encrypted with, and the config keys named in `present`.
 */
export function restoreStackFile(
  former: string,
  stackFile: string,
  present: readonly string[],
  where: string,
): string {
  const document = parseStackFile(former, where);
  const now = parseStackFile(stackFile, where).toJS() as Tree;
  const then = document.toJS() as Tree;
  const [configNow, configThen] = [configOf(now), configOf(then)];
  const changes: [readonly string[], unknown][] = [];
  for (const key of ENCRYPTION_KEYS) changes.push([[key], now[key]]);
  for (const key of present) changes.push([["config", key], configNow[key]]);
  for (const [key, value] of Object.entries(configThen)) {
    if (isCiphertext(value) && isCiphertext(configNow[key]))
      changes.push([["config", key], configNow[key]]);
  }
  const needed = changes.filter(([path, value]) => !isDeepStrictEqual(valueAt(then, path), value));
  for (const [path, value] of needed) {
    if (value === undefined) document.deleteIn(path);
    else document.setIn(path, value);
  }
  return needed.length === 0 ? former : document.toString({ lineWidth: 0 });
}

/** What a stack file's secrets are encrypted with. */
const ENCRYPTION_KEYS = ["secretsprovider", "encryptedkey", "encryptionsalt"];

function configOf(file: Tree): Tree {
  return isTree(file["config"]) ? file["config"] : {};
}

function valueAt(tree: unknown, path: readonly string[]): unknown {
  return path.reduce<unknown>((value, key) => (isTree(value) ? value[key] : undefined), tree);
}

function valuesOf(text: string): unknown {
  const document = parseDocument(text);
  return document.errors.length === 0 ? (document.toJS() as unknown) : undefined;
}

function parseStackFile(text: string, where: string): Document {
  const document: Document = parseDocument(text);
  const values: unknown = document.errors.length === 0 ? document.toJS() : undefined;
  const config = isTree(values) ? (values["config"] ?? {}) : {};
  if (document.errors.length > 0 || (values !== null && !isTree(values)) || !isTree(config)) {
    throw new Refusal({
      where,
      property: `Pulumi.${where}.yaml`,
      value: document.errors[0]?.message.split("\n")[0] ?? "not a map",
      expected: "a stack file with a map called config",
      fix: "Correct it",
    });
  }
  // An empty file, or one whose `config:` has nothing below it yet.
  if (!isMap(document.contents)) document.contents = document.createNode({});
  if (!isMap(document.get("config"))) document.set("config", document.createNode({}));
  return document;
}

/**
 * Changes the text where each key stands. Returns nothing where that cannot be done: without a
 * `config` in block style, or for a value that is not one line.
 */
function spliceKeys(text: string, changes: StackFileChanges, where: string): string | undefined {
  let spliced: string | undefined = text;
  for (const [key, value] of Object.entries(changes)) {
    if (spliced === undefined) return undefined;
    const config: unknown = parseStackFile(spliced, where).get("config");
    if (!isMap(config) || config.flow === true || config.items.length === 0) return undefined;
    if (value !== undefined && typeof value !== "string") return undefined;
    spliced = spliceKey(spliced, config, key, value);
  }
  return spliced;
}

function spliceKey(
  text: string,
  config: YAMLMap,
  key: string,
  value: string | undefined,
): string | undefined {
  const pair = config.items.find((item) => isScalar(item.key) && item.key.value === key);
  if (pair === undefined) {
    const last = config.items.at(-1);
    return value === undefined || last === undefined ? text : appendKey(text, last, key, value);
  }
  const [start, end] = span(pair);
  if (start === undefined || end === undefined || !isScalar(pair.value)) return undefined;
  if (value === undefined) {
    const lineEnd = text.indexOf("\n", end);
    return text.slice(0, lineStart(text, start)) + (lineEnd < 0 ? "" : text.slice(lineEnd + 1));
  }
  const valueStart = pair.value.range?.[0];
  return valueStart === undefined || valueStart === end
    ? undefined
    : text.slice(0, valueStart) + inline(value) + text.slice(end);
}

/** Below the last key, with its indentation. */
function appendKey(text: string, last: Pair, key: string, value: string): string | undefined {
  const [start, end] = span(last);
  if (start === undefined || end === undefined) return undefined;
  const begin = lineStart(text, start);
  const line = `${text.slice(begin, start)}${key}: ${inline(value)}\n`;
  // A block's end is already on the next line.
  const lineEnd = text[end - 1] === "\n" ? end - 1 : text.indexOf("\n", end);
  return lineEnd < 0
    ? `${text}\n${line}`
    : text.slice(0, lineEnd + 1) + line + text.slice(lineEnd + 1);
}

/** From where the key begins to where the value ends. */
function span(pair: Pair): [number | undefined, number | undefined] {
  const key = isNode(pair.key) ? pair.key.range?.[0] : undefined;
  const value = isNode(pair.value) ? pair.value.range?.[1] : undefined;
  return [key, value];
}

function lineStart(text: string, position: number): number {
  return text.lastIndexOf("\n", position - 1) + 1;
}

function inline(value: string): string {
  return stringify(value, { lineWidth: 0 }).trimEnd();
}

/**
 * Replaces a file whole: whoever reads it, or kills this, finds the former or the new one. The draft
 * that a killed run has left is removed by the next one.
 */
export async function writeAtomically(path: string, text: string): Promise<void> {
  await removeDrafts(path);
  const draft = `${path}.${process.pid}.tmp`;
  try {
    const file = await open(draft, "w");
    try {
      await file.writeFile(text);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(draft, path);
  } finally {
    await rm(draft, { force: true });
  }
}

/** Removes the drafts of processes that are no more. */
async function removeDrafts(path: string): Promise<void> {
  const start = `${basename(path)}.`;
  for (const name of await readdir(dirname(path))) {
    const pid = name.startsWith(start) && /^(\d+)\.tmp$/.exec(name.slice(start.length))?.[1];
    if (pid && !isAlive(Number(pid))) await rm(join(dirname(path), name), { force: true });
  }
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    // It is there, and somebody else's.
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

/** A stack file's text; empty where there is none. */
export async function readStackFile(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return "";
    throw error;
  }
}
