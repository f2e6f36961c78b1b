import * as assert from "node:assert/strict";
import * as fc from "fast-check";
import { formatQuantity, parseQuantity } from "../../components/internal/quantity";

describe("quantities", () => {
  it("are read as Kubernetes reads them", () => {
    const expected = { "500m": 0.5, "1": 1, "1.5": 1.5, "2k": 2000, "1Ki": 1024, "1Gi": 2 ** 30 };
    for (const [text, amount] of Object.entries(expected)) {
      assert.equal(parseQuantity(text), amount, text);
    }
  });

  it("survive being written and read again", () => {
    const millicores = fc.integer({ min: 1, max: 100_000 });
    fc.assert(
      fc.property(millicores, (m) => {
        assert.ok(Math.abs(parseQuantity(formatQuantity(m / 1000, "cpu")) - m / 1000) < 1e-9);
      }),
    );
    fc.assert(
      fc.property(fc.integer({ min: 1 }), (bytes) => {
        assert.equal(parseQuantity(formatQuantity(bytes, "memory")), bytes);
      }),
    );
  });

  it("refuse what is none", () => {
    for (const bad of ["", "1 Gi", "-1", "1gb", "m"]) {
      assert.throws(() => parseQuantity(bad), RangeError, bad);
    }
  });
});
