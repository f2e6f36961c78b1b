import * as assert from "node:assert/strict";
import type { ApprovalPolicy, Word } from "../../release/approval";
import type { FreezeWindow } from "../../release/freeze";
import {
  approvalsTerm,
  expiryTerm,
  freezeTerm,
  holdTerm,
  lineTerm,
  problemsOf,
  signOffTerm,
  soakTerm,
  type Term,
} from "../../release/gate";
import { holdsOf, type HoldEntry } from "../../release/holds";
import { formatProblem, formatProblems } from "../../release/problem";
import { weekend } from "../support/freezes";

const ANN = "ann@example.com";
const BOB = "bob@example.com";
const DIGEST = `sha256:${"a".repeat(64)}`;
const OTHER = `sha256:${"b".repeat(64)}`;
const HOUR = 3600;
const DAY = 24 * HOUR;
const at = (time: string) => new Date(`${time}Z`);
const NOON = at("2026-11-02T12:00");

/** A term's state and, where it does not pass, its problem as a person reads it. */
function verdict(term: Term): [Term["state"], string?] {
  assert.equal(term.problem === undefined, term.state === "passes", "a problem, or it passes");
  assert.doesNotMatch(term.says, /\.$/);
  return term.problem === undefined ? [term.state] : [term.state, formatProblem(term.problem)];
}

describe("the gate's term for approvals", () => {
  const term = (policy: Partial<ApprovalPolicy>, ...words: Partial<Word>[]) =>
    approvalsTerm(
      "prod",
      { required: 1, notOwnRequest: true, signed: false, ...policy },
      [ANN],
      words.map((word) => ({
        email: BOB,
        kind: "approve",
        at: NOON,
        signature: "none",
        ...word,
      })),
      NOON,
      NOON,
      { environment: "prod", plan: "0".repeat(64) },
    );

  it("waits while words are missing", () => {
    assert.equal(verdict(term({}))[0], "waits");
    assert.match(verdict(term({}))[1] ?? "", /^prod: the request is approved by nobody; /);
    assert.equal(term({ required: 2 }, {}).says, "1 of 2 given");
  });

  it("passes with enough of them", () => {
    assert.deepEqual(verdict(term({}, {})), ["passes"]);
    assert.equal(term({}, {}).says, "given by bob@example.com");
    assert.equal(term({ required: 0 }).says, "nobody's word is needed");
  });

  it("fails for good when somebody rejects", () => {
    const rejected = term({}, {}, { kind: "reject", reason: "wrong week" });
    assert.equal(verdict(rejected)[0], "fails");
    assert.equal(rejected.says, "rejected by bob@example.com (wrong week)");
  });
});

describe("the gate's term for freezes", () => {
  const turn: FreezeWindow = {
    name: "turn of the year",
    from: "2026-12-21T00:00",
    until: "2027-01-04T00:00",
    timeZone: "UTC",
  };

  it("passes outside of them", () => {
    assert.deepEqual(verdict(freezeTerm("prod", [], NOON)), ["passes"]);
    assert.deepEqual(verdict(freezeTerm("prod", [weekend, turn], NOON)), ["passes"]);
  });

  it("waits until the last of them has ended, and says when", () => {
    const term = freezeTerm("prod", [weekend], at("2026-11-07T00:00"));
    assert.deepEqual(verdict(term), [
      "waits",
      "prod: baton:freeze is on until 2026-11-09 08:00 Europe/Berlin (weekend); expected no " +
        "freeze. Run the same command again then; the way back is always open.",
    ]);
    assert.deepEqual(term.passesAt, at("2026-11-09T07:00"));
    const both = freezeTerm("prod", [turn, weekend], at("2027-01-03T12:00"));
    assert.equal(both.says, "on until 2027-01-04 07:00 UTC (turn of the year and weekend)");
  });

  it("fails when no end is in sight", () => {
    const always = { ...weekend, duration: 8 * DAY };
    const [state, text = ""] = verdict(freezeTerm("prod", [always], NOON));
    assert.equal(state, "fails");
    assert.match(text, /on without an end within a year \(weekend\)/);
  });

  it("fails, rather than passes, when a window cannot be understood", () => {
    const broken = { ...weekend, timeZone: "Europe/Bonn" };
    const [state, text = ""] = verdict(freezeTerm("prod", [turn, broken], NOON));
    assert.equal(state, "fails");
    assert.match(text, /^prod: baton:freeze\[1\]\.timeZone is Europe\/Bonn; /);
  });
});

