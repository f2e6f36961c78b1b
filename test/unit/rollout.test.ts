import * as assert from "node:assert/strict";
import { remove } from "../../provider/autoscaled";
import { create } from "../../provider/rollout";
import { KubernetesServer } from "../support/kubernetes";

const DEPLOYMENTS = "/apis/apps/v1/namespaces/qa/deployments";

describe("a rollout", () => {
  let cluster: KubernetesServer;

  beforeEach(async () => {
    cluster = await KubernetesServer.start();
    // Whoever is given more pods has them at once.
    cluster.controller = (_, object) => {
      const { replicas } = object["spec"] as { replicas: number };
      const counts = { replicas, updatedReplicas: replicas, availableReplicas: replicas };
      return { ...object, status: { observedGeneration: 1, ...counts } };
    };
    for (const [name, replicas] of [
      ["web", 1],
      ["former", 4],
    ] as const) {
      const metadata = { namespace: "qa", generation: 1 };
      cluster.put(DEPLOYMENTS, name, { metadata, spec: { replicas } });
    }
  });
  afterEach(() => cluster.stop());

  const inputs = { namespace: "qa", deployment: "web", spec: "one" };
  const replicas = () =>
    (cluster.get(`${DEPLOYMENTS}/web`)?.["spec"] as { replicas: number }).replicas;

  it("leaves the number of pods to the manifest", async () => {
    await create(inputs);
    assert.equal(replicas(), 1);
  });

  it("waits for as many pods as there must be, where the manifest does not say", async () => {
    await create({ ...inputs, pods: 3 });
    assert.equal(replicas(), 3);
  });

  it("takes none of those away that an autoscaler has found to be needed", async () => {
    cluster.patch(`${DEPLOYMENTS}/web`, { spec: { replicas: 6 } });
    await create({ ...inputs, pods: 3, atLeast: "former" });
    assert.equal(replicas(), 6);
  });

  it("gives a release as many as the other one has, and never fewer than there must be", async () => {
    await create({ ...inputs, pods: 2, atLeast: "former" });
    assert.equal(replicas(), 4);
    await create({ ...inputs, pods: 5, atLeast: "former" });
    assert.equal(replicas(), 5);
    await create({ ...inputs, pods: 2, atLeast: "gone" });
    assert.equal(replicas(), 5);
  });
  it("has as many pods as it declares once its autoscaler is gone, and is left alone where it does not", async () => {
    cluster.patch(`${DEPLOYMENTS}/web`, { spec: { replicas: 6 } });
    await remove(inputs);
    assert.equal(replicas(), 6);
    cluster.patch(`${DEPLOYMENTS}/web`, { metadata: { annotations: { "baton/replicas": "2" } } });
    await remove(inputs);
    assert.equal(replicas(), 2);
    await remove({ ...inputs, deployment: "gone" });
    cluster.failure = 403;
    await assert.rejects(remove(inputs), /qa\/web cannot be read: the cluster answered 403/);
  });
});
