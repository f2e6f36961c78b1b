import { isDeepStrictEqual } from "node:util";
import { countedApprovals, policyFor, stricter, type Word } from "../release/approval";
import { approvalsTerm, expiryTerm, fails, passes, type Term } from "../release/gate";
import {
  isSamePart,
  isShortened,
  movedParts,
  parseParts,
  type Plan,
  type PlanPart,
} from "../release/plan";
import type { SchemaChange } from "../release/schema";
import { STAMPS_DIFFER } from "../release/time";
import { parseOperations } from "../release/operations";
import type { Problem } from "../release/problem";
import {
  describeProperty,
  formatValue,
  movedProperties,
  parseStarts,
  unapprovedStarts,
  type Start,
  type StateResource,
} from "../release/start";
import { settingsDifference } from "../release/settings-difference";
import type { Target } from "../release/way-back";
import { timeOf } from "./entries";
import type { Ledger, LedgerOutcome, Request } from "./ledger";
import type { EnvironmentOutcomes } from "./outcomes";
import { uncovered, UncoveredProgram } from "./program-files";
import type { Project } from "./project";
import { Refusal } from "./refusal";
import { POLICY_KEYS, splitSecrets, type StackConfig } from "./stack-config";

type Approval = StackConfig["approval"];

/** A stack's configuration as of a commit, with the keys that its approval policy trusts. */
export interface Policy {
  readonly config: StackConfig;
  /** The text of `baton:approval.allowedSigners`; empty where words need no signature. */
  readonly allowedSigners: string;
}

/** The deployment whose policy is in force. */
export interface LastDeployed extends Policy {
  readonly outcome: LedgerOutcome;
  readonly parts: Plan["parts"];
  /** Whether no outcome was recorded after it. */
  readonly isNewest: boolean;
  /** The commit of its request in the reviewed history, if it is there. */
  readonly commit: string | undefined;
  /** The ids of all requests that were deployed. */
  readonly requests: readonly string[];
}

/**
 * The configuration of an environment as of a commit; undefined where the commit has no such project
 * or stack file.
 */
export async function committed(
  project: Project,
  ledger: Ledger,
  environment: string,
  commit: string,
): Promise<Policy | undefined> {
  const [stackFile, projectFile] = await Promise.all([
    ledger.show(commit, project.stackFile(environment)),
    ledger.show(commit, "Pulumi.yaml"),
  ]);
  if (stackFile === undefined || projectFile === undefined) return undefined;
  const config = project.parse(environment, stackFile, projectFile);
  const { signed, allowedSigners } = config.approval;
  const signers = signed ? await ledger.show(commit, allowedSigners) : undefined;
  return { config, allowedSigners: signers ?? "" };
}

/** The parts of a configuration that say what must hold before a release may move. */
export function policyOf({ config, allowedSigners }: Policy) {
  return [...POLICY_KEYS.map((key) => config[key]), allowedSigners];
}

/** What a request has to pass by people's words. */
export interface Approvals {
  /** The policy that counts, the fast lane's for a hotfix. */
  readonly policy: Approval;
  readonly terms: readonly Term[];
  /** Whose word counted. */
  readonly approvedBy: readonly string[];
  /** Whether the request needs no word if all its operations are routine. */
  readonly unattended: boolean;
}

/**
 * Whether people have approved a request, by the policy that was deployed last and by each policy
 * since: a change that lowers the bar does not lower it for its own deployment, and a change that
 * raises it counts at once.
 * @param proven the outcomes of the environment that count
 * @param change what it does to the environment's database
 */
export async function approvalsOf(
  project: Project,
  ledger: Ledger,
  request: Request,
  present: StackConfig,
  last: LastDeployed | undefined,
  proven: readonly LedgerOutcome[],
  change: SchemaChange | undefined,
  now: Date,
): Promise<Approvals> {
  const allowedSigners = await project.text(present.approval.allowedSigners);
  const between = await policiesSince(project, ledger, request.environment, last);
  const policies = [...(last === undefined ? [] : [last]), ...between];
  const counting = [...policies, { config: present, allowedSigners }];
  const order = await orderTerm(ledger, request, last);
  const signers = signersOf(counting);
  const words = await ledger.words(request, signers && { signers, at: now });
  const judged = judge({ request, present, counting, last, words, change, now });
  const start = judged.policy.required > 0 ? [startTerm(request, proven)] : [];
  return { ...judged, terms: [...judged.terms, order, ...start] };
}

