import type { Git } from "../ledger/git";
import { parseTrailers } from "../ledger/entries";
import { Refusal } from "../ledger/refusal";
import type { Ancestry, Ref } from "../release/flow";
import type { Problem } from "../release/problem";

/** The history that an application's images were built from. */
export class Revisions {
  /**
   * @param git in the application's repository
   * @param application the folder whose content is the application
   */
  constructor(
    private readonly git: Git,
    private readonly application: string,
  ) {}

  /**
   * The commit that was pushed: what is checked out, or what a tag names.
   * @throws Refusal where it is not at hand, or its history is not whole.
   */
  async commitOf(ref: Ref): Promise<string> {
    const shallow = await this.git.run(["rev-parse", "--is-shallow-repository"]);
    if (shallow === "true") {
      throw refusal(ref, {
        property: "the checkout",
        value: "without its whole history",
        expected: "all commits and tags",
        fix: "Check out with `fetch-depth: 0`, or run `git fetch --unshallow --tags`",
      });
    }
    const name = ref.kind === "branch" ? "HEAD" : `refs/tags/${ref.name}`;
    const commit = await this.git.try("rev-parse", "--verify", "--quiet", `${name}^{commit}`);
    if (commit !== undefined) return commit.trim();
    throw refusal(ref, {
      property: "the tag",
      value: "missing here",
      expected: "a tag that was pushed",
      fix: "Run `git fetch --tags`, or correct the name",
    });
  }

  /** @throws Refusal unless a branch has the tagged commit, at the remote where there is one. */
  async checkOn(ref: Ref, commit: string, branch: string): Promise<void> {
    const refs = [`refs/remotes/origin/${branch}`, `refs/heads/${branch}`];
    const known = await Promise.all(
      refs.map((name) => this.git.try("rev-parse", "--verify", "--quiet", name)),
    );
    const tip = refs.find((_, index) => known[index] !== undefined);
    if (tip !== undefined && (await this.isIn(commit, tip))) return;
    throw refusal(ref, {
      property: "the tagged commit",
      value: `${commit.slice(0, 9)}, which is not on ${branch}`,
      expected: `a commit of ${branch}`,
      fix: `Merge it into ${branch} first, delete the tag, and tag the merge`,
    });
  }

  /** How a revision that an image's label names stands to a commit; `undefined` if git has none. */
  async ancestry(revision: string, commit: string): Promise<Ancestry | undefined> {
    if (!(await this.has(revision))) return undefined;
    const [contained, one, other] = await Promise.all([
      this.isIn(revision, commit),
      this.treeOf(revision),
      this.treeOf(commit),
    ]);
    return { contained, sameApplication: one !== undefined && one === other };
  }

  /** Whether a revision is a commit of the tool's own, for a request or a way back. */
  async isOwn(revision: string, environment: string): Promise<boolean> {
    if (!(await this.has(revision))) return false;
    const message = await this.git.run([
      "log",
      "-1",
      "--no-show-signature",
      "--format=%B",
      revision,
    ]);
    const trailers = parseTrailers(message);
    return [trailers["Baton-Request"], trailers["Baton-Rollback"]].includes(environment);
  }

  /**
   * Whoever gave the tag, or has committed what was pushed: `Ann <ann@example.com>`.
   * @throws Refusal where people have to approve what others ask for, and the tag does not say who.
   */
  async whoAsks(ref: Ref, commit: string, mustBeKnown: boolean): Promise<string> {
    if (ref.kind === "tag") {
      const format = "--format=%(taggername) %(taggeremail)";
      const tagger = await this.git.run(["for-each-ref", format, `refs/tags/${ref.name}`]);
      if (tagger.trim() !== "") return tagger.trim();
      if (mustBeKnown) {
        throw refusal(ref, {
          property: "the tag",
          value: "one that does not say who gave it",
          expected: "an annotated tag, as nobody approves their own request",
          fix: `Delete it, and run \`git tag -a ${ref.name}\``,
        });
      }
    }
    return this.git.run(["log", "-1", "--no-show-signature", "--format=%an <%ae>", commit]);
  }

  /** A label is whatever the build wrote there; to git it must be a commit, and no option. */
  private async has(revision: string): Promise<boolean> {
    const isId = /^[0-9a-f]{7,64}$/i.test(revision);
    return isId && (await this.git.try("cat-file", "-e", `${revision}^{commit}`)) !== undefined;
  }

  private async isIn(commit: string, history: string): Promise<boolean> {
    return (await this.git.try("merge-base", "--is-ancestor", commit, history)) !== undefined;
  }

  private async treeOf(commit: string): Promise<string | undefined> {
    const folder = this.application.replace(/^\.\/|\/$/g, "");
    const name = folder === "." || folder === "" ? `${commit}^{tree}` : `${commit}:${folder}`;
    return this.git.try("rev-parse", "--verify", "--quiet", name);
  }
}

export function refusal(ref: Ref, problem: Omit<Problem, "where">): Refusal {
  return new Refusal({ where: ref.name, ...problem });
}
