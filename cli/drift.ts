import { parseQuantity } from "../components/internal/quantity";
import { isTree, type Tree } from "../release/merge";
import { parseUrn, type Operation } from "../release/operations";
import { shortDigest } from "../release/plan";
import { clusterOf, type Cluster } from "./cluster";
import { checkName, type Context, type Report } from "./context";
import type { Facts } from "./facts";
import { parityLines, parityOf, type Parity } from "./parity";
import type { RecordedObject } from "./pulumi";
import { factsOrNote, isOpen } from "./status";
import { markOf, wrap } from "./text";
import { runsBy } from "./updates";

export interface DriftOptions {
  readonly environment?: string;
}

/** Where an environment is not as it is written; never with values. */
export interface EnvironmentDrift {
  readonly environment: string;
  /** What is gone from the cluster or another there than in the state. */
  readonly operations: readonly Difference[];
  /** What is in the cluster, labelled as this environment's, and not in the state. */
  readonly unrecorded: readonly { readonly kind: string; readonly id: string }[];
  /** What runs by the state and by the ledger, where they disagree. */
  readonly ledger?: { readonly runs: string; readonly recorded: string; readonly ref: string };
  /** What runs, and what the stack file asks for without anybody's request. */
  readonly stackFile?: { readonly runs: string; readonly asksFor: string };
  /** Of one that follows another: whether it could take over. */
  readonly parity?: Parity;
  /** Why it could not be compared. */
  readonly unknown?: string;
}

/** A resource that is another one outside. */
interface Difference {
  readonly op: string;
  readonly type: string;
  readonly name: string;
  /** The properties that differ, as Pulumi writes them. */
  readonly paths: readonly string[];
}

/** `baton drift [ENV]`: whether cluster, state, ledger and stack file say the same. */
export async function drift(context: Context, { environment }: DriftOptions = {}): Promise<Report> {
  const { project, print, showProgress } = context;
  if (environment !== undefined) {
    checkName(environment);
    await project.read(environment);
  }
  const path = environment === undefined ? await project.path() : [environment];
  const facts = await factsOrNote(context);
  const environments = await showProgress(`compare ${path.join(", ")}`, () =>
    Promise.all(path.map((name) => driftOf(context, name, facts))),
  );
  const remarks = environments.map((each) => ({ ...remarksOf(each), name: each.environment }));
  for (const { name, said, advice } of remarks) {
    if (said.length === 0) print(wrap(`${markOf("passes")} `, `${name}: no drift`, 2));
    for (const text of said) print(wrap(`${markOf("fails")} `, `${name}: ${text}`, 2));
    for (const text of advice) print(wrap("  ", text));
    const parity = environments.find(({ environment: one }) => one === name)?.parity;
    if (parity !== undefined) printParity(context, name, parity);
  }
  const drifted =
    remarks.some(({ said }) => said.length > 0) ||
    environments.some(({ parity }) => (parity?.breaks.length ?? 0) > 0);
  return { outcome: drifted ? "refused" : "done", environments };
}

function printParity({ print }: Context, name: string, parity: Parity): void {
  const { said, breaks } = parityLines(parity);
  const [sum = "", ...rest] = said;
  print(wrap(`${markOf(parity.same ? "passes" : "fails")} `, `${name}: ${sum}`, 2));
  for (const text of rest) print(wrap("  ", text));
  if (breaks.length === 0) {
    print(wrap(`${markOf("passes")} `, `${name}: nothing would break if it took over now`, 2));
  }
  for (const text of breaks) {
    print(wrap(`${markOf("fails")} `, `${name}: if it took over now: ${text}`, 2));
  }
}

async function driftOf(
  context: Context,
  environment: string,
  facts: Facts | undefined,
): Promise<EnvironmentDrift> {
  try {
    const [outside, inside, parity] = await Promise.all([
      outsideOf(context, environment),
      insideOf(context, environment, facts),
      parityOf(context, environment, facts),
    ]);
    return { environment, ...outside, ...inside, ...(parity && { parity }) };
  } catch (error) {
    // The others are compared all the same.
    const unknown = error instanceof Error ? error.message : String(error);
    return { environment, operations: [], unrecorded: [], unknown };
  }
}

