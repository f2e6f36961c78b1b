import { execa, ExecaError } from "execa";
import { createHash } from "node:crypto";
import {
  copyFile,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rm,
  symlink,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { gzip } from "node:zlib";
import { create } from "tar";
import { splitRepository } from "../registry/reference";
import { goBuild, PODINFO, podinfoStamp, TRIAL } from "./build";
import type { Place } from "./engine";
import { BIN, DEBIAN, libraries, REGISTRY, ROOT } from "./folder";
import { buildOrders } from "./orders";

/** The commit of podinfo that the module pins, and its time. */
const PODINFO_REVISION = "e86405a8674e";
const PODINFO_CREATED = new Date("2025-09-10T20:09:01Z");
/** The user of distroless images. */
const USER = "65532:65532";

interface Image {
  /** Files of the image by their path in it. */
  readonly files: Readonly<Record<string, string>>;
  /** Symbolic links of the image by their path in it. */
  readonly links?: Readonly<Record<string, string>>;
  readonly entrypoint: readonly string[];
  readonly labels?: Readonly<Record<string, string>>;
  /** The layer's bytes where they are not to be made of the files. */
  readonly layer?: Buffer;
  /** A compressed layer for each file, as real images have; one plain layer unless set. */
  readonly layered?: boolean;
}

/** A repository that images go to. */
export interface Target {
  /** `host[:port]/name`. */
  readonly repository: string;
  readonly plainHttp: boolean;
}

export interface Targets {
  readonly app: readonly Target[];
  /** The image with the suites, by its whole name. */
  readonly tests: readonly { readonly target: Target; readonly tag: string }[];
  /** It is the service in `app/`; podinfo unless set. */
  readonly orders?: boolean;
}

/**
 * The sandbox's node pulls every image from its own registry, whatever the name says; a registry of
 * the user's own is pushed to as well, and there the suites go into the app's repository.
 */
export function targetsOf({ context, registry, app: orders = false }: Place): Targets {
  const inSandbox = (name: string) => ({ repository: `${REGISTRY}/${name}`, plainHttp: true });
  if (registry === undefined) {
    const name = orders ? "orders" : "podinfo";
    const tests = [{ target: inSandbox(`${name}-tests`), tag: "1" }];
    return { app: [inSandbox(name)], tests, orders };
  }
  const own = { repository: registry, plainHttp: false };
  const copy = context === undefined ? [inSandbox(splitRepository(registry).name)] : [];
  const app = [own, ...copy];
  return { app, tests: app.map((target) => ({ target, tag: "tests-1" })), orders };
}

/** Builds the sample app as build number `build` and pushes it, unless that build is there. */
export async function pushBuild(build: number, { app, orders = false }: Targets): Promise<void> {
  for (const target of app) {
    if (orders) {
      await pushLayout(`build-${build}`, target, (layout) => buildOrders(build, layout));
      continue;
    }
    await pushOnce(`build-${build}`, target, async (folder) => {
      const first = join(BIN, "podinfo");
      const program = build === 1 ? first : join(folder, "podinfo");
      if (program !== first) {
        await goBuild(PODINFO, PODINFO.programs["podinfo"] ?? "", program, [podinfoStamp(build)]);
      }
      return {
        files: { "bin/podinfo": program, "bin/podcli": join(BIN, "podcli") },
        entrypoint: ["/bin/podinfo"],
        labels: {
          "org.opencontainers.image.source": "https://github.com/stefanprodan/podinfo",
          "org.opencontainers.image.revision": PODINFO_REVISION,
          "org.opencontainers.image.version": String(build),
          "org.opencontainers.image.created": PODINFO_CREATED.toISOString(),
        },
      };
    });
  }
}

/**
 * Pushes a build that misbehaves, or does not, in podinfo's place. Its answers name it in the
 * header `X-Version`.
 * @param fault One of those that `sandbox/modules/trial` lists; empty for a good build.
 */
export async function pushTrial(build: number, fault: string, { app }: Targets): Promise<void> {
  for (const target of app) {
    await pushOnce(`build-${build}`, target, async (folder) => {
      const program = join(folder, "trial");
      const stamps = [`main.version=build-${build}`, `main.fault=${fault}`];
      await goBuild(TRIAL, ".", program, stamps);
      return {
        files: { "bin/podinfo": program, "bin/podcli": join(BIN, "podcli") },
        entrypoint: ["/bin/podinfo"],
      };
    });
  }
}

/** Pushes the image with the suites, unless it is there. */
export async function pushTests({ tests, orders = false }: Targets): Promise<void> {
  const folder = join(ROOT, orders ? "app/suites" : "sandbox/suites");
  const suites = (await readdir(folder)).map((name) => [`suites/${name}`, join(folder, name)]);
  const files = { "bin/k6": join(BIN, "k6"), ...(Object.fromEntries(suites) as Image["files"]) };
  for (const { target, tag } of tests) {
    await pushOnce(tag, target, () => Promise.resolve({ files, entrypoint: ["/bin/k6"] }));
  }
}

/** The image that holds a pod's namespaces. */
export async function pushPause(): Promise<void> {
  await pushOnce("1", { repository: `${REGISTRY}/pause`, plainHttp: true }, () =>
    Promise.resolve({ files: { "bin/pause": join(BIN, "pause") }, entrypoint: ["/bin/pause"] }),
  );
}

/** What speaks to PostgreSQL: psql, pg_dump and pg_restore, with a shell around them. */
export async function pushPostgresClient(): Promise<void> {
  const target = { repository: `${REGISTRY}/postgres-client`, plainHttp: true };
  await pushOnce("15", target, async (folder) => {
    const programs = join(DEBIAN, "usr/lib/postgresql/15/bin");
    const names = ["psql", "pg_dump", "pg_restore", "pg_isready"];
    const paths = names.map((name) => join(programs, name));
    const env = { LD_LIBRARY_PATH: await libraries(DEBIAN) };
    // `libpq.so.5 => /path/to/libpq.so.5 (0x…)`; the loader stands alone, at the path it must have.
    const { stdout } = await execa("ldd", paths, { env });
    const found = [...stdout.matchAll(/^\t(?:(\S+) => )?(\/\S+) \(0x/gm)];
    const shared = found.map(([, name, path = ""]) =>
      name === undefined ? [path.slice(1), path] : [`lib/${name}`, path],
    );
    const users = join(folder, "passwd");
    await writeFile(users, "nonroot:x:65532:65532:nonroot:/:/bin/sh\n");
    const busybox = join(DEBIAN, "bin/busybox");
    const { stdout: applets } = await execa(busybox, ["--list"]);
    const links = applets.split("\n").filter((name) => name !== "busybox");
    return {
      files: {
        "bin/busybox": busybox,
        "etc/passwd": users,
        ...Object.fromEntries(names.map((name, index) => [`bin/${name}`, paths[index] ?? ""])),
        ...(Object.fromEntries(shared) as Image["files"]),
      },
      links: Object.fromEntries(links.map((name) => [`bin/${name}`, "busybox"])),
      entrypoint: ["/bin/psql"],
    };
  });
}

/** Pushes an image made by the caller, for tests. */
export async function pushImage(tag: string, target: Target, image: Image): Promise<void> {
  await pushOnce(tag, target, () => Promise.resolve(image));
}

async function pushOnce(
  tag: string,
  target: Target,
  make: (folder: string) => Promise<Image>,
): Promise<void> {
  await pushLayout(tag, target, async (layout, folder) => writeLayout(layout, await make(folder)));
}

/** Pushes what is written as an OCI layout, unless the tag is there. */
async function pushLayout(
  tag: string,
  { repository, plainHttp }: Target,
  write: (layout: string, folder: string) => Promise<void>,
): Promise<void> {
  const reference = `${repository}:${tag}`;
  const insecure = plainHttp ? ["--insecure"] : [];
  const present = await execa(join(BIN, "crane"), ["digest", ...insecure, reference], {
    reject: false,
  });
  if (present.exitCode === 0) return;
  const folder = await mkdtemp(join(tmpdir(), "baton-image-"));
  try {
    const layout = join(folder, "layout");
    await write(layout, folder);
    await execa(join(BIN, "crane"), ["push", ...insecure, layout, reference]);
  } catch (error) {
    if (!(error instanceof ExecaError)) throw error;
    throw new Error(`${reference} cannot be pushed: ${String(error.stderr).trim()}`);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/**
 * Writes an image as an OCI layout
 * (https://github.com/opencontainers/image-spec/blob/main/image-layout.md). The same files give the
 * same digest.
 */
async function writeLayout(layout: string, image: Image): Promise<void> {
  const blobs = join(layout, "blobs", "sha256");
  await mkdir(blobs, { recursive: true });
  const put = async (mediaType: string, content: Buffer | object) => {
    const bytes = Buffer.isBuffer(content) ? content : Buffer.from(JSON.stringify(content));
    const digest = sha256(bytes);
    await writeFile(join(blobs, digest.slice("sha256:".length)), bytes);
    return { mediaType, digest, size: bytes.length };
  };
  const type = (name: string) => `application/vnd.oci.image.${name}`;
  const layers: Awaited<ReturnType<typeof put>>[] = [];
  const plainDigests: string[] = [];
  for (const files of image.layered ? eachFile(image.files) : [image.files]) {
    const layer = image.layer ?? (await packFiles(layout, files, image.links ?? {}));
    plainDigests.push(sha256(layer));
    layers.push(
      image.layered
        ? await put(type("layer.v1.tar+gzip"), await promisify(gzip)(layer))
        : await put(type("layer.v1.tar"), layer),
    );
  }
  const config = await put(type("config.v1+json"), {
    created: PODINFO_CREATED.toISOString(),
    architecture: process.arch === "x64" ? "amd64" : process.arch,
    os: "linux",
    config: { Entrypoint: image.entrypoint, User: USER, Labels: image.labels ?? {} },
    rootfs: { type: "layers", diff_ids: plainDigests },
  });
  const manifest = await put(type("manifest.v1+json"), {
    schemaVersion: 2,
    mediaType: type("manifest.v1+json"),
    config,
    layers,
  });
  await writeFile(join(layout, "oci-layout"), JSON.stringify({ imageLayoutVersion: "1.0.0" }));
  await writeFile(
    join(layout, "index.json"),
    JSON.stringify({ schemaVersion: 2, manifests: [manifest] }),
  );
}

function eachFile(files: Image["files"]): Image["files"][] {
  return Object.entries(files).map(([path, source]) => ({ [path]: source }));
}

async function packFiles(
  folder: string,
  files: Image["files"],
  links: Readonly<Record<string, string>>,
): Promise<Buffer> {
  const root = join(folder, "root");
  for (const [path, source] of Object.entries(files)) {
    await mkdir(dirname(join(root, path)), { recursive: true });
    await copyFile(source, join(root, path));
  }
  for (const [path, target] of Object.entries(links)) await symlink(target, join(root, path));
  const tarball = join(folder, "layer.tar");
  const paths = Object.keys({ ...files, ...links }).sort();
  await create({ file: tarball, cwd: root, portable: true, mtime: PODINFO_CREATED }, paths);
  const layer = await readFile(tarball);
  await rm(root, { recursive: true });
  await rm(tarball);
  return layer;
}

function sha256(bytes: Buffer): string {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
}
