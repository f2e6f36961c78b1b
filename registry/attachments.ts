import { z } from "zod";
import type { Digest } from "../release/eligibility";
import { parseJson } from "../release/json";
import { digestOf, type Contents } from "./contents";
import { RegistryError } from "./errors";

const MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json";
const CREATED = "org.opencontainers.image.created";
/** https://github.com/opencontainers/image-spec/blob/main/manifest.md#guidance-for-an-empty-descriptor */
const EMPTY = new TextEncoder().encode("{}");
const EMPTY_TYPE = "application/vnd.oci.empty.v1+json";

const Artifact = z.object({ layers: z.array(z.object({ digest: z.string() })).min(1) });

/** A JSON document that says something of an image. */
export interface Attachment {
  /** Its `artifactType`. */
  readonly type: string;
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** When it was made. */
  readonly at: Date;
}

/**
 * Attaches a document to an image, as an artifact that names it as its subject; `oras attach` makes
 * the same. Doing so again changes nothing.
 * (https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pushing-manifests-with-subject)
 *
 * @returns the artifact's digest
 * @throws RegistryError when the registry cannot be asked, refuses, or has no such image.
 */
export async function attach(
  contents: Contents,
  subject: Digest,
  { type, bytes, at }: Attachment,
): Promise<Digest> {
  const { bytes: image, mediaType } = await contents.manifest(subject);
  const manifest = {
    schemaVersion: 2,
    mediaType: MANIFEST_TYPE,
    artifactType: type,
    config: { mediaType: EMPTY_TYPE, digest: digestOf(EMPTY), size: EMPTY.length },
    layers: [{ mediaType: "application/json", digest: digestOf(bytes), size: bytes.length }],
    subject: { mediaType, digest: subject, size: image.length },
    annotations: { [CREATED]: at.toISOString() },
  };
  for (const blob of [EMPTY, bytes]) await contents.putBlob(blob);
  const artifact = new TextEncoder().encode(JSON.stringify(manifest));
  await contents.putManifest({ bytes: artifact, mediaType: MANIFEST_TYPE });
  return digestOf(artifact);
}

/**
 * The document of a type that was attached to an image last; nothing where none was.
 * @throws RegistryError when the registry cannot be asked, or what is attached cannot be read.
 */
export async function latestAttachment(
  contents: Contents,
  subject: Digest,
  type: string,
): Promise<Uint8Array | undefined> {
  const found = await contents.referrers(subject, type);
  const times = found.map(({ annotations }) => annotations?.[CREATED] ?? "");
  const latest = found[times.lastIndexOf([...times].sort().at(-1) ?? "")];
  if (latest === undefined) return undefined;
  const { bytes } = await contents.manifest(latest.digest);
  const parsed = Artifact.safeParse(parseJson(bytes));
  const layer = parsed.data?.layers[0];
  if (layer !== undefined) return contents.blob(layer.digest);
  throw new RegistryError(
    `${latest.digest}, which is attached to ${subject}, holds no document; expected one. ` +
      "Attach it again, or remove what is there.",
  );
}
