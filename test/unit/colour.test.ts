import * as assert from "node:assert/strict";
import * as fc from "fast-check";
import { slugOf } from "../../release/colour";

describe("a tag in an object's name", () => {
  it("stays as it is where it can", () => {
    assert.equal(slugOf("stage-45"), "stage-45");
    assert.match(slugOf("prod-v1.4.0"), /^prod-v1-4-0-[0-9a-f]{6}$/);
  });

  it("is short, valid and no other tag's", () => {
    const tag = fc
      .tuple(
        fc.constantFrom("build", "stage", "averylongenvironmentname"),
        fc.stringMatching(/^v\d{1,3}\.\d{1,3}\.\d{1,3}(-[A-Za-z0-9.]{1,9})?$/),
      )
      .map(([giver, version]) => `${giver}-${version}`);
    fc.assert(
      fc.property(tag, tag, (a, b) => {
        assert.match(slugOf(a), /^[a-z0-9][a-z0-9-]{0,18}[a-z0-9]$/);
        if (a !== b) assert.notEqual(slugOf(a), slugOf(b));
      }),
    );
  });
});
