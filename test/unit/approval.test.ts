import * as assert from "node:assert/strict";
import {
  approvalProblems,
  countedApprovals,
  slug,
  type ApprovalPolicy,
  type Word,
} from "../../release/approval";
import { formatProblems } from "../../release/problem";

const ANN = "ann@example.com";
const BOB = "bob@example.com";
const EVE = "eve@example.com";
const NOON = new Date("2026-11-02T12:00:00Z");
const HOUR = 3600;

/** An unsigned approval at noon, or what is said of it. */
const yes = (email: string, more: Partial<Word> = {}): Word => ({
  email,
  kind: "approve",
  at: NOON,
  signature: "none",
  ...more,
});
const no = (email: string, more: Partial<Word> = {}) => yes(email, { kind: "reject", ...more });

/** The problems of Ann's request for prod at noon, or so many seconds later. */
const REQUEST = { environment: "prod", plan: "0123456789ab".repeat(5) };

function refusal(policy: Partial<ApprovalPolicy>, words: readonly Word[], later = 0): string {
  const whole = { required: 1, notOwnRequest: true, signed: false, ...policy };
  const now = new Date(NOON.getTime() + later * 1000);
  return formatProblems(approvalProblems("prod", whole, [ANN], words, NOON, now, REQUEST));
}

describe("an approval", () => {
  it("is not asked for by default", () => {
    assert.equal(refusal({ required: 0 }, []), "");
  });

  it("counts each person once", () => {
    const policy = { required: 2, notOwnRequest: true, signed: false };
    const words = [yes(BOB), yes(BOB.toUpperCase()), yes(EVE)];
    assert.deepEqual(countedApprovals(policy, [ANN], words, NOON, NOON), [BOB, EVE]);
    assert.match(refusal(policy, [yes(BOB), yes(BOB)]), /approved by bob@example.com only;/);
    assert.equal(refusal(policy, [yes(BOB), yes(EVE)]), "");
  });

  it("of one's own request counts only where the policy says so", () => {
    assert.equal(
      refusal({}, [yes("Ann@example.com")]),
      "prod: the request is approved by nobody, not counting ann@example.com (own request); " +
        "expected the word of 1 person other than ann@example.com. " +
        "1 more must run `baton approve prod 0123456789ab`.",
    );
    assert.equal(refusal({ notOwnRequest: false }, [yes(ANN)]), "");
  });

  it("counts only from whom the policy names", () => {
    const from = ["Bob@Example.com", ANN];
    assert.equal(refusal({ from }, [yes(BOB)]), "");
    assert.equal(
      refusal({ from }, [yes(EVE)]),
      "prod: the request is approved by nobody, " +
        "not counting eve@example.com (not in baton:approval.from); expected the word of 1 " +
        "person of Bob@Example.com. 1 more must run `baton approve prod 0123456789ab`.",
    );
    assert.equal(refusal({ from: [], required: 0 }, []), "");
  });

  it("says when the people named are too few", () => {
    assert.match(
      refusal({ from: [ANN] }, [yes(ANN)]),
      /expected the word of 1 person of nobody\. They are too few: let somebody else ask/,
    );
    assert.match(refusal({ from: [ANN, BOB], required: 2 }, [yes(BOB)]), /They are too few/);
    const both = { from: [ANN, BOB], required: 2, notOwnRequest: false };
    assert.match(refusal(both, [yes(BOB)]), /1 more must run/);
  });

  it("counts for as long as the policy says", () => {
    const policy = { expiresAfter: HOUR };
    assert.equal(refusal(policy, [yes(BOB)], HOUR - 1), "");
    assert.match(
      refusal(policy, [yes(BOB)], HOUR),
      /by nobody, not counting bob@example.com \(expired at 2026-11-02 13:00 UTC\);/,
    );
    const again = yes(BOB, { at: new Date("2026-11-02T12:30:00Z") });
    assert.equal(refusal(policy, [again, yes(BOB)], HOUR), "", "a new word counts anew");
    assert.match(
      refusal(policy, [again, yes(BOB)], 2 * HOUR),
      /not counting bob@example.com \(expired at 2026-11-02 13:30 UTC\);/,
    );
  });

  it("counts only with a good signature where the policy asks for one", () => {
    const words = [yes(BOB), yes(EVE, { signature: "bad" })];
    assert.equal(refusal({ required: 2 }, words), "");
    assert.match(
      refusal({ signed: true }, words),
      /not counting bob@example.com \(not signed\), eve@example.com \(not signed by a key of baton:approval.allowedSigners\); expected the signed word of 1 person/,
    );
    assert.equal(refusal({ signed: true }, [yes(BOB, { signature: "good" })]), "");
  });

  it("does not outweigh a rejection, whoever's that is, and however old", () => {
    const reason = "wrong week";
    assert.match(
      refusal({}, [yes(BOB), no(EVE, { reason })]),
      /rejected by eve@example.com \(wrong week\)/,
    );
    assert.match(refusal({ required: 0 }, [no(EVE)]), /rejected by eve@example.com \(no reason/);
    const strict = { signed: true, expiresAfter: 1, from: [BOB] };
    const signed = yes(BOB, { signature: "good", at: new Date("2026-11-02T13:00:00Z") });
    assert.equal(refusal(strict, [signed], HOUR), "");
    assert.match(refusal(strict, [no(ANN), signed], HOUR), /rejected by ann/);
    const both = refusal({}, [no(ANN, { reason }), no(EVE, { reason })]);
    assert.match(both, /rejected by ann@.* \(wrong week\), rejected by eve@/);
  });

  it("is named by a person's address", () => {
    assert.equal(slug("Ann.O'Neil+x@Example.com"), "ann-o-neil-x-example-com");
    assert.equal(slug("@"), "someone");
  });
});
