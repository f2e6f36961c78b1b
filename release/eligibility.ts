import type { Problem } from "./problem";
import { BUILD, formatTag, isVersion, parseTag } from "./tags";

/** `sha256:` and 64 hexadecimal digits. */
export type Digest = string;

/** What a stack's config asks to run. */
export interface ReleaseRequest {
  readonly environment: string;
  /** The environment whose earned tags are taken; none means: takes builds. */
  readonly upstream?: string | undefined;
  /** The environment whose earned tag a hotfix takes in place of the upstream's. */
  readonly hotfixFrom?: string | undefined;
  /** Whether this environment names its releases by version. */
  readonly versioned: boolean;
  readonly imageTag: string;
  /** The pin: what `imageTag` must name. */
  readonly imageDigest?: Digest | undefined;
  readonly version?: string | undefined;
  /** The tag being left, when going back. */
  readonly rollbackOf?: string | undefined;
}

/** A request that is well formed, with the tags whose digests decide whether it may go on. */
export interface ReleaseCandidate extends ReleaseRequest {
  /** The tag this environment gives once the release has passed its verification. */
  readonly earnedTag: string;
  /** The request's version, or the one the upstream's tag carries. */
  readonly version: string | undefined;
}

/** What an environment runs, as one unit. */
export interface Release {
  readonly imageTag: string;
  readonly digest: Digest;
  readonly version: string | undefined;
  readonly earnedTag: string;
  readonly rollbackOf: string | undefined;
}

/** What the registry says of a candidate's two tags; `undefined` where a tag does not exist. */
export interface TagFacts {
  readonly imageTag: Digest | undefined;
  readonly earnedTag: Digest | undefined;
}

type Checked<T> = { readonly ok: T } | { readonly problems: readonly Problem[] };

/** Checks all that can be known of a request without asking the registry. */
export function checkRequest(request: ReleaseRequest): Checked<ReleaseCandidate> {
  const problems: Problem[] = [];
  const where = request.environment;
  const from = request.hotfixFrom ?? request.upstream;
  const giver = from ?? BUILD;
  const add = (key: string, value: string, expected: string, fix: string) =>
    problems.push({ where, property: `baton:${key}`, value, expected, fix });

  const tag = parseTag(request.imageTag);
  if (tag === undefined || tag.giver !== giver) {
    add(
      "imageTag",
      request.imageTag,
      tagOf(from),
      from === undefined
        ? "Give the tag the build has pushed"
        : `Deploy and verify it in ${from} first, then copy that stack's earnedTag output`,
    );
  }

  const carried = tag !== undefined && isVersion(tag.release) ? tag.release : undefined;
  const version = request.version ?? carried;
  if (request.versioned) {
    if (version === undefined) {
      add("version", "not set", "a version, such as v1.4.0", "Releases are versioned here: set it");
    } else if (!isVersion(version)) {
      add("version", version, "v and a semantic version, such as v1.4.0", "Correct it");
    } else if (carried !== undefined && version !== carried) {
      add("version", version, `${carried}, which ${request.imageTag} names`, "Make the two agree");
    }
  } else if (request.version !== undefined) {
    add("version", request.version, "no version", "Remove it, or set baton:versioned to true");
  }

  if (request.rollbackOf !== undefined) {
    const left = parseTag(request.rollbackOf);
    if (left === undefined || !mayLeave(left.giver, request)) {
      const fix = "Give the imageTag that is being left";
      add("rollbackOf", request.rollbackOf, tagOf(request.upstream), fix);
    }
  }

  if (problems.length > 0 || tag === undefined) return { problems };
  const release = request.versioned && version !== undefined ? version : tag.release;
  const earnedTag = formatTag({ giver: request.environment, release });
  return { ok: { ...request, version, earnedTag } };
}

/** What is expected of a tag, by its giver. */
function tagOf(from: string | undefined): string {
  return from === undefined
    ? "a build's tag, such as build-45"
    : `a tag that ${from} has earned, such as ${from}-45`;
}

/**
 * Whether an environment may have run a giver's tags: its upstream's, or as hotfixes another
 * environment's. Whose those may be now is not asked: the way back from one stays open.
 */
function mayLeave(giver: string, { environment, upstream }: ReleaseRequest): boolean {
  if (upstream === undefined || giver === BUILD) return giver === (upstream ?? BUILD);
  return giver !== environment;
}

/** What `baton:hotfixFrom` must be for a tag to be taken; nothing for the upstream's own. */
export function hotfixFromOf(imageTag: string, upstream: string | undefined): string | undefined {
  const giver = parseTag(imageTag)?.giver;
  return giver === (upstream ?? BUILD) ? undefined : giver;
}

/** Decides whether a candidate may be deployed, by what the registry holds. */
export function checkCandidate(candidate: ReleaseCandidate, facts: TagFacts): Checked<Release> {
  const problems: Problem[] = [];
  const { environment: where, imageTag, imageDigest, earnedTag, rollbackOf } = candidate;
  const from = candidate.hotfixFrom ?? candidate.upstream;
  const add = (key: string, value: string, expected: string, fix: string) =>
    problems.push({ where, property: `baton:${key}`, value, expected, fix });

  const digest = facts.imageTag;
  if (digest === undefined) {
    add(
      "imageTag",
      imageTag,
      "a tag that exists in the registry",
      from === undefined
        ? "Push the build first, or correct the tag"
        : `${from} has not earned it: deploy and verify it there first, or correct the tag`,
    );
  } else {
    if (imageDigest !== undefined && imageDigest !== digest) {
      add(
        "imageDigest",
        imageDigest,
        `${digest}, which ${imageTag} names in the registry`,
        "The tag was moved, or the pin belongs to another tag: find out which before you go on",
      );
    }
    if (rollbackOf !== undefined && facts.earnedTag === undefined) {
      add(
        "imageTag",
        imageTag,
        `a release that ${where} has verified before, which going back from ${rollbackOf} requires`,
        `${earnedTag} does not exist: choose a former release of ${where}, or remove baton:rollbackOf to go forward`,
      );
    }
    if (facts.earnedTag !== undefined && facts.earnedTag !== digest) {
      const expected = `${digest} under ${earnedTag}, which already names ${facts.earnedTag}`;
      if (candidate.versioned && candidate.version !== undefined) {
        const fix = "A version names one image for good: give a new version";
        add("version", candidate.version, expected, fix);
      } else {
        add("imageTag", imageTag, expected, "Tags never move: build again under a new number");
      }
    }
  }

  if (problems.length > 0 || digest === undefined) return { problems };
  return { ok: { imageTag, digest, version: candidate.version, earnedTag, rollbackOf } };
}