/** The texts of allowed signers by each of which a word must be signed; undefined where none must be. */
export function signersOf(policies: readonly Policy[]): readonly string[] | undefined {
  const signed = policies.filter(({ config }) => config.approval.signed);
  if (signed.length === 0) return undefined;
  return [...new Set(signed.map(({ allowedSigners }) => allowedSigners))];
}

/** Each policy that the reviewed history held after what was deployed last, without the present one. */
export async function policiesSince(
  project: Project,
  ledger: Ledger,
  environment: string,
  last: LastDeployed | undefined,
): Promise<Policy[]> {
  if (last?.commit === undefined) {
    // Without a deployment that is known, the reviewed policy counts beside the one of the change.
    const tips = await ledger.reviewedTips(await project.protectedBranches(environment));
    const ids = (await ledger.git.run(["rev-parse", ...tips])).split("\n");
    return policiesAt(project, ledger, environment, ids);
  }
  const { allowedSigners, signed } = last.config.approval;
  const files = [
    project.stackFile(environment),
    "Pulumi.yaml",
    ...(signed ? [allowedSigners] : []),
  ];
  const commits = await ledger.changesSince(last.commit, files);
  return policiesAt(project, ledger, environment, commits);
}

async function policiesAt(
  project: Project,
  ledger: Ledger,
  environment: string,
  commits: readonly string[],
): Promise<Policy[]> {
  const policies = commits.map(async (commit) =>
    readablePolicy(project, ledger, environment, commit),
  );
  return (await Promise.all(policies)).filter((policy) => policy !== undefined);
}

/** The same as `committed`, and undefined for a configuration that cannot be read: none was deployed. */
export async function readablePolicy(
  project: Project,
  ledger: Ledger,
  environment: string,
  commit: string,
): Promise<Policy | undefined> {
  return committed(project, ledger, environment, commit).catch((error: unknown) => {
    if (error instanceof Refusal) return undefined;
    throw error;
  });
}

/** A request, and all by which people's words on it are judged. */
export interface Judgement {
  readonly request: Request;
  /** The configuration that the request holds. */
  readonly present: StackConfig;
  /** The policies that must all be satisfied; at least one. */
  readonly counting: readonly Policy[];
  /** What was deployed before, where anything was. */
  readonly last: Pick<LastDeployed, "config" | "parts"> | undefined;
  readonly words: readonly Word[];
  readonly change?: SchemaChange | undefined;
  /** When the words are used. */
  readonly now: Date;
}

/** Judges a request by people's words. */
export function judge({
  request,
  present,
  counting,
  last,
  words,
  change,
  now,
}: Judgement): Approvals {
  const { environment, requesters, hotfix } = request;
  const inLane = counting.map(({ config: { approval } }) => {
    return { approval, lane: hotfix ? approval.hotfix : undefined };
  });
  const lanes = inLane.map(({ lane }) => lane);
  const policy = inLane
    .map(({ approval, lane }) => {
      const required = lane === undefined ? approval.required : lane.required;
      return policyFor({ ...approval, required }, change?.wayBack === "restore");
    })
    .reduce(stricter);
  const isStray = isStrayIn(request, last?.config ?? present);
  const counted = isStray ? [] : words;
  const on = request.follows ?? request;
  const terms = [approvalsTerm(environment, policy, requesters, counted, request.at, now, on)];
  if (hotfix && lanes.every((lane) => lane !== undefined)) {
    const expiresAfter = Math.min(...lanes.map((lane) => lane.expiresAfter));
    terms.push(expiryTerm(environment, request.at, expiresAfter, now));
  }
  if (isStray && policy.required > 0) terms.push(strayTerm(request));
  const from = present.hotfixFrom;
  const isOpen = hotfix
    ? lanes.every((lane) => lane !== undefined && (from ?? lane.upstream) === lane.upstream)
    : from === undefined;
  if (!isOpen) terms.push(closedLane(environment, hotfix, from));
  return {
    policy,
    terms,
    approvedBy: countedApprovals(policy, requesters, counted, request.at, now),
    unattended:
      terms[0]?.state === "waits" &&
      // A change of the database is not what every release does.
      change === undefined &&
      isUnattended(policy, request, present, last),
  };
}

