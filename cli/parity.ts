import { parseQuantity } from "../components/internal/quantity";
import { Refusal } from "../ledger/refusal";
import type { StackConfig } from "../ledger/stack-config";
import { RegistryError } from "../registry/errors";
import { openRegistry } from "../registry/registry";
import { isCiphertext, isTree } from "../release/merge";
import { shortDigest } from "../release/plan";
import { settingsDifference } from "../release/settings-difference";
import { formatTime } from "../release/time";
import { targetOf, type Target } from "../release/way-back";
import { clusterOf } from "./cluster";
import type { Context } from "./context";
import type { Facts } from "./facts";
import { runsBy } from "./updates";

/** What one of the two has, where the other has something else. */
interface Less {
  /** Such as `web: replicas` or `quota: requests.cpu`. */
  readonly of: string;
  readonly here: string;
  readonly there: string;
}

/**
 * How an environment compares with the one it follows, as both were deployed last. Names and times,
 * and never the value of a setting or a secret.
 */
export interface Parity {
  /** The environment it follows. */
  readonly with: string;
  /** What each runs; where its state is out of reach, what the ledger says. */
  readonly here: Target | undefined;
  readonly there: Target | undefined;
  readonly thereBy: "state" | "ledger";
  readonly same: boolean;
  /** Since the other's release was recorded there, where this one does not run it; 0 where it does. */
  readonly secondsBehind?: number | undefined;
  /** How long after the other it was recorded to run the same. */
  readonly followedAfterSeconds?: number | undefined;
  readonly settings: {
    /** Those that differ as both files say. */
    readonly differing: readonly string[];
    /** Those that differ as deployed, and in no file. */
    readonly behind: readonly string[];
    readonly missing: readonly string[];
  };
  readonly secrets: {
    /** How many both have, in versions that go together. */
    readonly same: number;
    readonly missing: readonly string[];
    /** Where the other's was changed later, or rotated more often; versions or times. */
    readonly behind: readonly Less[];
  };
  /** Where it would have less than the other. */
  readonly capacity: readonly Less[];
  /** What would break, or be worse, if it took over now. */
  readonly breaks: readonly string[];
}

/** Whether an environment could take over from the one it follows. */
export async function parityOf(
  context: Context,
  environment: string,
  facts: Facts | undefined,
): Promise<Parity | undefined> {
  const { project } = context;
  const present = await project.config(environment);
  const { follows, upstream } = present;
  if (!follows || upstream === undefined) return undefined;
  const presentThere = await project.config(upstream);
  const [here, there] = await Promise.all([
    runningIn(context, environment, facts),
    runningIn(context, upstream, facts),
  ]);
  const [deployedHere, deployedThere] = await Promise.all([
    facts?.lastDeployed(environment),
    facts?.lastDeployed(upstream),
  ]);
  const [ours, theirs] = [deployedHere?.config ?? present, deployedThere?.config ?? presentThere];
  const same = here.target !== undefined && here.target.digest === there.target?.digest;
  const times = await timesOf(context, environment, upstream, facts, here.target, there.target);

  const byFiles = new Set(differing(presentThere, present));
  const asDeployed = differing(theirs, ours);
  const missing = namesOf(theirs, "config").filter(
    (name) => !namesOf(ours, "config").includes(name),
  );
  const settings = {
    differing: asDeployed.filter((name) => byFiles.has(name) && !missing.includes(name)),
    behind: asDeployed.filter((name) => !byFiles.has(name) && !missing.includes(name)),
    missing,
  };
  const secrets = await secretsOf(context, [environment, ours], [upstream, theirs]);
  const capacity = capacityOf(ours, theirs);
  const troubles = await Promise.all([
    clusterTroubles(environment, present),
    registryTroubles(present, here.target),
  ]);
  const what = (target: Target | undefined) =>
    target === undefined ? "nothing" : `${target.tag} (${shortDigest(target.digest)})`;
  const breaks = [
    ...(same
      ? []
      : [`users would get ${what(here.target)}; ${upstream} runs ${what(there.target)}`]),
    ...settings.missing.map((name) => `settings.config.${name} is not set; it is in ${upstream}`),
    ...settings.behind.map((name) => `settings.config.${name} is an older one than ${upstream}'s`),
    ...secrets.missing.map((name) => `the secret ${name} is missing; ${upstream} has it`),
    ...secrets.behind.map(
      ({ of, here: own, there: other }) =>
        `the secret ${of} is of ${own}; ${upstream}'s is of ${other}`,
    ),
    ...capacity.map(
      ({ of, here: own, there: other }) => `${of} is ${own}; ${upstream} has ${other}`,
    ),
    ...troubles.flat(),
  ];
  return {
    with: upstream,
    here: here.target,
    there: there.target,
    thereBy: there.by,
    same,
    ...(same ? { ...times, secondsBehind: 0 } : times),
    settings,
    secrets,
    capacity,
    breaks,
  };
}

