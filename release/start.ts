import { createHash } from "node:crypto";
import { isTree, type Tree } from "./merge";
import { escape, HARMLESS, parseUrn, unescape, type Operation } from "./operations";
import { slugOf } from "./colour";
import { canonical } from "./plan";
import type { Target } from "./way-back";

/** A resource of a stack's state. */
export interface StateResource {
  readonly urn: string;
  /** What the program wants of it; absent where only its outputs are known. */
  readonly inputs?: Tree;
  /** What it was after the last update or refresh; secrets encrypted, or as they are in a program. */
  readonly outputs: Tree;
  /** The properties that the program leaves to others. */
  readonly ignoreChanges?: readonly string[] | undefined;
  /** When the last update or refresh has changed it, RFC 3339. */
  readonly modified?: string | undefined;
}

/** A resource as a preview says that it would be. */
export interface NextResource {
  readonly inputs: Tree;
  readonly outputs: Tree;
}

/** What a preview says. */
export interface PreviewedChanges {
  readonly operations: readonly Operation[];
  /** By URN. */
  readonly next: ReadonlyMap<string, NextResource>;
}

/** The values that one operation of a request starts from. */
export interface Start {
  /** The types of the changed resource's parents and its own, and its name. */
  readonly types: string;
  readonly name: string;
  /** The name of the resource that has the values: the same one, or its counterpart in the former release. */
  readonly of: string;
  /** The hash of the known values that the operation brings; undefined where it brings no known one. */
  readonly target: string | undefined;
  readonly properties: readonly StartProperty[];
}

interface StartProperty {
  readonly path: string;
  /** Of the salt, the resource, the path and the value. */
  readonly hash: string;
  /** Whether only the tool can compare it: a secret, or a property whose next value is not known yet. */
  readonly isHidden: boolean;
}

/** A property that is another one than a request started from. */
export interface MovedProperty {
  readonly types: string;
  readonly name: string;
  /** Empty where the whole resource is gone. */
  readonly path: string;
  /** Its value now; undefined where it is not shown, or where there is none. */
  readonly value: unknown;
}

/** What two requests never share: the request's id and its environment. */
export type Salt = readonly [id: string, environment: string];

