import * as assert from "node:assert/strict";
import { execa } from "execa";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { BIN } from "../../sandbox/folder";
import { pushBuild, pushImage } from "../../sandbox/images";
import { latestPlan } from "../support/approve";
import { Scene } from "./scene";

/** As it goes where Pulumi Deployments deploys qa; its part, a checkout of the tag, is played here. */
describe("a run that a tag has started (long)", () => {
  let scene: Scene;
  let remote: string;
  let checkout: string;
  let good: number;
  before(async () => {
    scene = await Scene.open();
    const { project } = scene;
    // One that no other test has deployed, whichever ran before.
    good = scene.builds[2] + 200;
    await pushBuild(good, { app: [scene.target], tests: [] });
    // Beside the project's folder: the program's is relative to it.
    [remote, checkout] = ["remote", "run"].map((name) => join(project.folder, "..", name)) as [
      string,
      string,
    ];
    for (const folder of [remote, join(project.folder, ".git")]) await remove(folder);
    await scene.deploy("dev", `build-${good}`);
    // Where people approve, an image beside the release's needs a digest.
    await project.edit("qa", { "baton:verification": { run: ["smoke"] } });
    await project.setConfig("qa", "baton:approval.required", "1");
    await project.setConfig("qa", "baton:deployedBy", "pulumi-deployments");
    await project.setConfig("qa", "baton:rollout.progressDeadlineSeconds", "20");
    await project.commit("Begin");
    await scene.git("init", "--quiet", "--bare", "--initial-branch=main", remote);
    await scene.git("remote", "add", "origin", `file://${remote}`);
    await scene.git("push", "--quiet", "--set-upstream", "origin", "main");
  });
  after(async () => {
    for (const folder of [remote, checkout]) await remove(folder);
  });

  const remove = (folder: string) => rm(folder, { recursive: true, force: true });
  const started = async () =>
    (await scene.git("ls-remote", "origin", "refs/tags/deploy/*")).split("\n");
  /** What a run does: check out the newest tag's commit, check, and deploy. */
  const run = async () => {
    const ref = (await started()).filter((line) => !line.endsWith("^{}")).at(-1) ?? "";
    const tag = ref.replace(/^.*refs\/tags\//, "");
    await remove(checkout);
    const clone = ["-c", "advice.detachedHead=false", "clone", "--quiet", "--depth=1"];
    await scene.git(...clone, "--no-tags", "--branch", tag, `file://${remote}`, checkout);
    await scene.ends(0, "nobody", ["check", "qa"], { folder: checkout });
    return execa("pulumi", ["--non-interactive", "up", "--yes", "--stack", "qa"], {
      cwd: checkout,
      env: { ...scene.project.environment, PWD: checkout },
      reject: false,
      all: true,
    });
  };
  const runs = async () => {
    const { release } = (await scene.project.outputs("qa")) as { release: { imageTag: string } };
    return release.imageTag;
  };

  it("deploys what was approved, and is recorded", async () => {
    await scene.ends(0, "ann", ["request", "qa"]);
    assert.deepEqual(await started(), [""]);
    assert.match(
      await scene.ends(0, "bob", ["approve", "qa", await latestPlan(scene.project.folder, "qa")]),
      /has been started by deploy\/baton\/qa\//,
    );
    const { exitCode, all } = await run();
    assert.equal(exitCode, 0, all);
    assert.equal(await runs(), `dev-${good}`);
    assert.match(await scene.ends(0, "ann", ["status"]), /succeeded, and is not\s+recorded/);
    assert.match(await scene.ends(0, "ann", ["record", "qa"]), /is deployed and verified/);
    assert.match(await scene.ends(0, "ann", ["record", "qa"]), /there is nothing to record/);
    assert.match(await scene.ends(0, "ann", ["history", "qa"]), /deployed .*approved by\s+bob@/s);
    assert.doesNotMatch(await scene.ends(0, "ann", ["status"]), /qa: .*recorded/);
  });

  it("refuses, by the program too, what nobody has approved", async () => {
    const tag = `dev-${good + 50}`;
    const files = { "bin/podinfo": join(BIN, "podcli") };
    // It crashes; but nobody gets to know that yet.
    await pushImage(tag, scene.target, { files, entrypoint: ["/bin/podinfo", tag] });
    await scene.ends(0, "ann", ["request", "qa", "--tag", tag]);
    await scene.ends(3, "ann", ["deploy", "qa", "--yes"]);
    await scene.git("fetch", "--quiet", "origin");
    const up = await scene.project.pulumi("up", "--yes", "--skip-preview", "--stack", "qa").then(
      () => "",
      (error: unknown) => String(error),
    );
    assert.match(up, /expected the word of 1 person/);
    assert.match(await scene.ends(0, "ann", ["record", "qa"]), /there is nothing to record/);
    assert.equal(await runs(), `dev-${good}`);
  });

  it("fails, and what ran before runs again", async () => {
    await scene.ends(0, "bob", ["approve", "qa", await latestPlan(scene.project.folder, "qa")]);
    const { exitCode } = await run();
    assert.notEqual(exitCode, 0);
    assert.match(await scene.ends(0, "ann", ["status"]), /failed, and is not\s+recorded/);
    assert.match(
      await scene.ends(4, "ann", ["record", "qa", "--go-back"]),
      /runs again, as before/,
    );
    assert.equal(await runs(), `dev-${good}`);
    const digest = await scene.registry.resolve(`dev-${good}`);
    assert.deepEqual(await scene.runningDigests("qa"), [digest]);
    assert.match(await scene.ends(0, "ann", ["history", "qa"]), /failed, went back to dev-/);
  });
});
