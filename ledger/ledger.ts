import { randomUUID } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { slug, type Word } from "../release/approval";
import type { HoldEntry } from "../release/holds";
import { formatParts, parseParts, shortHash, type Plan } from "../release/plan";
import type { Outcome, Result, Target } from "../release/way-back";
import { TRIGGERS, triggerOf } from "../release/trigger";
import { Git } from "./git";
import { Refusal } from "./refusal";

/** Somebody's wish to deploy a plan: a commit of the stack file. */
export interface Request {
  readonly environment: string;
  /** Tells it from every other request, also from one for the same plan. */
  readonly id: string;
  readonly commit: string;
  readonly at: Date;
  readonly plan: string;
  readonly parts: Plan["parts"];
  readonly tag: string;
  readonly digest: string;
  readonly version: string | undefined;
  /** Whether it goes the fast lane. */
  readonly hotfix: boolean;
  /** Email addresses of author and committer. */
  readonly requesters: readonly string[];
  /** The previewed operations, a line each. */
  readonly operations: readonly string[];
  readonly notes: string;
  /** Where it follows another environment: what people's words are on. */
  readonly follows: { readonly environment: string; readonly plan: string } | undefined;
  /** Where a merge or a rebase has made its commit anew: those that people's words are on. */
  readonly origins?: readonly string[];
}

/** What a request says besides its plan. */
export interface RequestDetails {
  readonly hotfix: boolean;
  readonly operations: readonly string[];
  readonly notes: string;
  /** What is deployed after it, under the same words. */
  readonly followers?: readonly Wish[];
  /** Who asks, as git writes it; whoever commits it unless given. */
  readonly author?: string | undefined;
}

/** What a request asks for in one environment. */
export interface Wish extends Pick<RequestDetails, "hotfix" | "operations"> {
  readonly environment: string;
  /** The stack file that says so. */
  readonly file: string;
  readonly target: Target;
  readonly plan: { readonly hash: string; readonly parts: string };
}

export interface LedgerOutcome extends Outcome {
  readonly environment: string;
  /** Its tag's name, `outcome/ENV/TIME`. */
  readonly ref: string;
  readonly at: Date;
  readonly who: string;
  /** The id of the request that was deployed; none of a way back by hand. */
  readonly request: string | undefined;
  readonly plan: string | undefined;
  readonly parts: Plan["parts"];
  readonly approvedBy: readonly string[];
  readonly hotfix: boolean;
  /** What was left, on a way back. */
  readonly left: { readonly tag: string; readonly digest: string } | undefined;
  /** Where a way back was begun and its end is not recorded: the tag to return to. */
  readonly returningTo: string | undefined;
  /** Why it failed, or why nobody was asked. */
  readonly reason: string | undefined;
  /** The run of Pulumi that deployed it, where that was not the tool's. */
  readonly update: string | undefined;
}

/** What is recorded of a deployment; what is left out is none, and no hotfix. */
export type NewOutcome = Pick<LedgerOutcome, Always> &
  Partial<Omit<LedgerOutcome, Always | "ref" | "at" | "who">>;
type Always = "environment" | "result" | "tag" | "digest" | "commit";

/** Somebody's word that a release may move on from an environment, or that a hotfix is all right. */
export interface NamedWord {
  readonly environment: string;
  /** Of what: an earned tag and the sign-off's name, or an outcome's time. */
  readonly of: readonly string[];
  readonly email: string;
  readonly at: Date;
}

/** Lines `Name: value` at the end of a message. */
export type Trailers = Readonly<Record<string, string | undefined>>;

/** One annotated tag. */
interface Entry {
  readonly ref: string;
  /** The tag's own id. */
  readonly id: string;
  readonly commit: string;
  readonly email: string;
  readonly at: Date;
  readonly message: string;
}

const REQUEST = "Baton-Request";
const WAY_BACK = "Baton-Rollback";
const OPERATION = "Baton-Operation";
const OPERATIONS = new RegExp(`^${OPERATION}: (.*)$`, "gm");
const RESULTS: readonly string[] = [
  "deployed",
  "went-back",
  "failed",
  "rolled-back",
  "unapproved",
] satisfies Result[];
/** The folders of tags that are the ledger. */
const FOLDERS = ["approve", "reject", "outcome", "hold", "sign-off", "review"] as const;
/** What is said at the remote too, but not kept here to be pushed later. */
const FETCHED = [...FOLDERS, TRIGGERS];

