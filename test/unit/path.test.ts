import * as assert from "node:assert/strict";
import * as fc from "fast-check";
import { orderPath } from "../../release/path";
import { committedConfig, STACKS } from "../support/program";

describe("the path", () => {
  it("is dev, qa, stage, prod, dr in the committed stack files", () => {
    const upstreams = Object.fromEntries(
      STACKS.map((stack) => [stack, committedConfig(stack).own["upstream"] as string | undefined]),
    );
    assert.deepEqual(orderPath(upstreams), ["dev", "qa", "stage", "prod", "dr"]);
  });

  it("has every environment once, each after its upstream", () => {
    const forest = fc
      .array(fc.option(fc.nat(), { nil: undefined }), { minLength: 1, maxLength: 12 })
      .chain((choices) => {
        // Each environment may take from any earlier one; then the order is shuffled.
        const entries = choices.map((choice, index): [string, string | undefined] => [
          `e${index}`,
          choice === undefined || index === 0 ? undefined : `e${choice % index}`,
        ]);
        return fc.shuffledSubarray(entries, { minLength: entries.length });
      });
    fc.assert(
      fc.property(forest, (entries) => {
        const ordered = orderPath(Object.fromEntries(entries));
        assert.deepEqual([...ordered].sort(), entries.map(([name]) => name).sort());
        for (const [name, upstream] of entries) {
          if (upstream !== undefined) {
            assert.ok(ordered.indexOf(upstream) < ordered.indexOf(name));
          }
        }
      }),
    );
  });

  it("refuses an upstream that is no environment", () => {
    assert.throws(() => orderPath({ dev: undefined, qa: "devel" }), /qa: .*devel.*dev, qa/);
  });

  it("refuses a circle, and says which", () => {
    assert.throws(() => orderPath({ a: "b", b: "c", c: "a" }), /a → b → c → a/);
  });
});
