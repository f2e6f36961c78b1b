/*
 * Parts that were built elsewhere: files packed with xz, and SHA256SUMS over them. They lie in a
 * folder of this machine, below a URL, or together in one archive (tar), as `pack` writes it.
 */
import { execa } from "execa";
import { createHash } from "node:crypto";
import { createReadStream, createWriteStream } from "node:fs";
import {
  chmod,
  copyFile,
  mkdir,
  mkdtemp,
  readFile,
  rename,
  rm,
  stat,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { exists, SANDBOX } from "./folder";

/** The environment variable that stands for `--parts`. */
export const PARTS_VARIABLE = "BATON_SANDBOX_PARTS";

const SUMS = "SHA256SUMS";
const DOWNLOADS = join(SANDBOX, "parts");

/** The files that a part's programs can be taken from. */
export interface Offer {
  readonly sums: string;
  /** What the sandbox that packed the part knew of it. */
  readonly record?: PackRecord;
}

export interface PackRecord {
  /** Of the recipe that the part was built by. */
  readonly fingerprint: string;
  readonly source: string;
}

interface Folder {
  has(file: string): Promise<boolean>;
  /** Copies a file of the folder to a path of this machine. */
  copy(file: string, to: string): Promise<void>;
}

export class Parts {
  private constructor(
    /** As it was given. */
    readonly location: string,
    private readonly folder: Folder,
    private readonly sums: ReadonlyMap<string, string>,
  ) {}

  /**
   * @param location A folder, an archive, or the URL of either; `BATON_SANDBOX_PARTS` unless given.
   * @returns nothing where neither is set.
   * @throws Error when there are no parts, or no sums of them.
   */
  static async open(location = process.env[PARTS_VARIABLE]): Promise<Parts | undefined> {
    if (location === undefined || location === "") return undefined;
    const folder = await openFolder(location);
    if (!(await folder.has(SUMS))) {
      throw new Error(
        `--parts is ${location}, which has no ${SUMS}; expected what sha256sum prints for the files in it`,
      );
    }
    const text = await withCopy(folder, SUMS, (path) => readFile(path, "utf8"));
    const lines = text.split("\n").filter((line) => line !== "");
    const sums = lines.map((line) => {
      const [, sum, file] = /^([0-9a-f]{64}) [ *](.+)$/.exec(line) ?? [];
      if (sum === undefined || file === undefined) {
        throw new Error(
          `--parts is ${location}, where ${SUMS} says "${line}"; expected a sha256 sum and a file name`,
        );
      }
      return [file, sum] as const;
    });
    return new Parts(location, folder, new Map(sums));
  }

  /** The files that hold these programs; nothing unless all of them are there. */
  async offer(programs: readonly string[]): Promise<Offer | undefined> {
    const sums: string[] = [];
    for (const program of programs) {
      const file = await this.fileOf(program);
      if (file === undefined) return undefined;
      sums.push(`${this.sums.get(file)}  ${file}`);
    }
    const record = `${programs[0]}.json`;
    return {
      sums: sums.join("\n"),
      ...((await this.fileOf(record)) === undefined
        ? {}
        : { record: JSON.parse(await this.checked(record, readText)) as PackRecord }),
    };
  }

  /** Copies a program to a path, ready to run. */
  async unpack(program: string, to: string): Promise<void> {
    const file = (await this.fileOf(program)) ?? program;
    await this.checked(file, async (path) => {
      if (file === program) return copyFile(path, to);
      await writeOutput("xz", ["-dc", path], to);
      await this.check(program, to);
    });
    await chmod(to, 0o755);
  }

  private async fileOf(program: string): Promise<string | undefined> {
    for (const file of [`${program}.xz`, program]) {
      if (this.sums.has(file) && (await this.folder.has(file))) return file;
    }
    return undefined;
  }

  private async checked<T>(file: string, use: (path: string) => Promise<T>): Promise<T> {
    return withCopy(this.folder, file, async (path) => {
      await this.check(file, path);
      return use(path);
    });
  }

  private async check(file: string, path: string): Promise<void> {
    const expected = this.sums.get(file);
    const actual = await sha256(path);
    if (expected === undefined || actual === expected) return;
    throw new Error(
      `--parts is ${this.location}, where the sha256 sum of ${file} is ${actual}; expected ` +
        `${expected}, as ${SUMS} says. Fetch it again, or remove it there to have it built.`,
    );
  }
}

/**
 * Writes an archive of programs, for `--parts`.
 * @param programs Paths by name.
 * @param records By the first program of each part.
 */
export async function pack(
  archive: string,
  programs: ReadonlyMap<string, string>,
  records: ReadonlyMap<string, PackRecord>,
): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "baton-pack-"));
  try {
    const files: string[] = [];
    for (const [name, { fingerprint, source }] of records) {
      files.push(`${name}.json`);
      await writeFile(join(folder, `${name}.json`), JSON.stringify({ fingerprint, source }));
    }
    for (const [name, path] of programs) {
      files.push(`${name}.xz`);
      const args = ["-1", "--threads=0", "--stdout", path];
      await writeOutput("xz", args, join(folder, `${name}.xz`));
    }
    const sums: string[] = [];
    for (const file of files) sums.push(`${await sha256(join(folder, file))}  ${file}\n`);
    await writeFile(join(folder, SUMS), sums.join(""));
    await execa("tar", ["-cf", `${archive}.unfinished`, "-C", folder, SUMS, ...files]);
    await rename(`${archive}.unfinished`, archive);
  } finally {
    await rm(folder, { recursive: true });
  }
}

