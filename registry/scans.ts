import type { Digest } from "../release/eligibility";
import { mergeScans, type ScanAnswer } from "../release/scan";
import { parseTrivyReport } from "../release/trivy";
import { attach, latestAttachment } from "./attachments";
import { EcrRegistry } from "./ecr";
import { RegistryError } from "./errors";
import { imagesOf } from "./images";
import { openRegistry, type RegistryLocation } from "./registry";

/** The `artifactType` of an attached report. */
export const REPORT_TYPE = "application/vnd.baton.trivy-report.v1+json";

/** Who scans: ECR itself, or the build, which attaches its report to the image. */
export type ScanSource = "ecr" | "report";

/**
 * What is known of the vulnerabilities of an image, of an index those of all its platforms.
 * @param source ECR unless given, where that is the registry; else the attached report
 * @throws RegistryError when the registry cannot be asked, or has no such image.
 */
export async function findScan(
  location: RegistryLocation,
  digest: Digest,
  source: ScanSource = location.kind === "ecr" ? "ecr" : "report",
): Promise<ScanAnswer> {
  const contents = openRegistry(location);
  const images = await imagesOf(contents, digest);
  const ecr = source === "ecr" ? new EcrRegistry(location) : undefined;
  const answers = images.map(async (image): Promise<ScanAnswer> => {
    if (ecr !== undefined) return ecr.scan(image.digest);
    const bytes = await latestAttachment(contents, image.digest, REPORT_TYPE);
    if (bytes === undefined) {
      const of = images.length === 1 ? "" : ` to ${image.digest}, one of its platforms`;
      return {
        state: "missing",
        says: `missing: no report is attached${of}`,
        fix: "Attach one with `baton attach-scan TAG --report FILE`",
      };
    }
    const report = parseTrivyReport(Buffer.from(bytes).toString("utf8"));
    if (report !== undefined) return { state: "known", scan: report.scan };
    return {
      state: "missing",
      says: `unreadable: what is attached to ${image.digest} is no report of Trivy's on an image`,
      fix: "Attach another one with `baton attach-scan TAG --report FILE`",
    };
  });
  return mergeScans(await Promise.all(answers));
}

/**
 * Attaches Trivy's report on an image to it; of an index, to the platform that it is about. The
 * same report again changes nothing.
 *
 * @returns what it was attached to, and what it says
 * @throws RegistryError when it is about another image, or the registry cannot be asked or refuses.
 */
export async function attachReport(
  location: RegistryLocation,
  digest: Digest,
  text: string,
): Promise<{ readonly image: Digest; readonly artifact: Digest; readonly answer: ScanAnswer }> {
  const report = parseTrivyReport(text);
  if (report === undefined) {
    throw new RegistryError(
      "the report is not one of Trivy's on an image; expected JSON with SchemaVersion 2 and " +
        "ArtifactType container_image. Make it with `trivy image --format json`.",
    );
  }
  const contents = openRegistry(location);
  const images = await imagesOf(contents, digest);
  const image = images.find(
    (one) =>
      report.digests.includes(one.digest) ||
      (one.config !== undefined && report.digests.includes(one.config)),
  );
  if (image === undefined) {
    throw new RegistryError(
      `${location.repository}: the report is about ${report.name}, which is ` +
        `${report.digests.join(" or ") || "an image without a digest"}; expected ` +
        `${images.map((one) => `${one.digest} with the id ${one.config ?? "of none"}`).join(" or ")}. ` +
        `Scan what was pushed: \`trivy image --format json ${location.repository}@${digest}\`.`,
    );
  }
  const bytes = new TextEncoder().encode(text);
  const at = report.scan.at ?? new Date(0);
  const artifact = await attach(contents, image.digest, { type: REPORT_TYPE, bytes, at });
  return { image: image.digest, artifact, answer: { state: "known", scan: report.scan } };
}
