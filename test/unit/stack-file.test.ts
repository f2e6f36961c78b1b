import * as assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as fc from "fast-check";
import { parse } from "yaml";
import { editStackFile, restoreStackFile, writeAtomically } from "../../ledger/stack-file";
import { ROOT, STACKS } from "../support/program";

const DIGEST = `sha256:${"0".repeat(64)}`;
const MOVING = ["baton:imageTag", "baton:imageDigest", "baton:version", "baton:rollbackOf"];

const configOf = (text: string) =>
  (parse(text) as { config: Record<string, unknown> | null }).config ?? {};

describe("an edit of a stack file", () => {
  it("leaves every other line of the committed files as it is", () => {
    const values = fc.constantFrom(undefined, "qa-45", "v1.4.0", DIGEST, "1.10", "yes", "# no");
    const changes = fc.record(Object.fromEntries(MOVING.map((key) => [key, values])));
    fc.assert(
      fc.property(
        fc.constantFrom(...STACKS),
        fc.array(changes, { maxLength: 4 }),
        (name, edits) => {
          const original = readFileSync(join(ROOT, `Pulumi.${name}.yaml`), "utf8");
          const expected = new Map(Object.entries(configOf(original)));
          let text = original;
          for (const edit of edits) {
            text = editStackFile(text, edit, name);
            for (const [key, value] of Object.entries(edit)) {
              if (value === undefined) expected.delete(key);
              else expected.set(key, value);
            }
          }
          assert.deepEqual(configOf(text), Object.fromEntries(expected));
          const others = (lines: string) =>
            lines.split("\n").filter((line) => !MOVING.some((key) => line.includes(`${key}:`)));
          assert.deepEqual(others(text), others(original));
        },
      ),
    );
  });

  it("keeps comments, quotes and what stands below `config`", () => {
    const text = `# qa
config:
  # The tag.
  baton:imageTag: "dev-44" # by hand
  baton:version: 'v1.3.0' # goes

  # Who.
  baton:upstream: dev # first
encryptionsalt: v1:abc=
`;
    const changes = {
      "baton:imageTag": "dev-45",
      "baton:version": undefined,
      "baton:imageDigest": DIGEST,
    };
    assert.equal(
      editStackFile(text, changes, "qa"),
      `# qa
config:
  # The tag.
  baton:imageTag: dev-45 # by hand

  # Who.
  baton:upstream: dev # first
  baton:imageDigest: ${DIGEST}
encryptionsalt: v1:abc=
`,
    );
  });

  it("works on a file in which nothing is set yet", () => {
    for (const text of ["", "{}\n", "config:\n", "config: {}\n", "config: { a:b: c }\n"]) {
      const edited = editStackFile(text, { "baton:imageTag": "build-1" }, "dev");
      assert.equal(configOf(edited)["baton:imageTag"], "build-1", text);
    }
    assert.equal(
      editStackFile("config:\n  a:b: c", { "baton:imageTag": "build-1" }, "dev"),
      "config:\n  a:b: c\n  baton:imageTag: build-1\n",
    );
  });

  it("writes structured values too, and keeps comments and order", () => {
    const text = "config:\n  # One.\n  a:b: { c: 1 } # two\n  d:e: 5 # three\n";
    const edited = editStackFile(text, { "a:b": { c: 2 } }, "dev");
    assert.deepEqual(configOf(edited), { "a:b": { c: 2 }, "d:e": 5 });
    assert.match(edited, /# One\.\n {2}a:b:[^]*d:e: 5 # three/);
  });

  it("refuses what is no stack file, and says where", () => {
    for (const text of ["- a\n", "config: [1]\n", "config: {\n"]) {
      assert.throws(
        () => editStackFile(text, { "baton:imageTag": "build-1" }, "dev"),
        /^Refusal: dev: Pulumi\.dev\.yaml is .*; expected a stack file/,
        text,
      );
    }
  });

  it("is written whole, and leaves nothing beside it, nor what a killed run has left", async () => {
    const folder = mkdtempSync(join(tmpdir(), "baton-test-"));
    const dead = spawnSync("true").pid;
    try {
      const path = join(folder, "Pulumi.dev.yaml");
      writeFileSync(`${path}.${dead}.tmp`, "ha");
      await writeAtomically(path, "one\n");
      await writeAtomically(path, "two\n");
      assert.equal(readFileSync(path, "utf8"), "two\n");
      assert.deepEqual(readdirSync(folder), ["Pulumi.dev.yaml"]);
      await assert.rejects(writeAtomically(join(folder, "none", "file"), "x"));
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

describe("a stack file that is restored", () => {
  const former = `config:
  # Who.
  a:approval: { required: 1 }
  a:KEY:
    secure: old
  a:GONE: { secure: gone }
  a:size: 1 # small
encryptionsalt: one
`;

  it("is the former one to the byte where nothing must stay", () => {
    const present = former.replace("size: 1", "size: 2");
    assert.equal(restoreStackFile(former, present, ["a:approval"], "qa"), former);
  });

  it("keeps the present secrets, their key, and what is named", () => {
    const present = `config:
  a:KEY: { secure: new }
  a:OTHER: { secure: other }
  a:size: 2
encryptionsalt: two
`;
    const restored = restoreStackFile(former, present, ["a:approval"], "qa");
    assert.deepEqual(parse(restored), {
      config: { "a:KEY": { secure: "new" }, "a:GONE": { secure: "gone" }, "a:size": 1 },
      encryptionsalt: "two",
    });
    assert.match(restored, /# small/);
  });
});