/** By its state, or where that is away with its region, by the ledger. */
async function runningIn(
  { pulumi, notes }: Context,
  environment: string,
  facts: Facts | undefined,
): Promise<{ readonly target: Target | undefined; readonly by: Parity["thereBy"] }> {
  const release = await pulumi.outputs(environment).then(
    (outputs) => outputs.release,
    (error: unknown) => {
      notes.push(error instanceof Error ? error.message : String(error));
      return undefined;
    },
  );
  if (release !== undefined) return { target: targetOf(release), by: "state" };
  return { target: runsBy((await facts?.outcomesOf(environment)) ?? [])?.target, by: "ledger" };
}

async function timesOf(
  { now }: Context,
  environment: string,
  upstream: string,
  facts: Facts | undefined,
  here: Target | undefined,
  there: Target | undefined,
): Promise<Pick<Parity, "secondsBehind" | "followedAfterSeconds">> {
  const since = async (name: string) => {
    const known = runsBy((await facts?.outcomesOf(name)) ?? []);
    return known?.target?.digest === there?.digest ? known?.outcome.at : undefined;
  };
  const began = await since(upstream);
  if (began === undefined) return {};
  const seconds = (at: Date) => Math.max(0, Math.round((at.getTime() - began.getTime()) / 1000));
  if (here?.digest !== there?.digest) return { secondsBehind: seconds(now()) };
  const followed = await since(environment);
  return followed === undefined ? {} : { followedAfterSeconds: seconds(followed) };
}

function childOf(tree: unknown, ...path: readonly string[]): unknown {
  let found: unknown = tree;
  for (const key of path) found = isTree(found) ? found[key] : undefined;
  return found;
}

/** What `baton:settings` has of a kind. */
function namesOf({ settings }: StackConfig, kind: "config" | "secrets"): string[] {
  const found = childOf(settings, "own", "settings", kind);
  return isTree(found) ? Object.keys(found).filter((name) => found[name] !== null) : [];
}

const CONFIG = "settings.config.";

/** The names of the settings that differ. */
function differing(one: StackConfig, other: StackConfig): string[] {
  return settingsDifference(one.settings, other.settings).flatMap(({ path }) =>
    path.startsWith(CONFIG) ? [path.slice(CONFIG.length)] : [],
  );
}

type Side = readonly [environment: string, config: StackConfig];

async function secretsOf(context: Context, ours: Side, theirs: Side): Promise<Parity["secrets"]> {
  const [here, there] = [namesOf(ours[1], "secrets"), namesOf(theirs[1], "secrets")];
  const missing = there.filter((name) => !here.includes(name));
  const both = there.filter((name) => here.includes(name));
  const behind: Less[] = [];
  for (const name of both) {
    const [one, other] = await Promise.all([
      versionOf(context, ours, name),
      versionOf(context, theirs, name),
    ]);
    if (one.order < other.order) behind.push({ of: name, here: one.says, there: other.says });
  }
  return { same: both.length - behind.length, missing, behind };
}

/**
 * Which version of a secret a stack has: how often one was generated anew, or when its ciphertext
 * last changed in the stack file's history. What is kept elsewhere has none that is known here.
 */
async function versionOf(
  { project, ledger }: Context,
  [environment, { settings }]: Side,
  name: string,
): Promise<{ readonly order: number; readonly says: string }> {
  const declared = childOf(settings, "own", "settings", "secrets", name);
  const source = childOf(declared, "source");
  if (source === "random") {
    const rotation = Number(childOf(declared, "rotation") ?? 1);
    return { order: rotation, says: `rotation ${rotation}` };
  }
  const value = childOf(settings, "own", name);
  if (source !== "config" || !isCiphertext(value)) return { order: 0, says: "an unknown version" };
  const file = project.stackFile(environment);
  const log = await ledger.git.try("log", "-n", "200", "--format=%H %cI", "--", file);
  let changed: Date | undefined;
  for (const line of (log ?? "").split("\n").filter((text) => text !== "")) {
    const [commit = "", time = ""] = line.split(" ");
    const text = await ledger.show(commit, file);
    const then =
      text === undefined
        ? undefined
        : childOf(project.parse(environment, text).settings, "own", name);
    if (childOf(then, "secure") !== childOf(value, "secure")) break;
    changed = new Date(time);
  }
  return changed === undefined
    ? { order: 0, says: "an unknown time" }
    : { order: changed.getTime(), says: formatTime(changed) };
}

