import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import { Refusal } from "../ledger/refusal";
import { openRegistry } from "../registry/registry";
import { attachReport } from "../registry/scans";
import { describeScan } from "../release/scan";
import type { Context, Report } from "./context";

/**
 * `baton attach-scan TAG --report FILE`: gives an image the report that Trivy has made of it. The
 * registry is that of the environment which takes builds.
 */
export async function attachScan(
  { project, print, now }: Context,
  tag: string,
  { report }: { readonly report: string },
): Promise<Report> {
  const text = await readFile(resolve(project.folder, report), "utf8").catch((error: unknown) => {
    throw new Refusal({
      where: "baton",
      property: "--report",
      value: `${report} (${(error as Error).message})`,
      expected: "a file that `trivy image --format json` has written",
      fix: "Correct the path",
    });
  });
  const [first = ""] = await project.path();
  const { registry } = await project.config(first);
  const digest = await openRegistry(registry).resolve(tag);
  if (digest === undefined) {
    throw new Refusal({
      where: registry.repository,
      property: "TAG",
      value: tag,
      expected: "a tag that exists in the registry",
      fix: "Push the image first, or correct the tag",
    });
  }
  const { image, artifact, answer } = await attachReport(registry, digest, text);
  const says = describeScan(answer, undefined, now());
  print(`${tag}: the report is attached to ${image}: ${says}.`);
  return { outcome: "done", tag, digest, image, artifact, scan: says };
}
