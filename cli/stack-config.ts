import { z } from "zod";
import { parse } from "yaml";
import { Config, MOVING_KEYS } from "../config-schema";
import { isTree, mergeTrees, type Tree } from "../release/merge";
import { Refusal } from "./refusal";

export type MovingKey = (typeof MOVING_KEYS)[number];

/** The keys the tool acts on; all others are the program's own business. */
const Known = z.object(
  Config.pick({
    imageTag: true,
    imageDigest: true,
    version: true,
    rollbackOf: true,
    upstream: true,
    versioned: true,
    registry: true,
    approval: true,
  }).shape,
);

export interface StackConfig extends z.infer<typeof Known> {
  /** Everything a deployment reads except what moves and the approval policy; secrets encrypted. */
  readonly settings: Tree;
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
  const prefix = `${project.name}:`;
  const file = parseYaml(stackFile, `Pulumi.${environment}.yaml`);
  const own: Record<string, unknown> = {};
  const others: Record<string, unknown> = {};
  let defaults: Tree = {};
  for (const [key, value] of Object.entries(project.config)) {
    if (key !== `${prefix}defaults`) others[key] = value;
    else if (isTree(value) && isTree(value["value"])) defaults = value["value"];
  }
  for (const [key, value] of Object.entries(isTree(file["config"]) ? file["config"] : {})) {
    if (key.startsWith(prefix)) own[key.slice(prefix.length)] = scalarOf(value);
    else others[key] = value;
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
  const notSettings: readonly string[] = [...MOVING_KEYS, "approval"];
  const settings = Object.entries(merged).filter(([key]) => !notSettings.includes(key));
  return { ...parsed.data, settings: { own: Object.fromEntries(settings), others } };
}

/** `pulumi config set versioned true` writes a text. */
function scalarOf(value: unknown): unknown {
  return value === "true" ? true : value === "false" ? false : value;
}

function parseYaml(text: string, name: string): Tree {
  let values: unknown;
  try {
    values = parse(text) ?? {};
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