/** State beside the cluster and whatever else there is. */
async function outsideOf(
  { project, pulumi }: Context,
  environment: string,
): Promise<Pick<EnvironmentDrift, "operations" | "unrecorded">> {
  const recorded = await pulumi.objects(environment);
  if (recorded.length === 0) return { operations: [], unrecorded: [] };
  const cluster = clusterOf(environment, await project.config(environment));
  const [refreshed, compared, present] = await Promise.all([
    pulumi.refreshed(environment),
    Promise.all(recorded.map((object) => compare(cluster, object))),
    cluster.objects(),
  ]);
  const known = new Set(recorded.map(({ type, id }) => `${type.split(":").at(-1) ?? ""} ${id}`));
  return {
    operations: merge([...refreshed, ...compared.flat()]),
    unrecorded: present.filter(({ kind, id }) => !known.has(`${kind} ${id}`)),
  };
}

/** State beside the ledger and the stack file. */
async function insideOf(
  { project, pulumi, ledger }: Context,
  environment: string,
  facts: Facts | undefined,
): Promise<Pick<EnvironmentDrift, "ledger" | "stackFile">> {
  const [{ release }, { imageTag, imageDigest }] = await Promise.all([
    pulumi.outputs(environment),
    project.config(environment),
  ]);
  const runs = release && nameOf(release.imageTag, release.digest);
  const outcomes = (await facts?.outcomesOf(environment)) ?? [];
  const known = runsBy(outcomes);
  const target = known?.target;
  const recorded = target === undefined ? "nothing" : nameOf(target.tag, target.digest);
  const isRecorded = target?.tag === release?.imageTag && target?.digest === release?.digest;
  const request = facts === undefined ? undefined : await ledger.request(environment);
  // What was asked for and is not deployed yet is as it should be.
  const isAsked = request?.tag === imageTag && request !== undefined && isOpen(request, outcomes);
  const isSame =
    imageTag === release?.imageTag &&
    (imageDigest === undefined || imageDigest === release?.digest);
  return {
    ...(known === undefined || isRecorded
      ? {}
      : { ledger: { runs: runs ?? "nothing", recorded, ref: known.outcome.ref } }),
    ...(isSame || isAsked
      ? {}
      : {
          stackFile: {
            runs: runs ?? "nothing",
            asksFor: imageTag === undefined ? "nothing" : nameOf(imageTag, imageDigest),
          },
        }),
  };
}

function nameOf(tag: string, digest: string | undefined): string {
  return digest === undefined ? tag : `${tag} (${shortDigest(digest)})`;
}

/** An object of the cluster beside what the state says the program wants of it. */
async function compare(cluster: Cluster, object: RecordedObject): Promise<Operation[]> {
  const { urn, inputs, outputs, ignoreChanges } = object;
  const found = await cluster.read(inputs);
  if (found === undefined) return [{ op: "delete", urn }];
  // A client's objects hold dates as such; the cluster's own words are JSON.
  const live = JSON.parse(JSON.stringify(found)) as unknown;
  const paths = differences(inputs, live, outputs).filter(
    (path) => !ignoreChanges.some((ignored) => path === ignored || path.startsWith(`${ignored}.`)),
  );
  return paths.length === 0 ? [] : [{ op: "update", urn, paths }];
}

