import { z } from "zod";
import type { Digest } from "../release/eligibility";
import { parseJson } from "../release/json";
import type { Contents } from "./contents";

/** What BuildKit marks a manifest with that describes an image and is none. */
const REFERENCE_TYPE = "vnd.docker.reference.type";

const Entry = z.object({
  digest: z.string(),
  annotations: z.record(z.string(), z.string()).optional(),
});
/** https://github.com/opencontainers/image-spec/blob/main/image-index.md, and manifest.md */
const Parsed = z.object({
  manifests: z.array(Entry).optional(),
  config: z.object({ digest: z.string() }).optional(),
});
/** https://github.com/opencontainers/image-spec/blob/main/config.md */
const ImageConfig = z.object({
  config: z.object({ Labels: z.record(z.string(), z.string()).nullish() }).nullish(),
});

/** One platform's image. */
export interface Image {
  readonly digest: Digest;
  /** Its configuration, which `docker images` shows as its id; none where it is no image. */
  readonly config: Digest | undefined;
}

/**
 * The images that a digest stands for: itself, or those of an index's platforms, in its order.
 * @throws RegistryError when the registry cannot be asked, or does not hold them.
 */
export async function imagesOf(contents: Contents, digest: Digest): Promise<readonly Image[]> {
  const { bytes } = await contents.manifest(digest);
  const manifest = Parsed.safeParse(parseJson(bytes)).data;
  if (manifest?.manifests === undefined) return [{ digest, config: manifest?.config?.digest }];
  const platforms = manifest.manifests.filter(
    ({ annotations }) => annotations?.[REFERENCE_TYPE] === undefined,
  );
  const images = await Promise.all(platforms.map((one) => imagesOf(contents, one.digest)));
  return images.flat();
}

/** The labels of an image; of an index, those of its first platform. None where there are none. */
export async function labelsOf(
  contents: Contents,
  digest: Digest,
): Promise<Readonly<Record<string, string>>> {
  const { bytes } = await contents.manifest(digest);
  const manifest = Parsed.safeParse(parseJson(bytes)).data;
  const image = manifest?.manifests?.find(
    ({ annotations }) => annotations?.[REFERENCE_TYPE] === undefined,
  );
  if (image !== undefined) return labelsOf(contents, image.digest);
  const config = manifest?.config?.digest;
  if (config === undefined) return {};
  const parsed = ImageConfig.safeParse(parseJson(await contents.blob(config)));
  return parsed.data?.config?.Labels ?? {};
}
