import { isDeepStrictEqual } from "node:util";
import {
  approvalsOf,
  committed,
  planTerm,
  type Approvals,
  type LastDeployed,
} from "../ledger/gate";
import type { Request } from "../ledger/ledger";
import type { StackConfig } from "../ledger/stack-config";
import { readNamedWords } from "../ledger/outcomes";
import { NotArrivedError, RegistryError } from "../registry/errors";
import { openRegistry } from "../registry/registry";
import { findScan } from "../registry/scans";
import { arrive } from "../registry/replica";
import {
  fails,
  freezeTerm,
  holdTerm,
  leadTerm,
  lineTerm,
  passes,
  signOffTerm,
  soakTerm,
  type Term,
} from "../release/gate";
import { includes } from "../release/approval";
import { shortDigest } from "../release/plan";
import { scanTerm, type ScanAnswer } from "../release/scan";
import { parseTag } from "../release/tags";
import type { Context } from "./context";
import { schemaFacts, type SchemaFacts } from "./schema";
import type { Facts } from "./facts";

/** What moves. */
export interface Moving {
  readonly tag: string;
  readonly digest: string;
  readonly hotfix: boolean;
}

/** What the ledger and the clock say of a release, whoever asks for it. */
export async function movementTerms(
  context: Context,
  environment: string,
  config: StackConfig,
  { tag, digest, hotfix }: Moving,
  facts: Facts,
): Promise<Term[]> {
  const { project, ledger } = context;
  const now = context.now();
  const held = [holdTerm(environment, tag, digest, facts.holds), lineTerm(facts.holds.stops)];
  // The fast lane is for when waiting is worse.
  if (hotfix) return held;
  const last = await facts.lastDeployed(environment);
  const former = last?.config;
  // A window or a wait that this very change would remove still counts.
  const windows = [
    ...config.freeze,
    ...(former?.freeze ?? []).filter(
      (window) => !config.freeze.some((present) => isDeepStrictEqual(present, window)),
    ),
  ];
  const soak = Math.max(config.soak ?? 0, former?.soak ?? 0) || undefined;
  const terms = [freezeTerm(environment, windows, now)];
  const { upstream } = config;
  if (upstream === undefined) return [...held, ...terms];
  const since = (await facts.outcomesOf(upstream)).findLast(
    (outcome) => outcome.result === "deployed" && outcome.digest === digest,
  )?.at;
  terms.push(soakTerm(environment, upstream, soak, since, now));
  const [wanted, deployed, known] = await Promise.all([
    project.config(upstream),
    facts.lastDeployed(upstream),
    last && committed(project, ledger, upstream, last.commit ?? last.outcome.commit),
  ]);
  // A deployment of the upstream, which may need fewer approvals, takes away no sign-off that was
  // known here. A change names no person who is not named so far.
  const signOffs = [known?.config, deployed?.config, wanted]
    .map((each): SignOffs => each?.signOffs ?? {})
    .reduce(stricterSignOffs);
  const asked = Object.keys(signOffs).length > 0;
  const words = asked ? await readNamedWords(project, ledger, "sign-off", upstream, now) : [];
  const given = words.flatMap(({ of: [release, name = ""], email, at }) =>
    release === tag ? [{ name, email, at }] : [],
  );
  terms.push(signOffTerm(environment, upstream, signOffs, given, tag));
  return [...held, ...terms];
}

type SignOffs = StackConfig["signOffs"];

/** The sign-offs by which two policies are satisfied: all names, and the people that both name. */
function stricterSignOffs(one: SignOffs, other: SignOffs): SignOffs {
  const both = Object.entries(other).map(([name, people]) => {
    const former = one[name];
    if (former === undefined || former.length === 0) return [name, people] as const;
    const named = former.filter((person) => people.length === 0 || includes(people, person));
    return [name, named.length === 0 ? former : named] as const;
  });
  return { ...one, ...Object.fromEntries(both) };
}

/**
 * Whether the registry holds the tag, and under the digest that was asked for.
 * @param wait whether a release that is on its way there is waited for
 */
export async function registryTerms(
  environment: string,
  config: StackConfig,
  { tag, digest }: { tag: string; digest: string | undefined },
  wait?: Context["showProgress"],
): Promise<Term[]> {
  const giver = parseTag(tag)?.giver ?? "nobody";
  let found: string | undefined;
  try {
    found =
      wait === undefined
        ? await openRegistry(config.registry).resolve(tag)
        : await wait(`${environment}: ${tag} in its registry`, (show) =>
            arrive(config.registry, tag, digest, show),
          );
  } catch (error) {
    if (!(error instanceof RegistryError)) throw error;
    if (error instanceof NotArrivedError) return [notArrived(environment, error)];
    return [
      fails("earned", "the registry cannot be asked", {
        where: environment,
        property: "the registry",
        value: `out of reach (${error.message.replace(/\.$/, "")})`,
        expected: "an answer",
        fix: "Run the same command again once it answers",
      }),
    ];
  }
  if (found === undefined) {
    return [
      fails("earned", `${giver} has not given ${tag}`, {
        where: environment,
        property: "baton:imageTag",
        value: tag,
        expected: "a tag that exists in the registry",
        fix: `Let ${giver} verify it first, or ask for another`,
      }),
    ];
  }
  const earned = passes("earned", `given by ${giver}`);
  if (digest === undefined || found === digest) {
    return [earned, passes("pin", shortDigest(found))];
  }
  return [
    earned,
    fails("pin", `${tag} names another image now`, {
      where: environment,
      property: "baton:imageDigest",
      value: digest,
      expected: `${found}, which ${tag} names in the registry`,
      fix: "The tag was moved: find out by whom before you go on",
    }),
  ];
}

