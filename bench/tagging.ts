import { execa } from "execa";
import { createWriteStream } from "node:fs";
import { randomFillSync } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { openRegistry } from "../registry/registry";
import type { Digest } from "../release/eligibility";
import { BIN, REGISTRY } from "../sandbox/folder";
import { pushImage } from "../sandbox/images";
import { compare, type Limit } from "./figure";
import { openMeter } from "./meter";
import type { Report } from "./report";

const REPOSITORY = "bench";
const IMAGE = "500mb";
const LAYERS = 5;
const LAYER_MEGABYTES = 100;
const MEGABYTE = 1_000_000;
const LIMIT: Limit = { of: "baton", most: 64 };

/** Adds tag `tag` to the image, or what stands for it, through the registry at `address`. */
type Way = (address: string, digest: Digest, tag: string) => Promise<unknown>;

/** Counts the bytes, both directions, that it takes for a large image to get another tag. */
export async function measureTagging(report: Report): Promise<void> {
  let digest = "";
  await report.show([
    { title: "skopeo", task: ensureSkopeo },
    {
      title: `an image of ${LAYERS * LAYER_MEGABYTES} MB`,
      task: async () => {
        digest = await ensureImage();
      },
    },
  ]);
  // A tag never moves, so each run has its own.
  const run = String(Date.now());
  const kibibytes = async (title: string, way: Way): Promise<number> => {
    let transferred = NaN;
    const task = async () => {
      // A new port each time: skopeo remembers by the registry's address what is where.
      const meter = await openMeter(REGISTRY);
      try {
        await way(meter.address, digest, `${title.replaceAll(/[^a-z]+/g, "-")}-${run}`);
        transferred = meter.bytes() / 1024;
      } finally {
        await meter.close();
      }
    };
    await report.show([{ title, task }]);
    return transferred;
  };
  const baton = await kibibytes("earned tag", earnTag);
  for (const [title, way] of OTHERS) {
    await report.attempt(title, async () => {
      report.add(
        compare({
          measure: `bytes to tag ${LAYERS * LAYER_MEGABYTES} MB`,
          unit: "KiB",
          baton,
          comparedWith: title,
          compared: await kibibytes(title, way),
          limit: LIMIT,
        }),
      );
    });
  }
}

const earnTag: Way = (address, digest, tag) =>
  openRegistry({
    kind: "oci",
    repository: `${address}/${REPOSITORY}`,
    plainHttp: true,
  }).tag(digest, tag);

const OTHERS: readonly (readonly [string, Way])[] = [
  [
    "skopeo copy in the same repository",
    (address, digest, tag) =>
      skopeoCopy(address, `${REPOSITORY}@${digest}`, `${REPOSITORY}:${tag}`),
  ],
  [
    // A repository for each environment, which is new to the image.
    "skopeo copy to another repository",
    (address, digest, tag) =>
      skopeoCopy(address, `${REPOSITORY}@${digest}`, `${REPOSITORY}-${tag}:${IMAGE}`),
  ],
  ["crane pull, tag and push", pullAndPush],
];

async function skopeoCopy(address: string, source: string, target: string): Promise<void> {
  const flags = ["--insecure-policy", "copy", "--src-tls-verify=false", "--dest-tls-verify=false"];
  const name = (image: string) => `docker://${address}/${image}`;
  await execa("skopeo", [...flags, name(source), name(target)]);
}

async function pullAndPush(address: string, digest: Digest, tag: string): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "baton-bench-"));
  const crane = (...args: string[]) => execa(join(BIN, "crane"), ["--insecure", ...args]);
  try {
    const file = join(folder, "image.tar");
    await crane("pull", `${address}/${REPOSITORY}@${digest}`, file);
    await crane("push", file, `${address}/${REPOSITORY}:${tag}`);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function ensureSkopeo(): Promise<void> {
  if (!(await execa("skopeo", ["--version"], { reject: false })).failed) return;
  const environment = { env: { DEBIAN_FRONTEND: "noninteractive" } };
  await execa("apt-get", ["update", "--quiet"], environment);
  const install = ["install", "--yes", "--no-install-recommends", "skopeo"];
  await execa("apt-get", install, environment);
}

/** Pushes the image unless a former run has. Its content is random, so nothing can be left out. */
async function ensureImage(): Promise<Digest> {
  const target = { repository: `${REGISTRY}/${REPOSITORY}`, plainHttp: true };
  const registry = openRegistry({ kind: "oci", ...target });
  const present = await registry.resolve(IMAGE);
  if (present !== undefined) return present;
  const folder = await mkdtemp(join(tmpdir(), "baton-bench-"));
  try {
    const files: Record<string, string> = {};
    for (let layer = 1; layer <= LAYERS; layer++) {
      const file = join(folder, String(layer));
      await pipeline(Readable.from(randomMegabytes(LAYER_MEGABYTES)), createWriteStream(file));
      files[`layer-${layer}`] = file;
    }
    await pushImage(IMAGE, target, { files, entrypoint: ["/layer-1"], layered: true });
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
  const pushed = await registry.resolve(IMAGE);
  if (pushed === undefined) throw new Error(`${REPOSITORY}:${IMAGE} was pushed and is not there`);
  return pushed;
}

function* randomMegabytes(count: number): Generator<Buffer> {
  for (let megabyte = 0; megabyte < count; megabyte++) yield randomFillSync(Buffer.alloc(MEGABYTE));
}
