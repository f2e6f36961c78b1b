import * as assert from "node:assert/strict";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { latestPlan } from "../support/approve";
import { SlackServer, TOKEN } from "../support/slack";
import { Scene } from "./scene";

/** Of a rollout without progress, in seconds. */
const DEADLINE = 30;

/* What the tool does in qa alone, failures and kills above all, is in tool.test.ts. */
describe("the tool, on the whole path", () => {
  let scene: Scene;
  let good: number;
  let nextBuild: number;
  before(async () => {
    scene = await Scene.open();
    const { project } = scene;
    const [, former, third] = scene.builds;
    good = third;
    nextBuild = good + 100;
    // As after the path's own tests, where this runs by itself.
    if ((await project.outputs("dr"))["release"] === undefined) {
      for (const [index, environment] of project.path.entries()) {
        const upstream = project.path[index - 1];
        const tag = upstream && String((await project.outputs(upstream))["earnedTag"]);
        const named = index > 2 ? version(1) : undefined;
        await scene.deploy(environment, tag ?? `build-${former}`, named);
      }
    }
    await project.setConfig("prod", "baton:rollout.progressDeadlineSeconds", `${DEADLINE}`);
    await project.setConfig("prod", "baton:approval.required", "2");
    await rm(join(project.folder, ".git"), { recursive: true, force: true });
    await project.commit("Begin");
  });

  /** Versions name one image for good, so each run needs its own. */
  const version = (major: number) => `v${major}.0.${good}`;

  const ends = (exitCode: number, person: string, ...args: string[]) =>
    scene.ends(exitCode, person, args);
  const done = (person: string, ...args: string[]) => ends(0, person, ...args);

  const plan = async () => latestPlan(scene.project.folder, "prod");
  const digestOf = async (tag: string) => (await scene.registry.resolve(tag)) ?? assert.fail(tag);
  const bad = async (giver: string) => {
    nextBuild += 1;
    return scene.pushCrashing(`${giver}-${nextBuild}`);
  };

  it("carries a build from dev to dr, with two people's approval for prod", async () => {
    const slack = await SlackServer.start();
    for (const channel of ["dev", "qa", "release", "oncall"]) {
      slack.channels.set(`podinfo-${channel}`, `C-${channel}`);
    }
    try {
      const variables = slack.environment;
      const promote = (exitCode: number, ...args: string[]) =>
        scene.ends(exitCode, "ann", ["promote", ...args, "--yes"], { variables });
      for (const args of [["dev", "--tag", `build-${good}`], ["qa"], ["stage"]]) {
        await promote(0, ...args);
      }
      const waiting = await promote(3, "prod", "--version", version(2));
      assert.match(waiting, /prod: stage-\d+ → stage-\d+\n +digest[^]*version +v\S+ → v2\./);
      assert.match(waiting, /suites +smoke: passed in \d+ s[^]*load: passed/);
      assert.match(await ends(1, "ann", "approve", "prod", await plan()), /whose own request for/);
      for (const person of ["bob", "carol"]) {
        await promote(3, "prod", "--version", version(2));
        await done(person, "approve", "prod", await plan());
      }
      assert.match(
        await done("ann", "why", "prod"),
        /approvals .*bob@example\.com and\s+carol@example\.com/,
      );
      const text = await promote(0, "prod", "--version", version(2));
      assert.match(text, /dr: prod-v2\.\S+ is deployed and verified/);
      const digest = await digestOf(`build-${good}`);
      for (const name of scene.project.path) {
        assert.deepEqual(await scene.runningDigests(name), [digest], name);
      }
      assert.equal(await scene.git("status", "--short"), "");
      const told = slack.messages.map(({ text }) => text).join("\n");
      assert.match(told, /prod.*v2\./);
      assert.doesNotMatch(told, new RegExp(TOKEN));
    } finally {
      await slack.stop();
    }
  });

  it("says what runs where, why something may not move, and what has happened", async () => {
    const { environments } = JSON.parse(await done("ann", "status", "--json")) as {
      environments: { environment: string; runs: { tag: string; version?: string } }[];
    };
    const versions = environments.map(({ environment, runs: { version: runs } }) => [
      environment,
      runs,
    ]);
    assert.deepEqual(
      versions.filter(([name]) => scene.project.path.includes(name ?? "")),
      scene.project.path.map((name, index) => [name, index > 2 ? version(2) : undefined]),
    );
    const { entries } = JSON.parse(await done("ann", "history", "prod", "--json")) as {
      entries: { approvedBy: string[]; tag: string }[];
    };
    assert.deepEqual(entries[0]?.approvedBy.sort(), ["bob@example.com", "carol@example.com"]);
    await done("ann", "drift", "prod");
  });

  it("lets nobody pass it by with `pulumi up`, but for a reason that everybody sees", async () => {
    const { project } = scene;
    const tag = await bad("stage");
    await project.setConfig("prod", "imageTag", tag);
    await project.setConfig("prod", "imageDigest", await digestOf(tag));
    await project.setConfig("prod", "version", version(4));
    await project.pulumi("preview", "--stack", "prod");
    await assert.rejects(
      project.up("prod"),
      /prod: the plan is another one: tag, digest, version moved/,
    );
    assert.deepEqual(await scene.runningDigests("prod"), [await digestOf(`build-${good}`)]);
    await scene.git("checkout", "--quiet", "Pulumi.prod.yaml");
    await project.setConfig("prod", "baton:settings.config.LOG_LEVEL", "error");
    await project.up("prod", { BATON_BREAK_GLASS: "the log was full" });
    assert.equal((await project.outputs("prod"))["breakGlass"], "the log was full");
    assert.match(await done("ann", "status"), /the log was full/);
    await scene.git("checkout", "--quiet", "Pulumi.prod.yaml");
    await project.up("prod");
  });

  it("goes back by itself when a bad one is forced through to prod, and holds it (long)", async () => {
    const tag = await bad("stage");
    const promote = ["promote", "prod", "--tag", tag, "--version", version(3), "--yes"];
    await ends(3, "ann", ...promote);
    for (const person of ["bob", "carol"]) await done(person, "approve", "prod", await plan());
    const text = await ends(4, "ann", ...promote);
    assert.match(text, new RegExp(`prod: ${tag} failed; stage-${good} runs again, as before`));
    assert.deepEqual(await scene.runningDigests("prod"), [await digestOf(`build-${good}`)]);
    assert.equal(await scene.registry.resolve(`prod-${version(3)}`), undefined);
    assert.match(await ends(1, "ann", "deploy", "prod", "--yes"), /is held by/);
    await done("ann", "rollback", "prod", "--to", `stage-${good}`);
    assert.equal(await scene.git("status", "--short"), "");
  });
});
