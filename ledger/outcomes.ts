import { isDeepStrictEqual } from "node:util";
import { MOVING_KEYS } from "../config-schema";
import type { Word } from "../release/approval";
import type { HoldEntry } from "../release/holds";
import { notRoutine, parseOperations } from "../release/operations";
import { PLAN_PARTS } from "../release/plan";
import { formatTime, STAMPS_DIFFER } from "../release/time";
import type { Target } from "../release/way-back";
import {
  committed,
  judge,
  policyOf,
  readablePolicy,
  signersOf,
  type LastDeployed,
  type Policy,
} from "./gate";
import type { Ledger, LedgerHold, LedgerOutcome, NamedWord, Request, WordBook } from "./ledger";
import type { Project } from "./project";
import { Refusal } from "./refusal";

/** An entry that the reviewed history does not bear out, and why not, without a full stop. */
export interface DoubtedOutcome {
  readonly outcome: LedgerOutcome;
  readonly doubt: string;
}

/** The outcomes of one environment. */
export interface EnvironmentOutcomes {
  /** All entries, the newest first. */
  readonly all: readonly LedgerOutcome[];
  /** The entries that follow from the reviewed history or from the stack's own state, the newest first. */
  readonly proven: readonly LedgerOutcome[];
  /** The other entries, the newest first. */
  readonly doubted: readonly DoubtedOutcome[];
  /** The newest proven deployment, whose policy counts for the next request. */
  readonly lastDeployed: LastDeployed | undefined;
  /** The requests that proven outcomes name, by the outcome's ref. */
  readonly requests: ReadonlyMap<string, Request>;
}

/** Where nothing was deployed yet. */
export const NO_OUTCOMES: Omit<EnvironmentOutcomes, "all"> = {
  proven: [],
  doubted: [],
  lastDeployed: undefined,
  requests: new Map(),
};

/**
 * Reads the outcomes of an environment, and proves each. A tag proves nothing by itself: an outcome
 * counts where its commit is in the history of the protected branch and holds a request whose tag,
 * digest, plan and parts the outcome repeats, and where that request's words satisfied the policy in
 * force before it; or where the stack's own state says that its release runs. A way back counts where
 * its release was proven before, or runs by the stack's state.
 * @param running the release that the stack's own state names; asked only where history proves less
 * @throws Refusal where the history is cut off before the last deployment
 */
export async function readOutcomes(
  project: Project,
  ledger: Ledger,
  environment: string,
  now: Date,
  running: () => Promise<Target | undefined>,
): Promise<EnvironmentOutcomes> {
  const all = await ledger.outcomes(environment);
  if (all.length === 0) return { all, ...NO_OUTCOMES };
  // A clock that was set back must not hide the release to return to.
  const present = await ledger.presentTime(now);
  const proof = await Proof.open(project, ledger, environment, present, running, all);
  for (const outcome of all.toReversed()) await proof.add(outcome);
  const result = await proof.result();
  const isDeployed = all.some((outcome) => outcome.result === "deployed");
  if (isDeployed && result.lastDeployed === undefined && (await ledger.isShallow())) {
    throw new Refusal({
      where: environment,
      property: "the git history",
      value: "cut off before what was deployed last",
      expected: "all of it, as the policy that was deployed last counts",
      fix: "Run `git fetch --unshallow`",
    });
  }
  return { all, ...result };
}

/** What people said of images and of the path, and what of it does not count. */
export interface ProvenHolds {
  readonly counted: readonly HoldEntry[];
  readonly doubted: readonly { readonly entry: LedgerHold; readonly doubt: string }[];
}

/**
 * Reads holds and stops. An entry whose time cannot be true, or whose commit is not in the reviewed
 * history, takes back no hold and no stop, and still holds or stops.
 */
export async function readHolds(project: Project, ledger: Ledger, now: Date): Promise<ProvenHolds> {
  const entries = await ledger.holds();
  if (entries.length === 0) return { counted: [], doubted: [] };
  const places = await reviewedPlaces(project, ledger);
  const doubted = entries.flatMap((entry) => {
    if (entry.kind === "hold" || entry.kind === "stop") return [];
    const isHere = places.has(entry.commit);
    const doubt =
      timeDoubt(entry, now) ?? (isHere ? undefined : "on a commit that is not reviewed");
    return doubt === undefined ? [] : [{ entry, doubt }];
  });
  const isCounted = (entry: LedgerHold) => !doubted.some((one) => one.entry === entry);
  return { counted: entries.filter(isCounted), doubted };
}

