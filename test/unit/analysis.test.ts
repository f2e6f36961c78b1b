import * as assert from "node:assert/strict";
import * as fc from "fast-check";
import { HELD_AT_MOST, judge, type Criteria, type Sample } from "../../release/analysis";

const START = Date.parse("2026-11-20T12:00:00Z");
const CRITERIA: Criteria = {
  bake: 60,
  interval: 10,
  window: 30,
  failuresInARow: 2,
  minRequests: 20,
  limits: [{ name: "error-rate", unit: "%", max: 1 }],
  whenUnavailable: "hold",
  whenTooLittleTraffic: "hold",
};

/** What each sample of a series is like, ten seconds apart. */
type Kind = "good" | "bad" | "thin" | "empty" | "away";
function sample(kind: Kind, index: number): Sample {
  const at = START + index * 10_000;
  if (kind === "away") return { at, unavailable: "http://prometheus does not answer" };
  const value = kind === "bad" ? 12.345 : kind === "empty" ? undefined : 0;
  return { at, requests: kind === "thin" ? 3 : 100, values: { "error-rate": { value } } };
}
const series = (...kinds: Kind[]) => kinds.map(sample);
const times = <T>(count: number, one: T): T[] => Array.from({ length: count }, () => one);

describe("the analysis of a release", () => {
  it("passes one that was good for the whole bake, and none before", () => {
    assert.deepEqual(judge(CRITERIA, []), { kind: "baking", good: 0 });
    assert.deepEqual(judge(CRITERIA, series(...times(6, "good" as const))), {
      kind: "baking",
      good: 50,
    });
    assert.deepEqual(judge(CRITERIA, series(...times(7, "good" as const))), {
      kind: "passed",
      good: 60,
    });
  });

  it("carries on from what a former run has seen", () => {
    assert.equal(judge(CRITERIA, series("good", "good"), 45).kind, "baking");
    assert.equal(judge(CRITERIA, series("good", "good"), 50).kind, "passed");
    assert.equal(judge(CRITERIA, [], 1000).kind, "baking", "never without a look of its own");
  });

  it("fails one that is beyond a limit, and says which, by how much and since when", () => {
    assert.equal(judge(CRITERIA, series("good", "bad")).kind, "baking", "once is no pattern");
    assert.deepEqual(judge(CRITERIA, series("good", "bad", "bad")), {
      kind: "failed",
      good: 0,
      reasons: ["error-rate is 12.3 %; expected at most 1 %; so since 2026-11-20T12:00:10Z"],
    });
    const apart = judge(CRITERIA, series("bad", "good", "bad", "good", "bad"));
    assert.equal(apart.kind, "baking");
  });

  it("names every query that is beyond its limit", () => {
    const limits = [
      { name: "error-rate", unit: "%", max: 1 },
      { name: "latency-p95", unit: "s", max: 0.5 },
      { name: "orders", min: 3 },
    ];
    const values = {
      "error-rate": { value: 0.2 },
      "latency-p95": { value: 0.75 },
      orders: { value: 1 },
    };
    const verdict = judge({ ...CRITERIA, limits, failuresInARow: 1 }, [
      { at: START, requests: 50, values },
    ]);
    assert.deepEqual(verdict, {
      kind: "failed",
      good: 0,
      reasons: [
        "latency-p95 is 0.75 s; expected at most 0.5 s; so since 2026-11-20T12:00:00Z",
        "orders is 1; expected at least 3; so since 2026-11-20T12:00:00Z",
      ],
    });
  });

  it("compares with the stable release, and holds it to the fixed limit too", () => {
    const limits = [{ name: "latency-p95", unit: "s", max: 0.5, maxTimesStable: 1.5 }];
    const one = (value: number, stable?: number) =>
      judge({ ...CRITERIA, limits, failuresInARow: 1 }, [
        { at: START, requests: 50, values: { "latency-p95": { value, stable } } },
      ]);
    assert.equal(one(0.14, 0.1).kind, "baking");
    assert.deepEqual(one(0.2, 0.1), {
      kind: "failed",
      good: 0,
      reasons: [
        "latency-p95 is 0.2 s; expected at most 0.15 s (1.5 times the stable release's 0.1 s); so since 2026-11-20T12:00:00Z",
      ],
    });
    assert.equal(one(0.6, 2).kind, "failed", "a slow former release excuses nothing");
    assert.equal(one(0.4).kind, "baking", "nothing to compare with");
  });

  it("never passes on too little traffic, and waits for more or gives up as configured", () => {
    const thin = series(...times(7, "thin" as const));
    const held = judge({ ...CRITERIA, bake: 10 }, thin);
    assert.deepEqual(held, {
      kind: "held",
      good: 0,
      reason:
        "too little traffic: 3 requests in the last window; expected at least 20, since 2026-11-20T12:00:00Z",
    });
    const strict: Criteria = { ...CRITERIA, bake: 10, whenTooLittleTraffic: "goBack" };
    assert.equal(judge(strict, thin.slice(0, 6)).kind, "held", "the first window must fill");
    const verdict = judge(strict, thin);
    assert.equal(verdict.kind, "failed");
    assert.match(verdict.reasons[0] ?? "", /too little traffic.*whenTooLittleTraffic is goBack/);
  });

  it("treats a query without a value as one that says nothing", () => {
    const verdict = judge({ ...CRITERIA, bake: 10 }, series("empty", "empty", "empty"));
    assert.equal(verdict.kind, "held");
    assert.match(verdict.reason, /^no value of error-rate, since /);
  });

  it("waits for a Prometheus that is away, or gives up as configured, and never passes", () => {
    const away = series("good", ...times(7, "away" as const));
    assert.equal(judge(CRITERIA, away).kind, "held");
    const verdict = judge({ ...CRITERIA, whenUnavailable: "goBack" }, away);
    assert.equal(verdict.kind, "failed");
    assert.match(verdict.reasons[0] ?? "", /does not answer, since 2026-11-20T12:00:10Z/);
    const back = series("good", "good", "away", "away", "good", "good");
    assert.deepEqual(judge(CRITERIA, back), { kind: "baking", good: 20 });
  });

  it("holds no longer than an hour, whatever it waits for", () => {
    const count = HELD_AT_MOST / 10;
    const mixed = Array.from({ length: count + 1 }, (_, index): Kind => {
      return index % 2 === 0 ? "away" : "thin";
    });
    assert.equal(judge(CRITERIA, mixed.slice(0, count).map(sample)).kind, "held");
    const verdict = judge(CRITERIA, mixed.map(sample));
    assert.equal(verdict.kind, "failed");
    assert.match(verdict.reasons.join(), /it was good for no time in 60 min/);
  });

  it("counts bad samples as in a row where those between them say nothing", () => {
    for (const between of ["thin", "empty", "away"] as const) {
      const given: Criteria = { ...CRITERIA, whenUnavailable: "goBack" };
      assert.deepEqual(judge(given, series("good", "bad", between, "bad")), {
        kind: "failed",
        good: 0,
        reasons: ["error-rate is 12.3 %; expected at most 1 %; so since 2026-11-20T12:00:10Z"],
      });
      assert.equal(judge(given, series("bad", between, "good", "bad")).kind, "baking");
    }
  });

  it("gives up as configured where one kind of not knowing follows another", () => {
    const mixed = series("away", "thin", "away", "thin", "away", "thin", "away");
    const goBack = { whenUnavailable: "goBack", whenTooLittleTraffic: "goBack" } as const;
    assert.equal(judge({ ...CRITERIA, ...goBack }, mixed).kind, "failed");
    assert.equal(judge({ ...CRITERIA, whenUnavailable: "goBack" }, mixed).kind, "held");
  });

  it("waits no longer than an hour for one that is now good, now not", () => {
    for (const other of ["bad", "thin", "away"] as const) {
      const kinds = Array.from({ length: HELD_AT_MOST / 10 + 2 }, (_, index): Kind => {
        return index % 2 === 0 ? "good" : other;
      });
      assert.notEqual(judge(CRITERIA, kinds.slice(0, -1).map(sample)).kind, "failed");
      const verdict = judge(CRITERIA, kinds.map(sample));
      assert.equal(verdict.kind, "failed");
      assert.match(verdict.reasons.join(), /it was good for no time in 60 min/);
    }
  });

  it("counts no time in which nobody looked", () => {
    const gap = [sample("good", 0), sample("good", 1), sample("good", 100), sample("good", 101)];
    assert.deepEqual(judge(CRITERIA, gap), { kind: "baking", good: 20 });
  });

  describe("of any series", () => {
    const kind = fc.constantFrom<Kind>("good", "bad", "thin", "empty", "away");
    const answer = fc.constantFrom("hold" as const, "goBack" as const);
    const criteria = fc
      .record({
        bake: fc.integer({ min: 1, max: 120 }),
        failuresInARow: fc.integer({ min: 1, max: 4 }),
        whenUnavailable: answer,
        whenTooLittleTraffic: answer,
      })
      .map((some): Criteria => ({ ...CRITERIA, ...some }));

    it("passes only after at least the bake's time between good samples", () => {
      fc.assert(
        fc.property(criteria, fc.array(kind, { maxLength: 40 }), (given, kinds) => {
          const verdict = judge(given, kinds.map(sample));
          const pairs = kinds.filter(
            (one, i) => i > 0 && one === "good" && kinds[i - 1] === "good",
          );
          assert.equal(verdict.good, pairs.length * 10);
          if (verdict.kind === "passed") assert.ok(pairs.length * 10 >= given.bake);
        }),
      );
    });

    it("decides nothing for a release by a sample that is not good", () => {
      fc.assert(
        fc.property(criteria, fc.array(kind, { maxLength: 40 }), kind, (given, kinds, last) => {
          if (last === "good") return;
          assert.notEqual(judge(given, [...kinds, last].map(sample)).kind, "passed");
        }),
      );
    });

    it("comes to an end, whatever follows for ever", () => {
      const seconds = 600;
      // Within each hour it is good for a while, or it is over.
      const gains = Math.ceil(120 / seconds) + 1;
      const most = gains * (HELD_AT_MOST / seconds + 3);
      const forever = fc.array(kind, { minLength: 1, maxLength: 2 * most });
      fc.assert(
        fc.property(criteria, forever, (given, kinds) => {
          const samples = Array.from({ length: most }, (_, index) => ({
            ...sample(kinds[index % kinds.length] ?? "good", index),
            at: START + index * seconds * 1000,
          }));
          const ended = samples.some((_, index) => {
            const some = samples.slice(0, index + 1);
            const { kind: is } = judge({ ...given, interval: seconds }, some);
            return is === "passed" || is === "failed";
          });
          assert.ok(ended);
        }),
      );
    });

    it("fails after so many bad samples in a row, and not before", () => {
      fc.assert(
        fc.property(criteria, fc.array(kind, { maxLength: 20 }), (given, kinds) => {
          const enough = times(given.failuresInARow, "bad" as const);
          assert.equal(judge(given, [...kinds, ...enough].map(sample)).kind, "failed");
          const fewer = [...kinds, "good" as const, ...enough.slice(1)];
          assert.notEqual(judge(given, fewer.map(sample)).kind, "failed");
        }),
      );
    });
  });
});
