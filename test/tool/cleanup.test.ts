import * as assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { cleanup } from "../../cli/cleanup";
import { digestOf, ToolScene } from "../support/tool";

describe("`baton cleanup`", () => {
  let scene: ToolScene;
  let asRolledOut: () => void;

  before(async () => {
    const file = `config:\n  baton:imageTag: build-2\n  baton:imageDigest: ${digestOf("build-2")}\n`;
    scene = await ToolScene.open({ dev: file });
    const release = { imageTag: "build-2", digest: digestOf("build-2") };
    const kept = { settings: { imageTag: "build-1" } };
    const outputs = { release, earnedTag: "dev-2", colours: { current: {}, kept } };
    scene.pulumi("dev.json", JSON.stringify(outputs));
    asRolledOut = scene.keep();
  });
  beforeEach(() => {
    asRolledOut();
    scene.printed.length = 0;
  });
  after(async () => scene.remove());

  const clean = async () => cleanup(await scene.context(), "dev");
  const previewSays = (op: string) => {
    const bin = join(scene.folder, ".pulumi/bin/pulumi");
    writeFileSync(bin, readFileSync(bin, "utf8").replace('"op":"update"', `"op":"${op}"`));
  };

  it("deploys what runs once more, and tells the program to leave the former release out", async () => {
    previewSays("delete");
    process.env["MIDDLE"] = 'echo "$BATON_CLEANUP" > told';
    try {
      const report = await clean();
      assert.deepEqual(report, { outcome: "done", environment: "dev", removed: "build-1" });
    } finally {
      delete process.env["MIDDLE"];
    }
    assert.equal(scene.read(".pulumi/told"), "1\n");
    assert.equal(scene.runs("dev")?.["imageTag"], "build-2");
    assert.deepEqual(await clean(), { outcome: "done", environment: "dev" });
    assert.equal(scene.printed.at(-1), "dev: no former release stays beside the one that runs.");
    assert.equal(scene.calls("up").length, 1);
  });

  it("is refused where the stack file asks for another release", async () => {
    scene.write("Pulumi.dev.yaml", scene.read("Pulumi.dev.yaml").replace("build-2", "build-3"));
    await assert.rejects(clean(), {
      message:
        "dev: Pulumi.dev.yaml is a request for build-3; expected nothing but the removal of the " +
        "former release. Deploy what is asked for, which removes the former release, too, or take " +
        "it back, first.",
    });
    assert.equal(scene.calls("up").length, 0);
  });

  it("is refused where it would change what runs", async () => {
    previewSays("replace");
    await assert.rejects(
      clean(),
      /dev: the preview is replace web; expected nothing but the removal/,
    );
    assert.equal(scene.calls("up").length, 0);
  });

  it("may declare the number of pods again that a canary was given, and no other change", async () => {
    const changes = (path: string) => previewSays(`update","detailedDiff":{"${path}":{}},"x":"`);
    changes("spec.replicas");
    assert.equal((await clean()).outcome, "done");
    asRolledOut();
    changes("spec.template.spec.containers[0].image");
    await assert.rejects(clean(), /dev: the preview is update web/);
  });

  it("may be run again where it failed", async () => {
    previewSays("delete");
    scene.pulumi("up-fails", "build-2\n");
    const report = await clean();
    assert.equal(report.outcome, "failed");
    assert.match(
      scene.printed.join("\n"),
      /ImagePullBackOff\n?[^]*build-1 is not removed.*Run this again/,
    );
  });
});
