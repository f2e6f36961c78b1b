import * as assert from "node:assert/strict";
import { attachScan } from "../../cli/attach-scan";
import { deploy } from "../../cli/deploy";
import { request } from "../../cli/request";
import { why } from "../../cli/why";
import { digestOf, ToolScene } from "../support/tool";
import { trivyReport } from "../support/trivy";

const DEV = "config:\n  baton:imageTag: build-1\n";
const qa = (exceptions: string) => `config:
  baton:upstream: dev
  baton:scan: { refuse: high, exceptions: [${exceptions}] }
`;
const EXCEPTION = "{ id: CVE-2026-2, reason: not called, expires: 2026-12-24 }";

describe("the tool and scans", () => {
  let scene: ToolScene;
  beforeEach(async () => {
    scene = await ToolScene.open({ dev: DEV, qa: qa(EXCEPTION) });
    scene.hasDeployed("dev", "build-1", "dev-1");
    scene.now = new Date();
  });
  afterEach(async () => scene.remove());

  const id = (tag: string) => {
    const manifest = scene.registry.manifest(digestOf(tag))?.bytes.toString() ?? "";
    return (JSON.parse(manifest) as { config: { digest: string } }).config.digest;
  };
  const attach = async (vulnerabilities: Readonly<Record<string, string>>) => {
    scene.write("trivy.json", trivyReport(id("build-1"), vulnerabilities));
    const report = await attachScan(await scene.context(), "build-1", { report: "trivy.json" });
    scene.git("clean", "--force", "--quiet", "trivy.json");
    return report;
  };
  const scanTerm = async () => {
    const { terms } = await why(await scene.context(), "qa");
    const found = (terms as { name: string; state: string; says: string }[]).filter(
      ({ name }) => name === "scan",
    );
    assert.equal(found.length, 1);
    return found[0];
  };

  it("attach a report, say so in `why` and on the card, and hold the deployment to it", async () => {
    assert.deepEqual((await scanTerm())?.says, "missing: no report is attached");
    const attached = await attach({ "CVE-2026-1": "CRITICAL", "CVE-2026-3": "LOW" });
    assert.equal(attached["image"], digestOf("build-1"));
    assert.match(
      scene.printed.at(-1) ?? "",
      /^build-1: the report is attached to sha256:\w+: 1 critical, 1 low \(Trivy, 2026-11-21 10:00 UTC\)\.$/,
    );

    const { card, gate } = await request(await scene.context(), "qa", {});
    assert.equal(card.scan, "1 critical, 1 low (Trivy, 2026-11-21 10:00 UTC)");
    assert.equal(gate, "fails");
    assert.match(
      card.missing.join(),
      /the image's scan is 1 finding \(high or worse\): CVE-2026-1 /,
    );
    assert.equal((await scanTerm())?.state, "fails");
    await assert.rejects(
      deploy(await scene.context(), "qa", { yes: true }),
      /qa: the image's scan is 1 finding .*; expected none from high on/,
    );
    assert.deepEqual(scene.calls("up"), []);
  });

  it("go on with what is excepted, and name that on the card", async () => {
    scene.now = new Date("2026-12-23T12:00:00Z");
    await attach({ "CVE-2026-2": "HIGH" });
    const { card, gate } = await request(await scene.context(), "qa", {});
    assert.equal(
      card.scan,
      "1 high (Trivy, 2026-11-21 10:00 UTC); CVE-2026-2 excepted until 2026-12-24: not called",
    );
    assert.equal(gate, "passes");
    scene.now = new Date("2026-12-24T00:00:00Z");
    assert.equal((await scanTerm())?.state, "fails");
    // What runs already is not stopped.
    scene.hasDeployed("qa", "dev-1", "qa-1");
    assert.match((await scanTerm())?.says ?? "", /^the image runs already, although: 1 finding/);
  });

  it("make another exception another plan", async () => {
    await attach({ "CVE-2026-2": "HIGH" });
    const plan = async () => (await request(await scene.context(), "qa", {})).card.plan;
    const former = await plan();
    scene.write("Pulumi.qa.yaml", scene.read("Pulumi.qa.yaml").replace("12-24", "12-31"));
    assert.notEqual(await plan(), former);
  });

  it("refuse a report on another image, a tag and a file that are not there", async () => {
    const report = "trivy.json";
    scene.write(report, trivyReport(id("build-2"), {}));
    const to = async (tag: string, file = report) =>
      attachScan(await scene.context(), tag, { report: file });
    await assert.rejects(to("build-1"), /the report is about podinfo:45, which is sha256:/);
    await assert.rejects(to("build-99"), /TAG is build-99; expected a tag that exists/);
    await assert.rejects(to("build-1", "nowhere.json"), /--report is nowhere\.json \(ENOENT/);
    scene.write(report, "{}");
    await assert.rejects(to("build-1"), /the report is not one of Trivy's on an image/);
  });
});
