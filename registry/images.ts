import { z } from "zod";
import type { Digest } from "../release/eligibility";
import { parseJson } from "../release/json";
import { isTree } from "../release/merge";
import { SCHEMA_LABELS } from "../release/schema";
import type { Contents } from "./contents";
import { RegistryError } from "./errors";

/**
 * The label of an image that names the commit it was built from
 * (https://github.com/opencontainers/image-spec/blob/main/annotations.md).
 */
export const REVISION = "org.opencontainers.image.revision";

/** Labels that Baton decides by, so the images of all platforms must give each the same value. */
const DECIDING_LABELS: readonly string[] = [REVISION, ...Object.values(SCHEMA_LABELS)];

/** An annotation of BuildKit's: the type of a manifest that describes another one. */
const REFERENCE_TYPE = "vnd.docker.reference.type";
const ATTESTATION = "attestation-manifest";
const IN_TOTO = /^application\/vnd\.in-toto\+/;

/** An index may hold indexes; three levels are more than any builder writes. */
const MAX_DEPTH = 3;
/** The most entries of an index, those of the indexes in it included. */
const MAX_ENTRIES = 64;

const Platform = z.object({
  os: z.string().default(""),
  architecture: z.string().default(""),
  variant: z.string().default(""),
  "os.version": z.string().default(""),
});
type Platform = z.infer<typeof Platform>;

const Entry = z.object({
  digest: z.string(),
  artifactType: z.string().optional(),
  platform: Platform.optional(),
  annotations: z.record(z.string(), z.string()).optional(),
});
type Entry = z.infer<typeof Entry>;

/** https://github.com/opencontainers/image-spec/blob/main/image-index.md, and manifest.md */
const Parsed = z.object({
  manifests: z.array(Entry).optional(),
  artifactType: z.string().optional(),
  config: z.object({ digest: z.string() }).optional(),
  layers: z.array(z.object({ mediaType: z.string().default("") })).optional(),
});
type Parsed = z.infer<typeof Parsed>;

/** https://github.com/opencontainers/image-spec/blob/main/config.md */
const ImageConfig = Platform.extend({
  config: z.object({ Labels: z.record(z.string(), z.string()).nullish() }).nullish(),
});

/** One platform's image. */
export interface Image {
  readonly digest: Digest;
  /** Digest of the image's configuration, which `docker images` shows as its id. */
  readonly config: Digest | undefined;
}

/** An image and the platform that the index names for it; undefined where the index names none. */
interface Leaf extends Image {
  readonly platform: Platform | undefined;
}

/**
 * The images that a container runtime could run for a digest: the image itself, or those of an
 * index's platforms, in the order of the index. Only an attestation for the platform
 * `unknown/unknown` is left out.
 * @throws RegistryError when the registry cannot be asked or does not hold the images, and when an
 *   index holds no image, two images for one platform, more than 64 entries, or indexes more than
 *   three levels deep.
 */
export async function imagesOf(contents: Contents, digest: Digest): Promise<readonly Image[]> {
  const manifest = await manifestOf(contents, digest);
  if (manifest?.manifests === undefined) return [{ digest, config: manifest?.config?.digest }];
  const count = { entries: 0 };
  const leaves = await leavesOf(contents, digest, manifest.manifests, 1, count);
  if (leaves.length === 0) {
    throw new RegistryError(
      `${digest} is an index without images; expected one image for each platform. ` +
        "Build and push it again.",
    );
  }
  await refuseDoubles(contents, digest, leaves);
  return leaves.map(({ digest, config }) => ({ digest, config }));
}

/**
 * The labels of an image; for an index, those of its first image. An image without labels has none.
 * @throws RegistryError like `imagesOf`, and when two images of an index differ in a label that
 *   Baton decides by.
 */
export async function labelsOf(
  contents: Contents,
  digest: Digest,
): Promise<Readonly<Record<string, string>>> {
  const images = await imagesOf(contents, digest);
  const all = await Promise.all(
    images.map(async ({ config }) => {
      if (config === undefined) return {};
      return (await configOf(contents, config))?.config?.Labels ?? {};
    }),
  );
  const [first = {}] = all;
  for (const label of DECIDING_LABELS) {
    const other = all.findIndex((labels) => labels[label] !== first[label]);
    if (other < 0) continue;
    const value = (labels: Readonly<Record<string, string>> | undefined) =>
      labels?.[label] ?? "missing";
    throw new RegistryError(
      `${digest}: label ${label} is ${value(first)} for ${images[0]?.digest ?? ""} and ` +
        `${value(all[other])} for ${images[other]?.digest ?? ""}; expected one value for all ` +
        "platforms. Build all platforms from one commit, and push them again.",
    );
  }
  return first;
}

async function leavesOf(
  contents: Contents,
  index: Digest,
  entries: readonly Entry[],
  depth: number,
  count: { entries: number },
): Promise<readonly Leaf[]> {
  count.entries += entries.length;
  if (count.entries > MAX_ENTRIES) {
    throw new RegistryError(
      `${index} is an index of more than ${MAX_ENTRIES} entries; expected one image for each ` +
        "platform. Push an index of the platforms that are deployed.",
    );
  }
  if (depth > MAX_DEPTH) {
    throw new RegistryError(
      `${index} is an index more than ${MAX_DEPTH} levels deep; expected one image for each ` +
        "platform. Push an index of images.",
    );
  }
  const leaves: Leaf[] = [];
  for (const entry of entries) {
    const manifest = await manifestOf(contents, entry.digest);
    if (manifest?.manifests !== undefined) {
      const inner = await leavesOf(contents, entry.digest, manifest.manifests, depth + 1, count);
      leaves.push(...inner);
    } else if (!isAttestation(entry, manifest)) {
      const config = manifest?.config?.digest;
      leaves.push({ digest: entry.digest, config, platform: entry.platform });
    }
  }
  return leaves;
}