/** Requests, words and outcomes, kept in the git repository of the Pulumi project. */
export class Ledger {
  readonly git: Git;
  private remoteName: Promise<string | undefined> | undefined;
  private branchName: Promise<string | undefined> | undefined;
  private personEmail: string | undefined;
  private isChecked = false;
  private isComplete = false;
  private readonly shown = new Map<string, Promise<string | undefined>>();

  constructor(private readonly folder: string) {
    this.git = new Git(folder);
  }

  /** @throws Refusal when the folder is in no repository, or nobody has committed to it. */
  async check(): Promise<void> {
    this.isChecked ||=
      (await this.git.try("rev-parse", "--verify", "--quiet", "HEAD")) !== undefined;
    if (this.isChecked) return;
    throw new Refusal({
      where: this.folder,
      property: "its git repository",
      value: "missing or empty",
      expected: "a repository with at least one commit, as git is the ledger",
      fix: "Commit the project first",
    });
  }

  /** The email address that git gives the person at work. */
  async person(): Promise<string> {
    if (this.personEmail !== undefined) return this.personEmail;
    const identity = await this.git.try("var", "GIT_COMMITTER_IDENT");
    this.personEmail = /<([^>]+)>/.exec(identity ?? "")?.[1];
    if (this.personEmail !== undefined) return this.personEmail;
    throw new Refusal({
      where: "git",
      property: "user.email",
      value: "not set",
      expected: "your email address",
      fix: "Set it with `git config user.email`",
    });
  }

