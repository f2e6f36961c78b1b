import { randomUUID } from "node:crypto";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { slug, type Word } from "../release/approval";
import type { HoldEntry } from "../release/holds";
import { formatParts, parseParts, shortHash, type Plan } from "../release/plan";
import type { Outcome, Result, Target } from "../release/way-back";
import { matches, PROTECTED_BRANCH } from "../release/flow";
import { STAMPS_DIFFER } from "../release/time";
import { TRIGGERS } from "../release/trigger";
import { detailTrailers, parseDetails, type OutcomeDetails } from "./details";
import {
  Entries,
  formatTrailers,
  KINDS,
  messageOf,
  oneLine,
  parseTrailers,
  PROJECT,
  stampOf,
  timeOf,
  type Entry,
  type Trailers,
} from "./entries";
import { Git } from "./git";
import type { Project } from "./project";
import { Refusal } from "./refusal";
import { SIGNATURE, signersOfTag } from "./signatures";

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
  /**
   * The newest outcome of the environment before it, or `none`; undefined where a former version made
   * it, which has not recorded from which state it starts.
   */
  readonly after: string | undefined;
  /** The hashes of the values that it starts from, a line each. */
  readonly starts: readonly string[];
  readonly notes: string;
  /** The release that ran when it was asked for, where there was one. */
  readonly former: Target | undefined;
  /** The environments that its commit asks for under the same id, its own among them. */
  readonly together: readonly string[];
  /** Where it follows another environment: what people's words are on. */
  readonly follows: { readonly environment: string; readonly plan: string } | undefined;
  /** Where a merge or a rebase has made its commit anew: those that people's words are on. */
  readonly origins?: readonly string[];
}

/** What a request asks for in one environment. */
export interface Wish {
  readonly environment: string;
  /** The stack file that says so. */
  readonly file: string;
  readonly target: Target;
  /** The release that runs there when it is asked for, where there is one. */
  readonly former?: Target | undefined;
  readonly plan: { readonly hash: string; readonly parts: string };
  /** Whether it goes the fast lane. */
  readonly hotfix: boolean;
  /** The previewed operations, a line each. */
  readonly operations: readonly string[];
  /** The newest outcome that counts there, if there is one. */
  readonly after?: string | undefined;
  /** The hashes of the values that the operations start from, a line each, by the request's id. */
  readonly starts?: (id: string) => readonly string[];
}

export interface LedgerOutcome extends Outcome {
  readonly environment: string;
  /** Its tag's name, `outcome/PROJECT/ENV/TIME`. */
  readonly ref: string;
  readonly at: Date;
  /** The tagger's date of its tag. */
  readonly taggedAt: Date;
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
  /** The layout of the state that its program has made. */
  readonly layout: number | undefined;
  /** For reports; believed for no decision. */
  readonly details: OutcomeDetails | undefined;
}

/** What is recorded of a deployment; what is left out is none, and no hotfix. */
export type NewOutcome = Pick<LedgerOutcome, Always> &
  Partial<Omit<LedgerOutcome, Always | "ref" | "at" | "taggedAt" | "who">>;
type Always = "environment" | "result" | "tag" | "digest" | "commit";

/** A hold or a stop as its tag has it. */
export interface LedgerHold extends HoldEntry {
  readonly ref: string;
  readonly commit: string;
  /** The tagger's date of its tag. */
  readonly taggedAt: Date;
}

/** Somebody's word that a release may move on from an environment, or that a hotfix is all right. */
export interface NamedWord {
  readonly environment: string;
  /** Of what: an earned tag and the sign-off's name, or an outcome's time. */
  readonly of: readonly string[];
  /** What was checked out when it was given. */
  readonly commit: string;
  readonly email: string;
  readonly at: Date;
}

const REQUEST = "Baton-Request";
const WAY_BACK = "Baton-Rollback";
const OPERATION = "Baton-Operation";
const OPERATIONS = new RegExp(`^${OPERATION}: (.*)$`, "gm");
const START = "Baton-Start";
const STARTS = new RegExp(`^${START}: (.*)$`, "gm");
const RESULTS: readonly string[] = [
  "deployed",
  "went-back",
  "failed",
  "rolled-back",
  "unapproved",
] satisfies Result[];
/** The folders of tags that are fetched. Triggers are not kept here to be pushed later. */
const FETCHED = [...KINDS, TRIGGERS];

