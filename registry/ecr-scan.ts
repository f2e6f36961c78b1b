import type { DescribeImageScanFindingsResponse } from "@aws-sdk/client-ecr";
import type { Finding, ScanAnswer, Severity } from "../release/scan";

/** https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_ImageScanFinding.html, and EnhancedImageScanFinding. */
const SEVERITIES: Readonly<Record<string, Severity>> = {
  CRITICAL: "critical",
  HIGH: "high",
  MEDIUM: "medium",
  LOW: "low",
  INFORMATIONAL: "info",
};
/** A scan that comes to an end, and one of enhanced scanning, which goes on for good. */
const DONE = ["COMPLETE", "ACTIVE"];
const UNDER_WAY = ["IN_PROGRESS", "PENDING"];

/** What ECR's answer says, in all its pages; nothing of a scan that nobody has begun. */
export function readEcrScan(
  pages: readonly Pick<
    DescribeImageScanFindingsResponse,
    "imageScanStatus" | "imageScanFindings"
  >[],
): ScanAnswer {
  const [first] = pages;
  const { status = "unknown", description = "" } = first?.imageScanStatus ?? {};
  if (UNDER_WAY.includes(status)) {
    return {
      state: "running",
      says: "not there yet: ECR is scanning the image",
      fix: "Run the same command again in a minute",
    };
  }
  if (!DONE.includes(status)) {
    const why = description === "" ? "" : `: ${description.replace(/\.$/, "")}`;
    return {
      state: "missing",
      says: `missing: ECR's scan ended with ${status}${why}`,
      fix:
        status === "UNSUPPORTED_IMAGE"
          ? "Set baton:scan.source to report, and let the build attach Trivy's"
          : "Start it again (`aws ecr start-image-scan`), or look at the registry's scanning",
    };
  }
  const findings = pages.flatMap(({ imageScanFindings }) => [
    ...(imageScanFindings?.findings ?? []).map(({ name, severity, attributes }) => ({
      id: name ?? "",
      severity: severityOf(severity),
      in: attributes?.find(({ key }) => key === "package_name")?.value,
    })),
    ...(imageScanFindings?.enhancedFindings ?? []).flatMap((found): Finding[] => {
      // What Inspector suppresses still counts: nobody can see here why, and until when.
      if (found.status === "CLOSED") return [];
      const { vulnerabilityId, vulnerablePackages } = found.packageVulnerabilityDetails ?? {};
      const id = vulnerabilityId ?? found.title ?? found.findingArn ?? "";
      return [{ id, severity: severityOf(found.severity), in: vulnerablePackages?.[0]?.name }];
    }),
  ]);
  const at = first?.imageScanFindings?.imageScanCompletedAt;
  return { state: "known", scan: { by: "ECR", at, findings } };
}

function severityOf(severity: string | undefined): Severity {
  return SEVERITIES[severity ?? ""] ?? "unknown";
}
