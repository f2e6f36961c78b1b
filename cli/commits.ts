import { Git } from "../ledger/git";
import { oneLine } from "../ledger/entries";
import { REVISION } from "../registry/images";
import { MOST_COMMITS, type ReleasedCommits } from "../ledger/details";
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
  const range = await rangeBetween(folder, former, next);
  if (range.state === "unknown") return { ...range, commits: [], behind: 0, total: 0 };
  const { git, from, to, behind, total } = range;
  const format = "--format=%H%x00%aN%x00%s";
  const limit = `--max-count=${LISTED}`;
  const log = await git.try("log", "-z", "--no-show-signature", limit, format, `${from}..${to}`);
  if (log !== undefined) {
    return { from, to, state: "known", commits: parseLog(log), behind, total };
  }
  const why = "git cannot read its history";
  return { from, to, state: "unknown", why, commits: [], behind: 0, total: 0 };
}

/**
 * The commits that come between two images, as an outcome records them; undefined where they cannot
 * be known.
 */
export async function releasedCommits(
  folder: string,
  former: Labels | undefined,
  next: Labels,
): Promise<ReleasedCommits | undefined> {
  const range = await rangeBetween(folder, former, next);
  if (range.state === "unknown") return undefined;
  const { git, from, to, total } = range;
  const shown = [`--max-count=${MOST_COMMITS}`, "--format=%H %ct", "--no-show-signature"];
  const log = await git.try("log", ...shown, `${from}..${to}`);
  if (log === undefined) return undefined;
  const lines = log.split("\n").filter((line) => line !== "");
  const newest = lines.flatMap((line) => {
    const [id = "", seconds] = line.split(" ");
    const at = new Date(Number(seconds) * 1000);
    return Number.isNaN(at.getTime()) ? [] : [{ id, at: at.toISOString() }];
  });
  return { total, newest };
}

interface KnownRange {
  readonly state: "known";
  readonly git: Git;
  readonly from: string;
  readonly to: string;
  readonly behind: number;
  readonly total: number;
}

interface UnknownRange {
  readonly state: "unknown";
  readonly why: string;
  readonly from?: string;
  readonly to?: string;
}

/** The revisions of two images in the git history in a folder, and how many commits differ. */
async function rangeBetween(
  folder: string,
  former: Labels | undefined,
  next: Labels,
): Promise<KnownRange | UnknownRange> {
  const [from, to] = [former?.[REVISION] || undefined, next[REVISION] || undefined];
  const named = { ...(from === undefined ? {} : { from }), ...(to === undefined ? {} : { to }) };
  const unknown = (why: string): UnknownRange => ({ ...named, state: "unknown", why });
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

  const counts = await git.try("rev-list", "--left-right", "--count", `${from}...${to}`);
  if (counts === undefined) return unknown("git cannot read its history");
  const [behind = 0, total = 0] = counts.trim().split("\t").map(Number);
  return { state: "known", git, from, to, behind, total };
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