/** How signatures are judged. */
export interface SignatureCheck {
  /** Texts of allowed signers, by each of which a signature must be good. */
  readonly signers: readonly string[];
  /** When the keys must be valid. */
  readonly at: Date;
}

/** Words by the id of the request that they name. */
export type WordBook = ReadonlyMap<string, readonly Entry[]>;

/** Requests, words and outcomes, kept in the git repository of the Pulumi project. */
export class Ledger {
  readonly git: Git;
  private readonly entries: Entries;
  private remoteName: Promise<string | undefined> | undefined;
  private branchName: Promise<string | undefined> | undefined;
  private personEmail: string | undefined;
  private isChecked = false;
  private isComplete = false;
  private readonly places = new Map<string, Promise<string>>();
  private readonly shown = new Map<string, Promise<string | undefined>>();

  constructor(private readonly project: Pick<Project, "folder" | "name" | "stackFile">) {
    this.git = new Git(project.folder);
    this.entries = new Entries(this.git, project.name);
  }

  /** @throws Refusal when the folder is in no repository, or nobody has committed to it. */
  async check(): Promise<void> {
    this.isChecked ||= await this.isInGit();
    if (this.isChecked) return;
    throw new Refusal({
      where: this.project.folder,
      property: "its git repository",
      value: "missing or empty",
      expected: "a repository with at least one commit, as git is the ledger",
      fix: "Commit the project first",
    });
  }

  /**
   * Whether the folder is in a repository that has a commit.
   * @throws Refusal with git's own words where git may not or cannot read it.
   */
  async isInGit(): Promise<boolean> {
    const question = ["rev-parse", "--verify", "--quiet", "HEAD"];
    if ((await this.git.try(...question)) !== undefined) return true;
    const said = await this.git.refusal(...question);
    if (said === undefined || /^fatal: not a git repository/m.test(said)) return false;
    throw new Refusal({
      where: this.project.folder,
      property: "its git repository",
      value: `not readable (${oneLine(said)})`,
      expected: "a repository that git reads, as git is the ledger",
      fix: "Settle what git says, and run the same command again",
    });
  }

  /** The email address that git gives the person at work. */
  async person(): Promise<string> {
    if (this.personEmail !== undefined) return this.personEmail;
    const identity = await this.git.try("var", "GIT_COMMITTER_IDENT");
    this.personEmail = /<([^>]+)>/.exec(identity ?? "")?.[1];
    if (this.personEmail !== undefined) return this.personEmail;
    await this.isInGit();
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
    this.isComplete ||= !(await this.isShallow());
    const unshallow = !this.isComplete;
    const said = await this.git.fetch(remote, [branches, ...tags], { unshallow });
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
    const tags = KINDS.map((folder) => `refs/tags/${folder}/*`);
    const ahead = await this.isAhead(remote);
    if (ahead && branch !== undefined) {
      const said = await this.git.push(remote, [`HEAD:refs/heads/${branch}`, ...tags]);
      if (said === undefined) return undefined;
      // Some remotes take nothing at all where they do not take the branch.
      await this.git.push(remote, tags);
      return toldBy(`${remote}/${branch}`, said);
    }
    const said = await this.git.push(remote, tags);
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
    // The later one in history is the later request, in spite of the clock.
    const tips =
      there === undefined || behind === "0" ? ["HEAD"] : ahead === "0" ? [there] : ["HEAD", there];
    return this.latestRequest(environment, tips);
  }

  /** The latest request for an environment in a commit's history; none of a commit that is not here. */
  async requestAt(environment: string, commit: string): Promise<Request | undefined> {
    return this.latestRequest(environment, [commit]);
  }

