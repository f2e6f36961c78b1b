import * as assert from "node:assert/strict";
import { attachReport } from "../../registry/scans";
import { ProgramHarness } from "../support/program";
import { release } from "../support/releases";
import { trivyReport } from "../support/trivy";

describe("a plain `pulumi up` where scans are asked for", () => {
  let harness: ProgramHarness;
  beforeEach(async () => (harness = await ProgramHarness.start()));
  afterEach(() => harness.stop());

  const CONFIG = { architecture: "amd64", os: "linux" };
  /** prod with an image of its own, and what a build has attached to it. */
  async function prod(
    vulnerabilities: Readonly<Record<string, string>> | undefined,
    config: Readonly<Record<string, unknown>> = {},
  ) {
    const run = release(harness, "prod", { config: { scan: { refuse: "high" }, ...config } });
    const digest = harness.registry.pushImage(CONFIG, "stage-45");
    if (vulnerabilities !== undefined) {
      const repository = `${harness.registry.host}/podinfo`;
      const location = { kind: "oci" as const, repository, plainHttp: true };
      const manifest = harness.registry.manifest(digest)?.bytes.toString() ?? "";
      const id = (JSON.parse(manifest) as { config: { digest: string } }).config.digest;
      await attachReport(location, digest, trivyReport(id, vulnerabilities));
    }
    return { run, digest };
  }

  it("goes on with nothing severe, and is refused with what is", async () => {
    const { run } = await prod({ "CVE-2026-1": "MEDIUM" });
    assert.ok((await harness.run(run)).outputs["earnedTag"]);
    const worse = await prod({ "CVE-2026-1": "MEDIUM", "CVE-2026-2": "CRITICAL" });
    assert.match(
      await harness.refusal(worse.run),
      /^prod: the image's scan is 1 finding \(high or worse\): CVE-2026-2 \(critical, stdlib\); expected none/,
    );
  });

  it("is refused without a report, as the committed prod stack is", async () => {
    const { run } = await prod(undefined);
    assert.match(
      await harness.refusal(run),
      /^prod: the image's scan is missing: no report is attached; .*Attach one with `baton attach-scan /,
    );
    const committed = release(harness, "prod", { config: { scan: { refuse: "critical" } } });
    assert.match(await harness.refusal(committed), /^prod: the image's scan is missing/);
  });

  it("goes on with what is excepted, until the exception is over", async () => {
    const except = (expires: string) => ({
      scan: {
        refuse: "high",
        exceptions: [{ id: "CVE-2026-2", reason: "not called", expires }],
      },
    });
    const today = new Date().toISOString().slice(0, 10);
    const later = await prod({ "CVE-2026-2": "HIGH" }, except("9999-12-31 00:00:00 +0000 UTC"));
    assert.ok((await harness.run(later.run)).outputs["earnedTag"]);
    const over = await prod({ "CVE-2026-2": "HIGH" }, except(today));
    assert.match(
      await harness.refusal(over.run),
      new RegExp(`CVE-2026-2 \\(high, stdlib, its exception expired on ${today}\\)`),
    );
  });

  it("is never stopped on the way back, nor on what runs already", async () => {
    const { run, digest } = await prod({ "CVE-2026-2": "CRITICAL" });
    assert.match(await harness.refusal(run), /CVE-2026-2/);
    const again = { ...run, lastOutputs: { release: { digest } } };
    assert.ok((await harness.run(again)).outputs["earnedTag"]);
    const other = { ...run, lastOutputs: { release: { digest: "sha256:other" } } };
    assert.match(await harness.refusal(other), /CVE-2026-2/);

    harness.registry.tags.set("prod-v1.4.0", digest);
    const back = await prod({ "CVE-2026-2": "CRITICAL" }, { rollbackOf: "stage-46" });
    assert.ok((await harness.run(back.run)).outputs["earnedTag"]);
  });

  it("says so while the registry cannot be asked", async () => {
    const { run } = await prod({});
    harness.registry.hides = /\/blobs\//;
    assert.match(await harness.refusal(run), /^prod: .*podinfo: the registry answered 404 for/);
  });

  it("is refused with ECR's scan of another registry's image, and a day that is none", async () => {
    const ecr = await prod(undefined, { scan: { refuse: "high", source: "ecr" } });
    assert.match(
      await harness.refusal(ecr.run),
      /baton:scan\.source is ecr; expected report with registry\.kind oci/,
    );
    const exceptions = [{ id: "CVE-2026-2", reason: "r", expires: "2026-02-31x" }];
    const none = await prod(undefined, { scan: { refuse: "high", exceptions } });
    assert.match(
      await harness.refusal(none.run),
      /baton:scan\.exceptions\.0\.expires is "2026-02-31x"; expected a day, such as 2026-12-24/,
    );
  });
});
