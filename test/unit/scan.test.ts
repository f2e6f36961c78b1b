import * as assert from "node:assert/strict";
import * as fc from "fast-check";
import { formatProblem } from "../../release/problem";
import {
  describeScan,
  mergeScans,
  scanTerm,
  SEVERITIES,
  type Finding,
  type ScanAnswer,
  type ScanPolicy,
} from "../../release/scan";
import { parseTrivyReport } from "../../release/trivy";

const NOW = new Date("2026-11-21T12:00:00Z");
const scanOf = (...findings: Finding[]): ScanAnswer => ({
  state: "known",
  scan: { by: "ECR", at: new Date("2026-11-21T10:00:00Z"), findings },
});
const CRITICAL: Finding = { id: "CVE-2026-1", severity: "critical", in: "openssl" };
const HIGH: Finding = { id: "CVE-2026-2", severity: "high", in: "zlib" };
const policy = (given: Partial<ScanPolicy> = {}): ScanPolicy => ({
  refuse: "high",
  exceptions: [],
  ...given,
});
const judge = (given: ScanPolicy, answer: ScanAnswer, now = NOW) => {
  const term = scanTerm("prod", given, answer, now);
  return { state: term.state, text: term.problem === undefined ? "" : formatProblem(term.problem) };
};

describe("the gate's term for scans", () => {
  it("refuses what is as severe as configured, or worse, and names it", () => {
    assert.deepEqual(judge(policy(), scanOf(HIGH, CRITICAL)), {
      state: "fails",
      text:
        "prod: the image's scan is 2 findings (high or worse): CVE-2026-1 (critical, openssl); " +
        "CVE-2026-2 (high, zlib); expected none from high on, as baton:scan.refuse says, but what " +
        "is excepted. Build again with what is vulnerable replaced, or except it in " +
        "baton:scan.exceptions with a reason and an expiry.",
    });
    assert.equal(judge(policy({ refuse: "critical" }), scanOf(HIGH)).state, "passes");
    assert.equal(judge(policy({ refuse: "critical" }), scanOf(CRITICAL)).state, "fails");
    assert.equal(judge(policy(), scanOf()).state, "passes");
  });

  it("lets pass what nobody has rated", () => {
    const unrated: Finding = { id: "CVE-2026-3", severity: "unknown" };
    assert.equal(judge(policy({ refuse: "low" }), scanOf(unrated)).state, "passes");
  });

  it("counts each vulnerability once, at its worst, with all its places", () => {
    const twice = scanOf(
      { ...HIGH, in: "one" },
      { ...HIGH, severity: "critical", in: "two" },
      { ...HIGH, severity: "low", in: "two" },
    );
    assert.match(
      judge(policy(), twice).text,
      /is 1 finding \(.*\): CVE-2026-2 \(critical, one, two\)/,
    );
  });

  it("names ten, and counts the rest", () => {
    const many = Array.from({ length: 13 }, (_, index) => ({ ...HIGH, id: `CVE-${index}` }));
    assert.match(judge(policy(), scanOf(...many)).text, /is 13 findings .*; and 3 more; expected/);
  });

  it("honours an exception until its day comes, and says so afterwards", () => {
    const excepted = policy({
      exceptions: [{ id: "CVE-2026-2", reason: "not called", expires: "2026-11-22" }],
    });
    assert.equal(judge(excepted, scanOf(HIGH)).state, "passes");
    assert.match(judge(excepted, scanOf(HIGH, CRITICAL)).text, /is 1 finding .*CVE-2026-1 \(/);
    const late = judge(excepted, scanOf(HIGH), new Date("2026-11-22T00:00:00Z"));
    assert.equal(late.state, "fails");
    assert.match(late.text, /CVE-2026-2 \(high, zlib, its exception expired on 2026-11-22\)/);
    const last = judge(excepted, scanOf(HIGH), new Date("2026-11-21T23:59:59Z"));
    assert.equal(last.state, "passes");
  });

  it("takes any of several exceptions, and names the one that lasted longest", () => {
    const days = ["2026-11-01", "2026-11-20", "2026-10-01"];
    const several = (more: string[]) =>
      policy({
        exceptions: [...days, ...more].map((expires) => ({ id: HIGH.id, reason: "r", expires })),
      });
    assert.match(judge(several([]), scanOf(HIGH)).text, /expired on 2026-11-20\)/);
    assert.equal(judge(several(["2026-12-01"]), scanOf(HIGH)).state, "passes");
  });

  it("waits for a scan that runs, and refuses where there is none", () => {
    const running: ScanAnswer = { state: "running", says: "under way", fix: "Wait" };
    const missing: ScanAnswer = { state: "missing", says: "missing", fix: "Attach one" };
    assert.equal(judge(policy(), running).state, "waits");
    assert.deepEqual(judge(policy(), missing), {
      state: "fails",
      text:
        "prod: the image's scan is missing; expected findings to compare with baton:scan.refuse " +
        "(high). Attach one.",
    });
  });

  it("never lets pass more because more was found, or the bar is lower", () => {
    const finding = fc.record({
      id: fc.constantFrom("a", "b", "c", "d"),
      severity: fc.constantFrom(...SEVERITIES),
    });
    const refuse = fc.constantFrom(...SEVERITIES);
    fc.assert(
      fc.property(fc.array(finding), finding, refuse, refuse, (findings, more, one, other) => {
        const fails = (given: Finding[], level: ScanPolicy["refuse"]) =>
          judge(policy({ refuse: level }), scanOf(...given)).state === "fails";
        assert.ok(!fails(findings, one) || fails([...findings, more], one));
        const [stricter, laxer] = [one, other].sort(
          (a, b) => SEVERITIES.indexOf(a) - SEVERITIES.indexOf(b),
        ) as [typeof one, typeof one];
        assert.ok(!fails(findings, laxer) || fails(findings, stricter));
      }),
    );
  });
});