describe("the gate's term for soaking", () => {
  const term = (soak?: number, since?: Date) => soakTerm("prod", "stage", soak, since, NOON);

  it("passes when none is asked for, or it is over", () => {
    assert.deepEqual(verdict(term()), ["passes"]);
    assert.deepEqual(verdict(term(DAY, at("2026-11-01T12:00"))), ["passes"]);
  });

  it("waits until it is", () => {
    const waiting = term(DAY, at("2026-11-01T12:01"));
    assert.deepEqual(verdict(waiting), [
      "waits",
      "prod: the soak in stage is not over until 2026-11-02 12:01 UTC; expected 1d after a " +
        "verified deployment there. Run the same command again then; the way back is always open.",
    ]);
    assert.deepEqual(waiting.passesAt, at("2026-11-02T12:01"));
  });

  it("fails when no deployment is on record", () => {
    assert.deepEqual(verdict(term(90 * 60)), [
      "fails",
      "prod: the soak in stage is not begun; expected 90m after a verified deployment there. " +
        "Deploy it with `baton deploy stage`, which records when it was verified.",
    ]);
  });
});

describe("the gate's term for sign-offs", () => {
  const wanted = { uat: [ANN, BOB], qa: [] };
  const term = (...given: [string, string][]) =>
    signOffTerm(
      "prod",
      "stage",
      wanted,
      given.map(([name, email]) => ({ name, email })),
      "stage-45",
    );

  it("passes when none is asked for, or all are given", () => {
    assert.deepEqual(verdict(signOffTerm("qa", "dev", {}, [], "dev-45")), ["passes"]);
    assert.deepEqual(verdict(term(["uat", "Bob@Example.com"], ["qa", "eve@example.com"])), [
      "passes",
    ]);
  });

  it("waits for those that are missing, by name", () => {
    assert.deepEqual(verdict(term()), [
      "waits",
      "prod: the sign-off of stage-45 in stage is uat and qa missing; expected uat by " +
        "ann@example.com or bob@example.com and qa by anyone. Whoever it is must run " +
        "`baton sign-off stage uat` and `baton sign-off stage qa`.",
    ]);
    assert.equal(term(["uat", ANN]).says, "qa missing");
  });

  it("does not take the word of somebody else, or on something else", () => {
    assert.equal(term(["uat", "eve@example.com"], ["qa", BOB]).says, "uat missing");
    assert.equal(term(["qa", BOB], ["qa", ANN]).says, "uat missing");
  });
});

describe("the gate's terms for holds", () => {
  const entry = (more: Partial<HoldEntry>): HoldEntry => ({
    kind: "hold",
    scope: "project",
    digest: DIGEST,
    tag: "qa-45",
    reason: "leaks memory",
    who: ANN,
    at: NOON,
    ...more,
  });

  it("fail for the image that is held, and for no other", () => {
    const holds = holdsOf([entry({})], []);
    assert.deepEqual(verdict(holdTerm("prod", "stage-45", DIGEST, holds)), [
      "fails",
      "prod: stage-45 is held by ann@example.com since 2026-11-02 12:00 UTC (leaks memory); " +
        "expected an image that nobody holds. Settle it and run `baton unhold stage-45`, or " +
        "choose another release.",
    ]);
    assert.deepEqual(verdict(holdTerm("prod", "stage-46", OTHER, holds)), ["passes"]);
  });

  it("fail while the path is stopped", () => {
    const { stops } = holdsOf([entry({ kind: "stop", reason: "audit" })], []);
    assert.deepEqual(verdict(lineTerm(stops)), [
      "fails",
      "the path: the line is stopped by ann@example.com since 2026-11-02 12:00 UTC (audit); " +
        "expected no stop. Settle it and run `baton resume`; the way back is always open.",
    ]);
    assert.deepEqual(verdict(lineTerm([])), ["passes"]);
  });
});

describe("the gate's term for expiry", () => {
  const term = (expiresAfter?: number) =>
    expiryTerm("prod", at("2026-11-02T08:00"), expiresAfter, NOON);

  it("fails from the moment on that the request expires", () => {
    assert.deepEqual(verdict(term()), ["passes"]);
    assert.deepEqual(verdict(term(4 * HOUR + 1)), ["passes"]);
    assert.deepEqual(verdict(term(4 * HOUR)), [
      "fails",
      "prod: the request is expired at 2026-11-02 12:00 UTC; expected a request of the last 4h. " +
        "Ask anew with `baton request prod`.",
    ]);
  });
});

describe("the gate", () => {
  it("lists the problems of all its terms, in their order", () => {
    const terms = [
      lineTerm([{ scope: "project", reason: "audit", who: ANN, at: NOON }]),
      soakTerm("prod", "stage", undefined, undefined, NOON),
      soakTerm("prod", "stage", HOUR, undefined, NOON),
    ];
    const lines = formatProblems(problemsOf(terms)).split("\n");
    assert.deepEqual(
      lines.map((line) => line.split(" is ")[0]),
      ["the path: the line", "prod: the soak in stage"],
    );
  });
});