/** How Pulumi's states mark a secret. */
const SECRET = "4dabf18193072939515e22adb298388d";
/** How previews print a secret, and a value that is not known before the deployment. */
const NOT_TOLD = ["[secret]", "04da6b54-80e4-46f7-96ec-b56ff0331ba9", "[unknown]"];
/** The types whose whole content is bound, as each key of it is a setting. */
const SETTINGS = /\$?kubernetes:core\/v1:(ConfigMap|Secret)$/;
const CONTENTS = ["data", "binaryData", "stringData"];
const IS_SECRET = /\$?kubernetes:core\/v1:Secret$/;
/** A Job that is made anew takes nothing back: what it runs is its image. */
const JOB = /\$?kubernetes:batch\/v1:Job$/;
const IMAGE = /\.(containers|initContainers)\[\d+\]\.image$/;
/** Waits and records of the tool's own provider, components, and connections. */
const NOT_BOUND = /(^|\$)(promotion|pulumi|baton):[^$]*$/;
/** Reasons of a step that are no property, and properties that no program sets. */
const NO_VALUE = /^($|#|__|metadata\.name$|status(\.|$))/;
/** Objects that a canary or a switch changes in the cluster on its own, also one that was killed. */
const SHIFTED =
  /(^baton:components:Colour\$.*|kubernetes:core\/v1:Service|kubernetes:gateway\.networking\.k8s\.io\/.*)$/;
/** Labels that each release changes. */
const RELEASE_LABELS =
  /(^|\.)labels(\.baton\/image-tag|\["(baton\/image-tag|app\.kubernetes\.io\/version)"\])$/;
/** More properties of one resource than this are bound by the objects that they are parts of. */
const MOST = 20;
/** How many characters of a value people see. */
const LONGEST = 80;

/**
 * The values that a preview's operations start from.
 * @param preview operations, and what they make of their resources
 * @param state the stack's state
 * @param target the release that is asked for
 * @param former the release that it succeeds, where there is one
 */
export function startsOf(
  { operations, next: resources }: PreviewedChanges,
  state: readonly StateResource[],
  { target, former }: { readonly target: Target; readonly former?: Target | undefined },
  salt: Salt,
): Start[] {
  const byResource = new StateByResource(state);
  const generated = generatedNames([
    ...state.map(({ outputs }) => outputs),
    ...[...resources.values()].map(({ inputs }) => inputs),
  ]);
  const isGenerated = (value: unknown) =>
    leavesOf(value).some(({ leaf }) => includesAny(leaf, generated));
  return [...stepsByUrn(operations)].flatMap(([urn, steps]): Start[] => {
    const { types, name } = parseUrn(urn);
    if (NOT_BOUND.test(types)) return [];
    const next = resources.get(urn);
    const own = byResource.find(types, name);
    const counterpart = former && counterpartOf(name, target, former);
    const of = own === undefined ? counterpart : name;
    const from = of === undefined ? undefined : byResource.find(types, of);
    if (of === undefined || from === undefined) return [];
    const isMadeAnew = own === undefined || steps.some(({ op }) => op !== "update");
    const renamed = own === undefined && former ? renaming(former, target) : undefined;
    const changed = changedPaths(steps, from, next?.inputs);
    const paths = boundPaths(changed, types, from, isMadeAnew).filter((path) => {
      const value = valueAt(from.outputs, path);
      if (SETTINGS.test(types)) return true;
      const brought = nextValue(next, path);
      if (isGenerated(value)) return false;
      // What only the former release sets ends with it.
      return renamed === undefined || (brought !== undefined && renamed(value) !== textOf(brought));
    });
    const known: [string, unknown][] = [];
    const properties = paths.flatMap((path): StartProperty[] => {
      const value = startValue(types, from, path);
      if (value === undefined) return [];
      const brought = nextValue(next, path);
      const isTold = !leavesOf(brought).some(({ leaf }) => NOT_TOLD.includes(leaf as string));
      const isHidden = value.isSecret || JOB.test(types) || !isTold || isGenerated(brought);
      if (!isHidden) known.push([path, brought]);
      return [{ path, hash: hashOf(salt, types, of, path, value.value), isHidden }];
    });
    if (properties.length === 0) return [];
    const brings = known.length === 0 ? undefined : targetHash(salt, types, name, known);
    return [{ types, name, of, target: brings, properties }];
  });
}

/**
 * The properties of a stack that are others than a request started from. A resource that has all that
 * the request brings was deployed by the request itself, in a run that did not end.
 * @param operations of the request: what it makes anew, a run that was killed may have removed
 */
export function movedProperties(
  starts: readonly Start[],
  state: readonly StateResource[],
  salt: Salt,
  operations: readonly Operation[],
): MovedProperty[] {
  const byResource = new StateByResource(state);
  return starts.flatMap(({ types, name, of, target, properties }): MovedProperty[] => {
    const compared = properties.filter(({ isHidden }) => !isHidden);
    const own = byResource.find(types, name);
    if (compared.length === 0 || (of !== name && own !== undefined)) return [];
    const from = byResource.find(types, of);
    if (from === undefined) {
      const isRenewed = operations.some(({ op, urn }) => {
        const resource = parseUrn(urn);
        return op !== "update" && resource.types === types && resource.name === name;
      });
      return of === name && isRenewed ? [] : [{ types, name: of, path: "", value: undefined }];
    }
    const valueOf = (path: string) => valueAt(from.outputs, path);
    const moved = compared.filter(
      ({ path, hash }) => hashOf(salt, types, of, path, valueOf(path)) !== hash,
    );
    if (moved.length === 0) return [];
    const now = compared.map(({ path }): [string, unknown] => [path, valueOf(path)]);
    if (of === name && target === targetHash(salt, types, name, now)) return [];
    return innermost(
      moved.map(({ path }) => path),
      properties,
      from.outputs,
    ).map((path) => ({
      types,
      name: of,
      path,
      value: valueOf(path),
    }));
  });
}

/**
 * The properties that a later preview of a request changes from another value than the request
 * started from, or that the request did not change.
 * @param approved what the request recorded
 * @param present the same of the later preview
 */
export function unapprovedStarts(
  approved: readonly Start[],
  present: readonly Start[],
  state: readonly StateResource[],
  salt: Salt,
): MovedProperty[] {
  const byResource = new StateByResource(state);
  return present.flatMap(({ types, name, of, properties }): MovedProperty[] => {
    const from = byResource.find(types, of);
    const known = approved.find(
      (start) => start.types === types && start.name === name && start.of === of,
    );
    if (from === undefined) return [];
    const moved = properties.filter(({ path }) => {
      const one = known?.properties.find((property) => isWithin(path, property.path));
      const value = one && startValue(types, from, one.path);
      return one === undefined || hashOf(salt, types, of, one.path, value?.value) !== one.hash;
    });
    const paths = moved.map(({ path }) => path);
    return innermost(paths, known?.properties ?? properties, from.outputs).map((path) => ({
      types,
      name: of,
      path,
      value: startValue(types, from, path)?.isSecret ? undefined : valueAt(from.outputs, path),
    }));
  });
}

/** An object of the cluster of which an operation changes properties. */
export interface StartObject {
  readonly types: string;
  readonly name: string;
  /** What the program wants of it, by which it is found. */
  readonly inputs: Tree;
  /**
   * The properties that are others in the cluster than in the state, and not what the operation brings.
   * @param live the object as the cluster has it
   */
  readonly movedIn: (live: Tree) => MovedProperty[];
}

/**
 * The objects that operations start from, to be compared with the cluster: no preview says what was
 * changed there. Secrets are not compared, nor is what a canary shifts traffic and pods by.
 */
export function startObjects(
  starts: readonly Start[],
  state: readonly StateResource[],
  next: PreviewedChanges["next"],
): StartObject[] {
  const byResource = new StateByResource(state);
  const brings = new Map(
    [...next].map(([urn, resource]) => {
      const { types, name } = parseUrn(urn);
      return [`${types} ${name}`, resource] as const;
    }),
  );
  return starts.flatMap(({ types, name, of, properties }): StartObject[] => {
    const { inputs, outputs } = byResource.find(types, of) ?? {};
    if (inputs?.["apiVersion"] === undefined || outputs === undefined) return [];
    if (IS_SECRET.test(types) || SHIFTED.test(types)) return [];
    const paths = properties.map(({ path }) => path);
    const movedIn = (live: Tree) => {
      const moved = paths.filter((path) => {
        const value = canonical(valueAt(live, path));
        const brought = canonical(nextValue(brings.get(`${types} ${name}`), path));
        return value !== canonical(valueAt(outputs, path)) && value !== brought;
      });
      return innermost(moved, properties, live).map((path) => ({
        types,
        name: of,
        path,
        value: valueAt(live, path),
      }));
    };
    return [{ types, name: of, inputs, movedIn }];
  });
}

/** `Deployment web spec.replicas`. */
export function describeProperty({ types, name, path }: MovedProperty): string {
  const kind = types.split(":").at(-1) ?? types;
  return `${kind} ${name} ${path}`.trim();
}

/** A value for people; of a secret there is none. */
export function formatValue(value: unknown): string {
  if (value === undefined) return "another one";
  const text = typeof value === "string" ? value : JSON.stringify(value);
  const short = text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text;
  return short === "" ? "empty" : short;
}

/** One line: `TYPES NAME OF TARGET PATH=HASH,PATH~HASH`; `~` where only the tool can compare. */
export function formatStart({ types, name, of, target, properties }: Start): string {
  const list = properties.map(
    ({ path, hash, isHidden }) => `${escape(path)}${isHidden ? "~" : "="}${hash}`,
  );
  const from = of === name ? "=" : escape(of);
  return [escape(types), escape(name), from, target ?? "-", list.join(",")].join(" ");
}

/** Reads what `formatStart` has written; a line that is not whole binds nothing. */
export function parseStarts(lines: readonly string[]): Start[] {
  return lines.flatMap((line) => {
    const [types, name, of, target, list] = line.trim().split(" ");
    if (!types || !name || !of || !target || !list) return [];
    const properties = list.split(",").flatMap((text): StartProperty[] => {
      const [, path = "", sign, hash = ""] = /^(.+)([=~])([\w-]{43})$/.exec(text) ?? [];
      return sign === undefined ? [] : [{ path: unescape(path), hash, isHidden: sign === "~" }];
    });
    const named = unescape(name);
    return [
      {
        types: unescape(types),
        name: named,
        of: of === "=" ? named : unescape(of),
        target: target === "-" ? undefined : target,
        properties,
      },
    ];
  });
}

/** A state's resources by the types of their parents, their own, and their name. */
class StateByResource {
  private readonly resources = new Map<string, StateResource>();

  constructor(state: readonly StateResource[]) {
    for (const resource of state) {
      const { types, name } = parseUrn(resource.urn);
      this.resources.set(`${types} ${name}`, resource);
    }
  }

  find(types: string, name: string): StateResource | undefined {
    return this.resources.get(`${types} ${name}`);
  }
}

/** The steps that change a resource, or make it anew. A deletion is bound by its name. */
function stepsByUrn(operations: readonly Operation[]): ReadonlyMap<string, readonly Operation[]> {
  const steps = new Map<string, Operation[]>();
  for (const operation of operations) {
    const { op, urn } = operation;
    if (HARMLESS.includes(op) || op.startsWith("delete") || op.startsWith("remove")) continue;
    steps.set(urn, [...(steps.get(urn) ?? []), operation]);
  }
  return steps;
}

/** The name that a resource of a release had in the former one: names carry the tag, or its slug. */
function counterpartOf(name: string, target: Target, former: Target): string | undefined {
  const of = renaming(target, former)(name);
  return of === name ? undefined : of;
}

/** Puts one release's tag in the place of another's. */
function renaming(from: Target, to: Target): (value: unknown) => string {
  const names = [
    [from.tag, to.tag],
    [slugOf(from.tag), slugOf(to.tag)],
    ...(from.version && to.version ? [[from.version, to.version]] : []),
  ] as const;
  return (value) => {
    const text = textOf(value);
    for (const [one = "", other = ""] of names) {
      const at = text.lastIndexOf(one);
      const isWhole =
        at >= 0 && !/[\w.]$/.test(text.slice(0, at)) && !/^[\w.]/.test(text.slice(at + one.length));
      if (isWhole) return text.slice(0, at) + other + text.slice(at + one.length);
    }
    return text;
  };
}

function textOf(value: unknown): string {
  return typeof value === "string" ? value : canonical(value);
}

/** The properties that steps change: as the preview says, or as the inputs differ. */
function changedPaths(
  steps: readonly Operation[],
  { urn, inputs }: StateResource,
  next: Tree | undefined,
): string[] {
  const isItself = steps.some((step) => step.urn === urn);
  const told = isItself ? [...new Set(steps.flatMap(({ paths }) => paths ?? []))] : [];
  if (told.length > 0) return told;
  return inputs === undefined || next === undefined ? [] : differing(inputs, next);
}

function boundPaths(
  changed: readonly string[],
  types: string,
  { outputs, ignoreChanges = [] }: StateResource,
  isMadeAnew: boolean,
): string[] {
  const paths = changed
    .filter((path) => !NO_VALUE.test(path) && !RELEASE_LABELS.test(path))
    .filter((path) => !ignoreChanges.some((ignored) => isWithin(path, ignored)))
    .filter((path) => !JOB.test(types) || IMAGE.test(path));
  if (!SETTINGS.test(types)) return shortened(paths);
  const isContent = (path: string) => CONTENTS.some((content) => isWithin(path, content));
  const others = paths.filter((path) => !isContent(path));
  if (!isMadeAnew && others.length === paths.length) return shortened(others);
  const contents = CONTENTS.filter((content) => outputs[content] !== undefined);
  if (IS_SECRET.test(types)) return [...shortened(others), ...contents];
  const keys = isTree(outputs["data"]) ? Object.keys(outputs["data"]) : [];
  const added = paths.filter((path) => isWithin(path, "data") && path !== "data");
  const data = [...new Set([...keys.map((key) => pathOf("data", key)), ...added])];
  return [...shortened(others), ...contents, ...(data.length > MOST ? [] : data)];
}

/** As many paths as are bound of one resource: too many become those of the objects around them. */
function shortened(paths: readonly string[]): string[] {
  if (paths.length <= MOST) return [...paths];
  for (const depth of [4, 3, 2]) {
    const some = new Set(paths.map((path) => pathOf("", ...segmentsOf(path).slice(0, depth))));
    if (some.size <= MOST) return [...some];
  }
  return [...new Set(paths.map((path) => pathOf("", ...segmentsOf(path).slice(0, 1))))];
}

/** The value that an operation starts from; of a secret its date. Undefined where it cannot be hashed. */
function startValue(
  types: string,
  { outputs, modified }: StateResource,
  path: string,
): { readonly value: unknown; readonly isSecret: boolean } | undefined {
  const value = valueAt(outputs, path);
  const isCipher = leavesOf(value).some(({ path: keys }) => keys.includes(SECRET));
  if (!isCipher && !IS_SECRET.test(types)) return { value, isSecret: false };
  // Each `up` encrypts a secret anew, and dates only what it changes.
  if (modified !== undefined) return { value: modified, isSecret: true };
  // The hash of a weak secret could be guessed.
  return isCipher ? { value, isSecret: true } : undefined;
}

function nextValue(next: NextResource | undefined, path: string): unknown {
  return valueAt(next?.outputs ?? {}, path) ?? valueAt(next?.inputs ?? {}, path);
}

/** Of moved properties, those that contain no other one that moved, down to keys that were added. */
function innermost(
  moved: readonly string[],
  recorded: readonly StartProperty[],
  outputs: Tree,
): string[] {
  const told = moved.filter(
    (path) => !moved.some((other) => other !== path && isWithin(other, path)),
  );
  return told.flatMap((path) => {
    const inside = recorded.filter(
      (property) => property.path !== path && isWithin(property.path, path),
    );
    const value = valueAt(outputs, path);
    if (inside.length === 0 || !isTree(value)) return [path];
    const keys = Object.keys(value).map((key) => pathOf(path, key));
    const added = keys.filter((key) => !inside.some((property) => property.path === key));
    return added.length === 0 ? [path] : added;
  });
}

/** The paths of leaves in which two trees differ; a list of another length as a whole. */
function differing(
  one: unknown,
  other: unknown,
  path: readonly (string | number)[] = [],
): string[] {
  if (isTree(one) && isTree(other) && !(SECRET in one) && !(SECRET in other)) {
    const keys = [...new Set([...Object.keys(one), ...Object.keys(other)])];
    return keys.flatMap((key) => differing(one[key], other[key], [...path, key]));
  }
  if (Array.isArray(one) && Array.isArray(other) && one.length === other.length) {
    return one.flatMap((item, index) => differing(item, other[index], [...path, index]));
  }
  return canonical(one) === canonical(other) ? [] : [pathOf("", ...path)];
}

function hashOf(salt: Salt, types: string, name: string, path: string, value: unknown): string {
  return digest(["start", ...salt, types, name, path, value]);
}

function targetHash(
  salt: Salt,
  types: string,
  name: string,
  values: readonly (readonly [string, unknown])[],
): string {
  return digest(["target", ...salt, types, name, values]);
}

/** SHA-256 in base64url: 43 characters. */
function digest(value: unknown): string {
  return createHash("sha256").update(canonical(value)).digest("base64url");
}

/** Names of objects that Pulumi has made up, which are others each time. */
function generatedNames(objects: readonly Tree[]): string[] {
  return objects.flatMap((object) => {
    const annotated = valueAt(object, 'metadata.annotations["pulumi.com/autonamed"]');
    const name = valueAt(object, "metadata.name");
    return annotated === "true" && typeof name === "string" ? [name] : [];
  });
}

function includesAny(leaf: unknown, names: readonly string[]): boolean {
  return typeof leaf === "string" && names.some((name) => leaf.includes(name));
}

/** All values that contain no other, and where they are. */
function leavesOf(
  value: unknown,
  path: readonly (string | number)[] = [],
): { readonly path: readonly (string | number)[]; readonly leaf: unknown }[] {
  if (isTree(value)) {
    return Object.entries(value).flatMap(([key, item]) => leavesOf(item, [...path, key]));
  }
  if (Array.isArray(value)) return value.flatMap((item, index) => leavesOf(item, [...path, index]));
  return [{ path, leaf: value }];
}

const SEGMENT = /\[(\d+)\]|\["((?:[^"\\]|\\.)*)"\]|\.?([^.[]+)/g;

