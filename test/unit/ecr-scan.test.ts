import * as assert from "node:assert/strict";
import { readEcrScan } from "../../registry/ecr-scan";

describe("ECR's scan", () => {
  it("of the basic kind is read from all its pages", () => {
    const at = new Date("2026-11-21T10:00:00Z");
    const page = (name: string, severity: "HIGH" | "UNDEFINED") => ({
      imageScanStatus: { status: "COMPLETE" as const },
      imageScanFindings: {
        imageScanCompletedAt: at,
        findings: [{ name, severity, attributes: [{ key: "package_name", value: "openssl" }] }],
      },
    });
    assert.deepEqual(readEcrScan([page("CVE-1", "HIGH"), page("CVE-2", "UNDEFINED")]), {
      state: "known",
      scan: {
        by: "ECR",
        at,
        findings: [
          { id: "CVE-1", severity: "high", in: "openssl" },
          { id: "CVE-2", severity: "unknown", in: "openssl" },
        ],
      },
    });
  });

  it("of the enhanced kind goes on for good, and tells what is closed from what is not", () => {
    const finding = (vulnerabilityId: string, status: string) => ({
      status,
      severity: "CRITICAL",
      packageVulnerabilityDetails: { vulnerabilityId, vulnerablePackages: [{ name: "zlib" }] },
    });
    const answer = readEcrScan([
      {
        imageScanStatus: { status: "ACTIVE", description: "Continuous scan is selected." },
        imageScanFindings: {
          enhancedFindings: [
            finding("CVE-1", "ACTIVE"),
            finding("CVE-2", "CLOSED"),
            finding("CVE-3", "SUPPRESSED"),
            { status: "ACTIVE", severity: "UNTRIAGED", title: "Something else" },
          ],
        },
      },
    ]);
    assert.deepEqual(answer.state === "known" && answer.scan.findings, [
      { id: "CVE-1", severity: "critical", in: "zlib" },
      { id: "CVE-3", severity: "critical", in: "zlib" },
      { id: "Something else", severity: "unknown", in: undefined },
    ]);
  });

  it("says what is under way, and how it ended without a result", () => {
    for (const status of ["IN_PROGRESS", "PENDING"] as const) {
      assert.equal(readEcrScan([{ imageScanStatus: { status } }]).state, "running", status);
    }
    const failed = readEcrScan([
      { imageScanStatus: { status: "UNSUPPORTED_IMAGE", description: "No OS was found." } },
    ]);
    assert.deepEqual(failed, {
      state: "missing",
      says: "missing: ECR's scan ended with UNSUPPORTED_IMAGE: No OS was found",
      fix: "Set baton:scan.source to report, and let the build attach Trivy's",
    });
    for (const status of ["FAILED", "SCAN_ELIGIBILITY_EXPIRED", "FINDINGS_UNAVAILABLE"] as const) {
      assert.equal(readEcrScan([{ imageScanStatus: { status } }]).state, "missing", status);
    }
    assert.equal(readEcrScan([]).state, "missing");
  });
});