  private async latestRequest(
    environment: string,
    tips: readonly string[],
  ): Promise<Request | undefined> {
    const grep = ["--no-merges", `--grep=^${REQUEST}: ${environment}$`];
    // The latest request of a repository with several projects is seldom far from the latest of each.
    for (const limit of ["--max-count=10", "--max-count=-1"]) {
      const [made] = await this.readRequests(environment, [limit, ...grep, ...tips]);
      if (made !== undefined) return this.withOrigins(made);
    }
    return undefined;
  }

  /**
   * The requests for an environment that commits hold.
   * @param commits ids of commits that are here
   */
  async requestsOf(environment: string, commits: readonly string[]): Promise<Request[]> {
    if (commits.length === 0) return [];
    const input = [...new Set(commits)].join("\n");
    return this.readRequests(environment, ["--no-walk=unsorted", "--stdin"], input);
  }

  /** The requests for an environment in a history, the newest first. */
  async requestsIn(environment: string, tips: readonly string[]): Promise<Request[]> {
    const grep = ["--no-merges", `--grep=^${REQUEST}: ${environment}$`];
    return this.readRequests(environment, [...grep, ...tips]);
  }

  /**
   * A request together with the same request on other commits that people's words are on, as a merge or
   * a rebase leaves them.
   */
  async withOrigins(made: Request, book?: WordBook): Promise<Request> {
    const entries = book?.get(made.id) ?? (await this.wordEntries(made));
    const elsewhere = entries
      .map(({ commit }) => commit)
      .filter((commit) => commit !== made.commit);
    const origins = (await this.requestsOf(made.environment, elsewhere)).filter((one) =>
      isDeepStrictEqual(saidBy(one), saidBy(made)),
    );
    if (origins.length === 0) return made;
    const all = [made, ...origins];
    return {
      ...made,
      // A commit made anew by another person, or later, changes neither who asked nor when.
      requesters: [...new Set(all.flatMap(({ requesters }) => requesters))],
      at: new Date(Math.min(...all.map(({ at }) => at.getTime()))),
      origins: origins.map(({ commit }) => commit),
    };
  }

  /** The requests for an environment in what `git log` lists, in its order. */
  private async readRequests(
    environment: string,
    which: readonly string[],
    input?: string,
  ): Promise<Request[]> {
    const format = "--format=%x00%H%x00%ae%x00%ce%x00%cI%x00%B";
    const args = ["log", "--no-show-signature", format, ...which];
    const log = input === undefined ? await this.git.try(...args) : await this.git.run(args, input);
    const fields = (log ?? "").split("\0").slice(1);
    const requests: Request[] = [];
    const unnamed: string[] = [];
    for (let index = 0; index + 4 < fields.length; index += 5) {
      const [commit = "", author = "", committer = "", time = "", message = ""] = fields.slice(
        index,
        index + 5,
      );
      const wishes = wishesOf(message);
      const own = wishes.find((wish) => {
        const { [REQUEST]: name, [PROJECT]: project = this.project.name } = wish.trailers;
        return name === environment && project === this.project.name;
      });
      if (own === undefined) continue;
      const { trailers } = own;
      if (trailers[PROJECT] === undefined) unnamed.push(commit);
      const same = wishes.filter((wish) => wish.trailers["Baton-Id"] === trailers["Baton-Id"]);
      const [lead] = same;
      const led = lead?.trailers[REQUEST] ?? environment;
      requests.push({
        environment,
        id: trailers["Baton-Id"] ?? commit,
        commit,
        at: new Date(time),
        plan: trailers["Baton-Plan"] ?? "",
        parts: parseParts(trailers["Baton-Parts"] ?? ""),
        tag: trailers["Baton-Tag"] ?? "",
        digest: trailers["Baton-Digest"] ?? "",
        version: trailers["Baton-Version"],
        former: parseTarget(trailers["Baton-Former"]),
        hotfix: trailers["Baton-Hotfix"] !== undefined,
        requesters: [...new Set([author, committer])],
        operations: [...own.text.matchAll(OPERATIONS)].map(([, line = ""]) => line),
        after: trailers["Baton-After"],
        starts: [...own.text.matchAll(STARTS)].map(([, line = ""]) => line),
        notes: notesOf(message),
        together: same.flatMap((wish) => wish.trailers[REQUEST] ?? []),
        follows:
          led === environment
            ? undefined
            : { environment: led, plan: lead?.trailers["Baton-Plan"] ?? "" },
      });
    }
    if (unnamed.length === 0) return requests;
    const own = await this.changesOf(environment, unnamed);
    return requests.filter(({ commit }) => !unnamed.includes(commit) || own.has(commit));
  }

