import * as assert from "node:assert/strict";
import * as fc from "fast-check";
import { holdsOf, type HoldEntry, type LeftRelease } from "../../release/holds";

const digestOf = (letter: string) => `sha256:${letter.repeat(64)}`;
const A = digestOf("a");
const B = digestOf("b");

/** Of the image A by Ann, so many minutes after an hour. */
const entry = (kind: HoldEntry["kind"], minute: number, more: Partial<HoldEntry> = {}) => ({
  kind,
  scope: "project" as const,
  digest: A,
  tag: "qa-45",
  reason: "leaks memory",
  who: "ann@example.com",
  at: new Date(Date.UTC(2026, 10, 2, 12, minute)),
  ...more,
});
const left = (minute: number, more: Partial<LeftRelease> = {}): LeftRelease => ({
  result: "went-back",
  environment: "stage",
  leftTag: "qa-45",
  leftDigest: A,
  digest: B,
  who: "bob@example.com",
  at: new Date(Date.UTC(2026, 10, 2, 12, minute)),
  ...more,
});

/** Why A is held. */
const reasons = (entries: readonly HoldEntry[], outcomes: readonly LeftRelease[] = []) =>
  holdsOf(entries, outcomes)
    .byDigest.get(A)
    ?.map(({ reason }) => reason);

describe("a hold", () => {
  it("is on one image until somebody takes it back", () => {
    assert.deepEqual(reasons([entry("hold", 1)]), ["leaks memory"]);
    assert.equal(holdsOf([entry("hold", 1)], []).byDigest.get(B), undefined);
    assert.equal(reasons([entry("hold", 1), entry("unhold", 2)]), undefined);
    assert.deepEqual(
      reasons([entry("hold", 1), entry("unhold", 2), entry("hold", 3, { reason: "again" })]),
      ["again"],
    );
  });

  it("outlasts what was said before it, at the same instant, or of another image", () => {
    for (const other of [
      entry("unhold", 0),
      entry("unhold", 1),
      entry("unhold", 2, { digest: B }),
      entry("resume", 2),
    ]) {
      assert.deepEqual(reasons([entry("hold", 1), other]), ["leaks memory"]);
    }
  });

  it("is on an image that was left, until somebody takes that back", () => {
    assert.deepEqual(reasons([], [left(1)]), ["it failed in stage"]);
    assert.deepEqual(reasons([], [left(1, { result: "rolled-back" })]), ["stage went back"]);
    assert.equal(reasons([entry("unhold", 2)], [left(1)]), undefined);
    assert.deepEqual(reasons([entry("unhold", 2)], [left(1), left(3)]), ["it failed in stage"]);
  });

  it("is not on an image of which only the settings were left", () => {
    assert.equal(reasons([], [left(1, { digest: A })]), undefined);
  });

  it("on the whole path is none on an image, nor the other way round", () => {
    const { byDigest, stops } = holdsOf(
      [entry("stop", 1, { digest: undefined, tag: undefined, reason: "audit" })],
      [],
    );
    assert.deepEqual([byDigest.size, stops.map(({ reason }) => reason)], [0, ["audit"]]);
    assert.deepEqual(holdsOf([entry("hold", 1)], []).stops, []);
    assert.deepEqual(holdsOf([entry("stop", 1), entry("unhold", 2)], []).stops.length, 1);
    assert.deepEqual(holdsOf([entry("stop", 1), entry("resume", 2)], []).stops, []);
    assert.deepEqual(holdsOf([entry("stop", 1), entry("resume", 1)], []).stops.length, 1);
  });

  it("of all projects is taken back for all projects only", () => {
    const scopes = (...said: HoldEntry[]) => holdsOf(said, []).stops.map(({ scope }) => scope);
    const all = { scope: "repository" } as const;
    assert.deepEqual(scopes(entry("stop", 1, all), entry("resume", 2)), ["repository"]);
    assert.deepEqual(scopes(entry("stop", 1), entry("resume", 2, all)), ["project"]);
    assert.deepEqual(scopes(entry("stop", 1, all), entry("resume", 2, all)), []);
  });

  const entries = fc.array(
    fc.record({
      kind: fc.constantFrom("hold", "unhold", "stop", "resume"),
      scope: fc.constantFrom("project", "repository"),
      digest: fc.constantFrom(A, B),
      tag: fc.constantFrom("dev-45", "qa-45"),
      reason: fc.constantFrom("one", "two"),
      who: fc.constantFrom("ann@example.com", "bob@example.com"),
      at: fc.nat(6).map((minute) => new Date(Date.UTC(2026, 10, 2, 12, minute))),
    }),
    { maxLength: 10 },
  );
  const outcomes = fc.array(
    fc
      .record({
        minute: fc.nat(6),
        leftDigest: fc.constantFrom(A, B),
        digest: fc.constantFrom(A, B),
      })
      .map(({ minute, ...digests }) => left(minute, digests)),
    { maxLength: 3 },
  );
  const shuffled = <T>(list: readonly T[]) =>
    fc.shuffledSubarray([...list], { minLength: list.length });

  it("does not depend on the order in which entries are read", () => {
    const both = fc.tuple(entries, outcomes);
    const orders = both.chain(([said, gone]) =>
      fc.tuple(fc.constant([said, gone] as const), shuffled(said), shuffled(gone)),
    );
    fc.assert(
      fc.property(orders, ([[said, gone], saidAnyhow, goneAnyhow]) => {
        assert.deepEqual(holdsOf(saidAnyhow, goneAnyhow), holdsOf(said, gone));
      }),
    );
  });

  it("is the one that nothing later takes back", () => {
    fc.assert(
      fc.property(entries, (said) => {
        for (const digest of [A, B]) {
          const of = (kind: string) =>
            said.filter((one) => one.kind === kind && one.digest === digest);
          const active = of("hold").filter((hold) => !of("unhold").some(({ at }) => at > hold.at));
          const found = holdsOf(said, []).byDigest.get(digest) ?? [];
          assert.deepEqual(
            found.map(({ at }) => at.getTime()),
            active.map(({ at }) => at.getTime()).sort(),
          );
        }
      }),
    );
  });

  it("is gone once somebody takes all of them back", () => {
    fc.assert(
      fc.property(entries, outcomes, (said, gone) => {
        const unholds = [entry("unhold", 7), entry("unhold", 7, { digest: B })];
        const resumes = [entry("resume", 7), entry("resume", 7, { scope: "repository" })];
        const end = [...unholds, ...resumes];
        const { byDigest, stops } = holdsOf([...end, ...said], gone);
        assert.deepEqual([byDigest.size, stops.length], [0, 0]);
      }),
    );
  });
});
