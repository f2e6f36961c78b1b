import type { Digest } from "../release/eligibility";
import type { Contents } from "./contents";
import { EcrRegistry } from "./ecr";
import { OciRegistry } from "./oci";

/** Where the image lives. */
export interface RegistryLocation {
  /**
   * `ecr`: Amazon ECR, through its own API. `oci`: any registry that speaks the OCI distribution
   * API (Artifactory, Nexus, Harbor, docker-registry …).
   */
  readonly kind: "ecr" | "oci";
  /** `host[:port]/name`, e.g. `registry.example.com/team/podinfo`. */
  readonly repository: string;
  /** Plain HTTP instead of HTTPS; `oci` only. */
  readonly plainHttp?: boolean | undefined;
}

/**
 * One repository of a registry. Credentials are looked up in the environment on each call and
 * never returned.
 */
export interface Registry {
  /**
   * The digest a tag names, or `undefined` when there is no such tag.
   * @throws RegistryError when the registry cannot be asked.
   */
  resolve(tag: string): Promise<Digest | undefined>;
  /**
   * Adds a tag to an image that is already there, byte for byte: no layer moves, and an index
   * keeps all its platforms. A tag that names this digest already is success.
   * @throws TagConflictError when the tag names another digest: tags never move.
   * @throws RegistryError when the registry cannot be asked or refuses.
   */
  tag(digest: Digest, tag: string): Promise<void>;
  /**
   * The labels of an image, such as `org.opencontainers.image.revision`; of an index, those of its
   * first platform. An image without labels has none.
   * @throws RegistryError when the registry cannot be asked or has no such image, and when the
   *   platforms of an index differ in a label that Baton decides by.
   */
  labels(digest: Digest): Promise<Readonly<Record<string, string>>>;
  /**
   * Every tag, in no order; none where nothing was pushed yet.
   * @throws RegistryError when the registry cannot be asked.
   */
  tags(): Promise<string[]>;
}

export function openRegistry(location: RegistryLocation): Registry & Contents {
  return location.kind === "ecr" ? new EcrRegistry(location) : new OciRegistry(location);
}