  /**
   * Which of some commits are about this project's environment: commits that changed its stack file,
   * or commits that changed no stack file of that name where no other project has one. For entries
   * that were written before entries named their project.
   */
  private async changesOf(
    environment: string,
    commits: readonly string[],
  ): Promise<ReadonlySet<string>> {
    const file = this.project.stackFile(environment);
    const path = ((await this.git.run(["rev-parse", "--show-prefix"])) + file).trim();
    const anywhere = `:(top,glob)**/${file}`;
    const log = await this.git.run(
      [
        ...["log", "--no-walk=unsorted", "--stdin", "--format=%x00%H", "--name-only"],
        ...["--no-show-signature", "--no-renames", "--diff-merges=first-parent"],
      ],
      commits.join("\n"),
    );
    const others = await this.git.run(["ls-files", "-z", "--full-name", "--", anywhere]);
    const isAlone = others.split("\0").every((name) => name === "" || name === path);
    const own = log
      .split("\0")
      .slice(1)
      .flatMap((text) => {
        const [commit = "", ...lines] = text.split("\n");
        const names = lines.filter((name) => name === file || name.endsWith(`/${file}`));
        return names.includes(path) || (names.length === 0 && isAlone) ? [commit] : [];
      });
    return new Set(own);
  }

  /** Whether a commit is part of what is checked out, or of another commit's history. */
  async isHere(commit: string, history = "HEAD"): Promise<boolean> {
    return (await this.git.try("merge-base", "--is-ancestor", commit, history)) !== undefined;
  }

  /**
   * The commits whose history is reviewed: the protected branches at the remote, and what is checked
   * out where that is one of them. Without a remote, or without such a branch there, what is checked
   * out.
   * @param patterns names of branches, as `protected` of `pipelines/flow.yaml` has them
   */
  async reviewedTips(patterns: readonly string[]): Promise<string[]> {
    const remote = await this.remote();
    if (remote === undefined) return ["HEAD"];
    const isProtected = (branch: string) =>
      patterns.some((pattern) => matches(pattern, branch) !== undefined);
    const format = "--format=%(refname:strip=3)";
    const list = await this.git.run(["for-each-ref", format, `refs/remotes/${remote}/`]);
    const there = list.split("\n").filter((branch) => branch !== "" && isProtected(branch));
    if (there.length === 0) return ["HEAD"];
    const branch = await this.branch();
    const here = branch !== undefined && isProtected(branch) ? ["HEAD"] : [];
    return [...there.map((name) => `refs/remotes/${remote}/${name}`), ...here];
  }

  /** The time that it is at least: the clock's, or the date of the commit that is checked out. */
  async presentTime(now: Date): Promise<Date> {
    const date = await this.git.run(["log", "-1", "--no-show-signature", "--format=%cI", "HEAD"]);
    return new Date(Math.max(now.getTime(), new Date(date).getTime()));
  }

  /** The newest reviewed commit, for entries that are about no request. */
  private async reviewedHead(): Promise<string> {
    const [tip = "HEAD"] = await this.reviewedTips([PROTECTED_BRANCH]);
    return this.git.run(["rev-parse", tip]);
  }

  /** The places of all commits in a history, the newest commit first. */
  async placesIn(tips: readonly string[]): Promise<ReadonlyMap<string, number>> {
    const ids = await this.git.run(["rev-parse", ...tips]);
    const known = this.places.get(ids) ?? this.git.run(["rev-list", "--topo-order", ...tips]);
    this.places.set(ids, known);
    return new Map((await known).split("\n").map((commit, place) => [commit, place]));
  }

