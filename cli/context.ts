import { isEnvironmentName } from "../release/tags";
import { Ledger, type Request } from "./ledger";
import { showUp } from "./progress";
import { Project } from "./project";
import { Pulumi } from "./pulumi";
import { Refusal } from "./refusal";

/** What every command works on. */
export interface Context {
  readonly project: Project;
  readonly pulumi: Pulumi;
  readonly ledger: Ledger;
  /** Prints for people, or for the next program. */
  readonly print: (text: string) => void;
  /** Runs an `up` and shows how far it is. */
  readonly showUp: typeof showUp;
}

export async function openContext(
  folder: string,
  print: Context["print"],
  show: Context["showUp"] = showUp,
): Promise<Context> {
  const project = await Project.open(folder);
  const [pulumi, ledger] = [new Pulumi(folder), new Ledger(folder)];
  return { project, pulumi, ledger, print, showUp: show };
}

/** @throws Refusal for what cannot be an environment's name, or part of a ref. */
export function checkName(environment: string): void {
  if (isEnvironmentName(environment)) return;
  throw new Refusal({
    where: "baton",
    property: "ENV",
    value: environment,
    expected: "an environment's name: lower-case letters and digits",
    fix: "`baton status` lists them",
  });
}

/** @throws Refusal when nobody has made one. */
export async function latestRequest(ledger: Ledger, environment: string): Promise<Request> {
  await ledger.check();
  const request = await ledger.request(environment);
  if (request !== undefined) return request;
  throw new Refusal({
    where: environment,
    property: "the request",
    value: "missing",
    expected: "a commit that asks for a deployment",
    fix: `Make one with \`baton request ${environment}\``,
  });
}
