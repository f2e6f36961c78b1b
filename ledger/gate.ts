import { isDeepStrictEqual } from "node:util";
import { countedApprovals, policyFor } from "../release/approval";
import { approvalsTerm, expiryTerm, fails, passes, type Term } from "../release/gate";
import { movedParts, parseParts, type Plan, type PlanPart } from "../release/plan";
import type { SchemaChange } from "../release/schema";
import { settingsDifference } from "../release/settings-difference";
import type { Ledger, LedgerOutcome, Request } from "./ledger";
import type { Project } from "./project";
import { Refusal } from "./refusal";
import { POLICY_KEYS, splitSecrets, type StackConfig } from "./stack-config";

type Approval = StackConfig["approval"];

/** What was deployed last by the tool, and under which policy. */
export interface LastDeployed {
  readonly outcome: LedgerOutcome;
  readonly config: StackConfig;
  readonly allowedSigners: string;
  /** Whether nothing was recorded since. */
  readonly isNewest: boolean;
  /** Its request's commit in what is checked out, if it is there. */
  readonly commit: string | undefined;
  /** The ids of all requests that were deployed. */
  readonly requests: readonly string[];
}

/** What a commit says of an environment; nothing where it has no such project or stack file. */
export async function committed(
  project: Project,
  ledger: Ledger,
  environment: string,
  commit: string,
): Promise<Pick<LastDeployed, "config" | "allowedSigners"> | undefined> {
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

/**
 * What was deployed last: its policy counts for the next, so that a change which lowers the bar is
 * itself held to the former one. A way back asks for no approval, so it cannot bring a policy into
 * force.
 * @throws Refusal where it cannot be read: without it, anything might be allowed.
 */
export async function lastDeployed(
  project: Project,
  ledger: Ledger,
  environment: string,
  outcomes: readonly LedgerOutcome[],
): Promise<LastDeployed | undefined> {
  const deployed = outcomes.filter(({ result }) => result === "deployed");
  const found = await ledger.lastOf(deployed);
  if (found === undefined) return undefined;
  const { outcome, commit } = found;
  const then = await committed(project, ledger, environment, outcome.commit);
  if (then !== undefined) {
    const here = commit && (await committed(project, ledger, environment, commit));
    // Made anew with another policy, it is another request.
    const isSame = here && isDeepStrictEqual(policyOf(here), policyOf(then));
    return {
      outcome,
      ...then,
      isNewest: outcome === outcomes[0],
      commit: isSame ? commit : undefined,
      requests: deployed.flatMap(({ request }) => request ?? []),
    };
  }
  throw new Refusal({
    where: environment,
    property: outcome.ref,
    value: `on a commit without ${project.stackFile(environment)} in this folder`,
    expected: "the policy of what was deployed last",
    fix: "Fetch all of the history, or find out who recorded it and delete it",
  });
}

function policyOf({ config, allowedSigners }: Pick<LastDeployed, "config" | "allowedSigners">) {
  return [...POLICY_KEYS.map((key) => config[key]), allowedSigners];
}

/** What a request has to pass by people's words. */
export interface Approvals {
  /** The policy that counts, the fast lane's for a hotfix. */
  readonly policy: Approval;
  readonly terms: readonly Term[];
  /** Whose word counted. */
  readonly approvedBy: readonly string[];
  /** Whether it needs nobody's word if it changes nothing but what every release does. */
  readonly unattended: boolean;
}

/**
 * Whether people have approved a request, by the policy that counts for it.
 * @param change what it does to the environment's database
 */
export async function approvalsOf(
  project: Project,
  ledger: Ledger,
  request: Request,
  present: StackConfig,
  last: LastDeployed | undefined,
  change: SchemaChange | undefined,
  now: Date,
): Promise<Approvals> {
  const { environment, requesters, hotfix } = request;
  const counting = (last?.config ?? present).approval;
  const lane = hotfix ? counting.hotfix : undefined;
  const policy = policyFor(
    lane === undefined ? counting : { ...counting, required: lane.required },
    change?.wayBack === "restore",
  );
  const signers = last?.allowedSigners ?? (await project.text(policy.allowedSigners));
  const [given, order] = await Promise.all([
    ledger.words(request, policy.signed ? signers : undefined),
    orderTerm(ledger, request, last),
  ]);
  const stray = isStray(request, last?.config ?? present);
  const words = stray ? [] : given;
  const approvals = approvalsTerm(environment, policy, requesters, words, now);
  const lanes: Term[] = [];
  if (hotfix && lane !== undefined) {
    lanes.push(expiryTerm(environment, request.at, lane.expiresAfter, now));
  }
  if (stray && policy.required > 0) lanes.push(strayTerm(request));
  const isOpen = hotfix ? lane !== undefined : present.hotfixFrom === undefined;
  if (!isOpen || (present.hotfixFrom ?? lane?.upstream) !== lane?.upstream) {
    lanes.push(closedLane(environment, hotfix, present.hotfixFrom));
  }
  const approvedBy = countedApprovals(policy, requesters, words, now);
  return {
    policy,
    terms: [approvals, ...lanes, order],
    approvedBy,
    unattended:
      approvals.state === "waits" &&
      // What changes the database is not what every release does.
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
  last: LastDeployed | undefined,
): boolean {
  if (unattended === undefined || last === undefined) return false;
  const same = ["secrets", "policy", "lockfile", "program"] as const;
  if (same.some((part) => request.parts[part] !== last.outcome.parts[part])) return false;
  const allowed = unattended.settings.map((key) => `settings.config.${key}`);
  return settingsDifference(last.config.settings, present.settings).every(({ path }) =>
    allowed.includes(path),
  );
}

/**
 * Whether a request stands under the words for an environment that its own does not follow: whoever
 * approved the one has not decided on the other.
 */
function isStray({ follows }: Request, counting: StackConfig): boolean {
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
    project.program(),
  ]);
  const [plan, held] = await Promise.all([
    project.planOf(config, { program }),
    there && project.planOf(there.config, { program, allowedSigners: there.allowedSigners }),
  ]);
  const anew = `ask anew with \`baton request ${environment}\``;
  const moved = movedParts(request.parts, plan.parts);
  if (request.plan !== plan.hash || moved.length > 0) {
    const what = moved.join(", ") || "the request itself";
    return fails(name, `${what} moved since the request`, {
      where: environment,
      property: "the plan",
      value: `another one: ${what} moved since the request`,
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

/**
 * Whether a way back returns to what this environment has run before: nobody needs to approve what
 * was approved then. Its settings are the stack file's as of then, or what they had become by the
 * defaults of then. A release that the ledger does not know was deployed without the tool; it goes
 * back with the settings of one that it knows, if there is any.
 */
export async function isKnownWayBack(
  project: Project,
  ledger: Ledger,
  present: StackConfig,
  target: { readonly environment: string; readonly digest: string; readonly plan: Plan },
  outcomes: readonly LedgerOutcome[],
): Promise<boolean> {
  const { environment, digest, plan } = target;
  const deployed = outcomes.filter(({ result }) => result === "deployed");
  const same = deployed.filter((outcome) => outcome.digest === digest);
  const known = same.length > 0 ? same : deployed;
  if (known.length === 0) return true;
  if (known.some(({ parts }) => parts.settings === plan.parts.settings)) return true;
  const { settings } = splitSecrets(present.settings);
  for (const commit of new Set(known.map((outcome) => outcome.commit))) {
    const stackFile = await ledger.show(commit, project.stackFile(environment));
    if (stackFile === undefined) continue;
    const then = splitSecrets(project.parse(environment, stackFile).settings);
    if (isDeepStrictEqual(then.settings, settings)) return true;
  }
  return false;
}
