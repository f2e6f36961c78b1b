import { execa, ExecaError } from "execa";
import { slug, type Word } from "../release/approval";
import { parseParts, shortHash, type Plan } from "../release/plan";
import type { Outcome, Result, Target } from "../release/way-back";
import { Refusal } from "./refusal";

/** Somebody's wish to deploy a plan: a commit of the stack file. */
export interface Request {
  readonly environment: string;
  readonly commit: string;
  readonly plan: string;
  readonly parts: Plan["parts"];
  readonly tag: string;
  readonly digest: string;
  readonly version: string | undefined;
  /** Email addresses of author and committer. */
  readonly requesters: readonly string[];
}

export interface LedgerOutcome extends Outcome {
  /** Its tag's name, `outcome/ENV/TIME`. */
  readonly ref: string;
}

/** Lines `Name: value` at the end of a message. */
export type Trailers = Readonly<Record<string, string | undefined>>;

const REQUEST = "Baton-Request";
const RESULTS: readonly string[] = [
  "deployed",
  "went-back",
  "failed",
  "rolled-back",
] satisfies Result[];

/** Requests, approvals and outcomes, kept in the git repository of the Pulumi project. */
export class Ledger {
  constructor(private readonly folder: string) {}

  /** @throws Refusal when the folder is in no repository, or nobody has committed to it. */
  async check(): Promise<void> {
    const run = await this.try("rev-parse", "--verify", "--quiet", "HEAD");
    if (run !== undefined) return;
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
    const identity = await this.try("var", "GIT_COMMITTER_IDENT");
    const email = /<([^>]+)>/.exec(identity ?? "")?.[1];
    if (email !== undefined) return email;
    throw new Refusal({
      where: "git",
      property: "user.email",
      value: "not set",
      expected: "your email address",
      fix: "Set it with `git config user.email`",
    });
  }

  /** The latest request for an environment. */
  async request(environment: string): Promise<Request | undefined> {
    const grep = `^${REQUEST}: ${environment}$`;
    const format = "--format=%H%x00%ae%x00%ce%x00%B";
    const log = await this.git("log", "-1", "--no-show-signature", `--grep=${grep}`, format);
    const [commit, author, committer, message] = log.split("\0");
    if (!commit || author === undefined || committer === undefined || message === undefined) {
      return undefined;
    }
    const trailers = parseTrailers(message);
    return {
      environment,
      commit,
      plan: trailers["Baton-Plan"] ?? "",
      parts: parseParts(trailers["Baton-Parts"] ?? ""),
      tag: trailers["Baton-Tag"] ?? "",
      digest: trailers["Baton-Digest"] ?? "",
      version: trailers["Baton-Version"],
      requesters: [...new Set([author, committer])],
    };
  }

  /** Commits one file as it is, and nothing else; also when it has not changed. */
  async commit(file: string, subject: string, trailers: Trailers): Promise<void> {
    await this.git("add", "--", file);
    const message = `${subject}\n\n${formatTrailers(trailers)}`;
    await this.run(
      ["commit", "--quiet", "--allow-empty", "-F", "-", "--only", "--", file],
      message,
    );
  }

  /** What people said of this very request; of another with the same plan it does not count. */
  async words(request: Request): Promise<Word[]> {
    const plan = shortHash(request.plan);
    const kinds = ["approve", "reject"] as const;
    const words = kinds.map(async (kind) => {
      const tags = await this.tags(`${kind}/${request.environment}/${plan}`);
      return tags
        .filter(({ commit }) => commit === request.commit)
        .map(({ email, message }) => ({
          email,
          kind,
          reason: parseTrailers(message)["Baton-Reason"],
        }));
    });
    return (await Promise.all(words)).flat();
  }

  /**
   * Records a person's word as a tag on the request's commit.
   * @returns the tag's name; the former one's where they have said so already.
   */
  async say(request: Request, kind: Word["kind"], reason?: string): Promise<string> {
    const person = await this.person();
    const base = `${kind}/${request.environment}/${shortHash(request.plan)}`;
    const tags = await this.tags(base);
    const former = tags.find(
      ({ commit, email }) =>
        commit === request.commit && email.toLowerCase() === person.toLowerCase(),
    );
    if (former !== undefined) return former.ref;
    // The same plan may have been requested before: that word stays as it is.
    const taken = tags.map(({ ref }) => ref);
    const names = [slug(person), ...taken.map((_, index) => `${slug(person)}.${index + 2}`)];
    const ref = names.map((name) => `${base}/${name}`).find((name) => !taken.includes(name));
    await this.tag(
      ref ?? base,
      request.commit,
      `${kind} ${request.tag} for ${request.environment}`,
      {
        "Baton-Plan": request.plan,
        "Baton-Tag": request.tag,
        "Baton-Digest": request.digest,
        "Baton-Reason": reason?.replace(/\s+/g, " "),
      },
    );
    return ref ?? base;
  }

