import * as assert from "node:assert/strict";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, relative, resolve } from "node:path";
import { hashProgram } from "../../ledger/program-files";
import { ROOT } from "../support/program";

/** Every file that one reaches by relative imports. */
function reachable(path: string, seen = new Set<string>()): Set<string> {
  if (seen.has(path)) return seen;
  seen.add(path);
  const imports = readFileSync(path, "utf8").matchAll(/(?:from|import|require)[ (]"(\.[^"]*)"/g);
  for (const [, name = ""] of imports) {
    if (name.endsWith(".json")) continue;
    const file = `${resolve(dirname(path), name)}.ts`;
    assert.ok(existsSync(file), file);
    reachable(file, seen);
  }
  return seen;
}

describe("the program's hash", () => {
  it("covers every file that the program and its provider load", async () => {
    const hashed = Object.keys((await hashProgram(ROOT)).files);
    const entries = ["index.ts", ...hashed.filter((path) => path.startsWith("provider/"))];
    const files = new Set(entries.flatMap((path) => [...reachable(join(ROOT, path))]));
    const loaded = [...files].map((path) => relative(ROOT, path));
    assert.ok(loaded.length > 30, loaded.join());
    assert.deepEqual(
      loaded.filter((path) => !hashed.includes(path)),
      [],
    );
  });

  it("leaves out what the program does not load", async () => {
    const hashed = Object.keys((await hashProgram(ROOT)).files);
    assert.deepEqual(
      hashed.filter((path) =>
        /^(app|sandbox|test|bench|docs)\/|^Pulumi\.|node_modules|\.git\//.test(path),
      ),
      [],
    );
  });

  it("is of the files as they are, in a repository or not", async () => {
    const folder = mkdtempSync(join(tmpdir(), "baton-test-"));
    try {
      writeFileSync(join(folder, "index.ts"), "one\n");
      const one = await hashProgram(folder);
      // As `sha256sum` says.
      assert.deepEqual(one, {
        files: { "index.ts": "2c8b08da5ce60398e1f19af0e5dccc744df274b826abe585eaba68c525434806" },
        lockfile: {},
      });
      writeFileSync(join(folder, "index.ts"), "two\n");
      writeFileSync(join(folder, "package-lock.json"), "one\n");
      const two = await hashProgram(folder);
      assert.notDeepEqual(two.files, one.files);
      assert.deepEqual(two.lockfile, { "package-lock.json": one.files["index.ts"] });
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
