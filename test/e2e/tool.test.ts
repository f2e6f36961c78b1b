import * as assert from "node:assert/strict";
import { execa } from "execa";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { until } from "../../sandbox/cluster";
import { exists } from "../../sandbox/folder";
import { PATIENCE, Scene } from "./scene";

/** Of a rollout without progress, in seconds. */
const DEADLINE = 30;

/** A stack's state, as far as a test changes it. */
interface State {
  checkpoint: {
    latest: {
      resources: {
        type: string;
        urn: string;
        dependencies?: string[];
        propertyDependencies?: Record<string, string[]>;
      }[];
      pending_operations: unknown[];
    };
  };
}

describe("the tool, in qa", () => {
  let scene: Scene;
  let good: number;
  let former: number;
  let nextBuild: number;
  before(async () => {
    scene = await Scene.open();
    const { project } = scene;
    [, former, good] = scene.builds;
    nextBuild = good + 100;
    await project.setConfig("qa", "baton:rollout.progressDeadlineSeconds", `${DEADLINE}`);
    for (const build of [former, good]) await scene.deploy("dev", `build-${build}`);
    await scene.deploy("qa", `dev-${former}`);
    await project.commit("Begin");
    await done("ann", "promote", "qa", "--tag", `dev-${good}`, "--yes");
  });

  const ends = (exitCode: number, person: string, ...args: string[]) =>
    scene.ends(exitCode, person, args);
  const done = (person: string, ...args: string[]) => ends(0, person, ...args);

  const digestOf = async (tag: string) => (await scene.registry.resolve(tag)) ?? assert.fail(tag);
  const runs = async (environment: string) => {
    const { imageTag } = (await scene.project.outputs(environment))["release"] as {
      imageTag: string;
    };
    return imageTag;
  };
  const outcomes = async (environment: string) => {
    const format = "--format=%(contents:subject)";
    const list = await scene.git("tag", "--list", format, `outcome/baton/${environment}/*`);
    return list === "" ? [] : list.split("\n");
  };
  const bad = async (giver: string) => {
    nextBuild += 1;
    return scene.pushCrashing(`${giver}-${nextBuild}`);
  };
  const newPod = async () => (await scene.pods("qa")).length > 2;
  /** Whether the stack is free, and its state without anything that was begun and not ended. */
  const isSettled = async (environment: string) => {
    const state = JSON.parse(await scene.state(environment)) as {
      deployment: { pending_operations?: unknown[]; resources: { id?: string; type: string }[] };
    };
    const locks = await execa(
      "find",
      [join(scene.project.folder, "state/.pulumi/locks"), "-type", "f"],
      {
        reject: false,
      },
    );
    assert.equal(locks.stdout, "", "no lock");
    assert.deepEqual(state.deployment.pending_operations ?? [], []);
    const { items } = await scene.core.listNamespacedConfigMap({
      namespace: scene.namespaceOf(environment),
      labelSelector: "app.kubernetes.io/managed-by=pulumi",
    });
    const recorded = state.deployment.resources
      .filter(({ type }) => type === "kubernetes:core/v1:ConfigMap")
      .map(({ id }) => id?.split("/")[1]);
    const there = items.map(({ metadata }) => metadata?.name);
    assert.deepEqual(there.sort(), recorded.sort(), "every object is recorded");
  };

  it("refuses what was changed after its approval", async () => {
    await done("ann", "request", "qa", "--tag", `dev-${former}`);
    await scene.project.setConfig("qa", "baton:settings.config.LOG_LEVEL", "debug");
    const text = await ends(1, "ann", "deploy", "qa", "--yes");
    assert.match(text, /qa: the plan is another one: settings moved since the request/);
    await scene.git("checkout", "--quiet", "Pulumi.qa.yaml");
  });

  it("writes nothing when the preview fails", async () => {
    const commit = await scene.git("rev-parse", "HEAD");
    await scene.project.setConfig("qa", "baton:quota.pods", "1");
    const text = await ends(1, "ann", "request", "qa", "--tag", `dev-${good}`);
    assert.match(text, /qa: baton:quota\S* is/);
    await scene.git("checkout", "--quiet", "Pulumi.qa.yaml");
    assert.equal(await scene.git("rev-parse", "HEAD"), commit);
  });

  it("stops a bad build in qa by itself, and holds it", async () => {
    const tag = await bad("dev");
    const text = await ends(4, "ann", "promote", "qa", "--tag", tag, "--yes");
    assert.match(text, new RegExp(`qa: ${tag} failed; dev-${good} runs again, as before`));
    assert.match(text, /exit code 1; its last words/);
    assert.deepEqual(await scene.runningDigests("qa"), [await digestOf(`build-${good}`)]);
    assert.match(await ends(1, "ann", "deploy", "qa", "--yes"), /is held by ann@example\.com/);
    assert.match(await done("ann", "status"), new RegExp(tag));
    // The stack file still asks for what failed, until somebody says otherwise.
    await done("ann", "rollback", "qa", "--to", `dev-${good}`);
    await isSettled("qa");
  });

  it("goes back to the former release, and forward when the hold is released", async () => {
    await done("ann", "promote", "qa", "--tag", `dev-${former}`, "--yes");
    await done("ann", "rollback", "qa");
    assert.equal(await runs("qa"), `dev-${good}`);
    assert.match(
      await ends(1, "ann", "promote", "qa", "--tag", `dev-${former}`, "--yes"),
      /held by/,
    );
    await done("bob", "unhold", `dev-${former}`, "--reason", "it was the database");
    await done("ann", "stop", "--reason", "something is wrong");
    assert.match(await ends(1, "ann", "deploy", "qa", "--yes"), /something is wrong/);
    await done("ann", "resume", "--reason", "nothing is");
    await done("ann", "deploy", "qa", "--yes");
    assert.equal(await runs("qa"), `dev-${former}`);
  });

  it("stops a running rollout from elsewhere", async () => {
    const { project } = scene;
    await project.setConfig("qa", "baton:rollout.progressDeadlineSeconds", "600");
    await project.setConfig("qa", "baton:workloads.web.probes.readiness.path", "/nope");
    await done("ann", "request", "qa", "--tag", `dev-${good}`);
    const deploying = scene.tool("ann", ["deploy", "qa", "--yes"]);
    await until("a new pod", newPod, PATIENCE);
    await done("bob", "abort", "qa", "--reason", "never mind");
    const { exitCode, all } = await deploying;
    assert.equal(exitCode, 4, all);
    assert.match(all, /aborted by bob@example\.com: never mind/);
    assert.equal(await runs("qa"), `dev-${former}`);
    await done("bob", "unhold", `dev-${good}`, "--reason", "it was a test");
    await done("ann", "rollback", "qa", "--to", `dev-${former}`);
  });

  describe("killed in the middle of a deployment", () => {
    let next: string;
    beforeEach(async () => {
      next = (await runs("qa")) === `dev-${good}` ? `dev-${former}` : `dev-${good}`;
      await done("ann", "request", "qa", "--tag", next);
    });
    afterEach(async () => {
      const text = await done("ann", "deploy", "qa", "--yes");
      assert.match(text, new RegExp(`qa: ${next} is deployed`));
      assert.equal(await runs("qa"), next);
      await isSettled("qa");
      const recorded = await outcomes("qa");
      assert.equal(recorded.at(-1), `qa: ${next} deployed`);
      assert.notEqual(recorded.at(-1), recorded.at(-2), "once");
    });

    it("carries on after the tool was killed, while Pulumi goes on", async () => {
      const deploying = scene.tool("ann", ["deploy", "qa", "--yes"]);
      await scene.pulumiOf("qa");
      await setTimeout(3000);
      deploying.kill("SIGKILL");
      await deploying;
    });

    it("carries on after Pulumi was killed (long)", async () => {
      const deploying = scene.tool("ann", ["deploy", "qa", "--yes"]);
      const pid = await scene.pulumiOf("qa");
      await until("a new pod", newPod, PATIENCE);
      // Not those of other runs, as other files run beside this one.
      const [provider] = await scene.providersOf(pid, "provider/pulumi-resource-promotion");
      assert.ok(provider);
      process.kill(pid, "SIGKILL");
      const { exitCode, all } = await deploying;
      assert.equal(exitCode, 5, all);
      assert.match(all, /Pulumi was killed .* Run the same command again/);
      const isGone = async () => !(await exists(`/proc/${provider}`));
      await until("the end of the killed engine's provider", isGone, PATIENCE);
      // As a kill leaves it between emptying and writing, without `?metadata=skip`.
      const attributes = join(scene.project.folder, "state/.pulumi/stacks/baton/qa.json.attrs");
      await writeFile(attributes, "");
      const { stderr } = await scene.tool("ann", ["status"]);
      assert.ok(stderr.includes(`qa: removed ${attributes}`), stderr);
    });

    it("carries on after everything was killed while objects were made", async () => {
      const deploying = scene.tool("ann", ["deploy", "qa", "--yes"]);
      const pid = await scene.pulumiOf("qa");
      const selector = `baton/image-tag=${next}`;
      const namespace = scene.namespaceOf("qa");
      await until(
        "a new ConfigMap",
        async () => {
          const made = await scene.core.listNamespacedConfigMap({
            namespace,
            labelSelector: selector,
          });
          return made.items.length > 0;
        },
        PATIENCE,
      );
      const providers = await scene.providersOf(pid);
      deploying.kill("SIGKILL");
      for (const each of [pid, ...providers]) process.kill(each, "SIGKILL");
      await deploying;
    });

    it("carries on with what was made in the last moment of a killed run (long)", async () => {
      const namespace = scene.namespaceOf("qa");
      const service = () => scene.core.readNamespacedService({ namespace, name: "web" });
      const { metadata: former } = await service();
      // In its file: `pulumi stack import` would drop what is pending.
      const file = join(scene.project.folder, "state/.pulumi/stacks/baton/qa.json");
      const state = JSON.parse(await readFile(file, "utf8")) as State;
      const deployment = state.checkpoint.latest;
      const lost = deployment.resources.filter(
        ({ type, urn }) => type === "kubernetes:core/v1:ConfigMap" || /:Service::web$/.test(urn),
      );
      assert.equal(lost.length, 2);
      const urns = lost.map(({ urn }) => urn);
      const others = (known: string[]) => known.filter((urn) => !urns.includes(urn));
      for (const resource of deployment.resources) {
        resource.dependencies = others(resource.dependencies ?? []);
        resource.propertyDependencies = Object.fromEntries(
          Object.entries(resource.propertyDependencies ?? {}).map(([key, all]) => [
            key,
            others(all),
          ]),
        );
      }
      deployment.resources = deployment.resources.filter((resource) => !lost.includes(resource));
      deployment.pending_operations = lost.map((resource) => ({
        type: "creating",
        resource: { ...resource, id: undefined, outputs: undefined },
      }));
      await writeFile(file, JSON.stringify(state));
      const text = await done("ann", "deploy", "qa", "--yes");
      assert.match(text, /settle what a killed run has left/);
      assert.equal((await service()).metadata?.uid, former?.uid, "the same Service");
    });

    it("carries on after a provider was killed (long)", async () => {
      const deploying = scene.tool("ann", ["deploy", "qa", "--yes"]);
      const pid = await scene.pulumiOf("qa");
      await until("a new pod", newPod, PATIENCE);
      for (const provider of await scene.providersOf(pid)) process.kill(provider, "SIGKILL");
      const { exitCode, all } = await deploying;
      // What happened to the release is not known, so the former one runs again, or nothing was lost.
      assert.ok(exitCode === 4 || exitCode === 5 || exitCode === 0, all);
      if (exitCode !== 4) return;
      assert.equal(await runs("qa"), next === `dev-${good}` ? `dev-${former}` : `dev-${good}`);
      await done("ann", "unhold", next, "--reason", "it was the provider");
    });
  });

  it("lets one of two deploy, and says who that is", async () => {
    const next = (await runs("qa")) === `dev-${good}` ? `dev-${former}` : `dev-${good}`;
    await done("ann", "request", "qa", "--tag", next);
    const before = (await outcomes("qa")).length;
    const both = await Promise.all(
      ["ann", "bob"].map(async (person) => scene.tool(person, ["deploy", "qa", "--yes"])),
    );
    // The other one succeeds, too, where it comes so late that nothing is left to do.
    const [winner, ...more] = both.filter(({ all }) => all.includes("is deployed and verified"));
    const loser = both.find((one) => one !== winner);
    assert.deepEqual(more, [], "one of them deploys");
    assert.equal(winner?.exitCode, 0, winner?.all);
    assert.ok(
      /held by \S+ on \S+ since/.test(loser?.all ?? "") ||
        /deployed already/.test(loser?.all ?? ""),
      loser?.all,
    );
    assert.equal((await outcomes("qa")).length, before + 1);
    await isSettled("qa");
  });
});