/**
 * Reads sign-offs or reviews, and leaves out those whose date is yet to come, or whose commit is not
 * in the reviewed history.
 */
export async function readNamedWords(
  project: Project,
  ledger: Ledger,
  kind: "sign-off" | "review",
  environment: string,
  now: Date,
): Promise<NamedWord[]> {
  const words = await ledger.namedWords(kind, environment);
  if (words.length === 0) return [];
  const places = await reviewedPlaces(project, ledger, environment);
  return words.filter(
    ({ commit, at }) => places.has(commit) && timeDoubt({ at, taggedAt: at }, now) === undefined,
  );
}

/**
 * The places of all reviewed commits; a smaller number is a later commit.
 * @param environment whose protected branches are meant; those of all environments unless given
 */
async function reviewedPlaces(
  project: Project,
  ledger: Ledger,
  environment?: string,
): Promise<ReadonlyMap<string, number>> {
  const patterns = await project.protectedBranches(environment);
  return ledger.placesIn(await ledger.reviewedTips(patterns));
}

/** Why an entry's own times cannot be true, without a full stop; undefined where they can. */
export function timeDoubt(
  { at, taggedAt }: { readonly at: Date; readonly taggedAt: Date },
  now: Date,
): string | undefined {
  const apart = STAMPS_DIFFER * 1000;
  if (at.getTime() > now.getTime() + apart) return `dated ${formatTime(at)}, which is yet to come`;
  if (Math.abs(at.getTime() - taggedAt.getTime()) <= apart) return undefined;
  return `dated ${formatTime(at)}, and tagged at ${formatTime(taggedAt)}`;
}

/** The policy in force, and the deployment that brought it into force. */
interface InForce extends Policy {
  readonly outcome: LedgerOutcome;
  readonly request: Request;
  readonly place: number;
}

/** Proves outcomes one after the other, the oldest first. */
class Proof {
  private readonly proven: LedgerOutcome[] = [];
  private readonly doubted: DoubtedOutcome[] = [];
  private inForce: InForce | undefined;
  private runs: Promise<Target | undefined> | undefined;
  private readonly policies = new Map<string, Promise<Policy | undefined>>();
  private readonly words = new Map<string, Promise<WordBook>>();
  private readonly movingLines: RegExp;
  private readonly newestDeployed: string | undefined;

  private constructor(
    private readonly project: Project,
    private readonly ledger: Ledger,
    private readonly environment: string,
    private readonly now: Date,
    private readonly running: () => Promise<Target | undefined>,
    /** Places in the reviewed history; a smaller number is a later commit. */
    private readonly places: ReadonlyMap<string, number>,
    private readonly requests: RequestsByCommitAndId,
    all: readonly LedgerOutcome[],
  ) {
    this.newestDeployed = all.find(({ result }) => result === "deployed")?.ref;
    const name = project.name.replaceAll(".", "\\.");
    this.movingLines = new RegExp(`^ +${name}:(${MOVING_KEYS.join("|")}):.*$`, "gm");
  }

  static async open(
    project: Project,
    ledger: Ledger,
    environment: string,
    now: Date,
    running: () => Promise<Target | undefined>,
    all: readonly LedgerOutcome[],
  ): Promise<Proof> {
    const tips = await ledger.reviewedTips(await project.protectedBranches(environment));
    const places = await ledger.placesIn(tips);
    const commits = all.flatMap(({ commit }) => (places.has(commit) ? [commit] : []));
    const isElsewhere = ({ commit, request }: LedgerOutcome) =>
      request !== undefined && !places.has(commit);
    const [here, anew] = await Promise.all([
      ledger.requestsOf(environment, commits),
      // A merge or a rebase makes the commit of a request anew.
      all.some(isElsewhere) ? ledger.requestsIn(environment, tips) : [],
    ]);
    const requests = new RequestsByCommitAndId([...here, ...anew]);
    const read = [...new Set([...commits, ...anew.map(({ commit }) => commit)])];
    await ledger.prepareToShow(read, [project.stackFile(environment), "Pulumi.yaml"]);
    return new Proof(project, ledger, environment, now, running, places, requests, all);
  }

  async add(outcome: LedgerOutcome): Promise<void> {
    const doubt = timeDoubt(outcome, this.now) ?? (await this.doubtOf(outcome));
    if (doubt !== undefined) {
      this.doubted.unshift({ outcome, doubt });
      return;
    }
    if (outcome.result === "deployed") this.doubtEarlier(outcome);
    this.proven.unshift(await this.withProvenFormer(outcome));
  }

