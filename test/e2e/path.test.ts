import * as assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { Listr } from "listr2";
import { walkPath } from "../../sandbox/path";
import { Scene } from "./scene";

const PASSWORD = "correct-horse-battery-staple";

describe("one image", () => {
  let scene: Scene;
  before(async () => {
    scene = await Scene.open();
    const { project } = scene;
    await project.pulumi("config", "set", "--secret", "API_KEY", PASSWORD, "--stack", "qa");
    await project.setConfig("qa", "baton:settings.secrets.API_KEY.source", "config");
  });

  /** Carries a build to the last environment, and says which digest it is. */
  const walk = async (build: number) => {
    await new Listr(walkPath(scene.project, `build-${build}`, `v0.0.${build}`), {
      renderer: "silent",
    }).run();
    return scene.registry.resolve(`build-${build}`);
  };
  const earnedTags = (build: number) =>
    [`dev-${build}`, `qa-${build}`, `stage-${build}`].concat([
      `prod-v0.0.${build}`,
      `dr-v0.0.${build}`,
    ]);

  for (const [index, name] of ["a first build", "the next build"].entries()) {
    it(`passes through five environments: ${name}`, async () => {
      const build = scene.builds[index] ?? 0;
      const digest = await walk(build);
      for (const environment of scene.project.path) {
        // What the kubelet reports, not what anybody asked for.
        assert.deepEqual(await scene.runningDigests(environment), [digest], environment);
        assert.match(await scene.get(environment, "version"), new RegExp(`build-${build}`));
      }
      for (const tag of earnedTags(build)) {
        // dr has a registry of its own, where prod's tag is too.
        const registry = tag.startsWith("dr-") ? scene.drRegistry : scene.registry;
        assert.equal(await registry.resolve(tag), digest, tag);
      }
      assert.equal(await scene.drRegistry.resolve(`prod-v0.0.${build}`), digest);
    });
  }

  it("runs in as many pods as each environment asks for", async () => {
    const counts = await Promise.all(
      scene.project.path.map(async (environment) => (await scene.pods(environment)).length),
    );
    assert.deepEqual(counts, [1, 2, 3, 5, 5]);
  });

  it("is left alone by a second `up`", async () => {
    for (const stack of scene.project.path) {
      await scene.project.pulumi("up", "--yes", "--expect-no-changes", "--stack", stack);
    }
  });

  it("goes back in qa, and forward again", async () => {
    const [first, second] = scene.builds;
    await scene.project.setConfig("qa", "rollbackOf", `dev-${second}`);
    await scene.deploy("qa", `dev-${first}`);
    const former = await scene.registry.resolve(`build-${first}`);
    assert.deepEqual(await scene.runningDigests("qa"), [former]);
    assert.equal((await scene.project.outputs("qa"))["earnedTag"], `qa-${first}`);
    // The suite of a release that has passed all of them before.
    const { items } = await scene.batch.listNamespacedJob({ namespace: scene.namespaceOf("qa") });
    assert.equal(items.length, 1);

    await scene.project.pulumi("config", "rm", "rollbackOf", "--stack", "qa");
    await scene.deploy("qa", `dev-${second}`);
    const latter = await scene.registry.resolve(`build-${second}`);
    assert.deepEqual(await scene.runningDigests("qa"), [latter]);
    assert.equal((await scene.project.outputs("qa"))["earnedTag"], `qa-${second}`);
  });

  it("leaves no secret in the clear in state, plan, config or log", async () => {
    const { project } = scene;
    const secrets = [PASSWORD];
    for (const environment of project.path) {
      const { items } = await scene.core.listNamespacedSecret({
        namespace: scene.namespaceOf(environment),
      });
      const data = items.filter(({ type }) => type === "Opaque").map((secret) => secret.data ?? {});
      secrets.push(...data.flatMap((values) => Object.values(values)).map(decodeBase64));
    }
    assert.ok(secrets.length > project.path.length, "every environment has a secret");
    assert.ok(secrets.lastIndexOf(PASSWORD) > 0, "qa runs with the secret it was given");

    // A plan that makes the secrets anew.
    const plan = join(project.folder, "plan.json");
    await project.setConfig("qa", "imageTag", `dev-${scene.builds[0]}`);
    await project.pulumi("preview", "--save-plan", plan, "--stack", "qa");
    await project.setConfig("qa", "imageTag", `dev-${scene.builds[1]}`);

    const texts = [{ name: "plan.json", text: await readFile(plan, "utf8") }];
    for (const stack of project.path) {
      texts.push({ name: `state of ${stack}`, text: await scene.state(stack) });
    }
    for (const name of await readdir(project.folder)) {
      if (!/\.(yaml|log)$/.test(name)) continue;
      texts.push({ name, text: await readFile(join(project.folder, name), "utf8") });
    }
    assert.ok(texts.some(({ name }) => name === "up-qa.log"));
    for (const { name, text } of texts) {
      for (const secret of secrets) {
        assert.ok(!text.includes(secret), `${name} holds a secret`);
        const encoded = Buffer.from(secret).toString("base64");
        assert.ok(!text.includes(encoded), `${name} holds a secret in base64`);
      }
    }
  });
});

function decodeBase64(text: string): string {
  return Buffer.from(text, "base64").toString();
}
