import assert from "node:assert/strict";
import { after, beforeEach, describe, it } from "mocha";
import * as pulumi from "@pulumi/pulumi";
import { StackState } from "../../stack-state";

/** As gRPC hands on what the engine says. */
const UNREADABLE = "failed to load checkpoint: EOF";

describe("what is recorded of the stack itself", () => {
  let asked: unknown[];
  let failures: number;
  beforeEach(async () => {
    [asked, failures] = [[], 0];
    await pulumi.runtime.setMocks(
      {
        newResource: () => assert.fail("nothing is declared"),
        call({ token, inputs }) {
          asked.push({ token, ...(inputs as object) });
          if (failures-- > 0) throw Object.assign(new Error(), { details: UNREADABLE });
          return { outputs: { earnedTag: "qa-7" }, secretOutputNames: [] };
        },
      },
      "baton",
      "prod",
      false,
      "organization",
    );
  });
  after(() => pulumi.runtime.disconnect());

  it("is read once, from the stack itself", async () => {
    const state = new StackState("prod");
    const found = await Promise.all([state.output("earnedTag"), state.output("release")]);
    assert.deepEqual(found, ["qa-7", undefined]);
    const token = "pulumi:pulumi:readStackOutputs";
    assert.deepEqual(asked, [{ token, name: "organization/baton/prod" }]);
  });

  it("is read again where it was just being written", async () => {
    failures = 2;
    assert.equal(await new StackState("prod").output("earnedTag"), "qa-7");
    assert.equal(asked.length, 3);
  });

  it("fails with the engine's own words where it cannot be read", async () => {
    failures = Infinity;
    await assert.rejects(new StackState("prod").output("earnedTag"), new RegExp(UNREADABLE));
  });
});