/** What is known of an image's vulnerabilities, also where the environment does not ask. */
export async function scanOf(
  { registry, scan }: Pick<StackConfig, "registry" | "scan">,
  digest: string,
): Promise<ScanAnswer> {
  try {
    return await findScan(registry, digest, scan?.source);
  } catch (error) {
    if (!(error instanceof RegistryError)) throw error;
    const says = `out of reach (${error.message.replace(/\.$/, "")})`;
    return { state: "missing", says, fix: "Run the same command again once the registry answers" };
  }
}

/**
 * Whether an image may go on by what its scan says, where the environment asks for that: by the policy
 * that was deployed last, and by the present one.
 */
export async function scanned(
  { pulumi, now }: Context,
  environment: string,
  config: StackConfig,
  digest: string,
  last: LastDeployed | undefined,
): Promise<{ readonly answer: ScanAnswer | undefined; readonly terms: readonly Term[] }> {
  const policies = [last?.config.scan, config.scan].filter((policy) => policy !== undefined);
  const different = policies.filter(
    (policy, index) => !policies.slice(0, index).some((other) => isDeepStrictEqual(other, policy)),
  );
  const answers = await Promise.all(
    different.map(async (scan) => scanOf({ registry: config.registry, scan }, digest)),
  );
  const terms = different.map((scan, index) => {
    const answer = answers[index];
    return answer && scanTerm(environment, scan, answer, now());
  });
  const open = terms.filter((term) => term !== undefined);
  const missing = open.find(({ state }) => state !== "passes");
  const told = { answer: answers.at(-1) };
  const [first] = open;
  if (first === undefined) return { ...told, terms: [] };
  if (missing === undefined) return { ...told, terms: [first] };
  const { release } = await pulumi.knownOutputs(environment);
  if (release?.digest !== digest) return { ...told, terms: [missing] };
  return { ...told, terms: [passes("scan", `the image runs already, although: ${missing.says}`)] };
}

function notArrived(environment: string, { value, fix }: NotArrivedError): Term {
  return fails("earned", "it has not arrived", {
    where: environment,
    property: "the registry",
    value,
    expected: "the upstream's release",
    fix,
  });
}

/** All that must hold before a request may be deployed. */
export interface Gate {
  readonly terms: readonly Term[];
  /** What the image's scan says, where the environment asks for it. */
  readonly scan: ScanAnswer | undefined;
  /** What it does to the database. */
  readonly schema: SchemaFacts;
  readonly approvals: Approvals;
}

/** @param wait whether to wait, bounded, for a release that is on its way to the registry */
export async function gateOf(
  context: Context,
  request: Request,
  stackFile: string,
  facts: Facts,
  { wait = false }: { readonly wait?: boolean } = {},
): Promise<Gate> {
  const { project, ledger } = context;
  const { environment, follows } = request;
  const config = project.parse(environment, stackFile);
  const [plan, { lastDeployed: last, proven }] = await Promise.all([
    planTerm(project, ledger, request, stackFile),
    facts.of(environment),
  ]);
  const leads =
    follows === undefined ? [] : [await leadTermOf(request, follows.environment, facts)];
  // What the other one has not earned will not arrive.
  const waits = wait && leads.every(({ state }) => state === "passes");
  const registry = await registryTerms(
    environment,
    config,
    request,
    waits ? context.showProgress : undefined,
  );
  // Asked once the image is there.
  const [scan, schema] = await Promise.all([
    scanned(context, environment, config, request.digest, last),
    schemaFacts(context, environment, config, request),
  ]);
  const [approvals, movement] = await Promise.all([
    approvalsOf(
      ...([project, ledger, request, config, last, proven, schema.change, context.now()] as const),
    ),
    movementTerms(context, environment, config, request, facts),
  ]);
  // Before it is there, the registry has nothing to say.
  const first = leads.some(({ state }) => state !== "passes")
    ? leads
    : [...leads, ...registry, ...scan.terms];
  const terms = [...first, plan, ...schema.terms, ...approvals.terms, ...movement];
  return { terms, scan: scan.answer, schema, approvals };
}

export async function leadTermOf(
  { environment, id }: Request,
  lead: string,
  facts: Facts,
): Promise<Term> {
  const outcomes = await facts.outcomesOf(lead);
  // What it has left since is no longer what to follow.
  const last = outcomes.find(({ result }) => result !== "failed");
  const runs = last?.result === "deployed" && last.request === id;
  return leadTerm(environment, lead, runs ? last.at : undefined);
}
