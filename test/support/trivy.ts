/** A report as Trivy writes it, on the image with this id. */
export function trivyReport(
  imageId: string,
  vulnerabilities: Readonly<Record<string, string>>,
  createdAt = "2026-11-21T10:00:00.5Z",
): string {
  return JSON.stringify({
    SchemaVersion: 2,
    CreatedAt: createdAt,
    ArtifactName: "podinfo:45",
    ArtifactType: "container_image",
    Metadata: { ImageID: imageId },
    Results: [
      {
        Target: "bin/podinfo",
        Class: "lang-pkgs",
        Type: "gobinary",
        Vulnerabilities: Object.entries(vulnerabilities).map(([id, severity]) => ({
          VulnerabilityID: id,
          PkgName: "stdlib",
          Severity: severity,
        })),
      },
    ],
  });
}