  /** A request is deployed once: an earlier claim would make its release older than it is. */
  private doubtEarlier({ request, ref }: LedgerOutcome): void {
    const earlier = this.proven.findIndex(
      (one) => one.result === "deployed" && one.request === request && request !== undefined,
    );
    const [outcome] = earlier < 0 ? [] : this.proven.splice(earlier, 1);
    if (outcome !== undefined) this.doubted.unshift({ outcome, doubt: `told again by ${ref}` });
  }

  async result(): Promise<Omit<EnvironmentOutcomes, "all">> {
    const requests = this.proven.flatMap((outcome) => {
      const request = this.requests.of(outcome);
      return request === undefined ? [] : [[outcome.ref, request] as const];
    });
    return {
      proven: this.proven,
      doubted: this.doubted,
      requests: new Map(requests),
      lastDeployed: await this.lastDeployed(),
    };
  }

  private async doubtOf(outcome: LedgerOutcome): Promise<string | undefined> {
    switch (outcome.result) {
      case "rolled-back":
        return this.wayBackDoubt(outcome);
      // It gives no right to anything.
      case "unapproved":
        return undefined;
      case "deployed": {
        const doubt = await this.deploymentDoubt(outcome);
        if (doubt === undefined || outcome.ref !== this.newestDeployed) return doubt;
        return !this.wasDeployed(outcome) && (await this.isRunning(outcome)) ? undefined : doubt;
      }
      case "failed":
      case "went-back":
        return this.deploymentDoubt(outcome);
    }
  }

  private async wayBackDoubt({ tag, digest }: LedgerOutcome): Promise<string | undefined> {
    return (await this.hasRun({ tag, digest }))
      ? undefined
      : "its release is none that is known to have run here";
  }

  private async deploymentDoubt(outcome: LedgerOutcome): Promise<string | undefined> {
    if (outcome.request === undefined) return "it names no request";
    const request = this.requests.of(outcome);
    if (request === undefined) {
      return "its request is not in the history of the protected branch";
    }
    if (outcome.at.getTime() < request.at.getTime() - STAMPS_DIFFER * 1000) {
      return `dated before its request of ${formatTime(request.at)}`;
    }
    const other = contradictions(outcome, request);
    if (other.length > 0) return `its request has another ${other.join(", ")}`;
    const place = this.places.get(request.commit) ?? Infinity;
    if (this.inForce !== undefined && place > this.inForce.place) {
      return `its request is older than what ${this.inForce.outcome.ref} deployed`;
    }
    const policy = await this.policyAt(request.commit);
    if (policy === undefined) return "its commit has no such stack file";
    if (request.commit !== outcome.commit && !(await this.isSamePolicy(outcome.commit, policy))) {
      return "its commit has another policy than its request has now";
    }
    const doubt = await this.wordsDoubt(outcome, request, policy);
    if (doubt === undefined && outcome.result === "deployed") {
      this.inForce = { ...policy, outcome, request, place };
    }
    return doubt;
  }

  private async isSamePolicy(commit: string, policy: Policy): Promise<boolean> {
    const other = await this.policyAt(commit);
    return other !== undefined && isDeepStrictEqual(policyOf(other), policyOf(policy));
  }

  /** Whether a request's words satisfied the policy in force before it, by the words of that time. */
  private async wordsDoubt(
    outcome: LedgerOutcome,
    request: Request,
    present: Policy,
  ): Promise<string | undefined> {
    const counting = this.inForce ?? present;
    const { approval } = counting.config;
    if (approval.required === 0 && !request.hotfix && request.follows === undefined) {
      return undefined;
    }
    const book = await this.wordBookOf(request.follows?.environment ?? this.environment);
    const whole = await this.ledger.withOrigins(request, book);
    const signers = signersOf([counting]);
    const check = signers && { signers, at: outcome.at };
    const given = await this.ledger.words(whole, check, book);
    const latest = outcome.at.getTime() + STAMPS_DIFFER * 1000;
    const words: Word[] = given.filter(({ at }) => at.getTime() <= latest);
    const last = this.inForce && { ...this.inForce, parts: this.inForce.request.parts };
    const exact = await committed(this.project, this.ledger, this.environment, request.commit);
    const { terms, unattended } = judge({
      request: whole,
      present: exact?.config ?? present.config,
      counting: [counting],
      last,
      words,
      now: outcome.at,
    });
    const isRoutine = unattended && notRoutine(parseOperations(request.operations)).length === 0;
    const missing = terms.find(
      ({ name, state }) => state !== "passes" && !(name === "approvals" && isRoutine),
    );
    return missing && `its request was not approved: ${missing.says}`;
  }

