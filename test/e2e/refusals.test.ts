import * as assert from "node:assert/strict";
import { isDeepStrictEqual } from "node:util";
import { Scene } from "./scene";

describe("a plain `pulumi up` is refused", () => {
  let scene: Scene;
  before(async () => (scene = await Scene.open()));

  /** Deploys and expects a refusal that leaves everything as it was; puts the config back. */
  const refused = async (
    stack: string,
    config: Readonly<Record<string, string | undefined>>,
    expected: RegExp,
  ) => {
    const { project } = scene;
    const former = await project.config(stack);
    // Each export encrypts anew.
    const resources = async () => {
      const { deployment } = JSON.parse(await scene.state(stack, "--show-secrets")) as {
        deployment: { resources: unknown };
      };
      return deployment.resources;
    };
    const before = await resources();
    const outputs = await project.outputs(stack);
    const set = async (key: string, value: string | undefined) => {
      if (value === undefined) await project.pulumi("config", "rm", key, "--stack", stack);
      else await project.setConfig(stack, key, value);
    };
    try {
      for (const [key, value] of Object.entries(config)) await set(key, value);
      await assert.rejects(project.up(stack), (error: Error) => {
        assert.match(error.message, expected);
        assert.doesNotMatch(error.message, /\n\s+at .*:\d+:\d+/, "no stack trace");
        return true;
      });
    } finally {
      for (const key of Object.keys(config)) await set(key, former[`baton:${key}`]);
    }
    assert.ok(isDeepStrictEqual(await resources(), before), "no resource has been touched");
    assert.deepEqual(await project.outputs(stack), outputs);
  };

  const NONE = `sha256:${"0".repeat(64)}`;

  it("with a tag that another environment has given", async () => {
    const tag = `build-${scene.builds[1]}`;
    await refused("qa", { imageTag: tag }, /baton:imageTag is build-\d+; expected a tag that dev/);
  });

  it("with a tag that the upstream has not earned", async () => {
    await refused("qa", { imageTag: "dev-1234567" }, /dev-1234567; expected a tag that exists/);
  });

  it("with a tag that names another digest than the pinned one", async () => {
    await refused("qa", { imageDigest: NONE }, /baton:imageDigest is sha256:0+; expected sha256:/);
  });

  it("without a version where releases have one", async () => {
    await refused("prod", { version: undefined }, /baton:version is not set; expected a version/);
  });

  it("with something that is no version", async () => {
    await refused("prod", { version: "1.4" }, /baton:version is 1\.4; expected v and a semantic/);
  });

  it("with a version that names another digest", async () => {
    const [first, second] = scene.builds;
    await refused(
      "prod",
      { imageTag: `stage-${first}`, version: `v0.0.${second}` },
      /baton:version is v0\.0\.\d+; expected sha256:\w+ under prod-v0\.0\.\d+, which already names/,
    );
  });

  it("with several mistakes, all of which it names", async () => {
    await refused(
      "prod",
      { imageTag: "qa-1", version: "1.4" },
      /baton:imageTag is qa-1;[^]*baton:version is 1\.4;/,
    );
  });

  it("with a registry that does not answer", async () => {
    const key = "baton:registry.repository";
    await scene.project.setConfig("qa", key, "127.0.0.1:1/podinfo");
    try {
      await assert.rejects(scene.project.up("qa"), /the registry at http.* cannot be reached/);
    } finally {
      await scene.project.pulumi("config", "rm", "--path", "baton:registry", "--stack", "qa");
    }
  });
});