  /** An environment's deployments, the newest first. */
  async outcomes(environment: string): Promise<LedgerOutcome[]> {
    const tags = await this.tags(`outcome/${environment}`);
    return tags.reverse().flatMap(({ ref, commit, message }) => {
      const trailers = parseTrailers(message);
      const result = trailers["Baton-Result"] ?? "";
      if (!RESULTS.includes(result)) return [];
      return [
        {
          ref,
          commit,
          result: result as Result,
          tag: trailers["Baton-Tag"] ?? "",
          digest: trailers["Baton-Digest"] ?? "",
          version: trailers["Baton-Version"],
          former: parseTarget(trailers["Baton-Former"]),
        },
      ];
    });
  }

  /** Records how a deployment of a commit ended. */
  async record(
    environment: string,
    outcome: Outcome,
    details: Trailers,
    time = new Date(),
  ): Promise<string> {
    const { result, tag, digest, version, commit, former } = outcome;
    const ref = `outcome/${environment}/${time.toISOString().replace(/[-:]/g, "")}`;
    await this.tag(ref, commit, `${environment}: ${tag} ${result}`, {
      "Baton-Result": result,
      "Baton-Tag": tag,
      "Baton-Digest": digest,
      "Baton-Version": version,
      "Baton-Former": former && formatTarget(former),
      ...details,
      "Baton-Who": await this.person(),
    });
    return ref;
  }

  /** A file of the project as of a commit. */
  async show(commit: string, file: string): Promise<string | undefined> {
    return this.try("show", `${commit}:./${file}`);
  }

  async head(): Promise<string> {
    return this.git("rev-parse", "HEAD");
  }

  private async tag(
    name: string,
    commit: string,
    subject: string,
    trailers: Trailers,
  ): Promise<void> {
    const message = `${subject}\n\n${formatTrailers(trailers)}`;
    await this.run(["tag", "-a", "-F", "-", name, commit], message);
  }

  /** The annotated tags below a folder of refs, by name; others say nothing. */
  private async tags(
    folder: string,
  ): Promise<{ ref: string; commit: string; email: string; message: string }[]> {
    const fields = ["objecttype", "refname:strip=2", "*objectname", "taggeremail:trim", "contents"];
    const format = `${fields.map((field) => `%(${field})`).join("%1f")}%1e`;
    const list = await this.git("for-each-ref", `--format=${format}`, `refs/tags/${folder}/`);
    return list.split("\x1e").flatMap((entry) => {
      const [type, ref, commit, email, message] = entry.replace(/^\n/, "").split("\x1f");
      return type === "tag" && ref && commit && email !== undefined && message !== undefined
        ? [{ ref, commit, email, message }]
        : [];
    });
  }

  private async git(...args: string[]): Promise<string> {
    return this.run(args);
  }

  /** Nothing where git refuses. */
  private async try(...args: string[]): Promise<string | undefined> {
    const run = await execa("git", args, {
      cwd: this.folder,
      reject: false,
      stripFinalNewline: false,
    });
    return run.failed ? undefined : run.stdout;
  }

  private async run(args: string[], input?: string): Promise<string> {
    try {
      const options = { cwd: this.folder, ...(input === undefined ? {} : { input }) };
      return (await execa("git", args, options)).stdout;
    } catch (error) {
      if (!(error instanceof ExecaError)) throw error;
      const said = (String(error.stderr) || error.shortMessage).trim().replace(/\.$/, "");
      throw new Error(`git ${args[0] ?? ""}: ${said}. Settle it, and run the same command again.`);
    }
  }
}

/** One line: `TAG DIGEST`, and the version if there is one. */
function formatTarget({ tag, digest, version }: Target): string {
  return [tag, digest, version ?? ""].join(" ").trim();
}

function parseTarget(line: string | undefined): Target | undefined {
  const [tag, digest, version] = line?.split(" ") ?? [];
  return tag === undefined || digest === undefined ? undefined : { tag, digest, version };
}

function formatTrailers(trailers: Trailers): string {
  const lines = Object.entries(trailers).filter(([, value]) => value !== undefined);
  return lines.map(([name, value]) => `${name}: ${value ?? ""}\n`).join("");
}

/** The trailers of the tool's own messages; the first of a name counts. */
export function parseTrailers(message: string): Trailers {
  const lines = [...message.matchAll(/^(Baton-[A-Za-z]+): (.*)$/gm)].reverse();
  return Object.fromEntries(lines.map(([, name = "", value = ""]) => [name, value.trim()]));
}
