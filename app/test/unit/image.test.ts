import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { describe, it } from "node:test";
import { SCHEMA_HEAD } from "../../src/operations.js";

const read = (path: string) => readFile(new URL(`../../${path}`, import.meta.url), "utf8");

describe("the image", () => {
  it("declares the schema that its migrations lead to, and that the service needs", async () => {
    const files = await readdir(new URL("../../migrations", import.meta.url));
    const numbers = files.map((name) => Number(name.split("_")[0])).sort((a, b) => a - b);
    assert.deepEqual(
      numbers,
      [...numbers.keys()].map((index) => index + 1),
    );
    const declared = /baton\.schema-head="(\d+)"/.exec(await read("Dockerfile"))?.[1];
    assert.equal(Number(declared), numbers.at(-1));
    assert.equal(SCHEMA_HEAD, numbers.at(-1));
  });

  it("is declared to expand only, and does", async () => {
    assert.match(await read("Dockerfile"), /baton\.schema-kind="expand"/);
    for (const name of await readdir(new URL("../../migrations", import.meta.url))) {
      const [up = ""] = (await read(`migrations/${name}`)).split("-- Down Migration");
      assert.doesNotMatch(up, /\b(DROP|RENAME|TRUNCATE|DELETE|ALTER COLUMN)\b/i, name);
    }
  });
});
