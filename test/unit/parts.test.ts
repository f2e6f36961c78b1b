import { execa } from "execa";
import * as assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { isBuilt, isPlaced, offerOf, placePart, readStamp, type Part } from "../../sandbox/build";
import { BIN } from "../../sandbox/folder";
import { pack, Parts } from "../../sandbox/parts";

const sum = (bytes: Buffer | string) => createHash("sha256").update(bytes).digest("hex");

/** A program of two lines, as `go build` and a checkout would leave it. */
const program = (said: string) =>
  `#!/bin/sh\necho ${said}\nexit\nbuild\tvcs.revision=94977969d64112b04e19\nbuild\tvcs.time=2026-07-01T07:52:50Z\n`;

describe("the sandbox's parts", () => {
  let folder: string;
  let server: Server;
  let url: string;
  /** A part of two programs, whose names nothing else in the sandbox's folder has. */
  let part: Part;

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "baton-parts-test-"));
    const [first, second] = [`${basename(folder)}-a`, `${basename(folder)}-b`];
    part = {
      name: "Fake",
      module: "pause",
      programs: { [first]: ".", [second]: "." },
      links: { [first]: [`${first}-link`] },
      seconds: 1,
    };
    server = createServer((request, response) => {
      const stream = createReadStream(join(folder, request.url ?? ""));
      stream.on("error", () => response.writeHead(404).end());
      stream.on("open", () => (request.method === "HEAD" ? response.end() : stream.pipe(response)));
    });
    await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
    url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  });
  afterEach(async () => {
    server.close();
    await rm(folder, { recursive: true });
    const [first = ""] = Object.keys(part.programs);
    const made = [...Object.keys(part.programs), `${first}-link`, `.${first}.json`];
    for (const name of made) await rm(join(BIN, name), { force: true });
  });

  /** Writes both programs, packed, with their sums. */
  async function writeParts(said = "hello"): Promise<void> {
    const lines: string[] = [];
    for (const name of Object.keys(part.programs)) {
      const { stdout } = await execa("xz", ["-c"], {
        input: program(said),
        encoding: "buffer",
      });
      await writeFile(join(folder, `${name}.xz`), stdout);
      lines.push(`${sum(Buffer.from(stdout))}  ${name}.xz`, `${sum(program(said))}  ${name}`);
    }
    await writeFile(join(folder, "SHA256SUMS"), `${lines.join("\n")}\n`);
  }
  const open = async (location: string) => {
    const parts = await Parts.open(location);
    assert.ok(parts);
    return parts;
  };
  const says = async (name: string) => (await execa(join(BIN, name))).stdout;

  for (const place of ["a folder", "a URL"]) {
    it(`are taken from ${place}, with the commit they were built from`, async () => {
      await writeParts();
      const location = place === "a URL" ? `${url}/` : folder;
      const parts = await open(location);
      assert.equal(await isPlaced(part, parts), false);
      await placePart(part, parts);
      assert.equal(await isPlaced(part, parts), true);
      const [first = "", second = ""] = Object.keys(part.programs);
      for (const name of [first, second, `${first}-link`]) assert.equal(await says(name), "hello");
      const stamp = await readStamp(part);
      assert.equal(stamp?.source, `taken from ${location}: commit 94977969d641 of 2026-07-01`);
    });
  }

  it("are refused where a sum is wrong, and leave no program behind", async () => {
    await writeParts();
    const [first = ""] = Object.keys(part.programs);
    const file = join(folder, `${first}.xz`);
    const bytes = await readFile(file);
    await writeFile(file, Buffer.concat([bytes, Buffer.from("x")]));
    await assert.rejects(placePart(part, await open(folder)), (error: Error) => {
      const actual = sum(Buffer.concat([bytes, Buffer.from("x")]));
      assert.equal(
        error.message,
        `--parts is ${folder}, where the sha256 sum of ${first}.xz is ${actual}; expected ` +
          `${sum(bytes)}, as SHA256SUMS says. Fetch it again, or remove it there to have it built.`,
      );
      return true;
    });
    await assert.rejects(readFile(join(BIN, first)));
    assert.equal(await isPlaced(part, await open(folder)), false);
  });

  it("are refused where the unpacked program's sum is wrong", async () => {
    await writeParts();
    const path = join(folder, "SHA256SUMS");
    const text = await readFile(path, "utf8");
    await writeFile(path, text.replaceAll(sum(program("hello")), sum("another")));
    await assert.rejects(placePart(part, await open(folder)), (error: Error) =>
      error.message.includes(`is ${sum(program("hello"))}; expected ${sum("another")}`),
    );
  });

  it("may be any subset: a part whose programs are not all there is left to be built", async () => {
    await writeParts();
    const [first = "", second = ""] = Object.keys(part.programs);
    await rm(join(folder, `${second}.xz`));
    for (const location of [folder, url]) {
      const parts = await open(location);
      assert.equal(await offerOf(part, parts), undefined);
      assert.ok(await offerOf({ ...part, programs: { [first]: "." } }, parts));
    }
  });

  it("are taken anew once they change, and no longer count once they are gone", async () => {
    await writeParts();
    await placePart(part, await open(folder));
    await writeParts("goodbye");
    const parts = await open(folder);
    assert.equal(await isPlaced(part, parts), false);
    await placePart(part, parts);
    assert.equal(await says(Object.keys(part.programs)[1] ?? ""), "goodbye");
    await writeFile(join(folder, "SHA256SUMS"), "");
    assert.equal(await isPlaced(part, await open(folder)), false);
    assert.equal(await isPlaced(part), false);
  });

  for (const place of ["a file", "a URL"]) {
    it(`come back from the archive that pack writes, as ${place}`, async () => {
      await writeParts();
      await placePart(part, await open(folder));
      const stamp = await readStamp(part);
      assert.ok(stamp);
      const [first = ""] = Object.keys(part.programs);
      const paths = new Map(Object.keys(part.programs).map((name) => [name, join(BIN, name)]));
      const archive = join(folder, "parts.tar");
      await pack(archive, paths, new Map([[first, stamp]]));

      for (const path of paths.values()) await rm(path);
      const location = place === "a file" ? archive : `${url}/parts.tar`;
      const parts = await open(location);
      assert.equal(await isPlaced(part, parts), false);
      await placePart(part, parts);
      assert.equal(await isPlaced(part, parts), true);
      for (const name of paths.keys()) assert.equal(await says(name), "hello");
      assert.equal((await readStamp(part))?.source, `taken from ${location}: ${stamp.source}`);
      // Another checkout builds it by another recipe.
      assert.equal(await offerOf({ ...part, stamps: ["main.version=2"] }, parts), undefined);
    });
  }

  it("are known as built by their recipe, also where another sandbox has built them", async () => {
    await writeParts();
    await placePart(part, await open(folder));
    assert.equal(await isBuilt(part), false, "taken from a commit's build");
    const [first = ""] = Object.keys(part.programs);
    const paths = new Map(Object.keys(part.programs).map((name) => [name, join(BIN, name)]));
    const archive = join(folder, "parts.tar");
    const stamp = await readStamp(part);
    assert.ok(stamp);
    await pack(
      archive,
      paths,
      new Map([[first, { ...stamp, source: "built from sandbox/modules/pause" }]]),
    );
    await placePart(part, await open(archive));
    assert.equal(await isBuilt(part), true);
  });

  it("are refused without sums, with a sum that is none, and where nothing is", async () => {
    await mkdir(join(folder, "empty"));
    const empty = join(folder, "empty");
    await assert.rejects(Parts.open(empty), {
      message: `--parts is ${empty}, which has no SHA256SUMS; expected what sha256sum prints for the files in it`,
    });
    await writeFile(join(empty, "SHA256SUMS"), "123  kube\n");
    await assert.rejects(Parts.open(empty), {
      message: `--parts is ${empty}, where SHA256SUMS says "123  kube"; expected a sha256 sum and a file name`,
    });
    await assert.rejects(Parts.open(join(folder, "none")), {
      message: /^--parts is \S+none; expected a folder or an archive that/,
    });
    await assert.rejects(Parts.open(`${url}/none.tar`), {
      message: `--parts: ${url}/none.tar answers 404; expected 200`,
    });
    assert.equal(await Parts.open(""), undefined);
  });
});