/** Where less is configured here than there: pods, what each gets, and what all together may have. */
function capacityOf(ours: StackConfig, theirs: StackConfig): Less[] {
  const less: Less[] = [];
  const compare = (of: string, own: unknown, other: unknown) => {
    const [here, there] = [own, other].map(textOf);
    if (there === undefined || amount(here ?? "0") >= amount(there)) return;
    less.push({ of, here: here ?? "nothing", there });
  };
  const [workloads, others] = [ours, theirs].map(({ settings }) =>
    childOf(settings, "own", "workloads"),
  );
  for (const [name, there] of Object.entries(isTree(others) ? others : {})) {
    const here = childOf(workloads, name);
    compare(`${name}: replicas`, replicasOf(here)[0], replicasOf(there)[0]);
    compare(`${name}: most replicas`, replicasOf(here)[1], replicasOf(there)[1]);
    for (const kind of ["requests", "limits"]) {
      for (const resource of ["cpu", "memory"]) {
        const [own, other] = [here, there].map((one) => childOf(one, "resources", kind, resource));
        compare(`${name}: ${kind}.${resource}`, own, other);
      }
    }
  }
  const [quota, otherQuota] = [ours, theirs].map(({ settings }) =>
    childOf(settings, "own", "quota"),
  );
  for (const [key, there] of Object.entries(isTree(otherQuota) ? otherQuota : {})) {
    compare(`quota: ${key}`, childOf(quota, key), there);
  }
  return less;
}

/** How many pods at least and at most. */
function replicasOf(workload: unknown): readonly [unknown, unknown] {
  const [least, most] = ["minReplicas", "maxReplicas"].map((key) =>
    childOf(workload, "autoscale", key),
  );
  const fixed = childOf(workload, "replicas");
  return [least ?? fixed, most ?? fixed];
}

function textOf(value: unknown): string | undefined {
  return typeof value === "string" || typeof value === "number" ? String(value) : undefined;
}

function amount(text: string): number {
  try {
    return parseQuantity(text);
  } catch (error) {
    if (error instanceof RangeError) return 0;
    throw error;
  }
}

async function clusterTroubles(environment: string, config: StackConfig): Promise<string[]> {
  try {
    const deployments = await clusterOf(environment, config).readiness();
    return deployments.flatMap(({ name, ready, wanted }) =>
      ready < wanted ? [`${name} has ${ready} of ${wanted} pods ready`] : [],
    );
  } catch (error) {
    return [`its cluster: ${error instanceof Error ? error.message : String(error)}`];
  }
}

/** Pods on new nodes pull from there. */
async function registryTroubles(
  { registry }: StackConfig,
  here: Target | undefined,
): Promise<string[]> {
  if (here === undefined) return [];
  try {
    const found = await openRegistry(registry).resolve(here.tag);
    if (found === here.digest) return [];
    return [`${registry.repository} does not have ${here.tag} as it runs here`];
  } catch (error) {
    if (!(error instanceof RegistryError) && !(error instanceof Refusal)) throw error;
    return [error.message];
  }
}

/** What it says, for people: one line each, the first of them the sum. */
export function parityLines(parity: Parity): {
  readonly said: readonly string[];
  readonly breaks: readonly string[];
} {
  const { with: upstream, here, same, thereBy, secondsBehind, followedAfterSeconds } = parity;
  const { settings, secrets, capacity, breaks } = parity;
  const by = thereBy === "ledger" ? ", by the ledger" : "";
  const after =
    followedAfterSeconds === undefined ? "" : `; it followed after ${followedAfterSeconds} s`;
  const said = [
    same
      ? `as ${upstream}${by}: ${here?.tag ?? "nothing"} (${shortDigest(here?.digest ?? "")}), 0 s behind${after}`
      : `${secondsBehind ?? "an unknown number of"} s behind ${upstream}${by}`,
    `settings: ${settings.differing.length === 0 ? "none differs" : `as its own file says: ${settings.differing.join(", ")}`}`,
    `secrets: ${secrets.same} in the same version`,
    ...(capacity.length === 0 ? [`capacity: no less than ${upstream}`] : []),
  ];
  return { said, breaks };
}
