import { startProblems } from "../ledger/gate";
import type { LedgerOutcome, Request } from "../ledger/ledger";
import { problemsOf, type Term } from "../release/gate";
import {
  exceeds,
  notRoutine,
  parseOperations,
  parseUrn,
  type Operation,
} from "../release/operations";
import type { Tree } from "../release/merge";
import type { Problem } from "../release/problem";
import {
  describeProperty,
  formatValue,
  startObjects,
  startsOf,
  type StartObject,
} from "../release/start";
import { Locked } from "./alone";
import { fetchOrRefuse, latestRequest, type Context } from "./context";
import { readFacts, type Facts } from "./facts";
import { gateOf, type Gate } from "./gate";
import type { Preview } from "./pulumi";

/** Whether a request may be deployed now. */
export type Clearance =
  | Clear
  /** People's words or time are missing. */
  | { readonly state: "waits"; readonly terms: readonly Term[] }
  | { readonly state: "fails"; readonly problems: readonly Problem[] };

/** A request that may be deployed, with what has let it pass. */
export interface Clear {
  readonly state: "clear";
  readonly gate: Gate;
  readonly unattended: boolean;
  readonly preview: Preview;
}

/** Why a request that was cleared may not be deployed any more. */
export type Meanwhile =
  | Exclude<Clearance, Clear>
  /** Something was deployed here, so all is to be looked at from the beginning. */
  | { readonly state: "overtaken" };

/**
 * Checks all that must hold before a request is deployed, and previews it once more: it must do no
 * more than was approved, and start from the state that it was approved for.
 */
export async function clear(
  context: Context,
  request: Request,
  stackFile: string,
  facts: Facts,
  preview: () => Promise<Preview | Locked>,
): Promise<Clearance | Locked> {
  const { environment } = request;
  const gate = await gateOf(context, request, stackFile, facts, { wait: true });
  const others = gate.terms.filter(({ name }) => name !== "approvals");
  const [approvals] = gate.terms.filter(({ name }) => name === "approvals");
  if ([...others, approvals].some((term) => term?.state === "fails")) {
    return { state: "fails", problems: problemsOf(gate.terms) };
  }
  const unattended = approvals?.state === "waits";
  if (unattended && !gate.approvals.unattended) return { state: "waits", terms: gate.terms };
  const previewed = await preview();
  if (previewed instanceof Locked) return previewed;
  const { operations } = previewed;
  const extraordinary = unattended ? notRoutine(operations) : [];
  if (extraordinary.length > 0) {
    for (const { op, urn } of extraordinary) {
      context.print(`${environment}: ${op} ${nameOf(urn)} is more than what every release does.`);
    }
    return { state: "waits", terms: gate.terms };
  }
  if (others.some(({ state }) => state === "waits")) return { state: "waits", terms: others };
  const beyond = exceeds(parseOperations(request.operations), operations);
  const moved =
    gate.approvals.policy.required > 0 ? await movedSince(context, request, previewed) : [];
  if (beyond.length + moved.length === 0) {
    return { state: "clear", gate, unattended, preview: previewed };
  }
  const problems = [...beyond.map((each) => beyondProblem(request, each)), ...moved];
  return { state: "fails", problems };
}

/** A problem for each property that has moved since the request, in the stack's state or the cluster. */
async function movedSince(
  context: Context,
  request: Request,
  preview: Preview,
): Promise<Problem[]> {
  const { environment, id, former } = request;
  const { pulumi } = context;
  const state = await pulumi.resources(environment);
  const present = startsOf(preview, state, { target: request, former }, [id, environment]);
  const objects = startObjects(present, state, preview.next);
  return [
    ...startProblems(request, state, present),
    ...(await movedInCluster(context, environment, objects)),
  ];
}

/** A problem for each property of the objects that differs between the cluster and the previewed state. */
async function movedInCluster(
  { project, notes }: Context,
  environment: string,
  objects: readonly StartObject[],
): Promise<Problem[]> {
  if (objects.length === 0) return [];
  const { clusterOf } = await import("./cluster");
  const cluster = clusterOf(environment, await project.config(environment));
  const moved = objects.map(async ({ inputs, movedIn }) => {
    const found = await cluster.read(inputs);
    // A client's objects hold dates as such; the cluster's own words are JSON.
    return found === undefined ? [] : movedIn(JSON.parse(JSON.stringify(found)) as Tree);
  });
  const all = await Promise.all(moved).catch((error: unknown) => {
    const why = error instanceof Error ? error.message : String(error);
    notes.push(
      `${environment}: the objects to be changed were not compared with the cluster: ${why}`,
    );
    return [];
  });
  return all.flat().map((property) => ({
    where: environment,
    property: describeProperty(property),
    value: `${formatValue(property.value)} in the cluster, and another one in the state`,
    expected: "what the preview shows that it is changed from",
    fix: `Run \`pulumi refresh --stack ${environment}\`, and ask anew with \`baton request ${environment}\``,
  }));
}

/**
 * Checks anew, right before anything is changed, all that others may have said or moved since: words,
 * holds, stops, windows, tags, files, the stack's state.
 * @param newest the environment's newest outcome, but for unapproved ones, when the request was cleared
 * @returns nothing where the request may go on.
 */
export async function clearAgain(
  context: Context,
  request: Request,
  stackFile: string,
  { unattended, preview }: Clear,
  newest: string | undefined,
): Promise<Meanwhile | undefined> {
  const { environment } = request;
  await fetchOrRefuse(context);
  const latest = await latestRequest(context, environment);
  const facts = await readFacts(context);
  if (latest.id !== request.id || latest.commit !== request.commit) {
    const problem = {
      where: environment,
      property: "the request",
      value: `another since then, of ${latest.requesters[0] ?? ""} for ${latest.tag}`,
      expected: "the one that was checked and previewed",
      fix: `Look at \`baton show ${environment}\`, and run the same command again`,
    };
    return { state: "fails", problems: [problem] };
  }
  if (newestOf(await facts.outcomesOf(environment)) !== newest) return { state: "overtaken" };
  const gate = await gateOf(context, request, stackFile, facts);
  const isStillUnattended = unattended && gate.approvals.unattended;
  const open = gate.terms.filter(
    ({ name, state }) =>
      state !== "passes" && !(name === "approvals" && state === "waits" && isStillUnattended),
  );
  if (open.length === 0) {
    const moved =
      gate.approvals.policy.required > 0 ? await movedSince(context, request, preview) : [];
    return moved.length === 0 ? undefined : { state: "fails", problems: moved };
  }
  return open.some(({ state }) => state === "fails")
    ? { state: "fails", problems: problemsOf(open) }
    : { state: "waits", terms: open };
}

/**
 * The newest of an environment's outcomes that a deployment of the tool has made: what was deployed past
 * the approvals may be found and recorded by a command that looks at a request.
 */
export function newestOf(outcomes: readonly LedgerOutcome[]): string | undefined {
  return outcomes.find(({ result }) => result !== "unapproved")?.ref;
}

function beyondProblem({ environment }: Request, { op, urn, paths = [] }: Operation): Problem {
  const what = paths.length > 0 ? ` (${paths.slice(0, 5).join(", ")})` : "";
  return {
    where: environment,
    property: "the preview",
    value: `${op} ${nameOf(urn)}${what}, which it was not when it was asked for`,
    expected: "no more than was approved",
    fix: `Find out what has changed meanwhile, and ask anew with \`baton request ${environment}\``,
  };
}

function nameOf(urn: string): string {
  const { type, name } = parseUrn(urn);
  return `${type} ${name}`;
}