describe("what a card says of a scan", () => {
  const exceptions = [{ id: "CVE-2026-2", reason: "not called", expires: "2026-12-01" }];

  it("counts by severity, and names what is excepted, why and until when", () => {
    assert.equal(
      describeScan(scanOf(HIGH, CRITICAL, HIGH), undefined, NOW),
      "1 critical, 1 high (ECR, 2026-11-21 10:00 UTC)",
    );
    assert.equal(
      describeScan(scanOf(HIGH), policy({ exceptions }), NOW),
      "1 high (ECR, 2026-11-21 10:00 UTC); CVE-2026-2 excepted until 2026-12-01: not called",
    );
    assert.equal(
      describeScan(scanOf(), policy({ exceptions }), NOW),
      "no findings (ECR, 2026-11-21 10:00 UTC)",
    );
  });

  it("says why nothing is known", () => {
    const missing: ScanAnswer = { state: "missing", says: "nobody scanned it", fix: "Scan it" };
    assert.equal(describeScan(missing, undefined, NOW), "not known: nobody scanned it");
  });
});

describe("scans of several platforms", () => {
  const missing: ScanAnswer = { state: "missing", says: "missing", fix: "Attach one" };
  const running: ScanAnswer = { state: "running", says: "under way", fix: "Wait" };

  it("count together, as of the oldest", () => {
    const later = { by: "ECR", at: new Date("2026-11-21T11:00:00Z"), findings: [CRITICAL] };
    const merged = mergeScans([{ state: "known", scan: later }, scanOf(HIGH)]);
    assert.deepEqual(merged, scanOf(CRITICAL, HIGH));
  });

  it("are known only if all are", () => {
    assert.equal(mergeScans([scanOf(), running]), running);
    assert.equal(mergeScans([running, scanOf(), missing]), missing);
  });
});

describe("a report of Trivy's", () => {
  const report = {
    SchemaVersion: 2,
    CreatedAt: "2026-11-21T10:00:00.123456789Z",
    ArtifactName: "podinfo:45",
    ArtifactType: "container_image",
    Metadata: {
      ImageID: "sha256:id",
      RepoDigests: ["registry.example.com/podinfo@sha256:manifest"],
      ImageConfig: { architecture: "amd64" },
    },
    Results: [
      { Target: "alpine", Class: "os-pkgs" },
      {
        Target: "bin/podinfo",
        Vulnerabilities: [
          { VulnerabilityID: "CVE-2026-1", PkgName: "stdlib", Severity: "CRITICAL" },
          { VulnerabilityID: "CVE-2026-9", PkgName: "stdlib", Severity: "UNKNOWN" },
        ],
      },
    ],
  };

  it("is read with what it is about", () => {
    assert.deepEqual(parseTrivyReport(JSON.stringify(report)), {
      name: "podinfo:45",
      digests: ["sha256:id", "sha256:manifest"],
      scan: {
        by: "Trivy",
        at: new Date("2026-11-21T10:00:00.123Z"),
        findings: [
          { id: "CVE-2026-1", severity: "critical", in: "stdlib" },
          { id: "CVE-2026-9", severity: "unknown", in: "stdlib" },
        ],
      },
    });
    const empty = parseTrivyReport(JSON.stringify({ ...report, Results: null }));
    assert.deepEqual(empty?.scan.findings, []);
  });

  it("is not taken for one where it is something else", () => {
    const filesystem = { ...report, ArtifactType: "filesystem" };
    for (const text of ["", "[]", "{}", "no JSON", JSON.stringify(filesystem)]) {
      assert.equal(parseTrivyReport(text), undefined, text);
    }
    const broken = { ...report, Results: [{ Vulnerabilities: [{ VulnerabilityID: "x" }] }] };
    assert.equal(parseTrivyReport(JSON.stringify(broken)), undefined);
  });
});