/**
 * The commit that a Go program was built from, as Go writes it into programs built in a checkout
 * (https://pkg.go.dev/runtime/debug#BuildSetting).
 */
export async function commitOf(program: string): Promise<string | undefined> {
  const bytes = await readFile(program);
  const setting = (key: string) => {
    const start = bytes.indexOf(`build\t${key}=`);
    if (start < 0) return undefined;
    return bytes.subarray(start, bytes.indexOf("\n", start)).toString().split("=")[1];
  };
  const [revision, time] = [setting("vcs.revision"), setting("vcs.time")];
  if (revision === undefined || time === undefined) return undefined;
  return `commit ${revision.slice(0, 12)} of ${time.slice(0, 10)}`;
}

async function openFolder(location: string): Promise<Folder> {
  if (!/^https?:\/\//.test(location)) return openPath(resolve(location), location);
  if (location.endsWith(".tar")) return openPath(await downloadArchive(location), location);
  const urlOf = (file: string) => `${location.replace(/\/$/, "")}/${file}`;
  return {
    has: async (file) => (await request(urlOf(file), "HEAD")).ok,
    copy: (file, to) => download(urlOf(file), to),
  };
}

async function openPath(path: string, location: string): Promise<Folder> {
  const found = await stat(path).catch(() => undefined);
  if (found?.isDirectory()) {
    return {
      has: (file) => exists(join(path, file)),
      copy: (file, to) => copyFile(join(path, file), to),
    };
  }
  const listing = await execa("tar", ["-tf", path], { reject: false });
  if (listing.failed) {
    throw new Error(
      `--parts is ${location}; expected a folder or an archive that \`npm run sandbox -- pack\` has written, or the URL of one`,
    );
  }
  const files = listing.stdout.split("\n");
  return {
    has: (file) => Promise.resolve(files.includes(file)),
    copy: (file, to) => writeOutput("tar", ["-xOf", path, file], to),
  };
}

/** An archive is downloaded again once the server says that it has changed. */
async function downloadArchive(url: string): Promise<string> {
  const { headers } = await request(url, "HEAD");
  const version = ["etag", "last-modified", "content-length"].map((name) => headers.get(name));
  const name = createHash("sha256")
    .update([url, ...version].join("\n"))
    .digest("hex");
  const path = join(DOWNLOADS, `${name}.tar`);
  if (await exists(path)) return path;
  await rm(DOWNLOADS, { recursive: true, force: true });
  await mkdir(DOWNLOADS, { recursive: true });
  await download(url, `${path}.unfinished`);
  await rename(`${path}.unfinished`, path);
  return path;
}

async function download(url: string, to: string): Promise<void> {
  const response = await request(url, "GET");
  if (!response.ok || response.body === null) {
    throw new Error(`--parts: ${url} answers ${response.status}; expected 200`);
  }
  await pipeline(Readable.fromWeb(response.body), createWriteStream(to));
}

async function request(url: string, method: string): Promise<Response> {
  try {
    return await fetch(url, { method });
  } catch (error) {
    const { cause } = error as Error;
    throw new Error(`--parts: ${url} cannot be reached: ${String(cause ?? error)}`);
  }
}

async function withCopy<T>(
  folder: Folder,
  file: string,
  use: (path: string) => Promise<T>,
): Promise<T> {
  const place = await mkdtemp(join(tmpdir(), "baton-parts-"));
  try {
    const path = join(place, file);
    await folder.copy(file, path);
    return await use(path);
  } finally {
    await rm(place, { recursive: true });
  }
}

/** Without a buffer: programs are larger than execa's. */
async function writeOutput(command: string, args: readonly string[], to: string): Promise<void> {
  await execa(command, args, { stdout: { file: to }, buffer: false });
}

function readText(path: string): Promise<string> {
  return readFile(path, "utf8");
}

async function sha256(path: string): Promise<string> {
  const hash = createHash("sha256");
  await pipeline(createReadStream(path), hash);
  return hash.digest("hex");
}
