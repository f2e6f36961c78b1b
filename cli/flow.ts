import { parse } from "yaml";
import { FLOW_FILE, parseFlow, type Flow } from "../release/flow";
import { Refusal } from "../ledger/refusal";
import type { Project } from "../ledger/project";

/**
 * What pushes mean to a project.
 * @throws Refusal with all that is wrong with its table.
 */
export async function readFlow(project: Project): Promise<Flow> {
  const names = await project.path();
  const environments = await Promise.all(
    names.map(async (name) => {
      const { upstream, approval } = await project.config(name);
      const known = { takesBuilds: upstream === undefined, asksApproval: approval.required > 0 };
      return [name, known] as const;
    }),
  );
  const refusal = (value: string, expected: string, fix: string) =>
    new Refusal({ where: FLOW_FILE, property: "the file", value, expected, fix });
  const text = await project.text(FLOW_FILE);
  if (text === "") {
    const fix = "Write it; docs/pipelines.md shows one";
    throw refusal("missing or empty", "the table that says what a push means", fix);
  }
  let values: unknown;
  try {
    values = parse(text);
  } catch (error) {
    throw refusal((error as Error).message.split("\n")[0] ?? "", "YAML", "Correct it");
  }
  const parsed = parseFlow(values, FLOW_FILE, Object.fromEntries(environments));
  if ("problems" in parsed) throw new Refusal(parsed.problems);
  return parsed.ok;
}
