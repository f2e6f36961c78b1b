import type { Digest } from "./eligibility";

/** What a person said of an image, or of the whole path. */
export interface HoldEntry {
  readonly kind: "hold" | "unhold" | "stop" | "resume";
  /** Whether a stop, or its end, is about one project or about all projects of the repository. */
  readonly scope: "project" | "repository";
  /** Which image, of `hold` and `unhold`. */
  readonly digest?: Digest | undefined;
  /** The tag by which they named it. */
  readonly tag?: string | undefined;
  readonly reason: string;
  readonly who: string;
  readonly at: Date;
}

/** A deployment after which another release runs than was asked for. */
export interface LeftRelease {
  readonly result: "went-back" | "rolled-back";
  readonly environment: string;
  /** What was left. */
  readonly leftTag: string;
  readonly leftDigest: Digest;
  /** What runs now. */
  readonly digest: Digest;
  readonly who: string;
  readonly at: Date;
}

/** Why an image, or the whole path, is not to move. */
export interface Hold {
  /** The tag by which the image was named; none of the whole path. */
  readonly tag?: string | undefined;
  readonly reason: string;
  readonly who: string;
  readonly at: Date;
}

/** Why the whole path is not to move. */
export interface Stop extends Hold {
  readonly scope: HoldEntry["scope"];
}

/** What is held at present; each list the oldest first. */
export interface Holds {
  readonly byDigest: ReadonlyMap<Digest, readonly Hold[]>;
  /** Stops of the whole path. */
  readonly stops: readonly Stop[];
}

/**
 * What holds now. An entry that takes back does so for all that was said before it; at the same
 * instant the hold wins. An image that was left holds itself, as if a person had said so, unless
 * only its settings differed from what runs now.
 * @param entries in any order
 * @param outcomes in any order, of all environments
 */
export function holdsOf(entries: readonly HoldEntry[], outcomes: readonly LeftRelease[]): Holds {
  const left = outcomes
    .filter(({ leftDigest, digest }) => leftDigest !== digest)
    .map(({ result, environment, leftTag, leftDigest, who, at }) => ({
      digest: leftDigest,
      tag: leftTag,
      reason: result === "went-back" ? `it failed in ${environment}` : `${environment} went back`,
      who,
      at,
    }));
  const holds = [...entries.filter(({ kind }) => kind === "hold"), ...left];
  const unholds = entries.filter(({ kind }) => kind === "unhold");
  const digests = new Set(holds.flatMap(({ digest }) => digest ?? []));
  const byDigest = [...digests].sort().map((digest) => {
    const isOfIt = (entry: { digest?: Digest | undefined }) => entry.digest === digest;
    return [digest, standing(holds.filter(isOfIt), unholds.filter(isOfIt))] as const;
  });
  return {
    byDigest: new Map(byDigest.filter(([, active]) => active.length > 0)),
    // `resume` of one project does not take back a stop of the whole repository.
    stops: (["repository", "project"] as const).flatMap((scope) => {
      const own = entries.filter((entry) => entry.scope === scope);
      const resumes = own.filter(({ kind }) => kind === "resume");
      const stops = own.filter(({ kind }) => kind === "stop");
      return standing(stops, resumes).map((stop) => ({ ...stop, scope }));
    }),
  };
}

/** Those that nothing later takes back, the oldest first. */
function standing(said: readonly Hold[], takenBack: readonly { readonly at: Date }[]): Hold[] {
  const last = Math.max(...takenBack.map(({ at }) => at.getTime()));
  return said
    .filter(({ at }) => at.getTime() >= last)
    .map(({ tag, reason, who, at }) => ({ tag, reason, who, at }))
    .sort((a, b) => a.at.getTime() - b.at.getTime() || text(a).localeCompare(text(b)));
}

function text({ tag = "", reason, who }: Hold): string {
  return [who, tag, reason].join(" ");
}