  /**
   * Commits stack files as a request.
   * @param wishes the environment that people's words are about, and the environments that follow it
   * @param author who asks, as git writes it; the committer unless given
   */
  async ask(
    wishes: readonly [Wish, ...Wish[]],
    { notes, author }: { readonly notes: string; readonly author?: string | undefined },
  ): Promise<void> {
    const [{ target }] = wishes;
    const id = randomUUID();
    // A line of the notes must not pass for a trailer.
    const text = notes.trim().replace(/^(?=Baton-)/gm, " ");
    const names = wishes.map((wish) => wish.environment).join(" and ");
    const subject = `Request ${target.tag} for ${names}`;
    const paragraphs = [subject, ...(text === "" ? [] : [text])];
    const message = [
      ...paragraphs,
      ...wishes.map((wish) => formatWish(this.project.name, wish, id)),
    ].join("\n\n");
    const files = wishes.map((wish) => wish.file);
    await this.git.commit(files, message, author);
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
    const grep = [
      "--all-match",
      `--grep=^${WAY_BACK}: ${environment}$`,
      `--grep=^${PROJECT}: ${this.project.name}$`,
    ];
    const done = await this.git.run(["log", "-1", "--format=%H", ...grep, "HEAD", `^${since}`]);
    const differs = await this.git.run(["status", "--porcelain", "--", file]);
    if (done !== "" && differs === "") return;
    const trailers = formatTrailers({
      [WAY_BACK]: environment,
      [PROJECT]: this.project.name,
      "Baton-Tag": to.tag,
      "Baton-Digest": to.digest,
      "Baton-Version": to.version,
    });
    const subject = `Roll ${environment} back from ${left} to ${to.tag}`;
    await this.git.commit([file], `${subject}\n\n${trailers}`);
  }

  /**
   * The words that people said of this very request. A word on another request for the same plan does
   * not count.
   * @param check how signatures are judged; without it no signature is looked at
   * @param book the words on all requests of its environment, where they have been read before
   */
  async words(request: Request, check?: SignatureCheck, book?: WordBook): Promise<Word[]> {
    const { plan } = wordsOn(request);
    const entries = book?.get(request.id) ?? (await this.wordEntries(request));
    const words = entries
      .filter((entry) => isWordOn(entry, request, plan))
      .map(async (entry): Promise<Word> => {
        const { ref, email, at, message } = entry;
        return {
          email,
          kind: ref.startsWith("approve/") ? "approve" : "reject",
          reason: parseTrailers(message)["Baton-Reason"],
          at,
          signature:
            check === undefined ? "none" : await this.verify(entry, check.signers, check.at),
        };
      });
    return Promise.all(words);
  }

  /** The words on all requests that stand under the words for one environment. */
  async wordBook(environment: string): Promise<WordBook> {
    const book = new Map<string, Entry[]>();
    for (const entry of await this.entries.list(["approve", "reject"], environment)) {
      const id = parseTrailers(entry.message)["Baton-Id"] ?? "";
      const known = book.get(id);
      if (known === undefined) book.set(id, [entry]);
      else known.push(entry);
    }
    return book;
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
    const entries = (await this.wordEntries(request)).filter((entry) =>
      isWordOn(entry, request, wordsOn(request).plan),
    );
    const former = entries.find(
      ({ ref, email, at, message }) =>
        ref.startsWith(`${kind}/`) &&
        email.toLowerCase() === person &&
        (since === undefined || at > since) &&
        (!signed || SIGNATURE.test(message)),
    );
    if (former !== undefined) return former.ref;
    // A word on a former request for the same plan stays as it is.
    const base = [request.environment, shortHash(request.plan)];
    const taken = (await this.entries.list([kind], ...base)).map(({ ref }) => ref);
    const names = [slug(person), ...taken.map((_, index) => `${slug(person)}.${index + 2}`)];
    const isFree = (name: string) => !taken.includes(this.entries.nameOf(kind, [...base, name]));
    const subject = `${kind} ${request.tag} for ${request.environment}`;
    const trailers = {
      "Baton-Id": request.id,
      "Baton-Plan": request.plan,
      "Baton-Tag": request.tag,
      "Baton-Digest": request.digest,
      "Baton-Reason": reason && oneLine(reason),
    };
    const path = [...base, names.find(isFree) ?? slug(person)];
    return this.entries.add(kind, path, { commit: request.commit, subject, trailers }, { signed });
  }