/** A runtime picks an entry by its platform, so an attestation for a real platform could be run. */
function isAttestation({ platform, annotations, artifactType }: Entry, manifest?: Parsed): boolean {
  if (platform?.os !== "unknown" || platform.architecture !== "unknown") return false;
  const layers = manifest?.layers ?? [];
  return (
    annotations?.[REFERENCE_TYPE] === ATTESTATION ||
    (artifactType ?? manifest?.artifactType) !== undefined ||
    (layers.length > 0 && layers.every(({ mediaType }) => IN_TOTO.test(mediaType)))
  );
}

/** Which of two images for one platform runs is up to the runtime, so neither scan would tell. */
async function refuseDoubles(
  contents: Contents,
  index: Digest,
  leaves: readonly Leaf[],
): Promise<void> {
  const seen = new Map<string, Digest>();
  for (const { digest, config, platform } of leaves) {
    const own = platform ?? (config === undefined ? undefined : await configOf(contents, config));
    const name = own === undefined ? "no platform" : platformName(own);
    const former = seen.get(name);
    if (former !== undefined) {
      throw new RegistryError(
        `${index} is an index with two images for ${name}, ${former} and ${digest}; expected ` +
          "one. Build and push it again.",
      );
    }
    seen.set(name, digest);
  }
}

/**
 * A platform's name with the defaults that containerd gives it, so that two names of one platform
 * are equal (https://github.com/containerd/platforms/blob/main/database.go).
 */
function platformName(platform: Platform): string {
  const os = platform.os.toLowerCase() === "macos" ? "darwin" : platform.os.toLowerCase();
  const named = platform.architecture.toLowerCase();
  const aliases: Readonly<Record<string, string>> = {
    x86_64: "amd64",
    "x86-64": "amd64",
    aarch64: "arm64",
    i386: "386",
    armhf: "arm",
  };
  const architecture = aliases[named] ?? (named === "armel" ? "arm" : named);
  const variant = platform.variant.toLowerCase().replace(/^(\d)/, "v$1");
  const given = variant !== "" ? variant : named === "armel" ? "v6" : variant;
  const implied: Readonly<Record<string, string>> = { arm64: "v8", amd64: "v1", arm: "v7" };
  const kept = given === implied[architecture] ? "" : given;
  return [os, architecture, kept, platform["os.version"]].filter(Boolean).join("/");
}

async function manifestOf(contents: Contents, digest: Digest): Promise<Parsed | undefined> {
  const { bytes } = await contents.manifest(digest);
  const values = withoutNulls(parseJson(bytes));
  if (!isTree(values)) return undefined;
  const parsed = Parsed.safeParse(values);
  const fault =
    oddKeyIn(values) ??
    (parsed.success
      ? undefined
      : `${parsed.error.issues[0]?.path.join(".") ?? "it"} is of another kind`) ??
    (values["manifests"] !== undefined && IMAGE_KEYS.some((key) => values[key] !== undefined)
      ? "it is an index and an image in one"
      : undefined);
  if (fault === undefined) return parsed.data;
  throw new RegistryError(
    `${digest} can be read in more than one way: ${fault}; expected what the image specification ` +
      "says of a manifest or an index. Build and push it again.",
  );
}

/** A runtime takes a document for an image by these, or for an index by `manifests`. */
const IMAGE_KEYS = ["config", "layers", "fsLayers"];
/** The keys by which a runtime picks and runs an image. */
const KEYS = [
  ...["mediaType", "manifests", "config", "layers", "fsLayers", "digest", "platform"],
  ...["os", "architecture", "variant", "os.version", "artifactType", "annotations"],
];

/** To runtimes in Go, null is no value. */
function withoutNulls(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutNulls);
  if (!isTree(value)) return value;
  const entries = Object.entries(value).filter(([, child]) => child !== null);
  return Object.fromEntries(entries.map(([key, child]) => [key, withoutNulls(child)]));
}

/** A key in other letters than it is read by here; runtimes in Go read it in any letters. */
function oddKeyIn(value: unknown): string | undefined {
  if (Array.isArray(value)) return value.map(oddKeyIn).find((found) => found !== undefined);
  if (!isTree(value)) return undefined;
  for (const [key, child] of Object.entries(value)) {
    const folded = key.toLowerCase().replaceAll("\u017f", "s").replaceAll("\u212a", "k");
    const known = KEYS.find((name) => name !== key && name.toLowerCase() === folded);
    if (known !== undefined) return `it has ${JSON.stringify(key)} for ${known}`;
    const found = key === "annotations" ? undefined : oddKeyIn(child);
    if (found !== undefined) return found;
  }
  return undefined;
}

async function configOf(contents: Contents, config: Digest) {
  return ImageConfig.safeParse(parseJson(await contents.blob(config))).data;
}
