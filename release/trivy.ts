import { z } from "zod";
import { parseJson } from "./json";
import type { Scan, Severity } from "./scan";

/** https://trivy.dev/docs/latest/configuration/reporting/#json, what counts here. */
const Report = z.object({
  SchemaVersion: z.literal(2),
  CreatedAt: z.string().optional(),
  ArtifactName: z.string().default(""),
  ArtifactType: z.literal("container_image"),
  Metadata: z
    .object({ ImageID: z.string().optional(), RepoDigests: z.array(z.string()).nullish() })
    .default({}),
  Results: z
    .array(
      z.object({
        Vulnerabilities: z
          .array(
            z.object({
              VulnerabilityID: z.string(),
              PkgName: z.string().optional(),
              Severity: z.string(),
            }),
          )
          .nullish(),
      }),
    )
    .nullish(),
});

/** A report of Trivy on one image. */
export interface TrivyReport {
  readonly scan: Scan;
  /** How the image was named to Trivy. */
  readonly name: string;
  /** Of the image: its configuration's, or its manifest's. */
  readonly digests: readonly string[];
}

const SEVERITIES: Readonly<Record<string, Severity>> = {
  CRITICAL: "critical",
  HIGH: "high",
  MEDIUM: "medium",
  LOW: "low",
};

/** What `trivy image --format json` has written; nothing where the text is something else. */
export function parseTrivyReport(text: string): TrivyReport | undefined {
  const parsed = Report.safeParse(parseJson(text));
  if (!parsed.success) return undefined;
  const { CreatedAt, ArtifactName, Metadata, Results } = parsed.data;
  const at = new Date(CreatedAt ?? "");
  return {
    name: ArtifactName,
    digests: [
      ...(Metadata.ImageID === undefined ? [] : [Metadata.ImageID]),
      ...(Metadata.RepoDigests ?? []).map((one) => one.slice(one.indexOf("@") + 1)),
    ],
    scan: {
      by: "Trivy",
      at: Number.isNaN(at.getTime()) ? undefined : at,
      findings: (Results ?? []).flatMap(({ Vulnerabilities }) =>
        (Vulnerabilities ?? []).map(({ VulnerabilityID, PkgName, Severity }) => ({
          id: VulnerabilityID,
          severity: SEVERITIES[Severity] ?? "unknown",
          in: PkgName,
        })),
      ),
    },
  };
}
