import { setTimeout } from "node:timers/promises";
import type { Digest } from "../release/eligibility";
import { formatDuration } from "../release/time";
import { NotArrivedError, TagConflictError } from "./errors";
import { mirror } from "./mirror";
import { openRegistry, type RegistryLocation } from "./registry";

/** A registry that another one's releases get to. */
export interface ReplicaLocation extends RegistryLocation {
  readonly replica?:
    | {
        /** How long to wait for a release, in seconds. */
        readonly timeout: number;
        /** Copied from there; without it, the registries replicate by themselves. */
        readonly mirrorOf?: Omit<RegistryLocation, "kind"> | undefined;
      }
    | undefined;
}

const POLL_MILLISECONDS = 2000;

/**
 * What a tag names in a registry, once it has got there: what is there already needs no other
 * registry; what is not is copied, or waited for.
 * @param digest what it must be, to be copied; anything unless given
 * @returns `undefined` where there is no such tag, and nothing to wait for.
 * @throws NotArrivedError after the replica's time.
 * @throws TagConflictError when the other registry has another image under the tag.
 * @throws RegistryError when a registry cannot be asked.
 */
export async function arrive(
  location: ReplicaLocation,
  tag: string,
  digest: Digest | undefined,
  show: (text: string) => void = () => {},
): Promise<Digest | undefined> {
  const registry = openRegistry(location);
  const there = await registry.resolve(tag);
  const { replica, repository } = location;
  if (there !== undefined || replica === undefined) return there;
  const end = performance.now() + replica.timeout * 1000;
  const { mirrorOf } = replica;
  if (mirrorOf !== undefined) {
    const source = { kind: "oci", ...mirrorOf } as const;
    const found = await openRegistry(source).resolve(tag);
    if (found === undefined) return undefined;
    if (digest !== undefined && found !== digest) {
      throw new TagConflictError(mirrorOf.repository, tag, found, digest);
    }
    await mirror(source, location, found, show);
    await registry.tag(found, tag);
    return found;
  }
  show(`waits for ${tag} in ${repository}`);
  while (performance.now() < end) {
    await setTimeout(POLL_MILLISECONDS);
    const found = await registry.resolve(tag);
    if (found !== undefined) return found;
  }
  throw new NotArrivedError(
    `without ${tag} in ${repository} after ${formatDuration(replica.timeout)}`,
    "Look after the replication between the registries, and run the same command again",
  );
}
