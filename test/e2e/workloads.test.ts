import type { V1Deployment } from "@kubernetes/client-node";
import * as assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { parseDocument } from "yaml";
import { until } from "../../sandbox/cluster";
import { PATIENCE, Scene } from "./scene";

describe("an environment that was not there before", () => {
  let scene: Scene;
  let namespace: string;
  let digest: string | undefined;
  before(async () => {
    scene = await Scene.open();
    namespace = scene.namespaceOf("perf");
    const [build] = scene.builds;
    digest = await scene.registry.resolve(`build-${build}`);
    if ((await scene.registry.resolve(`dev-${build}`)) === undefined) {
      await scene.deploy("dev", `build-${build}`);
    }
    // A sixth environment is one more stack file.
    const { folder } = scene.project;
    const document = parseDocument(await readFile(join(folder, "Pulumi.qa.yaml"), "utf8"));
    document.delete("encryptionsalt");
    document.deleteIn(["config", "baton:API_KEY"]);
    document.deleteIn(["config", "baton:settings", "secrets"]);
    document.setIn(["config", "baton:namespace", "name"], namespace);
    document.setIn(["config", "baton:imageTag"], `dev-${build}`);
    await writeFile(join(folder, "Pulumi.perf.yaml"), document.toString());
    await scene.project.pulumi("stack", "init", "perf");
  });

  const deployments = async (): Promise<V1Deployment[]> => {
    return (await scene.apps.listNamespacedDeployment({ namespace })).items;
  };

  it("adopts the Deployment and Service that run there", async () => {
    const app = { app: "shop" };
    const metadata = { name: "shop", namespace };
    const image = `${scene.target.repository}:build-${scene.builds[0]}`;
    await scene.core.createNamespace({ body: { metadata: { name: namespace } } });
    await scene.apps.createNamespacedDeployment({
      namespace,
      body: applied({
        apiVersion: "apps/v1",
        kind: "Deployment",
        metadata,
        spec: {
          selector: { matchLabels: app },
          template: { metadata: { labels: app }, spec: { containers: [{ name: "shop", image }] } },
        },
      }),
    });
    await scene.core.createNamespacedService({
      namespace,
      body: applied({
        apiVersion: "v1",
        kind: "Service",
        metadata,
        spec: { selector: app, ports: [{ port: 80, targetPort: 9898 }] },
      }),
    });
    const running = (await deployments())[0]?.metadata?.uid;

    const { project } = scene;
    await project.setConfig("perf", "baton:workloads.web.name", "shop");
    await project.setConfig("perf", "baton:workloads.web.selector.app", "shop");
    await scene.importObjects("perf", {
      "kubernetes:core/v1:Namespace": namespace,
      "kubernetes:apps/v1:Deployment": `${namespace}/shop`,
      "kubernetes:core/v1:Service": `${namespace}/shop`,
    });
    await project.up("perf");

    const adopted = await deployments();
    assert.equal(adopted.length, 1);
    assert.equal(adopted[0]?.metadata?.uid, running, "it is the same Deployment");
    const pods = await scene.pods("perf", "app=shop");
    assert.equal(pods.length, 2);
    for (const pod of pods) {
      assert.deepEqual(
        pod.spec?.containers.map(({ image }) => image),
        [`${scene.target.repository}@${digest}`],
      );
    }
    assert.equal(await scene.registry.resolve(`perf-${scene.builds[0]}`), digest);
  });

  it("runs a worker and a CronJob of the same image beside it (long)", async () => {
    const { project } = scene;
    const set = async (key: string, values: Readonly<Record<string, string>>) => {
      for (const [name, value] of Object.entries(values)) {
        await project.setConfig("perf", `baton:workloads.${key}.${name}`, value);
      }
    };
    const resources = {
      "resources.requests.cpu": "10m",
      "resources.requests.memory": "32Mi",
      "resources.limits.cpu": "100m",
      "resources.limits.memory": "64Mi",
    };
    await set("worker", { "command[0]": "/bin/podinfo", ...resources });
    await set("clean-up", {
      kind: "CronJob",
      schedule: "* * * * *",
      "command[0]": "/bin/podcli",
      "args[0]": "version",
      ...resources,
    });
    await project.up("perf");

    const worker = await scene.pods("perf", "app.kubernetes.io/name=worker");
    assert.deepEqual(
      worker.map(({ spec }) => spec?.containers[0]?.image),
      [`${scene.target.repository}@${digest}`],
    );
    const hasRun = async () => {
      const { items } = await scene.batch.listNamespacedJob({ namespace });
      return items.some(
        ({ metadata, status }) =>
          metadata?.name?.startsWith("clean-up") === true && status?.succeeded === 1,
      );
    };
    await until("a run of the CronJob", hasRun, PATIENCE);
    await project.pulumi("up", "--yes", "--expect-no-changes", "--stack", "perf");
  });
});

/** An object as `kubectl apply` makes it, with the annotation of what it was asked to be. */
function applied<T extends { metadata: object }>(object: T): T {
  const annotations = {
    "kubectl.kubernetes.io/last-applied-configuration": JSON.stringify(object),
  };
  return { ...object, metadata: { ...object.metadata, annotations } };
}
