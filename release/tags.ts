import { valid as validSemver } from "semver";

/**
 * A registry tag on the path: who gave it, and for which release. `build-45` comes from the
 * build, `qa-45` says that qa verified build 45, `prod-v1.4.0` that prod verified version 1.4.0.
 */
export interface PathTag {
  /** `build`, or the environment that earned the tag. */
  readonly giver: string;
  /** A build number (`45`) or a version (`v1.4.0`). */
  readonly release: string;
}

/** The giver of tags that no environment has verified yet. No environment may be called so. */
export const BUILD = "build";

const ENVIRONMENT = /^[a-z][a-z0-9]*$/;
const BUILD_NUMBER = /^[1-9][0-9]*$/;
/** The longest tag the OCI distribution specification allows. */
const MAX_TAG_LENGTH = 128;

/** `[a-z][a-z0-9]*`, so that the first dash of a tag ends the environment's name; not `build`. */
export function isEnvironmentName(name: string): boolean {
  return ENVIRONMENT.test(name) && name !== BUILD;
}

/**
 * `v` and a semantic version, e.g. `v1.4.0` or `v2.0.0-rc.1`. Build metadata (`+…`) is refused:
 * an OCI tag cannot hold a plus sign
 * (https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pulling-manifests).
 */
export function isVersion(text: string): boolean {
  return text.startsWith("v") && !text.includes("+") && validSemver(text) === text.slice(1);
}

/** The parts of a tag on the path; `undefined` when it is not one. */
export function parseTag(tag: string): PathTag | undefined {
  const dash = tag.indexOf("-");
  if (dash < 0 || tag.length > MAX_TAG_LENGTH) return undefined;
  const giver = tag.slice(0, dash);
  const release = tag.slice(dash + 1);
  const known =
    giver === BUILD
      ? BUILD_NUMBER.test(release)
      : isEnvironmentName(giver) && (BUILD_NUMBER.test(release) || isVersion(release));
  return known ? { giver, release } : undefined;
}

export function formatTag(tag: PathTag): string {
  return `${tag.giver}-${tag.release}`;
}
