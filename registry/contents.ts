import { createHash } from "node:crypto";
import type { Digest } from "../release/eligibility";
import { RegistryError } from "./errors";

/** A manifest as it is stored; an index is one, too. */
export interface Manifest {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly mediaType: string;
}

/** What a manifest says of another (https://github.com/opencontainers/image-spec/blob/main/descriptor.md). */
export interface Descriptor {
  readonly mediaType: string;
  readonly digest: Digest;
  /** In bytes. */
  readonly size: number;
  readonly artifactType?: string | undefined;
  readonly annotations?: Readonly<Record<string, string>> | undefined;
}

/**
 * What a repository holds, byte for byte. Whatever is read has been compared with its digest.
 * @throws RegistryError, all of it, when the registry cannot be asked or does not hold it.
 */
export interface Contents {
  manifest(digest: Digest): Promise<Manifest>;
  blob(digest: Digest): Promise<Uint8Array>;
  /** Stores what is not there yet. */
  putBlob(bytes: Uint8Array<ArrayBuffer>): Promise<void>;
  /** Stores a manifest under no other name than its digest. */
  putManifest(manifest: Manifest): Promise<void>;
  /** What names a manifest as its `subject`. */
  referrers(subject: Digest, artifactType: string): Promise<readonly Descriptor[]>;
}

export function digestOf(bytes: Uint8Array): Digest {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
}

/** @throws RegistryError unless these are the bytes that the digest names. */
export function checkDigest(digest: Digest, bytes: Uint8Array): void {
  const found = digestOf(bytes);
  if (found === digest) return;
  throw new RegistryError(
    `${digest} has the content of ${found}; expected the bytes it is named by. ` +
      "Do not use this registry until that is explained.",
  );
}