  /**
   * The policy that a commit holds; undefined where the commit has no stack file that can be read.
   * Stack files that differ in nothing but what moves are parsed once.
   */
  private async policyAt(commit: string): Promise<Policy | undefined> {
    const { project, ledger, environment } = this;
    const [stackFile = "", projectFile = ""] = await Promise.all([
      ledger.show(commit, project.stackFile(environment)),
      ledger.show(commit, "Pulumi.yaml"),
    ]);
    const key = [stackFile.replace(this.movingLines, ""), projectFile].join("\0");
    const found = this.policies.get(key) ?? readablePolicy(project, ledger, environment, commit);
    this.policies.set(key, found);
    const policy = await found;
    if (policy?.config.approval.signed !== true) return policy;
    const allowedSigners = await ledger.show(commit, policy.config.approval.allowedSigners);
    return { ...policy, allowedSigners: allowedSigners ?? "" };
  }

  private async wordBookOf(environment: string): Promise<WordBook> {
    const book = this.words.get(environment) ?? this.ledger.wordBook(environment);
    this.words.set(environment, book);
    return book;
  }

  /** An outcome whose former release is one that has run here, or no former release at all. */
  private async withProvenFormer(outcome: LedgerOutcome): Promise<LedgerOutcome> {
    const { former, returningTo } = outcome;
    if (former === undefined) return outcome;
    // What a request says ran before it is its author's claim, and starts no way back by itself.
    const isFirst = this.proven.every(
      ({ result, request }) => result !== "deployed" || request === outcome.request,
    );
    const asked =
      isFirst && returningTo === undefined ? this.requests.of(outcome)?.former : undefined;
    if (isSameRelease(asked, former) || (await this.hasRun(former))) return outcome;
    return Object.defineProperties({} as LedgerOutcome, {
      ...Object.getOwnPropertyDescriptors(outcome),
      former: { value: undefined, enumerable: true },
      returningTo: { value: undefined, enumerable: true },
    });
  }

  private async hasRun(release: Target): Promise<boolean> {
    const ranBefore = this.proven.some(({ former }) => isSameRelease(former, release));
    return this.wasDeployed(release) || ranBefore || this.isRunning(release);
  }

  private wasDeployed(release: Target): boolean {
    return this.proven.some(
      (outcome) => outcome.result === "deployed" && isSameRelease(outcome, release),
    );
  }

  private async isRunning(release: Target): Promise<boolean> {
    this.runs ??= this.running();
    return isSameRelease(await this.runs, release);
  }

  private async lastDeployed(): Promise<LastDeployed | undefined> {
    // Without a proven one, the policy counts under which the running release says it was deployed.
    const outcome =
      this.inForce?.outcome ?? this.proven.find(({ result }) => result === "deployed");
    if (outcome === undefined) return undefined;
    const policy = this.inForce ?? (await this.policyAt(outcome.commit));
    if (policy === undefined) return undefined;
    return {
      outcome,
      config: policy.config,
      allowedSigners: policy.allowedSigners,
      parts: outcome.parts,
      isNewest: outcome.ref === this.proven[0]?.ref,
      commit: this.inForce?.request.commit,
      requests: this.proven.flatMap((one) =>
        one.result === "deployed" ? (one.request ?? []) : [],
      ),
    };
  }
}

/** Requests in the reviewed history of one environment. */
class RequestsByCommitAndId {
  private readonly byCommit = new Map<string, Request>();
  private readonly byId = new Map<string, Request>();

  constructor(requests: readonly Request[]) {
    for (const request of requests) {
      this.byCommit.set(request.commit, request);
      this.byId.set(request.id, request);
    }
  }

  /** The request that an outcome names: on its own commit, or made anew under the same id. */
  of({ commit, request }: LedgerOutcome): Request | undefined {
    const here = this.byCommit.get(commit);
    return here?.id === request ? here : this.byId.get(request ?? "");
  }
}

function isSameRelease(one: Target | undefined, other: Target): boolean {
  return one?.tag === other.tag && one.digest === other.digest;
}

/** The names of all that an outcome says otherwise than its request. */
function contradictions(outcome: LedgerOutcome, request: Request): string[] {
  const same = ["tag", "digest", "version", "plan", "hotfix"] as const;
  return [
    ...same.filter((key) => outcome[key] !== request[key]),
    ...PLAN_PARTS.filter((part) => outcome.parts[part] !== request.parts[part]),
  ];
}