  /**
   * Gets what others have said, where the repository has a remote.
   * @returns why it could not, or nothing.
   * @throws Refusal when an entry there is another one than here: entries never move.
   */
  async fetch(): Promise<string | undefined> {
    const remote = await this.remote();
    if (remote === undefined) return undefined;
    const tags = FETCHED.map((folder) => `refs/tags/${folder}/*:refs/tags/${folder}/*`);
    const branches = `+refs/heads/*:refs/remotes/${remote}/*`;
    // What was deployed last has to be found in the history, which pipelines like to cut off.
    this.isComplete ||= (await this.git.run(["rev-parse", "--is-shallow-repository"])) === "false";
    const depth = this.isComplete ? [] : ["--unshallow"];
    const fetch = ["fetch", "--no-tags", ...depth, remote, branches, ...tags];
    const said = await this.git.exchange(fetch);
    const moved = [...(said ?? "").matchAll(/\[rejected\] +(\S+) .*\(would clobber/g)];
    if (moved.length === 0) return said && toldBy(remote, said);
    throw new Refusal(
      moved.map(([, ref = ""]) => ({
        where: remote,
        property: ref,
        value: "another one there than here",
        expected: "an entry that never moves",
        fix: "Find out who moved it, and delete the wrong one",
      })),
    );
  }

  /**
   * Gives others what was said here, now or while the remote was away; and this branch, where it has
   * requests or ways back that they have not.
   * @returns why it could not, or nothing.
   */
  async push(): Promise<string | undefined> {
    const [remote, branch] = await Promise.all([this.remote(), this.branch()]);
    if (remote === undefined) return undefined;
    const tags = FOLDERS.map((folder) => `refs/tags/${folder}/*`);
    const push = ["-c", "advice.pushUpdateRejected=false", "push", "--quiet", remote];
    const ahead = await this.isAhead(remote);
    if (ahead && branch !== undefined) {
      const said = await this.git.exchange([...push, `HEAD:refs/heads/${branch}`, ...tags]);
      if (said === undefined) return undefined;
      // Some remotes take nothing at all where they do not take the branch.
      await this.git.exchange([...push, ...tags]);
      return toldBy(`${remote}/${branch}`, said);
    }
    const said = await this.git.exchange([...push, ...tags]);
    if (said !== undefined) return toldBy(remote, said);
    return ahead ? `${remote}: a commit is checked out, and no branch to push it to` : undefined;
  }

  /** Whether there are requests or ways back here that no branch of the remote has. */
  private async isAhead(remote: string): Promise<boolean> {
    const grep = `--grep=^(${REQUEST}|${WAY_BACK}): `;
    const own = ["HEAD", "--not", `--remotes=${remote}`];
    return (await this.git.run(["log", "-1", "--format=%H", "-E", grep, ...own])) !== "";
  }

  /** The latest request for an environment, of this branch or of the same one at the remote. */
  async request(environment: string): Promise<Request | undefined> {
    const there = await this.branchThere();
    const counts =
      there === undefined
        ? "0\t0"
        : await this.git.run(["rev-list", "--left-right", "--count", `HEAD...${there}`]);
    const [ahead, behind] = counts.trim().split("\t");
    // Whatever comes later in history is the later one, whatever the clock said.
    const tips =
      there === undefined || behind === "0" ? ["HEAD"] : ahead === "0" ? [there] : ["HEAD", there];
    const made = await this.readRequest(environment, [
      `--grep=^${REQUEST}: ${environment}$`,
      ...tips,
    ]);
    return made && this.withOrigins(made);
  }

  /** The latest request for an environment in a commit's history; none of a commit that is not here. */
  async requestAt(environment: string, commit: string): Promise<Request | undefined> {
    const which = [`--grep=^${REQUEST}: ${environment}$`, commit];
    const made = await this.readRequest(environment, which);
    return made && this.withOrigins(made);
  }

  /** A request by what it says, and by what it has said where people's words are. */
  private async withOrigins(made: Request): Promise<Request> {
    const { environment, plan } = wordsOn(made);
    const entries = await this.entries(`approve/${environment}/${shortHash(plan)}`);
    const others = entries.filter(
      ({ commit, message }) =>
        commit !== made.commit && parseTrailers(message)["Baton-Id"] === made.id,
    );
    const commits = [...new Set(others.map(({ commit }) => commit))];
    const read = commits.map(async (commit) => this.readRequest(made.environment, [commit]));
    const origins = (await Promise.all(read)).flatMap((one) =>
      one !== undefined && isDeepStrictEqual(saidBy(one), saidBy(made)) ? [one] : [],
    );
    if (origins.length === 0) return made;
    const all = [made, ...origins];
    return {
      ...made,
      // Neither who asked nor when is undone by a commit of another's, or a later one.
      requesters: [...new Set(all.flatMap(({ requesters }) => requesters))],
      at: new Date(Math.min(...all.map(({ at }) => at.getTime()))),
      origins: origins.map(({ commit }) => commit),
    };
  }

  private async readRequest(
    environment: string,
    which: readonly string[],
  ): Promise<Request | undefined> {
    const format = "--format=%H%x00%ae%x00%ce%x00%cI%x00%B";
    const log = await this.git.try("log", "-1", "--no-show-signature", format, ...which);
    const [commit, author, committer, time, message] = (log ?? "").split("\0");
    if (!commit || author === undefined || committer === undefined || message === undefined) {
      return undefined;
    }
    const wishes = wishesOf(message);
    const own = wishes.find((wish) => wish.startsWith(`${REQUEST}: ${environment}\n`));
    if (own === undefined) return undefined;
    const trailers = parseTrailers(own);
    const lead = parseTrailers(wishes[0] ?? "");
    const led = lead[REQUEST] ?? environment;
    return {
      environment,
      id: trailers["Baton-Id"] ?? commit,
      commit,
      at: new Date(time ?? ""),
      plan: trailers["Baton-Plan"] ?? "",
      parts: parseParts(trailers["Baton-Parts"] ?? ""),
      tag: trailers["Baton-Tag"] ?? "",
      digest: trailers["Baton-Digest"] ?? "",
      version: trailers["Baton-Version"],
      hotfix: trailers["Baton-Hotfix"] !== undefined,
      requesters: [...new Set([author, committer])],
      operations: [...own.matchAll(OPERATIONS)].map(([, line = ""]) => line),
      notes: notesOf(message),
      follows:
        led === environment || lead["Baton-Id"] !== trailers["Baton-Id"]
          ? undefined
          : { environment: led, plan: lead["Baton-Plan"] ?? "" },
    };
  }

  /** Whether a commit is part of what is checked out, or of another commit's history. */
  async isHere(commit: string, history = "HEAD"): Promise<boolean> {
    return (await this.git.try("merge-base", "--is-ancestor", commit, history)) !== undefined;
  }

  /**
   * Of outcomes, the newest first, the one whose request stands last in what is checked out, as a
   * tag can be given any time; and there, the commit of that request, which a merge or a rebase may
   * have made anew. Without a commit the newest, where none is there.
   */
  async lastOf(
    outcomes: readonly LedgerOutcome[],
  ): Promise<{ readonly outcome: LedgerOutcome; readonly commit?: string } | undefined> {
    const [newest, ...others] = outcomes;
    if (newest === undefined) return undefined;
    if (await this.isHere(newest.commit)) {
      const range = `${newest.commit}..HEAD`;
      const later = others.length === 0 ? "" : await this.git.run(["rev-list", range]);
      const last = later.split("\n").find((id) => others.some(({ commit }) => commit === id));
      const outcome = others.find(({ commit }) => commit === last) ?? newest;
      return { outcome, commit: outcome.commit };
    }
    // Not so the others: a commit could bring back an older policy by naming an older request.
    const grep = ["--fixed-strings", `--grep=Baton-Id: ${newest.request ?? "of nobody"}`];
    const found = await this.git.run(["log", "-1", "--format=%H", ...grep, "HEAD"]);
    return { outcome: newest, ...(found === "" ? {} : { commit: found }) };
  }

  /** Commits a stack file, and those of what follows its environment, as a request. */
  async ask(
    environment: string,
    file: string,
    target: Target,
    plan: Wish["plan"],
    { notes, author, followers = [], ...said }: RequestDetails,
  ): Promise<void> {
    const wishes = [{ environment, file, target, plan, ...said }, ...followers];
    const id = randomUUID();
    // A line of the notes must not pass for a trailer.
    const text = notes.trim().replace(/^(?=Baton-)/gm, " ");
    const names = wishes.map((wish) => wish.environment).join(" and ");
    const subject = `Request ${target.tag} for ${names}`;
    const paragraphs = [subject, ...(text === "" ? [] : [text])];
    const message = [...paragraphs, ...wishes.map((wish) => formatWish(wish, id))].join("\n\n");
    const files = wishes.map((wish) => wish.file);
    await this.commit(files, message, author);
  }

  /**
   * Commits a stack file that says what an environment was returned to; once since a commit.
   */
  async commitWayBack(
    environment: string,
    file: string,
    left: string,
    to: Target,
    since: string,
  ): Promise<void> {
    const grep = `--grep=^${WAY_BACK}: ${environment}$`;
    const done = await this.git.run(["log", "-1", "--format=%H", grep, "HEAD", `^${since}`]);
    const differs = await this.git.run(["status", "--porcelain", "--", file]);
    if (done !== "" && differs === "") return;
    const trailers = formatTrailers({
      [WAY_BACK]: environment,
      "Baton-Tag": to.tag,
      "Baton-Digest": to.digest,
      "Baton-Version": to.version,
    });
    await this.commit([file], `Roll ${environment} back from ${left} to ${to.tag}\n\n${trailers}`);
  }

  /** Commits files as they are, and nothing else; also when they have not changed. */
  private async commit(files: readonly string[], message: string, author?: string): Promise<void> {
    await this.git.run(["add", "--", ...files]);
    const by = author === undefined ? [] : [`--author=${author}`];
    const args = ["commit", "--quiet", "--allow-empty", ...by, "-F", "-", "--only", "--", ...files];
    await this.git.run(args, message);
  }

  /**
   * What people said of this very request; of another with the same plan it does not count.
   * @param allowedSigners whose signature is good, as `allowed_signers` of ssh-keygen, or
   * `EMAIL pgp FINGERPRINT`; without it no signature is looked at.
   */
  async words(request: Request, allowedSigners?: string): Promise<Word[]> {
    const entries = await this.wordsOf(["approve", "reject"], request);
    const words = entries.map(async (entry) => ({
      email: entry.email,
      kind: entry.ref.startsWith("approve/") ? ("approve" as const) : ("reject" as const),
      reason: parseTrailers(entry.message)["Baton-Reason"],
      at: entry.at,
      signature:
        allowedSigners === undefined ? ("none" as const) : await this.verify(entry, allowedSigners),
    }));
    return Promise.all(words);
  }

  /**
   * Records a person's word as a tag on the request's commit.
   * @returns the tag's name; the former one's where they have said so already, and not before
   * `since`.
   */
  async say(
    request: Request,
    kind: Word["kind"],
    { reason, signed = false, since }: { reason?: string; signed?: boolean; since?: Date } = {},
  ): Promise<string> {
    const person = (await this.person()).toLowerCase();
    const base = `${kind}/${request.environment}/${shortHash(request.plan)}`;
    const former = (await this.wordsOf([kind], request)).find(
      ({ email, at, message }) =>
        email.toLowerCase() === person &&
        (since === undefined || at > since) &&
        (!signed || SIGNATURE.test(message)),
    );
    if (former !== undefined) return former.ref;
    // The same plan may have been requested before: that word stays as it is.
    const taken = (await this.entries(base)).map(({ ref }) => ref);
    const names = [slug(person), ...taken.map((_, index) => `${slug(person)}.${index + 2}`)];
    const ref = names.map((name) => `${base}/${name}`).find((name) => !taken.includes(name));
    const subject = `${kind} ${request.tag} for ${request.environment}`;
    const trailers = {
      "Baton-Id": request.id,
      "Baton-Plan": request.plan,
      "Baton-Tag": request.tag,
      "Baton-Digest": request.digest,
      "Baton-Reason": reason && oneLine(reason),
    };
    await this.tag(ref ?? base, request.commit, subject, trailers, signed);
    return ref ?? base;
  }

  /** The names of the tags that have started a run of Pulumi Deployments for a request. */
  async starts({ environment, id }: Request): Promise<string[]> {
    const entries = await this.entries(`${TRIGGERS}/${environment}`);
    const own = entries.filter(({ message }) => parseTrailers(message)["Baton-Id"] === id);
    return own.map(({ ref }) => ref);
  }

  /**
   * Starts a run of Pulumi Deployments by a tag on a request's commit. It is made at the remote, in a
   * push of its own: of several tags in one push, GitHub and GitLab tell nobody. One that cannot be
   * pushed is not kept, so that nothing starts later by itself.
   * @returns its name, or why it could not be pushed.
   */
  async start(
    { environment, id, commit, plan, tag, digest }: Request,
    now: Date,
  ): Promise<{ readonly ref: string } | string> {
    const remote = await this.remote();
    if (remote === undefined) return "the repository has no remote";
    const ref = triggerOf(environment, stampOf(now));
    const message = formatTrailers({
      "Baton-Id": id,
      "Baton-Plan": plan,
      "Baton-Tag": tag,
      "Baton-Digest": digest,
    });
    const tagger = await this.git.run(["var", "GIT_COMMITTER_IDENT"]);
    const head = `object ${commit}\ntype commit\ntag ${ref}\ntagger ${tagger}\n`;
    const text = `${head}\nstart ${tag} for ${environment}\n\n${message}`;
    const object = await this.git.run(["mktag"], text);
    const said = await this.git.exchange(["push", "--quiet", remote, `${object}:refs/tags/${ref}`]);
    return said === undefined ? { ref } : toldBy(remote, said);
  }

  /** An environment's deployments, the newest first; of all environments without one. */
  async outcomes(environment?: string): Promise<LedgerOutcome[]> {
    const entries = await this.entries(["outcome", environment ?? []].flat().join("/"));
    return entries
      .map(outcomeOf)
      .filter((outcome) => outcome !== undefined)
      .sort(newestFirst);
  }

  /**
   * Records how a deployment of a commit ended.
   * @returns the tag's name.
   */
  async record(outcome: NewOutcome, now: Date): Promise<string> {
    const { environment, result, tag, digest, version, commit, former, left } = outcome;
    const [[last], holds] = await Promise.all([this.outcomes(environment), this.holds()]);
    // Also where the clock was set back: entries are in the order they were made, and what was taken
    // back before does not take back what this one holds.
    const taken = [last, ...holds].flatMap((before) => before?.at.getTime() ?? []);
    const at = new Date(Math.max(now.getTime(), ...taken.map((time) => time + 1)));
    const ref = `outcome/${environment}/${stampOf(at)}`;
    await this.tag(ref, commit, `${environment}: ${tag} ${result}`, {
      "Baton-Result": result,
      "Baton-Tag": tag,
      "Baton-Digest": digest,
      "Baton-Version": version,
      "Baton-Former": former && formatTarget(former),
      "Baton-Left": left && formatTarget(left),
      "Baton-Returning-To": outcome.returningTo,
      "Baton-Id": outcome.request,
      "Baton-Plan": outcome.plan,
      "Baton-Parts": outcome.parts && formatParts(outcome.parts),
      "Baton-Hotfix": outcome.hotfix ? "yes" : undefined,
      "Baton-Approved-By": outcome.approvedBy?.join(" ") || undefined,
      "Baton-Reason": outcome.reason && oneLine(outcome.reason),
      "Baton-Update": outcome.update,
      "Baton-Who": await this.person(),
    });
    return ref;
  }

  /** Who held or stopped what, and who let it go on. */
  async holds(): Promise<HoldEntry[]> {
    return (await this.entries("hold")).flatMap(({ ref, email, at, message }) => {
      const trailers = parseTrailers(message);
      const kind = (["hold", "unhold", "stop", "resume"] as const).find(
        (action) => action === trailers["Baton-Action"],
      );
      if (kind === undefined) return [];
      return [
        {
          kind,
          digest: trailers["Baton-Digest"],
          tag: trailers["Baton-Tag"],
          reason: trailers["Baton-Reason"] ?? "",
          who: email,
          // To the millisecond: git's own date is to the second.
          at: timeOf(ref.split("/")[1] ?? "") ?? at,
        },
      ];
    });
  }

  async recordHold(
    entry: { kind: HoldEntry["kind"]; digest?: string; tag?: string; reason: string },
    now: Date,
  ): Promise<void> {
    const { kind, digest, tag, reason } = entry;
    // After all that it may take back, whatever the clock says.
    const [holds, outcomes] = await Promise.all([this.holds(), this.outcomes()]);
    const taken = [...holds, ...outcomes.slice(0, 1)].map((before) => before.at.getTime() + 1);
    const at = new Date(Math.max(now.getTime(), ...taken));
    await this.tag(`hold/${stampOf(at)}`, await this.head(), `${kind} ${tag ?? "everything"}`, {
      "Baton-Action": kind,
      "Baton-Tag": tag,
      "Baton-Digest": digest,
      "Baton-Reason": oneLine(reason),
    });
  }

  /** Sign-offs by their earned tag and name, or reviews by their outcome's time. */
  async namedWords(kind: "sign-off" | "review", environment: string): Promise<NamedWord[]> {
    const entries = await this.entries(`${kind}/${environment}`);
    return entries.map(({ ref, email, at }) => ({
      environment,
      of: ref.split("/").slice(2, -1),
      email,
      at,
    }));
  }

  /** Records one, once a person; on what is checked out. */
  async sayNamed(
    kind: "sign-off" | "review",
    environment: string,
    of: readonly string[],
  ): Promise<string> {
    const ref = [kind, environment, ...of, slug(await this.person())].join("/");
    const known = (await this.entries([kind, environment, ...of].join("/"))).some(
      (entry) => entry.ref === ref,
    );
    const subject = `${kind}: ${[environment, ...of].join(" ")}`;
    if (!known) await this.tag(ref, await this.head(), subject, {});
    return ref;
  }

  /** A file of the project as of a commit. */
  async show(commit: string, file: string): Promise<string | undefined> {
    const name = `${commit}:./${file}`;
    // What a hash names never changes; `HEAD` does.
    if (!/^[0-9a-f]{40,}$/.test(commit)) return this.git.try("show", name);
    const known = this.shown.get(name) ?? this.git.try("show", name);
    this.shown.set(name, known);
    return known;
  }

  async head(): Promise<string> {
    return this.git.run(["rev-parse", "HEAD"]);
  }

  private async remote(): Promise<string | undefined> {
    this.remoteName ??= this.findRemote();
    return this.remoteName;
  }

  private async findRemote(): Promise<string | undefined> {
    const remotes = (await this.git.run(["remote"])).split("\n").filter((name) => name !== "");
    if (remotes.length === 0) return undefined;
    const branch = await this.branch();
    const tracked = await this.git.try("config", `branch.${branch ?? ""}.remote`);
    return (
      remotes.find((name) => name === tracked?.trim()) ??
      remotes.find((name) => name === "origin") ??
      remotes[0]
    );
  }

  /** The same branch at the remote, where it has been fetched. */
  private async branchThere(): Promise<string | undefined> {
    const remote = await this.remote();
    if (remote === undefined) return undefined;
    const there = `refs/remotes/${remote}/${(await this.branch()) ?? ""}`;
    const known = await this.git.try("rev-parse", "--verify", "--quiet", there);
    return known === undefined ? undefined : there;
  }

  /** Nothing where a commit is checked out by itself, as pipelines do. */
  async branch(): Promise<string | undefined> {
    this.branchName ??= this.git.try("symbolic-ref", "--quiet", "--short", "HEAD");
    return (await this.branchName)?.trim();
  }

  private async wordsOf(kinds: readonly Word["kind"][], request: Request): Promise<Entry[]> {
    const { environment, plan } = wordsOn(request);
    const folders = kinds.map((kind) => `${kind}/${environment}/${shortHash(plan)}`);
    return (await this.entries(...folders)).filter(({ ref, commit, message }) => {
      const trailers = parseTrailers(message);
      const ofIt = trailers["Baton-Id"] === request.id && trailers["Baton-Plan"] === plan;
      // A commit made anew under the same id may say something else: nobody has approved that one.
      const onIt = commit === request.commit || request.origins?.includes(commit) === true;
      return ofIt && (ref.startsWith("reject/") || onIt);
    });
  }

  private async tag(
    name: string,
    commit: string,
    subject: string,
    trailers: Trailers,
    signed = false,
  ): Promise<void> {
    const message = `${subject}\n\n${formatTrailers(trailers)}`;
    await this.git.run(["tag", signed ? "-s" : "-a", "-F", "-", name, commit], message);
  }

  /**
   * The annotated tags below folders of refs, by name. One that was copied from elsewhere says
   * another name itself, and does not count.
   */
  private async entries(...folders: readonly string[]): Promise<Entry[]> {
    // No message holds the character between them: none can pass for two entries.
    const format = ENTRY_FIELDS.map((field) => `%(${field})%00`).join("");
    const list = await this.git.run([
      "for-each-ref",
      `--format=${format}`,
      ...folders.map((folder) => `refs/tags/${folder}/`),
    ]);
    const fields = list.split("\0");
    const entries: Entry[] = [];
    for (let index = 0; index + ENTRY_FIELDS.length < fields.length; index += ENTRY_FIELDS.length) {
      const [name = "", id = "", tag, commit, email = "", date = "", message = ""] = fields.slice(
        index,
        index + ENTRY_FIELDS.length,
      );
      const ref = name.replace(/^\n/, "");
      if (ref !== tag || !commit) continue;
      entries.push({ ref, id, commit, email, at: new Date(date), message });
    }
    return entries;
  }

  /** By the object that was read, as a name may mean another one. */
  private async verify({ id, email }: Entry, signers: string): Promise<Word["signature"]> {
    const object = (await this.git.try("cat-file", "tag", id)) ?? "";
    if (!SIGNATURE.test(object)) return "none";
    const lines = signers.split("\n");
    const folder = await mkdtemp(join(tmpdir(), "baton-"));
    try {
      const file = join(folder, "allowed-signers");
      await writeFile(file, lines.filter((line) => !PGP_SIGNER.test(line)).join("\n"));
      const config = ["-c", `gpg.ssh.allowedSignersFile=${file}`];
      // Git says on which key it relies in words only, and those on its standard error. It refuses
      // keys that have expired or were revoked. A line's beginning is its own, whatever a key's
      // owner has written into its name.
      const said = (await this.git.said([...config, "verify-tag", "--raw", id])) ?? "";
      const ssh = /^Good "git" signature for (\S+) with/m.exec(said)?.[1];
      // The key that has signed, and the primary key that it belongs to.
      const pgp = /^\[GNUPG:\] VALIDSIG ([0-9A-F]+) .*?([0-9A-F]+)$/m.exec(said)?.slice(1) ?? [];
      const allowed = lines.flatMap((line) => {
        const [, who = "", key = ""] = PGP_SIGNER.exec(line) ?? [];
        return pgp.includes(key.toUpperCase()) ? [who] : [];
      });
      const signer = ssh === undefined ? allowed : [ssh];
      const good = signer.some((who) => who.toLowerCase() === email.toLowerCase());
      return good ? "good" : "bad";
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  }
}

/** What people approve of a request, beside what its plan is of. */
function saidBy(request: Request) {
  const { id, plan, parts, tag, digest, version, hotfix, operations, follows } = request;
  return { id, plan, parts, tag, digest, version, hotfix, operations, follows };
}

/** What people approve where they approve a request: the whole commit, by its first plan. */
function wordsOn({ follows, environment, plan }: Request) {
  return follows ?? { environment, plan };
}

/** As the tool has it in the message of a request, after a line of its own. */
function formatWish(wish: Wish, id: string): string {
  const { environment, target, plan, hotfix, operations } = wish;
  const trailers = formatTrailers({
    [REQUEST]: environment,
    "Baton-Id": id,
    "Baton-Tag": target.tag,
    "Baton-Digest": target.digest,
    "Baton-Version": target.version,
    "Baton-Hotfix": hotfix ? "yes" : undefined,
    "Baton-Plan": plan.hash,
    "Baton-Parts": plan.parts,
  });
  return trailers + operations.map((line) => `${OPERATION}: ${line}\n`).join("");
}

/** What a request's message says of each of its environments, the one that others follow first. */
function wishesOf(message: string): string[] {
  return message.split(new RegExp(`^(?=${REQUEST}: )`, "m")).slice(1);
}

const ENTRY_FIELDS = [
  ...["refname:strip=2", "objectname", "tag", "*objectname"],
  ...["taggeremail:trim", "taggerdate:iso-strict", "contents"],
];
const SIGNATURE = /^-----BEGIN (SSH|PGP) SIGNATURE-----$/m;
const PGP_SIGNER = /^\s*(\S+)\s+pgp\s+([0-9A-Fa-f]{40})\s*$/;

/** What one says is read when somebody asks: of ten thousand, most are only counted. */
function outcomeOf({ ref, commit, at, message }: Entry): LedgerOutcome | undefined {
  const result = /^Baton-Result: (.*)$/m.exec(message)?.[1]?.trim() ?? "";
  const [, environment = "", stamp = ""] = ref.split("/");
  if (!RESULTS.includes(result)) return undefined;
  let read: Trailers | undefined;
  const said = (name: string) => (read ??= parseTrailers(message))[name];
  return {
    ref,
    environment,
    commit,
    at: timeOf(stamp) ?? at,
    result: result as Result,
    get who() {
      return said("Baton-Who") ?? "";
    },
    get tag() {
      return said("Baton-Tag") ?? "";
    },
    get digest() {
      return said("Baton-Digest") ?? "";
    },
    get version() {
      return said("Baton-Version");
    },
    get former() {
      return parseTarget(said("Baton-Former"));
    },
    get left() {
      return parseTarget(said("Baton-Left"));
    },
    get returningTo() {
      return said("Baton-Returning-To");
    },
    get request() {
      return said("Baton-Id");
    },
    get plan() {
      return said("Baton-Plan");
    },
    get parts() {
      return parseParts(said("Baton-Parts") ?? "");
    },
    get hotfix() {
      return message.includes("\nBaton-Hotfix: ");
    },
    get approvedBy() {
      return said("Baton-Approved-By")?.split(" ") ?? [];
    },
    get reason() {
      return said("Baton-Reason");
    },
    get update() {
      return said("Baton-Update");
    },
  };
}

function newestFirst(one: LedgerOutcome, other: LedgerOutcome): number {
  return other.at.getTime() - one.at.getTime() || (other.ref > one.ref ? 1 : -1);
}

/** What git said of a remote, on one line and without its general advice. */
function toldBy(remote: string, said: string): string {
  const lines = (said.split("\n\n")[0] ?? "").split("\n").map((line) => line.trim());
  return `${remote}: ${lines
    .filter((line) => line !== "")
    .join("; ")
    .replace(/\.$/, "")}`;
}

/** `20261121T101500.000Z`, which sorts as time does and may stand in a ref. */
export function stampOf(time: Date): string {
  return time.toISOString().replace(/[-:]/g, "");
}

function timeOf(stamp: string): Date | undefined {
  const parts = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)([\d.]+Z)$/.exec(stamp);
  if (parts === null) return undefined;
  const [, year, month, day, hour, minute, second] = parts;
  return new Date(
    `${year ?? ""}-${month ?? ""}-${day ?? ""}T${hour ?? ""}:${minute ?? ""}:${second ?? ""}`,
  );
}

/** One line: `TAG DIGEST`, and the version if there is one. */
function formatTarget({ tag, digest, version }: Target): string {
  return [tag, digest, version ?? ""].join(" ").trim();
}

function parseTarget(line: string | undefined): Target | undefined {
  const [tag, digest, version] = line?.split(" ") ?? [];
  return tag === undefined || digest === undefined ? undefined : { tag, digest, version };
}

/** As a trailer has it. */
export function oneLine(text: string): string {
  return text.trim().replace(/\s+/g, " ");
}

function formatTrailers(trailers: Trailers): string {
  const lines = Object.entries(trailers).filter(([, value]) => value !== undefined);
  return lines.map(([name, value]) => `${name}: ${value ?? ""}\n`).join("");
}

/** The trailers of the tool's own messages; the first of a name counts. */
export function parseTrailers(message: string): Trailers {
  const trailers: Record<string, string> = {};
  // Of ten thousand messages, a regular expression on each whole one takes most of the time.
  for (const line of message.split("\n")) {
    if (!line.startsWith("Baton-")) continue;
    const [, name, value = ""] = /^(Baton-[A-Za-z-]+): (.*)$/.exec(line) ?? [];
    if (name !== undefined) trailers[name] ??= value.trim();
  }
  return trailers;
}

/** What stands between the subject and the trailers. */
function notesOf(message: string): string {
  const lines = message.split("\n").slice(1);
  return lines
    .filter((line) => !/^Baton-[A-Za-z-]+: /.test(line))
    .join("\n")
    .trim();
}
