import { createHash } from "node:crypto";
import { z } from "zod";
import type { Digest } from "../release/eligibility";
import { RegistryError } from "./errors";

/** What BuildKit marks a manifest with that describes an image and is none. */
const REFERENCE_TYPE = "vnd.docker.reference.type";

const Entry = z.object({
  digest: z.string(),
  annotations: z.record(z.string(), z.string()).optional(),
});
/** https://github.com/opencontainers/image-spec/blob/main/image-index.md, and manifest.md */
const Manifest = z.object({
  manifests: z.array(Entry).optional(),
  config: z.object({ digest: z.string() }).optional(),
});
/** https://github.com/opencontainers/image-spec/blob/main/config.md */
const ImageConfig = z.object({
  config: z.object({ Labels: z.record(z.string(), z.string()).nullish() }).nullish(),
});

/** How one registry hands out what a digest names, byte for byte. */
export interface Contents {
  manifest(digest: Digest): Promise<Uint8Array>;
  blob(digest: Digest): Promise<Uint8Array>;
}

/**
 * The labels of an image; of an index, those of its first platform. None where there are none, or
 * where what the digest names is no image.
 * @throws RegistryError where the registry gives other bytes than those the digest names.
 */
export async function labelsOf(
  digest: Digest,
  contents: Contents,
): Promise<Readonly<Record<string, string>>> {
  const manifest = Manifest.safeParse(parse(digest, await contents.manifest(digest))).data;
  const image = manifest?.manifests?.find(
    ({ annotations }) => annotations?.[REFERENCE_TYPE] === undefined,
  );
  if (image !== undefined) return labelsOf(image.digest, contents);
  const config = manifest?.config?.digest;
  if (config === undefined) return {};
  const parsed = ImageConfig.safeParse(parse(config, await contents.blob(config)));
  return parsed.data?.config?.Labels ?? {};
}

/** @throws RegistryError unless these are the bytes that the digest names. */
export function checkDigest(digest: Digest, bytes: Uint8Array): void {
  const found = `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
  if (found === digest) return;
  throw new RegistryError(
    `${digest} has the content of ${found}; expected the bytes it is named by. ` +
      "Do not use this registry until that is explained.",
  );
}

/** JSON; nothing where it is none. */
function parse(digest: Digest, bytes: Uint8Array): unknown {
  checkDigest(digest, bytes);
  try {
    return JSON.parse(Buffer.from(bytes).toString("utf8")) as unknown;
  } catch {
    return undefined;
  }
}
