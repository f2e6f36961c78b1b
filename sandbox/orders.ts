/*
 * The service in `app/`, where it takes podinfo's place: its image by its own Dockerfile, and its
 * databases.
 */
import { execa, ExecaError } from "execa";
import { copyFile, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import type { Project } from "./engine";
import { DEBIAN, exists, LOGS, ROOT, SANDBOX } from "./folder";
import { databaseUrl } from "./postgres";

/** Builds images without a daemon; by the Debian package that has it. */
export const BUILDER = { buildah: "buildah" };

const APP = join(ROOT, "app");
const STORAGE = join(SANDBOX, "buildah");
const BASE = "localhost/node";
const CA_FILE = "/etc/ssl/certs/ca-certificates.crt";

/** Builds `app/` as build number `build`, and writes the image as an OCI layout. */
export async function buildOrders(build: number, layout: string): Promise<void> {
  const work = await mkdtemp(join(tmpdir(), "baton-orders-"));
  try {
    await buildBase(join(work, "base"));
    const npmrc = join(work, "npmrc");
    await writeFile(npmrc, await npmSettings(), { mode: 0o600 });
    const revision = await execa("git", ["rev-parse", "HEAD"], { cwd: ROOT, reject: false });
    const image = `localhost/orders:${build}`;
    const facts = {
      BASE,
      VERSION: String(build),
      REVISION: revision.failed ? "unknown" : revision.stdout,
      CREATED: new Date().toISOString(),
    };
    await buildah("build", [
      // Without cached layers: Debian's version takes them for other build arguments, too.
      ...["--isolation", "chroot", "--network", "host", "--pull-never"],
      // It warns of HEALTHCHECK otherwise, for which OCI's format has no place.
      ...["--format", "docker", "--secret", `id=npmrc,src=${npmrc}`],
      ...Object.entries(facts).flatMap(([name, value]) => ["--build-arg", `${name}=${value}`]),
      ...["--tag", image, APP],
    ]);
    await buildah("push", ["--format", "oci", image, `oci:${layout}`]);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/**
 * Makes an image of this machine's own Node, in place of the one that the Dockerfile names: Node and
 * npm, a shell, the libraries they need, and the certificate authorities that npm trusts here.
 */
async function buildBase(root: string): Promise<void> {
  const shell = join(DEBIAN, "bin/busybox");
  const { stdout } = await execa("ldd", [process.execPath]);
  const shared = [...stdout.matchAll(/(\/\S+) \(0x/g)].map(([, path = ""]) => path);
  const npm = await npmFolder();
  const files: Readonly<Record<string, string>> = {
    "/usr/bin/node": process.execPath,
    "/bin/busybox": shell,
    ...Object.fromEntries(shared.map((path) => [path, path])),
    ...((await exists(CA_FILE)) ? { [CA_FILE]: CA_FILE } : {}),
  };
  for (const [path, source] of Object.entries(files)) {
    await mkdir(dirname(join(root, path)), { recursive: true });
    await copyFile(source, join(root, path));
  }
  for (const name of ["sh", "env", "mkdir"]) await symlink("busybox", join(root, "bin", name));
  await symlink("/bin/env", join(root, "usr/bin/env"));
  await mkdir(join(root, "usr/lib/node_modules"), { recursive: true });
  await execa("cp", ["-a", npm, join(root, "usr/lib/node_modules/npm")]);
  await symlink("../lib/node_modules/npm/bin/npm-cli.js", join(root, "usr/bin/npm"));
  await mkdir(join(root, "tmp"));
  await mkdir(join(root, "root"));
  await mkdir(join(root, "etc"), { recursive: true });
  await writeFile(join(root, "etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n");
  const containerfile = `${root}.Containerfile`;
  await writeFile(containerfile, "FROM scratch\nCOPY . /\n");
  await buildah("build", ["--layers", "--file", containerfile, "--tag", BASE, root]);
}

/** Where the npm of this machine's Node lies. */
async function npmFolder(): Promise<string> {
  const { stdout } = await execa("npm", ["root", "--global"]);
  return join(stdout, "npm");
}

/** What npm is told on this machine, such as where its registry is: for the build's eyes only. */
async function npmSettings(): Promise<string> {
  const texts = ["globalconfig", "userconfig"].map(async (name) => {
    const { stdout } = await execa("npm", ["config", "get", name]);
    return readFile(stdout, "utf8").catch(() => "");
  });
  return (await Promise.all(texts)).join("\n");
}

async function buildah(command: string, args: readonly string[]): Promise<void> {
  const storage = ["--root", join(STORAGE, "root"), "--runroot", join(STORAGE, "run")];
  const log = join(LOGS, "buildah.log");
  await mkdir(LOGS, { recursive: true });
  try {
    await execa("buildah", [...storage, "--storage-driver", "overlay", command, ...args], {
      all: true,
      stdout: [{ file: log }, "pipe"],
      stderr: [{ file: log }, "pipe"],
    });
  } catch (error) {
    const said = error instanceof ExecaError ? String(error.all) : String(error);
    const last = said.trim().split("\n").slice(-5).join("\n");
    throw new Error(`orders cannot be built; the log is ${log}. It ends with:\n${last}`);
  }
}

/**
 * Gives each environment a database of its own, by the secret setting DATABASE_URL.
 * @param prefix Put before the environment's name to name its database.
 */
export async function connectDatabases(project: Project, prefix = ""): Promise<void> {
  for (const environment of project.path) {
    const url = await databaseUrl(`${prefix}${environment}`);
    const get = ["config", "get", "--stack", environment, "DATABASE_URL"];
    const former = await project.pulumi(...get).catch(() => undefined);
    // Encrypted anew it would look like another one.
    if (former?.stdout !== url) await project.setSecret(environment, "DATABASE_URL", url);
  }
}
