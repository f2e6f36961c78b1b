import * as assert from "node:assert/strict";
import { compare } from "../../bench/figure";
import { Report } from "../../bench/report";
import { formatTable } from "../../bench/table";

describe("a bench's report", () => {
  const show = () => Promise.resolve();
  const limit = { of: "ratio", most: 1.2 } as const;
  const rollback = { measure: "rollback", unit: "s", comparedWith: "up", limit } as const;

  it("prints each figure when it is there, and keeps those measured before and after a failure", async () => {
    const printed: string[] = [];
    const report = new Report(show, (line) => printed.push(line));
    report.add(compare({ ...rollback, baton: 11, compared: 10 }));
    assert.deepEqual(printed, ["rollback: 11.00 s; up: 10.00 s; limit kept"]);
    const fails = () => Promise.reject(new Error("exit 1"));
    assert.equal(await report.attempt("tool, kill the tool", fails), false);
    assert.deepEqual(report.failures, [{ step: "tool, kill the tool", reason: "exit 1" }]);
    assert.equal(printed[1], "tool, kill the tool failed: exit 1");
    assert.equal(await report.attempt("tool, kill Pulumi", () => Promise.resolve()), true);
    report.add(compare({ ...rollback, baton: 13, compared: 10 }));
    assert.deepEqual(
      report.figures.map(({ verdict }) => verdict),
      ["limit kept", "limit exceeded"],
    );
  });

  it("judges nothing by what could not be measured", () => {
    const figure = compare({ ...rollback, baton: 11, compared: NaN });
    assert.equal(figure.verdict, undefined);
    assert.match(formatTable([figure]), /11\.00 s .* not measured /);
  });
});