/** The keys of a path as Pulumi writes it: `spec.containers[0]`, `metadata.labels["a.b/c"]`. */
function segmentsOf(path: string): (string | number)[] {
  return [...path.matchAll(SEGMENT)].map(([, index, quoted, plain = ""]) =>
    index !== undefined
      ? Number(index)
      : quoted !== undefined
        ? quoted.replace(/\\(.)/g, "$1")
        : plain,
  );
}

function pathOf(base: string, ...keys: readonly (string | number)[]): string {
  return keys.reduce<string>((path, key) => {
    if (typeof key === "number") return `${path}[${key}]`;
    if (/[.[\]"]/.test(key)) return `${path}["${key.replace(/["\\]/g, "\\$&")}"]`;
    return path === "" ? key : `${path}.${key}`;
  }, base);
}

function valueAt(tree: Tree, path: string): unknown {
  return segmentsOf(path).reduce<unknown>((value, key) => {
    if (Array.isArray(value)) return value[Number(key)];
    return isTree(value) && Object.hasOwn(value, key) ? value[key] : undefined;
  }, tree);
}

/** Whether a property is another one, or a part of it. */
function isWithin(path: string, around: string): boolean {
  const [inner, outer] = [segmentsOf(path), segmentsOf(around)];
  return outer.length <= inner.length && outer.every((key, index) => key === inner[index]);
}