/**
 * Whether a release differs from what was deployed last in its image and in settings that its
 * policy names, and in nothing else: program, policy and secrets are the same.
 */
function isUnattended(
  { unattended }: Approval,
  request: Request,
  present: StackConfig,
  last: Pick<LastDeployed, "config" | "parts"> | undefined,
): boolean {
  if (unattended === undefined || last === undefined) return false;
  const same = ["secrets", "policy", "lockfile", "program"] as const;
  if (same.some((part) => !isSamePart(request.parts, last.parts, part))) return false;
  const allowed = unattended.settings.map((key) => `settings.config.${key}`);
  return settingsDifference(last.config.settings, present.settings).every(({ path }) =>
    allowed.includes(path),
  );
}

/**
 * Whether a request stands under the words for an environment that its own does not follow: whoever
 * approved the one has not decided on the other.
 */
function isStrayIn({ follows }: Request, counting: StackConfig): boolean {
  if (follows === undefined) return false;
  return !counting.follows || counting.upstream !== follows.environment;
}

function strayTerm({ environment, follows }: Request): Term {
  const says = `asked for together with ${follows?.environment ?? ""}, which it did not follow so far`;
  return fails("order", says, {
    where: environment,
    property: "the request",
    value: says,
    expected: "a request of its own, or baton:follows in what was deployed last",
    fix: `Ask with \`baton request ${environment}\``,
  });
}

/** A hotfix where the policy knows of none, or of one from elsewhere. */
function closedLane(environment: string, hotfix: boolean, from: string | undefined): Term {
  return fails("expiry", "no fast lane is open", {
    where: environment,
    property: hotfix ? "--hotfix" : "baton:hotfixFrom",
    value: from === undefined ? "not open here" : `not open here from ${from}`,
    expected: "baton:approval.hotfix in what was deployed last",
    fix: "Ask without --hotfix, or deploy a policy with a fast lane first",
  });
}

/**
 * Whether a request was made after what was deployed last, and is not done: what an older checkout
 * asks for, its approvals included, is over.
 */
export async function orderTerm(
  ledger: Ledger,
  { environment, id, commit }: Request,
  last: LastDeployed | undefined,
): Promise<Term> {
  const name = "order";
  if (last === undefined) return passes(name, "nothing was deployed before");
  const { outcome, isNewest, requests } = last;
  const problem = { where: environment, property: "the request" };
  const anew = `ask anew with \`baton request ${environment}\``;
  if (requests.includes(id) && !(isNewest && outcome.request === id)) {
    const says = "deployed already, and left since";
    const fix = `Look at \`baton history\`, and ${anew}`;
    const expected = "one that nobody has deployed";
    return fails(name, says, { ...problem, value: says, expected, fix });
  }
  if (last.commit === undefined || !(await ledger.isHere(last.commit, commit))) {
    const says = `without what was deployed last (${outcome.ref}) in its history`;
    const fix = `Run \`git pull\`, or find out who recorded that, and ${anew}`;
    const expected = "one that was made after it";
    return fails(name, says, { ...problem, value: says, expected, fix });
  }
  return passes(name, `made after ${outcome.tag} was deployed`);
}

/**
 * Whether nothing was recorded of an environment since a request was made, but what the request itself
 * has done. What changes the environment meanwhile, by another request or by hand, changes what people
 * have approved.
 * @param proven the outcomes of the environment that count
 */
