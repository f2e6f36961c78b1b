import { Git } from "../ledger/git";
import { oneLine } from "../ledger/entries";
import { REVISION } from "../registry/images";
import type { Commits } from "../release/change-card";

/** As many as people read. */
const LISTED = 20;

type Labels = Readonly<Record<string, string>>;

/**
 * The commits that come between two images, by their labels and the git history in a folder of the
 * application's repository. Never throws: where they cannot be known, it says why.
 * @param former of the image that runs; `undefined` when none does
 */
export async function commitsBetween(
  folder: string,
  former: Labels | undefined,
  next: Labels,
): Promise<Commits> {
  const [from, to] = [former?.[REVISION] || undefined, next[REVISION] || undefined];
  const named = { ...(from === undefined ? {} : { from }), ...(to === undefined ? {} : { to }) };
  const unknown = (why: string): Commits => {
    return { ...named, state: "unknown", why, commits: [], behind: 0, total: 0 };
  };
  if (former === undefined) return unknown("nothing ran before");
  if (from === undefined) return unknown(`the image that runs has no label ${REVISION}`);
  if (to === undefined) return unknown(`the image has no label ${REVISION}`);

  const git = new Git(folder);
  const shallow = await git.try("rev-parse", "--is-shallow-repository");
  if (shallow === undefined) {
    const said = (await git.refusal("rev-parse", "--is-shallow-repository")) ?? "";
    const isNone = /^fatal: not a git repository/m.test(said);
    return unknown(`there is no git history at hand${isNone ? "" : ` (${oneLine(said)})`}`);
  }
  if (shallow.trim() === "true") {
    return unknown("the git history at hand is not whole; get it with `git fetch --unshallow`");
  }
  for (const revision of [from, to]) {
    // A label is whatever the build wrote there; to git it must be a commit, and no option.
    const known =
      /^[0-9a-f]{7,64}$/i.test(revision) &&
      (await git.try("cat-file", "-e", `${revision}^{commit}`)) !== undefined;
    if (!known) return unknown(`${revision.slice(0, 40)} is not in the git history at hand`);
  }

  const range = `${from}...${to}`;
  const counts = await git.try("rev-list", "--left-right", "--count", range);
  const [behind = 0, total = 0] = (counts ?? "").trim().split("\t").map(Number);
  const format = "--format=%H%x00%aN%x00%s";
  const limit = `--max-count=${LISTED}`;
  const log = await git.try("log", "-z", "--no-show-signature", limit, format, `${from}..${to}`);
  if (counts === undefined || log === undefined) return unknown("git cannot read its history");
  return { ...named, state: "known", commits: parseLog(log), behind, total };
}

/** Three fields a commit; no commit holds the character between them. */
function parseLog(log: string): Commits["commits"] {
  const fields = log.split("\0");
  const commits: Commits["commits"][number][] = [];
  for (let index = 0; index + 2 < fields.length; index += 3) {
    const [id = "", author = "", subject = ""] = fields.slice(index, index + 3);
    commits.push({ id, subject, author });
  }
  return commits;
}
