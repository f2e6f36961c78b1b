import * as assert from "node:assert/strict";
import { execa } from "execa";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { ROOT } from "../../sandbox/folder";
import { Scene } from "./scene";

describe("the tool", () => {
  let scene: Scene;
  let former: string;
  let next: string;
  before(async () => {
    scene = await Scene.open();
    const { folder } = scene.project;
    [former, next] = [`dev-${scene.builds[1]}`, `dev-${scene.builds[2]}`];
    for (const tag of [former, next]) {
      if ((await scene.registry.resolve(tag)) !== undefined) continue;
      await scene.deploy("dev", tag.replace("dev", "build"));
    }
    if ((await scene.project.outputs("qa"))["earnedTag"] === undefined) {
      await scene.deploy("qa", former);
    }
    await scene.project.setConfig("qa", "baton:approval.required", "1");
    await writeFile(join(folder, ".gitignore"), "state/\nenv\n*.log\n*.good\n*.suite\n*.json\n");
    await git("init", "--quiet", "--initial-branch=main");
    for (const what of ["commit", "tag"]) await git("config", `${what}.gpgsign`, "false");
    await git("add", ".");
    await git("commit", "--quiet", "-m", "Begin");
  });

  const as = (person: string) => ({
    GIT_AUTHOR_NAME: person,
    GIT_AUTHOR_EMAIL: `${person}@example.com`,
    GIT_COMMITTER_NAME: person,
    GIT_COMMITTER_EMAIL: `${person}@example.com`,
  });

  const git = async (...args: string[]): Promise<string> => {
    const options = { cwd: scene.project.folder, env: as("ann") };
    return (await execa("git", args, options)).stdout;
  };

  /** Runs the tool as a person would, and says what it printed. */
  const baton = async (person: string, ...args: string[]) => {
    const { folder, environment } = scene.project;
    const command = ["-r", "ts-node/register", "cli/main.ts", "--cwd", folder, ...args];
    const env = { ...environment, ...as(person), NO_COLOR: "1" };
    const run = await execa("node", command, { cwd: ROOT, env, reject: false, all: true });
    assert.doesNotMatch(run.all, /\n\s+at .*:\d+:\d+/, "no stack trace");
    return { exitCode: run.exitCode, text: run.all };
  };

  /** Expects a command to do what it was asked to. */
  const done = async (person: string, ...args: string[]): Promise<string> => {
    const { exitCode, text } = await baton(person, ...args);
    assert.equal(exitCode, 0, text);
    return text;
  };

  const digestOf = async (tag: string) => (await scene.registry.resolve(tag)) ?? assert.fail(tag);

  it("writes nothing when the preview fails", async () => {
    const commit = await git("rev-parse", "HEAD");
    await scene.project.setConfig("qa", "baton:quota.pods", "1");
    const { exitCode, text } = await baton("ann", "request", "qa", "--tag", next);
    assert.equal(exitCode, 1);
    assert.match(text, /qa: baton:quota\S* is/);
    await git("checkout", "--quiet", "Pulumi.qa.yaml");
    assert.equal(await git("rev-parse", "HEAD"), commit);
  });

  it("promotes behind an approved preview", async () => {
    for (const tag of [former, next]) {
      const card = await done("ann", "request", "qa", "--tag", tag);
      assert.match(card, new RegExp(`^qa: .*${tag}[^]*missing +qa: the request is approved by no`));
      assert.equal((await baton("ann", "deploy", "qa", "--yes")).exitCode, 1);
      await done("bob", "approve", "qa");
      const text = await done("ann", "deploy", "qa", "--yes");
      assert.match(text, new RegExp(`qa: ${tag} is deployed and verified`));
      assert.deepEqual(await scene.runningDigests("qa"), [await digestOf(tag)]);
    }
    assert.equal(await git("status", "--short"), "");
  });

  it("refuses what was changed after its approval", async () => {
    await scene.project.setConfig("qa", "baton:settings.config.LOG_LEVEL", "debug");
    const { exitCode, text } = await baton("ann", "deploy", "qa", "--yes");
    assert.equal(exitCode, 1);
    assert.match(text, /qa: the plan is another one: settings moved since the request/);
    await git("checkout", "--quiet", "Pulumi.qa.yaml");
  });

  it("goes back by itself when a release fails", async () => {
    const digest = await digestOf(next);
    await scene.project.setConfig("qa", "baton:rollout.progressDeadlineSeconds", "20");
    await scene.project.setConfig("qa", "baton:workloads.web.probes.readiness.path", "/nope");
    await done("ann", "request", "qa", "--tag", former);
    await done("bob", "approve", "qa");
    const { exitCode, text } = await baton("ann", "deploy", "qa", "--yes");
    assert.equal(exitCode, 1);
    assert.match(text, new RegExp(`qa: ${former} failed; ${next} runs again, as before`));
    assert.deepEqual(await scene.runningDigests("qa"), [digest]);
    // The stack file still asks for what failed, until somebody says otherwise.
    assert.match(await done("ann", "rollback", "qa"), new RegExp(`${next} runs again`));
    assert.doesNotMatch(await git("show", "HEAD:Pulumi.qa.yaml"), /nope/);
  });

  it("goes back to the former release, and says so in the status", async () => {
    await done("ann", "rollback", "qa");
    assert.deepEqual(await scene.runningDigests("qa"), [await digestOf(former)]);
    assert.equal(await git("status", "--short"), "");
    const { environments } = JSON.parse(await done("ann", "status", "--json")) as {
      environments: { environment: string; runs: { tag: string }; asksFor: string }[];
    };
    const names = environments.map(({ environment }) => environment);
    assert.deepEqual(
      // Other tests may have added environments.
      names.filter((name) => scene.project.path.includes(name)),
      scene.project.path,
    );
    const qa = environments.find(({ environment }) => environment === "qa");
    assert.deepEqual([qa?.runs.tag, qa?.asksFor], [former, former]);
  });
});
