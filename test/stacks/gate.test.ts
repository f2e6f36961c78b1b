import * as assert from "node:assert/strict";
import { OLDEST_PULUMI } from "../../sandbox/engine";
import { ProgramHarness } from "../support/program";
import { release } from "../support/releases";

const OTHER = `sha256:${"0".repeat(64)}`;

describe("a plain `pulumi up`", () => {
  let harness: ProgramHarness;
  const environment = { ...process.env };
  beforeEach(async () => (harness = await ProgramHarness.start()));
  afterEach(async () => {
    await harness.stop();
    process.env = { ...environment };
  });

  const qa = (config: Record<string, unknown>) => release(harness, "qa", { config });
  const prod = (config: Record<string, unknown>) => release(harness, "prod", { config });

  it("is refused for a tag of the wrong giver", async () => {
    assert.match(
      await harness.refusal(qa({ imageTag: "build-45" })),
      /^qa: baton:imageTag is build-45; expected a tag that dev has earned/,
    );
  });

  it("is refused for a tag that does not exist", async () => {
    assert.match(
      await harness.refusal(qa({ imageTag: "dev-46" })),
      /^qa: baton:imageTag is dev-46; expected a tag that exists in the registry/,
    );
  });

  it("is refused for another digest than the pinned one", async () => {
    assert.match(
      await harness.refusal(qa({ imageDigest: OTHER })),
      /^qa: baton:imageDigest is sha256:0+; expected sha256:[0-9a-f]+, which dev-45 names/,
    );
    const digest = harness.registry.tags.get("dev-45");
    assert.ok((await harness.run(qa({ imageDigest: digest }))).outputs["earnedTag"]);
  });

  it("is refused without a valid version where releases have one", async () => {
    assert.match(await harness.refusal(prod({ version: null })), /baton:version is not set/);
    assert.match(await harness.refusal(prod({ version: "1.4" })), /baton:version is 1\.4;/);
  });

  it("is refused for a version that names another image", async () => {
    harness.registry.push("another build", "prod-v1.4.0");
    assert.match(await harness.refusal(prod({})), /baton:version is v1\.4\.0;.*prod-v1\.4\.0/);
  });

  it("is refused for a build number that names another image", async () => {
    harness.registry.push("another build", "qa-45");
    assert.match(await harness.refusal(qa({})), /qa-45, which already names.*Tags never move/);
  });

  it("is refused while the registry is down", async () => {
    harness.registry.failures = Array.from({ length: 8 }, () => 503);
    assert.match(
      await harness.refusal(qa({})),
      /^qa: .*\/podinfo: the registry at http:.* cannot be reached: it answered 503/,
    );
  });

  it("is refused while the registry asks for credentials", async () => {
    harness.registry.authentication = "bearer";
    process.env["DOCKER_CONFIG"] = "/nowhere";
    assert.match(await harness.refusal(qa({})), /refuses access: .*Log in \(`docker login /);
  });

  it("is refused while the cluster does not answer", async () => {
    await harness.writeKubeconfig("https://127.0.0.1:1");
    assert.match(
      await harness.refusal(qa({})),
      /^qa: baton:cluster\.context is qa; expected a cluster that answers at https:\/\/127\.0\.0\.1:1/,
    );
  });

  for (const [withoutHooks, reason] of [
    ["engine", "The Pulumi CLI does not support error hooks"],
    ["host", "12 UNIMPLEMENTED: unknown method RegisterResourceHook"],
  ] as const) {
    it(`is refused where the ${withoutHooks} does not know hooks, in one line`, async () => {
      const refusal = await harness.refusal({ ...qa({}), withoutHooks });
      const start = `qa: the engine is without resource hooks (${reason}`;
      assert.equal(refusal.slice(0, start.length), start);
      const end = `); expected Pulumi ${OLDEST_PULUMI} or later, with its own Node.js language host. Update Pulumi, and remove any other pulumi-language-nodejs from PATH.`;
      assert.equal(refusal.slice(-end.length), end);
      assert.doesNotMatch(refusal, /\n/);
    });
  }

  it("is refused with all its reasons at once", async () => {
    await harness.writeKubeconfig("https://127.0.0.1:1");
    const text = await harness.refusal(qa({ imageTag: "build-45", rollbackOf: "dev-45x" }));
    assert.equal(text.split("\n").length, 3, text);
  });

  describe("that goes back", () => {
    it("runs the smoke suite only, and earns nothing new", async () => {
      const digest = harness.registry.push("build 44", "qa-44", "stage-44");
      const run = await harness.run(
        release(harness, "stage", { config: { imageTag: "qa-44", rollbackOf: "qa-45" } }),
      );
      const jobs = run.resources.filter(({ type }) => type === "kubernetes:batch/v1:Job");
      assert.deepEqual(
        jobs.map(({ name }) => name),
        ["verification-smoke"],
      );
      assert.deepEqual(run.outputs["release"], {
        imageTag: "qa-44",
        digest,
        version: undefined,
        earnedTag: "stage-44",
        rollbackOf: "qa-45",
      });
    });

    it("is refused to what was never verified here", async () => {
      harness.registry.push("build 44", "dev-44");
      assert.match(
        await harness.refusal(qa({ imageTag: "dev-44", rollbackOf: "dev-45" })),
        /imageTag is dev-44; expected a release that qa has verified before/,
      );
    });
  });
});
