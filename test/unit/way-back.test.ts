import * as assert from "node:assert/strict";
import { wayBack, type Outcome, type Result, type Running } from "../../release/way-back";

const digestOf = (tag: string) => `sha256:${tag.padEnd(64, "0")}`;
const outcome = (result: Result, tag: string): Outcome => ({
  result,
  tag,
  digest: digestOf(tag),
  commit: tag,
});
const running = (imageTag: string, rollbackOf?: string): Running => ({
  imageTag,
  digest: digestOf(imageTag),
  rollbackOf,
});

const asks = (imageTag: string, rollbackOf?: string) => ({ imageTag, rollbackOf });

describe("the way back", () => {
  const history = [outcome("deployed", "dev-3"), outcome("deployed", "dev-2")];
  const longer = [...history, outcome("deployed", "dev-1")];

  it("leads to what was deployed before", () => {
    assert.equal(wayBack(history, running("dev-3"), asks("dev-3"))?.tag, "dev-2");
    assert.equal(wayBack(history, running("dev-3"), asks("dev-3"))?.digest, digestOf("dev-2"));
  });

  it("leads to what was deployed before what runs, though more has been requested", () => {
    assert.equal(wayBack(history, running("dev-3"), asks("dev-4"))?.tag, "dev-2");
  });

  it("leads further each time, never to what was left", () => {
    const again = [outcome("rolled-back", "dev-2"), ...longer];
    assert.equal(wayBack(again, running("dev-2", "dev-3"), asks("dev-2", "dev-3"))?.tag, "dev-1");
  });

  it("leads to what ran before, not to what had been left by then", () => {
    const deployed = (tag: string, before: string): Outcome => ({
      ...outcome("deployed", tag),
      former: { tag: before, digest: digestOf(before) },
    });
    const left = [
      deployed("dev-4", "dev-2"),
      outcome("rolled-back", "dev-2"),
      deployed("dev-3", "dev-2"),
      deployed("dev-2", "dev-1"),
    ];
    assert.equal(wayBack(left, running("dev-4"), asks("dev-4"))?.tag, "dev-2");
    assert.equal(wayBack(left, running("dev-2", "dev-4"), asks("dev-2"))?.tag, "dev-1");
    // Deployed once more, in other settings.
    const again = [deployed("dev-4", "dev-4"), ...left];
    assert.equal(wayBack(again, running("dev-4"), asks("dev-4"))?.tag, "dev-2");
  });

  it("passes deployments that failed", () => {
    const failed = [history[0], outcome("went-back", "dev-9"), history[1]] as Outcome[];
    assert.equal(wayBack(failed, running("dev-3"), asks("dev-3"))?.tag, "dev-2");
  });

  it("leads to what was verified last when a deployment got stuck", () => {
    const stuck = [outcome("failed", "dev-4"), ...history];
    assert.equal(wayBack(stuck, running("dev-3"), asks("dev-4"))?.tag, "dev-3");
  });

  it("is taken to its end when it was begun", () => {
    assert.equal(wayBack(history, running("dev-2", "dev-3"), asks("dev-3"))?.tag, "dev-2");
  });

  it("leads to the release that is named, if it was deployed here", () => {
    assert.equal(wayBack(longer, running("dev-3"), asks("dev-3"), "dev-1")?.tag, "dev-1");
    assert.equal(wayBack(longer, running("dev-3"), asks("dev-3"), "dev-9"), undefined);
    assert.equal(wayBack([], running("dev-3"), asks("dev-4"), "dev-3")?.tag, "dev-3");
  });

  it("leads to what ran before the first deployment by the tool", () => {
    const former = { tag: "dev-7", digest: digestOf("dev-7") };
    const first = [{ ...outcome("deployed", "dev-8"), former }];
    assert.deepEqual(wayBack(first, running("dev-8"), asks("dev-8")), former);
    assert.deepEqual(wayBack(first, running("dev-8"), asks("dev-8"), "dev-7"), former);
  });

  it("leads nowhere from a first release", () => {
    assert.equal(
      wayBack([outcome("deployed", "dev-1")], running("dev-1"), asks("dev-1")),
      undefined,
    );
    assert.equal(wayBack([], running("dev-1"), asks("dev-1")), undefined);
  });
});