  /** The names of the tags that have started a run of Pulumi Deployments for a request. */
  async starts({ environment, id }: Request): Promise<string[]> {
    const entries = await this.entries.list([TRIGGERS], environment);
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
    const ref = this.entries.nameOf(TRIGGERS, [environment, stampOf(now)]);
    const message = messageOf(`start ${tag} for ${environment}`, {
      [PROJECT]: this.project.name,
      "Baton-Id": id,
      "Baton-Plan": plan,
      "Baton-Tag": tag,
      "Baton-Digest": digest,
    });
    const tagger = await this.git.run(["var", "GIT_COMMITTER_IDENT"]);
    const head = `object ${commit}\ntype commit\ntag ${ref}\ntagger ${tagger}\n`;
    const object = await this.git.run(["mktag"], `${head}\n${message}`);
    const said = await this.git.push(remote, [`${object}:refs/tags/${ref}`]);
    return said === undefined ? { ref } : toldBy(remote, said);
  }

  /** An environment's deployments, the newest first; of all environments without one. */
  async outcomes(environment?: string): Promise<LedgerOutcome[]> {
    const entries = await this.entries.list(["outcome"], ...[environment ?? []].flat());
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
    const at = await this.nextTime(now);
    return this.entries.add(
      "outcome",
      [environment, stampOf(at)],
      {
        commit,
        subject: `${environment}: ${tag} ${result}`,
        trailers: {
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
          "Baton-Layout": outcome.layout?.toString(),
          "Baton-Who": await this.person(),
          ...detailTrailers(outcome.details ?? {}),
        },
      },
      { at },
    );
  }

  /**
   * The time of a new outcome or hold: after all entries that it may take back or follow, so that a
   * clock that was set back by less than people's clocks may differ changes no order.
   */
  private async nextTime(now: Date): Promise<Date> {
    const [outcomes, holds, present] = await Promise.all([
      this.outcomes(),
      this.holds(),
      this.presentTime(now),
    ]);
    const latest = present.getTime() + STAMPS_DIFFER * 1000;
    const taken = [...outcomes, ...holds]
      .map((entry) => entry.at.getTime() + 1)
      .filter((time) => time <= latest);
    return new Date(taken.reduce((one, other) => Math.max(one, other), now.getTime()));
  }

  /** Who held or stopped what, and who let it go on. */
  async holds(): Promise<LedgerHold[]> {
    return (await this.entries.list(["hold"])).flatMap((entry) => {
      const { ref, path, project, commit, email, at, message } = entry;
      const trailers = parseTrailers(message);
      const kind = (["hold", "unhold", "stop", "resume"] as const).find(
        (action) => action === trailers["Baton-Action"],
      );
      if (kind === undefined) return [];
      return [
        {
          ref,
          kind,
          scope: project === undefined ? ("repository" as const) : ("project" as const),
          digest: trailers["Baton-Digest"],
          tag: trailers["Baton-Tag"],
          reason: trailers["Baton-Reason"] ?? "",
          who: email,
          commit,
          // The ref has milliseconds. Git's own date has seconds.
          at: timeOf(path[0] ?? "") ?? at,
          taggedAt: at,
        },
      ];
    });
  }

  /**
   * Records a hold, a stop, or that it is over.
   * @returns the tag's name.
   */
  async recordHold(
    entry: Pick<HoldEntry, "kind" | "scope" | "digest" | "tag" | "reason">,
    now: Date,
  ): Promise<string> {
    const { kind, scope, digest, tag, reason } = entry;
    const at = await this.nextTime(now);
    const trailers = {
      "Baton-Action": kind,
      "Baton-Tag": tag,
      "Baton-Digest": digest,
      "Baton-Reason": oneLine(reason),
    };
    const subject = `${kind} ${tag ?? "everything"}`;
    const said = { commit: await this.reviewedHead(), subject, trailers };
    const forAllProjects = scope === "repository";
    return this.entries.add("hold", [stampOf(at)], said, { at, forAllProjects });
  }