export function startTerm(
  { environment, id, at, after }: Pick<Request, "environment" | "id" | "at" | "after">,
  proven: readonly LedgerOutcome[],
): Term {
  const name = "start";
  const fix = `Ask anew with \`baton request ${environment}\``;
  const problem = { where: environment, property: "the request", fix };
  if (after === undefined) {
    const says = "made without the state that it starts from";
    const expected = "a request that binds it, as this version makes it";
    return fails(name, says, { ...problem, value: says, expected });
  }
  // A request names an outcome before it; a time after it would hide all that happens until then.
  const apart = proven.some(({ ref }) => ref === after) ? STAMPS_DIFFER * 1000 : 0;
  const named = timeOf(after.split("/").at(-1) ?? "")?.getTime() ?? -Infinity;
  const since = Math.min(named, at.getTime() + apart);
  const other = proven.find((one) => one.at.getTime() > since && one.request !== id);
  if (other === undefined) return passes(name, "nothing was deployed or rolled back since");
  const says = `made before ${other.tag} ${SINCE[other.result]} (${other.ref})`;
  const expected = "one that was made after it";
  return fails(name, says, { ...problem, value: says, expected });
}

/** How an outcome is told that came between a request and its deployment. */
const SINCE: Readonly<Record<LedgerOutcome["result"], string>> = {
  deployed: "was deployed",
  "went-back": "failed",
  failed: "failed",
  "rolled-back": "was rolled back to",
  unapproved: "was deployed without approval",
};

/**
 * A problem for each property whose value differs from the value that a request started from: people
 * approve a change together with the state that it starts from.
 * @param state the stack's resources
 * @param present what the operations of a later preview start from; none where there is no preview
 */
export function startProblems(
  { environment, id, operations, starts }: Request,
  state: readonly StateResource[],
  present: readonly Start[] = [],
): Problem[] {
  const approved = parseStarts(starts);
  const salt = [id, environment] as const;
  const moved = [
    ...movedProperties(approved, state, salt, parseOperations(operations)),
    ...unapprovedStarts(approved, present, state, salt),
  ];
  const byProperty = new Map(moved.map((property) => [describeProperty(property), property]));
  const problems = [...byProperty].map(([property, { path, value }]) => ({
    where: environment,
    property,
    value: path === "" ? "gone" : `${formatValue(value)} now`,
    expected: "what it was when this was asked for",
    fix: `Look at what has changed it, and ask anew with \`baton request ${environment}\``,
  }));
  const [shown, others] = [problems.slice(0, MOST), problems.length - MOST];
  const [first] = shown;
  if (first === undefined || others <= 0) return shown;
  return [...shown, { ...first, property: `${others} more`, value: "others, too" }];
}

/** How many properties are named that are others than a request started from. */
const MOST = 10;
/** What a request's commit holds of its plan. All else is what runs here. */
const HELD: readonly PlanPart[] = ["tag", "digest", "version", "settings", "secrets", "policy"];

