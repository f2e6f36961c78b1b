import * as assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { commitsBetween } from "../../cli/commits";

const labels = (revision: string) => ({ "org.opencontainers.image.revision": revision });

describe("the commits that a release brings", () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "baton-test-"));
    git("init", "--quiet", "--initial-branch=main");
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  function git(...args: string[]): string {
    const settings = ["-c", "user.name=Ann", "-c", "user.email=ann@example.com"];
    const unsigned = ["-c", "commit.gpgsign=false"];
    const options = { cwd: folder, encoding: "utf8" } as const;
    return execFileSync("git", [...settings, ...unsigned, ...args], options).trim();
  }
  function commit(subject: string): string {
    git("commit", "--quiet", "--allow-empty", "-m", subject);
    return git("rev-parse", "HEAD");
  }
  const between = async (from: string, to: string) =>
    commitsBetween(folder, labels(from), labels(to));

  it("are listed, the newest first", async () => {
    const from = commit("One");
    const ids = [commit("Two"), commit("Three: ü\n\nand more")];
    const to = ids.at(-1) ?? "";
    assert.deepEqual(await between(from, to), {
      from,
      to,
      state: "known",
      commits: [
        { id: ids[1], subject: "Three: ü", author: "Ann" },
        { id: ids[0], subject: "Two", author: "Ann" },
      ],
      behind: 0,
      total: 2,
    });
  });

  it("are listed up to twenty, and counted", async () => {
    const from = commit("One");
    for (let number = 0; number < 21; number++) commit(`More ${number}`);
    const { commits, total } = await between(from.slice(0, 10), git("rev-parse", "HEAD"));
    assert.deepEqual([commits.length, total], [20, 21]);
    assert.equal(commits[0]?.subject, "More 20");
  });

  it("are counted where they are left, on the way back and on another line", async () => {
    const base = commit("One");
    const main = [commit("Two"), commit("Three")].at(-1) ?? "";
    assert.deepEqual(
      { ...(await between(main, base)), from: "", to: "" },
      { from: "", to: "", state: "known", commits: [], behind: 2, total: 0 },
    );
    git("checkout", "--quiet", "-b", "hotfix", base);
    const hotfix = await between(main, commit("Fix"));
    assert.deepEqual([hotfix.behind, hotfix.total], [2, 1]);
    assert.deepEqual(
      hotfix.commits.map(({ subject }) => subject),
      ["Fix"],
    );
  });

  it("are none between an image and itself", async () => {
    const { state, total, behind } = await between(commit("One"), git("rev-parse", "HEAD"));
    assert.deepEqual([state, total, behind], ["known", 0, 0]);
  });

  it("are not known without labels, or without the history they are of", async () => {
    const known = commit("One");
    const why = async (...[former, next]: [object | undefined, object]) => {
      const found = await commitsBetween(folder, former as undefined, next as { x: string });
      assert.equal(found.state, "unknown");
      assert.deepEqual([found.commits, found.total, found.behind], [[], 0, 0]);
      return found.why ?? "";
    };
    assert.match(await why(undefined, labels(known)), /^nothing ran before$/);
    assert.match(await why({}, labels(known)), /^the image that runs has no label org\.open/);
    assert.match(await why(labels(""), labels(known)), /has no label/);
    assert.match(await why(labels(known), {}), /^the image has no label org\.open/);
    const other = "0".repeat(40);
    assert.match(await why(labels(known), labels(other)), /^0{40} is not in the git history/);
    for (const odd of ["--output=x", "HEAD", "main", `${known}-dirty`]) {
      assert.match(await why(labels(odd), labels(known)), /is not in the git history at hand$/);
    }
    const elsewhere = join(folder, "nowhere");
    const { state } = await commitsBetween(elsewhere, labels(known), labels(known));
    assert.equal(state, "unknown");
  });

  it("are not known from a part of the history", async () => {
    const from = commit("One");
    const to = commit("Two");
    const clone = join(folder, "clone");
    git("clone", "--quiet", "--depth=1", `file://${folder}`, clone);
    const { why } = await commitsBetween(clone, labels(from), labels(to));
    assert.match(why ?? "", /not whole; get it with `git fetch --unshallow`/);
  });
});
