import * as assert from "node:assert/strict";
import * as fc from "fast-check";
import {
  formatParts,
  movedParts,
  parseParts,
  PLAN_PARTS,
  planOf,
  shortHash,
  type PlanContents,
} from "../../release/plan";

const contents: PlanContents = {
  tag: ["dev-45", undefined],
  digest: `sha256:${"a".repeat(64)}`,
  version: undefined,
  settings: { own: { settings: { config: { LOG_LEVEL: "info", DEBUG: false } } } },
  secrets: {},
  policy: { required: 1, notOwnRequest: true },
  lockfile: { "package-lock.json": "1234" },
  program: { files: { "index.ts": "abcd" } },
};

describe("a plan", () => {
  it("has the same hash whatever the order of the keys", () => {
    const other = {
      ...contents,
      settings: { own: { settings: { config: { DEBUG: false, LOG_LEVEL: "info" } } } },
    };
    assert.deepEqual(planOf(other), planOf(contents));
    assert.match(planOf(contents).hash, /^[0-9a-f]{64}$/);
    assert.equal(shortHash(planOf(contents).hash).length, 12);
  });

  it("names exactly the parts that moved", () => {
    const part = fc.constantFrom(...PLAN_PARTS);
    fc.assert(
      fc.property(fc.uniqueArray(part), fc.string(), (moved, text) => {
        const changes = Object.fromEntries(moved.map((name) => [name, { moved: text }]));
        const [one, other] = [planOf(contents), planOf({ ...contents, ...changes })];
        assert.deepEqual(
          movedParts(one.parts, other.parts),
          PLAN_PARTS.filter((name) => moved.includes(name)),
        );
        assert.equal(one.hash === other.hash, moved.length === 0);
      }),
    );
  });

  it("tells a value from one that only looks like it", () => {
    const hash = (settings: unknown) => planOf({ ...contents, settings }).hash;
    const values = ["1", 1, ["1"], { 1: "1" }, null, "null", [], {}, true, "true"];
    assert.equal(new Set(values.map(hash)).size, values.length);
  });

  it("is read back from the line that a request keeps", () => {
    const { parts } = planOf(contents);
    assert.deepEqual(parseParts(formatParts(parts)), parts);
    assert.deepEqual(movedParts(parseParts(""), parts), [...PLAN_PARTS]);
  });
});