  /** Sign-offs by their earned tag and name, or reviews by their outcome's time. */
  async namedWords(kind: "sign-off" | "review", environment: string): Promise<NamedWord[]> {
    const entries = await this.entries.list([kind], environment);
    const unnamed = entries.filter(({ project }) => project === undefined);
    const commits = unnamed.map(({ commit }) => commit);
    const own = unnamed.length === 0 ? undefined : await this.changesOf(environment, commits);
    return entries
      .filter(({ project, commit }) => project !== undefined || own?.has(commit) === true)
      .map(({ path, commit, email, at }) => ({
        environment,
        of: path.slice(1, -1),
        commit,
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
    const path = [environment, ...of, slug(await this.person())];
    const ref = this.entries.nameOf(kind, path);
    const known = await this.entries.list([kind], environment, ...of);
    if (known.some((entry) => entry.ref === ref)) return ref;
    const subject = `${kind}: ${[environment, ...of].join(" ")}`;
    return this.entries.add(kind, path, {
      commit: await this.reviewedHead(),
      subject,
      trailers: {},
    });
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

  /**
   * Reads files as of many commits at once, so that `show` has them.
   * @param commits ids of commits that are here
   */
  async prepareToShow(commits: readonly string[], files: readonly string[]): Promise<void> {
    const prefix = await this.git.run(["rev-parse", "--show-prefix"]);
    const names = commits.flatMap((commit) => files.map((file) => [commit, file] as const));
    const unknown = names.filter(([commit, file]) => !this.shown.has(`${commit}:./${file}`));
    const objects = unknown.map(([commit, file]) => `${commit}:${prefix}${file}`);
    const texts = await this.git.contents(objects);
    unknown.forEach(([commit, file], index) => {
      this.shown.set(`${commit}:./${file}`, Promise.resolve(texts[index]));
    });
  }

  /**
   * The commits since another that changed any of some files, and are part of what is checked out; also
   * those whose change a merge has left out.
   */
  async changesSince(commit: string, files: readonly string[]): Promise<string[]> {
    const paths = files.map((file) => `./${file}`);
    const list = await this.git.run([
      "rev-list",
      "--full-history",
      `${commit}..HEAD`,
      "--",
      ...paths,
    ]);
    return list.split("\n").filter((id) => id !== "");
  }

  /** A folder for what is this checkout's own business in this project. */
  async privateFolder(): Promise<string> {
    return join(await this.git.privateFolder(), this.project.name);
  }

  /** Whether the history here is cut off. */
  async isShallow(): Promise<boolean> {
    return (await this.git.run(["rev-parse", "--is-shallow-repository"])) === "true";
  }

  async head(): Promise<string> {
    return this.git.run(["rev-parse", "HEAD"]);
  }

  private async remote(): Promise<string | undefined> {
    this.remoteName ??= this.findRemote();
    return this.remoteName;
  }

  private async findRemote(): Promise<string | undefined> {
    // `git remote` lists also a remote that has settings only, such as `remote.origin.prune` for all
    // repositories of a user.
    const urls =
      (await this.git.try("config", "--null", "--get-regexp", "^remote\\..+\\.url$")) ?? "";
    const listed = (await this.git.run(["remote"])).split("\n");
    const remotes = listed.filter((name) => `\0${urls}`.includes(`\0remote.${name}.url\n`));
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

  private async wordEntries(request: Request): Promise<Entry[]> {
    const { environment, plan } = wordsOn(request);
    const entries = await this.entries.list(["approve", "reject"], environment, shortHash(plan));
    return entries.filter(({ message }) => parseTrailers(message)["Baton-Id"] === request.id);
  }

  /** @param signers texts of allowed signers, by each of which the signature must be good */
  private async verify(
    { id, email }: Entry,
    signers: readonly string[],
    at: Date,
  ): Promise<Word["signature"]> {
    const found = signers.map(async (text) => signersOfTag(this.git, id, text, at));
    const people = await Promise.all(found);
    if (people.includes(undefined)) return "none";
    const isHers = (who: string) => who.toLowerCase() === email.toLowerCase();
    return people.every((known) => known?.some(isHers)) ? "good" : "bad";
  }
}

/** What people approve of a request, beside what its plan is of. */
function saidBy(request: Request) {
  const { id, plan, parts, tag, digest, version, hotfix, follows } = request;
  const { operations, after, starts } = request;
  return { id, plan, parts, tag, digest, version, hotfix, follows, operations, after, starts };
}

/** What people approve where they approve a request: the whole commit, by its first plan. */
function wordsOn({ follows, environment, plan }: Request) {
  return follows ?? { environment, plan };
}

/** Whether an entry is a word on a request. A rejection counts on any commit. */
function isWordOn({ ref, commit, message }: Entry, request: Request, plan: string): boolean {
  const trailers = parseTrailers(message);
  const ofIt = trailers["Baton-Id"] === request.id && trailers["Baton-Plan"] === plan;
  // A commit made anew under the same id may say something else, which no person has approved.
  const onIt = commit === request.commit || request.origins?.includes(commit) === true;
  return ofIt && (ref.startsWith("reject/") || onIt);
}

/** What the message of a request says of one environment, after a line of its own. */
function formatWish(project: string, wish: Wish, id: string): string {
  const { environment, target, former, plan, hotfix, operations, after = "none", starts } = wish;
  const trailers = formatTrailers({
    [REQUEST]: environment,
    [PROJECT]: project,
    "Baton-Id": id,
    "Baton-Tag": target.tag,
    "Baton-Digest": target.digest,
    "Baton-Version": target.version,
    "Baton-Former": former && formatTarget(former),
    "Baton-Hotfix": hotfix ? "yes" : undefined,
    "Baton-Plan": plan.hash,
    "Baton-Parts": plan.parts,
    "Baton-After": after,
  });
  const lines = [
    ...operations.map((line) => `${OPERATION}: ${line}\n`),
    ...(starts?.(id) ?? []).map((line) => `${START}: ${line}\n`),
  ];
  return trailers + lines.join("");
}

/** The paragraphs of a request's message that are about one environment each, in their order. */
function wishesOf(message: string): { readonly text: string; readonly trailers: Trailers }[] {
  const texts = message.split(new RegExp(`^(?=${REQUEST}: )`, "m")).slice(1);
  return texts.map((text) => ({ text, trailers: parseTrailers(text) }));
}

/** What one says is read when somebody asks: of ten thousand, most are only counted. */
function outcomeOf({ ref, path, commit, at, message }: Entry): LedgerOutcome | undefined {
  const result = /^Baton-Result: (.*)$/m.exec(message)?.[1]?.trim() ?? "";
  const [environment = "", stamp = ""] = path;
  if (!RESULTS.includes(result)) return undefined;
  let read: Trailers | undefined;
  const said = (name: string) => (read ??= parseTrailers(message))[name];
  return {
    ref,
    environment,
    commit,
    at: timeOf(stamp) ?? at,
    taggedAt: at,
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
    get layout() {
      const layout = said("Baton-Layout");
      return layout === undefined ? undefined : Number(layout);
    },
    get details() {
      return parseDetails(message);
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

/** One line: `TAG DIGEST`, and the version if there is one. */
function formatTarget({ tag, digest, version }: Target): string {
  return [tag, digest, version ?? ""].join(" ").trim();
}

function parseTarget(line: string | undefined): Target | undefined {
  const [tag, digest, version] = line?.split(" ") ?? [];
  return tag === undefined || digest === undefined ? undefined : { tag, digest, version };
}

/** What stands between the subject and the trailers. */
function notesOf(message: string): string {
  const lines = message.split("\n").slice(1);
  return lines
    .filter((line) => !/^Baton-[A-Za-z-]+: /.test(line))
    .join("\n")
    .trim();
}