/** Whether all is still as it was requested, and the request is what it says. */
export async function planTerm(
  project: Project,
  ledger: Ledger,
  request: Request,
  stackFile: string,
): Promise<Term> {
  const { environment, tag, digest, version } = request;
  const name = "plan";
  const config = project.parse(environment, stackFile);
  const [there, program] = await Promise.all([
    committed(project, ledger, environment, request.commit),
    project.program().catch(uncovered),
  ]);
  if (program instanceof UncoveredProgram) {
    return fails(name, "no plan covers the program as it is", program.problems[0]);
  }
  const [plan, held] = await Promise.all([
    project.planOf(config, { program }),
    there && project.planOf(there.config, { program, allowedSigners: there.allowedSigners }),
  ]);
  const anew = `ask anew with \`baton request ${environment}\``;
  if (isShortened(request.parts)) {
    const says = "kept with shortened hashes, which another plan could match";
    return fails(name, says, {
      where: environment,
      property: "the request",
      value: says,
      expected: "a request with whole hashes, as this version makes it",
      fix: anew.replace("ask", "Ask"),
    });
  }
  const moved = movedParts(request.parts, plan.parts);
  if (request.plan !== plan.hash || moved.length > 0) {
    const what = moved.join(", ") || "the request itself";
    const files = moved.some((part) => part === "program" || part === "lockfile")
      ? await movedFiles(project, request.commit)
      : "";
    return fails(name, `${what} moved since the request${files}`, {
      where: environment,
      property: "the plan",
      value: `another one: ${what} moved since the request${files}`,
      expected: `the plan that was requested for ${tag}`,
      fix: `Undo that, or ${anew}`,
    });
  }
  // Its policy is in force afterwards, and its settings are what one goes back to.
  const missing = movedParts(plan.parts, held?.parts ?? EMPTY).filter((part) =>
    HELD.includes(part),
  );
  if (missing.length > 0) {
    const says = `without ${missing.join(", ")} that were asked for`;
    return fails(name, `its commit is ${says}`, {
      where: environment,
      property: "the request's commit",
      value: says,
      expected: "a commit that holds all that is to be deployed",
      fix: `Commit what belongs to it, and ${anew}`,
    });
  }
  const said = { imageTag: tag, imageDigest: digest, version, rollbackOf: undefined };
  const untrue = (["imageTag", "imageDigest", "version", "rollbackOf"] as const).filter(
    (key) => config[key] !== said[key],
  );
  if (untrue.length > 0) {
    const says = `not what its stack file asks for: ${untrue.join(", ")}`;
    return fails(name, says, {
      where: environment,
      property: "the request",
      value: says,
      expected: "a request that was made by `baton request`",
      fix: `Find out who made it, and ${anew}`,
    });
  }
  return passes(name, "as it was requested");
}

const EMPTY = parseParts("");

/** Names the program's files that differ from those of a request's commit. */
async function movedFiles(project: Project, commit: string): Promise<string> {
  const differences = await project.differencesFrom(commit);
  if (differences === undefined) return "";
  if (differences.length === 0) {
    return " (each file is as in its commit: it was asked for with others, such as files that git ignores)";
  }
  return ` (compared with its commit, ${listOf(differences)})`;
}

/** The first few of many, for a sentence. */
export function listOf(texts: readonly string[]): string {
  const [shown, others] = [texts.slice(0, FEW), texts.length - FEW];
  return shown.join(", ") + (others > 0 ? `, and ${others} more` : "");
}
const FEW = 5;

/**
 * Whether a way back returns to what this environment has verifiably run before: people approved it
 * then. Its settings are the stack file's as of then, or what they had become by the defaults of then.
 * A release that runs by the stack's own state and is unknown to the ledger may return with the
 * settings of any release that the ledger knows.
 * @param proven outcomes of the environment that count
 * @param requests the requests that they name, by the outcome's ref: an outcome's own commit may be any
 * @param running the release that the stack's own state names
 */
export async function isKnownWayBack(
  project: Project,
  ledger: Ledger,
  present: StackConfig,
  target: { readonly environment: string; readonly digest: string; readonly plan: Plan },
  { proven, requests }: Pick<EnvironmentOutcomes, "proven" | "requests">,
  running: Target | undefined,
): Promise<boolean> {
  const { environment, digest, plan } = target;
  const deployed = proven.filter(({ result }) => result === "deployed");
  const asked = deployed.filter(({ ref }) => requests.has(ref));
  const same = asked.filter((outcome) => outcome.digest === digest);
  const hasRun =
    deployed.some((outcome) => outcome.digest === digest) ||
    running?.digest === digest ||
    proven.some(({ former }) => former?.digest === digest);
  if (!hasRun) return false;
  const known = same.length > 0 ? same : asked;
  if (known.length === 0) return true;
  if (known.some(({ parts }) => isSamePart(parts, plan.parts, "settings"))) return true;
  const { settings } = splitSecrets(present.settings);
  const commits = known.flatMap(({ ref }) => requests.get(ref)?.commit ?? []);
  for (const commit of new Set(commits)) {
    const stackFile = await ledger.show(commit, project.stackFile(environment));
    if (stackFile === undefined) continue;
    const then = splitSecrets(project.parse(environment, stackFile).settings);
    if (isDeepStrictEqual(then.settings, settings)) return true;
  }
  return false;
}
