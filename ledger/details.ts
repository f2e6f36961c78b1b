import { oneLine, parseTrailers, type NewTrailers } from "./entries";

/**
 * Details of a deployment that reports ask for later. No decision rests on them: they are as the
 * deploying machine found them out, and each is missing where it could not.
 */
export interface OutcomeDetails {
  /** The image's label `org.opencontainers.image.revision`. */
  readonly revision?: string | undefined;
  /** The commits since the former release's revision. */
  readonly commits?: ReleasedCommits | undefined;
  /** The suites that the release has passed. */
  readonly suites?: readonly SuiteTime[] | undefined;
  /** Seconds from the request until a term of the gate passed, by the term's name. */
  readonly waited?: Readonly<Record<string, number>> | undefined;
}

export interface ReleasedCommits {
  /** How many come, also beyond those that are listed. */
  readonly total: number;
  /** The newest of them, at most MOST_COMMITS. */
  readonly newest: readonly ReleasedCommit[];
}

export interface ReleasedCommit {
  readonly id: string;
  /** The committer's time, in ISO 8601. */
  readonly at: string;
}

export interface SuiteTime {
  readonly name: string;
  readonly seconds: number;
}

/** How many commits an outcome lists. */
export const MOST_COMMITS = 100;
/** The length of a label that is kept. */
const LONGEST_REVISION = 100;

const COMMITS = /^Baton-Commit: ([0-9a-f]{40,64}) (\S+)$/gm;
const SUITES = /^Baton-Suite: (.+) (\d+(?:\.\d+)?)$/gm;
const WAITS = /^Baton-Waited: (\S+) (\d+(?:\.\d+)?)$/gm;

/** Details as trailers of an outcome. */
export function detailTrailers({
  revision,
  commits,
  suites = [],
  waited = {},
}: OutcomeDetails): NewTrailers {
  const label = oneLine(revision ?? "");
  return {
    "Baton-Revision": label === "" || label.length > LONGEST_REVISION ? undefined : label,
    "Baton-Commits": commits?.total.toString(),
    "Baton-Commit": commits?.newest.slice(0, MOST_COMMITS).map(({ id, at }) => `${id} ${at}`),
    "Baton-Suite": suites.map(({ name, seconds }) => `${oneLine(name)} ${seconds}`),
    "Baton-Waited": Object.entries(waited).map(([term, seconds]) => `${term} ${seconds}`),
  };
}

/** The details in an outcome's message; undefined where it has none. */
export function parseDetails(message: string): OutcomeDetails | undefined {
  const { "Baton-Revision": revision, "Baton-Commits": total = "" } = parseTrailers(message);
  const newest = [...message.matchAll(COMMITS)].map(([, id = "", at = ""]) => ({ id, at }));
  const suites = [...message.matchAll(SUITES)].map(([, name = "", seconds]) => ({
    name,
    seconds: Number(seconds),
  }));
  const waits = [...message.matchAll(WAITS)].map(([, term = "", seconds]) => [
    term,
    Number(seconds),
  ]);
  const details = {
    ...(revision !== undefined && { revision }),
    ...(/^\d+$/.test(total) && { commits: { total: Number(total), newest } }),
    ...(suites.length > 0 && { suites }),
    ...(waits.length > 0 && { waited: Object.fromEntries(waits) as Record<string, number> }),
  };
  return Object.keys(details).length === 0 ? undefined : details;
}