/** How Pulumi's states mark a secret. */
const SECRET = "4dabf18193072939515e22adb298388d";
/** Written by Pulumi for itself, or for the cluster to read once. */
const NOT_KEPT = /^(metadata\.annotations\["pulumi\.com\/.*|stringData)$/;
/** What the cluster may write in another unit. */
const QUANTITIES = /(^|\.)(resources|limits|requests|hard|default|defaultRequest|max|min)(\.|\[|$)/;

/**
 * The paths of declared values that the live object does not have. Fields that the program does not
 * declare, such as a default, a status or an annotation of a controller, are no difference. A list is
 * compared as a whole: it has the declared entries, or those that it had after the last update, when a
 * mutating webhook had added its own. Secrets are not compared.
 */
export function differences(
  wanted: unknown,
  found: unknown,
  updated?: unknown,
  path = "",
): string[] {
  if (wanted === undefined || wanted === null || NOT_KEPT.test(path)) return [];
  if (Array.isArray(wanted)) {
    const list: unknown[] = Array.isArray(found) ? found : [];
    const after: unknown[] = Array.isArray(updated) ? updated : [];
    const compared = wanted.length === list.length ? wanted : after;
    if (list.length !== compared.length) return [path];
    return compared.flatMap((item, index) =>
      differences(item, list[index], after[index], `${path}[${index}]`),
    );
  }
  if (isTree(wanted)) {
    if (SECRET in wanted) return [];
    const tree: Tree = isTree(found) ? found : {};
    const after: Tree = isTree(updated) ? updated : {};
    return Object.entries(wanted).flatMap(([key, value]) =>
      // The client's models write `_from` and `_default`, as the others are words of the language.
      differences(value, tree[key] ?? tree[`_${key}`], after[key], pathOf(path, key)),
    );
  }
  // A port may be written as a number or as text.
  const [one, other] = [wanted, found].map((value) =>
    typeof value === "string" ? value : JSON.stringify(value),
  );
  if (one === other) return [];
  return QUANTITIES.test(path) && isSameQuantity(one ?? "", other ?? "") ? [] : [path];
}

function pathOf(path: string, key: string): string {
  if (/[.[\]"]/.test(key)) return `${path}["${key}"]`;
  return path === "" ? key : `${path}.${key}`;
}

function isSameQuantity(one: string, other: string): boolean {
  try {
    return parseQuantity(one) === parseQuantity(other);
  } catch (error) {
    if (error instanceof RangeError) return false;
    throw error;
  }
}

/** What is said of one resource in one; that it is gone says all. */
function merge(operations: readonly Operation[]): Difference[] {
  const byUrn = new Map<string, { op: string; paths: Set<string> }>();
  for (const { op, urn, paths = [] } of operations) {
    const known = byUrn.get(urn) ?? { op, paths: new Set() };
    for (const path of paths) known.paths.add(path);
    byUrn.set(urn, op === "delete" ? { op, paths: new Set() } : known);
  }
  return [...byUrn].map(([urn, { op, paths }]) => {
    const { type, name } = parseUrn(urn);
    return { op, type, name, paths: [...paths].sort() };
  });
}

/** What is not as it should be, in sentences without their full stops, and what to do about it. */
function remarksOf(drifted: EnvironmentDrift): { said: string[]; advice: string[] } {
  const { environment, operations, unrecorded, ledger, stackFile, unknown } = drifted;
  const said: string[] = [];
  const advice: string[] = [];
  for (const { op, type, name, paths } of operations) {
    const where = paths.length === 0 ? "" : `: ${paths.join(", ")}`;
    said.push(`${type} ${name} is ${op === "delete" ? "gone" : `not as in the state${where}`}`);
  }
  if (operations.length > 0) {
    const stack = `--stack ${environment}`;
    advice.push(
      `\`pulumi up --refresh ${stack}\` puts right what the provider sees; change the rest back where it was changed.`,
    );
  }
  for (const { kind, id } of unrecorded) said.push(`${kind} ${id} is not in the state`);
  if (unrecorded.length > 0) {
    advice.push(
      `A killed run may have left what is not in the state: \`baton deploy ${environment}\` settles that. Otherwise delete it.`,
    );
  }
  if (ledger !== undefined) {
    const { runs, recorded, ref } = ledger;
    said.push(`${runs} runs; expected ${recorded} by ${ref}`);
    advice.push(
      `Somebody deployed without the tool: ask for it with \`baton request ${environment}\`, or go back with \`baton rollback ${environment}\`.`,
    );
  }
  if (stackFile !== undefined) {
    said.push(`Pulumi.${environment}.yaml asks for ${stackFile.asksFor}; ${stackFile.runs} runs`);
    advice.push(
      `\`baton request ${environment}\` asks for it anew; \`baton rollback ${environment}\` makes the file say what runs.`,
    );
  }
  if (unknown !== undefined) {
    said.push(`it cannot be compared (${unknown.replace(/\.$/, "")})`);
    advice.push("Settle that, and run the same command again.");
  }
  return { said, advice };
}
