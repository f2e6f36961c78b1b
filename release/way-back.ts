import type { Digest } from "./eligibility";

/** How a deployment ended. */
export type Result =
  /** It runs, and has passed its verification. */
  | "deployed"
  /** It did not, and the former release runs again. */
  | "went-back"
  /** It did not, and the environment is left as it is. */
  | "failed"
  /** A person went back to a former release. */
  | "rolled-back"
  /** It runs, deployed without the approvals it needs. */
  | "unapproved";

/** What the ledger says of one deployment. */
export interface Outcome {
  readonly result: Result;
  readonly tag: string;
  readonly digest: Digest;
  readonly version?: string | undefined;
  /** The commit that was deployed. */
  readonly commit: string;
  /** What ran before. */
  readonly former?: Target | undefined;
}

/** What an environment runs by its stack's `release` output. */
export interface Running {
  readonly imageTag: string;
  readonly digest: Digest;
  readonly version?: string | undefined;
  readonly rollbackOf?: string | undefined;
}

export interface Target {
  readonly tag: string;
  readonly digest: Digest;
  readonly version?: string | undefined;
}

export function targetOf({ imageTag, digest, version }: Running): Target {
  return { tag: imageTag, digest, version };
}

/**
 * The release to go back to.
 * @param outcomes of the environment, the newest first
 * @param asked what its stack file asks for
 * @param to the tag a person named
 * @returns `undefined` when the ledger knows of none.
 */
export function wayBack(
  outcomes: readonly Outcome[],
  running: Running,
  asked: { readonly imageTag?: string | undefined; readonly rollbackOf?: string | undefined },
  to?: string,
): Target | undefined {
  const current = targetOf(running);
  const deployed = outcomes
    .filter(({ result }) => result === "deployed")
    .map(({ tag, digest, version, former }) => ({ target: { tag, digest, version }, former }));
  if (to !== undefined) {
    const known = [
      current,
      ...deployed.map(({ target }) => target),
      ...deployed.flatMap(({ former }) => former ?? []),
    ];
    return known.find(({ tag }) => tag === to);
  }
  // A way back that was begun and is not in the stack file yet, or a deployment that got stuck:
  // what was last verified is what to return to.
  const begun =
    running.rollbackOf !== undefined &&
    running.rollbackOf === asked.imageTag &&
    running.rollbackOf !== asked.rollbackOf;
  if (begun || outcomes[0]?.result === "failed") return current;
  // What ran when the one that runs came: what was left on the way is not returned to.
  const former = deployed
    .filter(({ target }) => target.tag === current.tag)
    .map((one) => one.former)
    .find((one) => one !== undefined && one.tag !== current.tag);
  if (former !== undefined) return former;
  const position = deployed.findIndex(({ target }) => target.tag === current.tag);
  return deployed.slice(position + 1).find(({ target }) => target.tag !== current.tag)?.target;
}
