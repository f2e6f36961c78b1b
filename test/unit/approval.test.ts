import * as assert from "node:assert/strict";
import { approvalProblems, countedApprovals, slug, type Word } from "../../release/approval";
import { formatProblems } from "../../release/problem";

const ANN = "ann@example.com";
const BOB = "bob@example.com";
const EVE = "eve@example.com";
const yes = (email: string): Word => ({ email, kind: "approve" });

const refusal = (required: number, notOwnRequest: boolean, ...words: Word[]) =>
  formatProblems(approvalProblems("prod", { required, notOwnRequest }, [ANN], words));

describe("an approval", () => {
  it("is not asked for by default", () => {
    assert.equal(refusal(0, true), "");
  });

  it("counts each person once", () => {
    const policy = { required: 2, notOwnRequest: true };
    const words = [yes(BOB), yes(BOB.toUpperCase()), yes(EVE)];
    assert.deepEqual(countedApprovals(policy, [ANN], words), [BOB, EVE]);
    assert.match(refusal(2, true, yes(BOB), yes(BOB)), /approved by bob@example.com only/);
    assert.equal(refusal(2, true, yes(BOB), yes(EVE)), "");
  });

  it("of one's own request counts only where the policy says so", () => {
    assert.equal(
      refusal(1, true, yes("Ann@example.com")),
      "prod: the request is approved by nobody; expected the word of 1 person other than " +
        "ann@example.com. 1 more must run `baton approve prod`.",
    );
    assert.equal(refusal(1, false, yes(ANN)), "");
  });

  it("does not outweigh a rejection", () => {
    const no: Word = { email: EVE, kind: "reject", reason: "wrong week" };
    assert.match(refusal(1, true, yes(BOB), no), /rejected by eve@example.com \(wrong week\)/);
    assert.match(refusal(0, true, no), /rejected by eve/);
  });

  it("is named by a person's address", () => {
    assert.equal(slug("Ann.O'Neil+x@Example.com"), "ann-o-neil-x-example-com");
    assert.equal(slug("@"), "someone");
  });
});
