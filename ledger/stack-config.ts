import { z } from "zod";
import { parse } from "yaml";
import { Config, MOVING_KEYS } from "../config-schema";
import { jsonOrText, parseJson } from "../release/json";
import { isCiphertext, isTree, mergeTrees, type Tree } from "../release/merge";
import { Refusal } from "./refusal";

export type MovingKey = (typeof MOVING_KEYS)[number];

/** The keys the tool acts on; all others are the program's own business. */
const Known = z.object(
  Config.pick({
    imageTag: true,
    imageDigest: true,
    version: true,
    rollbackOf: true,
    hotfixFrom: true,
    upstream: true,
    versioned: true,
    follows: true,
    registry: true,
    cluster: true,
    database: true,
    namespace: true,
    approval: true,
    deployedBy: true,
    freeze: true,
    soak: true,
    scan: true,
    signOffs: true,
    announce: true,
    slack: true,
  }).shape,
);

/** What must hold before a release may move. */
export const POLICY_KEYS = ["approval", "freeze", "soak", "scan", "signOffs"] as const;

export interface StackConfig extends z.infer<typeof Known> {
  /** Everything a deployment reads except what moves and the policy; secrets encrypted. */
  readonly settings: Tree;
  /** What the stack file says beside its `config`: its key, and what else Pulumi takes in. */
  readonly beside: Tree;
}

/** What Pulumi.yaml says of itself. */
const ProjectFile = z.object({
  name: z.string(),
  main: z.string().optional(),
  config: z.record(z.string(), z.unknown()).optional(),
});

export interface ProjectFile {
  readonly name: string;
  /** The program's folder, relative to the project's. */
  readonly main: string;
  readonly config: Tree;
  /** Runtime, plugins and all else that is not configuration. */
  readonly others: Tree;
}

/** @throws Refusal when the text is not that of a Pulumi.yaml. */
export function parseProjectFile(text: string): ProjectFile {
  const values = parseYaml(text, "Pulumi.yaml");
  const parsed = ProjectFile.safeParse(values);
  if (!parsed.success) {
    throw new Refusal({
      where: "Pulumi.yaml",
      property: parsed.error.issues[0]?.path.join(".") ?? "the file",
      value: "missing, or of another kind",
      expected: "a Pulumi project",
      fix: "Correct it",
    });
  }
  const { name, main = ".", config = {} } = parsed.data;
  const others = Object.entries(values).filter(([key]) => key !== "config");
  return { name, main, config, others: Object.fromEntries(others) };
}

/**
 * A stack's configuration as the program will see it: `baton:defaults` of Pulumi.yaml with the
 * stack file's keys merged into it.
 * @throws Refusal that names the key.
 */
export function parseStackConfig(
  project: ProjectFile,
  stackFile: string,
  environment: string,
): StackConfig {
  const { config, ...beside } = parseYaml(stackFile, `Pulumi.${environment}.yaml`);
  // A stack file's key takes the place of the project's.
  const values = { ...projectValues(project), ...(isTree(config) ? config : {}) };
  return { ...configOf(project, values, environment), beside };
}

/**
 * The same of what Pulumi gives a running program: all values as text, structured ones as JSON, and
 * none for a secret.
 */
export function parseGivenConfig(
  project: ProjectFile,
  given: Readonly<Record<string, string | undefined>>,
  environment: string,
): StackConfig {
  const values = Object.entries(given).map(([key, value]) => [key, value ?? { secure: "" }]);
  return { ...configOf(project, Object.fromEntries(values) as Tree, environment), beside: {} };
}

/** What Pulumi.yaml gives every stack: plain values, or those of a declaration. */
export function projectValues({ name, config }: ProjectFile): Tree {
  const entries = Object.entries(config).map(([key, value]) => [
    key.includes(":") ? key : `${name}:${key}`,
    isTree(value) && !isCiphertext(value) ? (value["value"] ?? value["default"]) : value,
  ]);
  return Object.fromEntries(entries.filter(([, value]) => value !== undefined)) as Tree;
}

function configOf(
  project: ProjectFile,
  values: Tree,
  environment: string,
): Omit<StackConfig, "beside"> {
  const prefix = `${project.name}:`;
  const own: Record<string, unknown> = {};
  const others: Record<string, unknown> = {};
  let defaults: Tree = {};
  for (const [key, value] of Object.entries(values)) {
    if (!key.startsWith(prefix)) others[key] = asGiven(value);
    else if (key !== `${prefix}defaults`) own[key.slice(prefix.length)] = asRead(key, value);
    else if (isTree(asRead(key, value))) defaults = asRead(key, value) as Tree;
  }
  const merged = mergeTrees(defaults, own);
  const parsed = Known.safeParse(merged);
  if (!parsed.success) {
    throw new Refusal(
      parsed.error.issues.map(({ path, message }) => ({
        where: environment,
        property: `baton:${path.join(".")}`,
        value: "missing, or of another kind",
        expected: message.startsWith("Invalid input") ? "what docs/configuration.md says" : message,
        fix: `Correct Pulumi.${environment}.yaml or Pulumi.yaml`,
      })),
    );
  }
  const notSettings: readonly string[] = [...MOVING_KEYS, ...POLICY_KEYS];
  const settings = Object.entries(merged).filter(([key]) => !notSettings.includes(key));
  return { ...parsed.data, settings: { own: Object.fromEntries(settings), others } };
}

/** As the program reads one of its keys: a text is what its JSON says, but for those of tags. */
function asRead(key: string, value: unknown): unknown {
  const isText = TEXT_KEYS.some((name) => key.endsWith(`:${name}`));
  return typeof value !== "string" || isText ? value : jsonOrText(value);
}

/** As Pulumi gives other keys: numbers and booleans as texts, structures as JSON. */
function asGiven(value: unknown): unknown {
  if (typeof value === "number" || typeof value === "boolean") return String(value);
  const tree = typeof value === "string" && /^\s*[[{]/.test(value) ? parseJson(value) : undefined;
  return tree ?? value;
}

const TEXT_KEYS = [...MOVING_KEYS, "upstream"];

function parseYaml(text: string, name: string): Tree {
  let values: unknown;
  try {
    // As Pulumi reads it, which merges what `<<` names.
    values = parse(text, { merge: true }) ?? {};
  } catch (error) {
    values = (error as Error).message.split("\n")[0];
  }
  if (isTree(values)) return values;
  throw new Refusal({
    where: name,
    property: "the file",
    value: typeof values === "string" ? values : "not a map",
    expected: "YAML with a map",
    fix: "Correct it",
  });
}

/** Apart: what can be read in a configuration, and what is encrypted in it. */
export function splitSecrets(tree: Tree): { readonly settings: unknown; readonly secrets: Tree } {
  const secrets: Record<string, unknown> = {};
  const strip = (value: unknown, path: readonly string[]): unknown => {
    if (Array.isArray(value)) return value.map((item, index) => strip(item, [...path, `${index}`]));
    if (!isTree(value)) return value;
    if (isCiphertext(value)) {
      secrets[JSON.stringify(path)] = value["secure"];
      return {};
    }
    const entries = Object.entries(value).map(([key, child]) => [
      key,
      strip(child, [...path, key]),
    ]);
    return Object.fromEntries(entries) as Tree;
  };
  return { settings: strip(tree, []), secrets };
}
