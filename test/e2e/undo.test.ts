import {
  AppsV1Api,
  CustomObjectsApi,
  PatchStrategy,
  setHeaderOptions,
} from "@kubernetes/client-node";
import * as assert from "node:assert/strict";
import { Undo } from "../../provider/undo";
import { until } from "../../sandbox/cluster";
import { pushBuild, targetsOf } from "../../sandbox/images";
import { runningBake } from "../../provider/progress";
import { PATIENCE, Scene } from "./scene";

const DEV = "dev";

describe("a release that makes way for the one before, by hand", () => {
  let scene: Scene;
  let build: number;
  let stable: string;

  const fresh = async () => {
    build += 1;
    await pushBuild(build, targetsOf({}));
    return `build-${build}`;
  };
  const web = () =>
    scene.apps.readNamespacedDeployment({ namespace: scene.namespaceOf(DEV), name: "web" });
  /** Whose pods there are, by their tags. */
  const runs = async () => {
    const pods = await scene.pods(DEV);
    return [...new Set(pods.map(({ metadata }) => metadata?.labels?.["baton/image-tag"]))];
  };
  const earned = (tag: string) => scene.registry.resolve(tag.replace("build", DEV));
  const abort = () => scene.ends(0, "ann", ["abort", DEV, "--reason", "not today"]);
  /** Deploys until something holds, and lets somebody abort it then. @returns what Pulumi says. */
  const abortedAt = async (tag: string, what: string, holds: () => Promise<boolean>) => {
    const up = scene.deploy(DEV, tag).then(
      () => assert.fail("it was deployed"),
      (error: unknown) => String(error),
    );
    await until(what, holds, PATIENCE);
    const said = await abort();
    return { up: await up, said };
  };

  before(async () => {
    scene = await Scene.anew();
    build = scene.builds[2] + 300;
    await scene.project.edit(DEV, { "baton:verification": { run: ["smoke"] } });
    stable = await fresh();
    await scene.deploy(DEV, stable);
    await scene.project.edit(DEV, { "baton:rollout.bake": "10m" });
  });

  const isBaking = async () => runningBake(await web()) !== undefined;

  it("has made way when `pulumi up` fails, and comes back when it is tried again", async () => {
    const next = await fresh();
    const { up } = await abortedAt(next, "the bake", isBaking);
    assert.match(up, /aborted by ann@example\.com: not today\s+web runs the former release again/);
    assert.deepEqual(await runs(), [stable]);
    assert.equal(await earned(next), undefined);
    await scene.project.edit(DEV, { "baton:rollout.bake": "3s" });
    await scene.project.up(DEV);
    assert.deepEqual(await runs(), [next]);
    assert.ok(await earned(next));
    stable = next;
  });

  it("is followed by another one as if it had never been (long)", async () => {
    await scene.project.edit(DEV, { "baton:rollout.bake": "10m" });
    await abortedAt(await fresh(), "the bake", isBaking);
    await scene.project.edit(DEV, { "baton:rollout.bake": null });
    const next = await fresh();
    await scene.deploy(DEV, next);
    assert.deepEqual(await runs(), [next]);
    assert.ok(await earned(next));
    stable = next;
  });

  it("makes way at once when it is aborted in its suites, and is verified anew when it is tried again", async () => {
    // The service itself, which does not end by itself.
    const endless = { command: ["/bin/podinfo", "--port=9797"], timeoutSeconds: 300 };
    await scene.project.edit(DEV, {
      "baton:rollout.bake": null,
      "baton:verification": { run: ["smoke", "endless"], suites: { endless } },
    });
    const next = await fresh();
    const isInSuite = async () =>
      (await scene.pods(DEV, "app.kubernetes.io/name=verification-endless")).some(
        ({ status }) => status?.phase === "Running",
      );
    const { said } = await abortedAt(next, "the suite", isInSuite);
    assert.match(said, /web runs the former release again/);
    await until("the former pods", async () => (await runs()).join() === stable, PATIENCE);
    assert.equal(await earned(next), undefined);
    // The suites meet this release again, and not the one that has come back.
    await scene.project.edit(DEV, { "baton:verification": { run: ["smoke"] } });
    await scene.project.up(DEV);
    assert.deepEqual(await runs(), [next]);
    assert.ok(await earned(next));
  });

  it("leaves no field to the next one under server-side apply", async () => {
    const namespace = scene.namespaceOf(DEV);
    const name = "applied";
    const which = { group: "apps", version: "v1", namespace, plural: "deployments", name };
    const objects = scene.kubeconfig.makeApiClient(CustomObjectsApi);
    const apps = scene.kubeconfig.makeApiClient(AppsV1Api);
    const labels = { app: name };
    const apply = async (env: Readonly<Record<string, string>>) => {
      const variables = Object.entries(env).map(([key, value]) => ({ name: key, value }));
      const container = { name, image: "any", env: variables };
      const template = { metadata: { labels }, spec: { containers: [container] } };
      const body = {
        apiVersion: "apps/v1",
        kind: "Deployment",
        metadata: { namespace, name, labels },
        // Nobody needs its pods.
        spec: { replicas: 0, selector: { matchLabels: labels }, template },
      };
      const fieldManager = "pulumi-kubernetes-1a2b3c4d";
      const options = setHeaderOptions("Content-Type", PatchStrategy.ServerSideApply);
      await objects.patchNamespacedCustomObject(
        { ...which, body, fieldManager, force: true },
        options,
      );
      await until("the ReplicaSet", isObserved, PATIENCE);
    };
    const read = () => apps.readNamespacedDeployment({ namespace, name });
    const isObserved = async () => {
      const { metadata, status } = await read();
      return status?.observedGeneration === metadata?.generation;
    };
    const variables = async () =>
      (await read()).spec?.template.spec?.containers[0]?.env?.map((one) => one.name);
    const declared = (release: string) => ({ spec: release, template: release });
    const undo = new Undo(scene.kubeconfig, namespace, name);

    await apply({ BOTH: "1", FORMER: "1" });
    await undo.begin(declared("former"));
    await undo.pass();
    await apply({ BOTH: "2", BAD: "1" });
    await undo.begin(declared("bad"));
    assert.deepEqual((await undo.undo()).said, [`${name} runs the former release again`]);
    assert.deepEqual(await variables(), ["BOTH", "FORMER"]);
    await undo.begin(declared("bad"));
    assert.deepEqual(await variables(), ["BOTH", "BAD"]);
    await undo.undo();
    await apply({ BOTH: "3" });
    assert.deepEqual(await variables(), ["BOTH"]);
  });
});
