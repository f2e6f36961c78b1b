import * as assert from "node:assert/strict";
import * as fc from "fast-check";
import { formatTag, isEnvironmentName, isVersion, parseTag } from "../../release/tags";

const environment = fc.stringMatching(/^[a-z][a-z0-9]{0,9}$/).filter((name) => name !== "build");
const build = fc.integer({ min: 1, max: 1e6 }).map(String);
const version = fc
  .tuple(fc.nat(99), fc.nat(99), fc.nat(99), fc.constantFrom("", "-rc.1", "-beta"))
  .map(([major, minor, patch, suffix]) => `v${major}.${minor}.${patch}${suffix}`);

describe("tags", () => {
  it("are parsed into what they were formatted from", () => {
    const tag = fc
      .oneof(fc.tuple(environment, fc.oneof(build, version)), fc.tuple(fc.constant("build"), build))
      .map(([giver, release]) => ({ giver, release }));
    fc.assert(fc.property(tag, (parts) => assert.deepEqual(parseTag(formatTag(parts)), parts)));
  });

  it("have one reading: whatever is parsed is formatted back", () => {
    const text = fc.oneof(
      fc.string(),
      fc.stringMatching(/^[a-z0-9]{1,5}-[v0-9.]{1,8}$/),
      fc.stringMatching(/^[a-z]+-[0-9]+$/),
    );
    fc.assert(
      fc.property(text, (candidate) => {
        const parts = parseTag(candidate);
        if (parts !== undefined) assert.equal(formatTag(parts), candidate);
      }),
    );
  });

  for (const bad of [
    "",
    "latest",
    "dev",
    "dev-",
    "-45",
    "dev-0",
    "dev-045",
    "dev-45-1",
    "Dev-45",
    "build-v1.0.0",
    "dev-v1",
    "dev-1.0.0",
    "prod-v1.0.0+build",
    "qa_45",
    `prod-v1.0.0-${"a".repeat(128)}`,
  ]) {
    it(`refuse ${bad.slice(0, 30) || "nothing"}`, () => assert.equal(parseTag(bad), undefined));
  }

  it("know versions", () => {
    for (const good of ["v1.4.0", "v0.0.1", "v2.0.0-rc.1"]) assert.ok(isVersion(good), good);
    for (const bad of ["1.4.0", "v1.4", "v01.4.0", "v1.4.0+5", "v 1.4.0", "vv1.4.0", ""]) {
      assert.ok(!isVersion(bad), bad);
    }
  });

  it("know environments", () => {
    for (const good of ["dev", "perf2", "d"]) assert.ok(isEnvironmentName(good), good);
    for (const bad of ["build", "pre-prod", "2nd", "Prod", ""]) {
      assert.ok(!isEnvironmentName(bad), bad);
    }
  });
});
