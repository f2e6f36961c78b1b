import * as assert from "node:assert/strict";
import { remove } from "../../provider/autoscaled";
import { setTimeout } from "node:timers/promises";
import { ABORT, abortOf, type ResourceFailed } from "../../provider/cluster";
import { create } from "../../provider/rollout";
import { virtualClock } from "../support/clock";
import { failure } from "../support/failure";
import { KubernetesServer } from "../support/kubernetes";

const DEPLOYMENTS = "/apis/apps/v1/namespaces/qa/deployments";

describe("a rollout", () => {
  virtualClock();
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
  const told: string[] = [];
  const run = {
    signal: new AbortController().signal,
    tell: (line: string) => void told.push(line),
  };
  const replicas = () =>
    (cluster.get(`${DEPLOYMENTS}/web`)?.["spec"] as { replicas: number }).replicas;

  it("leaves the number of pods to the manifest", async () => {
    await create(inputs, run);
    assert.equal(replicas(), 1);
  });

  it("waits for as many pods as there must be, where the manifest does not say", async () => {
    await create({ ...inputs, pods: 3 }, run);
    assert.equal(replicas(), 3);
  });

  it("is not complete without pods, where a canary has taken them", async () => {
    cluster.patch(`${DEPLOYMENTS}/web`, { spec: { replicas: 0 } });
    await create({ ...inputs, pods: 1 }, run);
    assert.equal(replicas(), 1);
  });

  it("takes none of those away that an autoscaler has found to be needed", async () => {
    cluster.patch(`${DEPLOYMENTS}/web`, { spec: { replicas: 6 } });
    await create({ ...inputs, pods: 3, atLeast: "former" }, run);
    assert.equal(replicas(), 6);
  });

  it("gives a release as many as the other one has, and never fewer than there must be", async () => {
    await create({ ...inputs, pods: 2, atLeast: "former" }, run);
    assert.equal(replicas(), 4);
    await create({ ...inputs, pods: 5, atLeast: "former" }, run);
    assert.equal(replicas(), 5);
    await create({ ...inputs, pods: 2, atLeast: "gone" }, run);
    assert.equal(replicas(), 5);
  });
  it("has as many pods as it declares once its autoscaler is gone, and is left alone where it does not", async () => {
    cluster.patch(`${DEPLOYMENTS}/web`, { spec: { replicas: 6 } });
    await remove(inputs, run);
    assert.equal(replicas(), 6);
    cluster.patch(`${DEPLOYMENTS}/web`, { metadata: { annotations: { "baton/replicas": "2" } } });
    await remove(inputs, run);
    assert.equal(replicas(), 2);
    await remove({ ...inputs, deployment: "gone" }, run);
    cluster.failure = 403;
    await assert.rejects(remove(inputs, run), /qa\/web cannot be read: the cluster answered 403/);
  });

  it("is left as it is once its autoscaler is gone, where its context is called otherwise now", async () => {
    cluster.patch(`${DEPLOYMENTS}/web`, { metadata: { annotations: { "baton/replicas": "2" } } });
    await remove({ ...inputs, context: "old" }, run);
    assert.equal(replicas(), 1);
    assert.deepEqual(told, ["qa/web keeps its pods: the kubeconfig has no context old"]);
  });

  it("beside another release hears of an abort from when nobody carried it on, and only once", async () => {
    const ready = cluster.controller;
    cluster.controller = (_, object) => ({ ...object, status: { observedGeneration: 1 } });
    cluster.patch(`${DEPLOYMENTS}/web`, {});
    const stop = new AbortController();
    const killed = failure(create(inputs, stop));
    await setTimeout(200);
    stop.abort();
    assert.match(await killed, /was stopped/);
    const annotations = { [ABORT]: abortOf(new Date(), "bob@example.com", "not today") };
    cluster.controller = ready;
    cluster.patch(`${DEPLOYMENTS}/web`, { metadata: { annotations } });
    assert.match(await failure(create(inputs, run)), /aborted by bob@example\.com: not today$/);
    await create(inputs, run);
  });

  describe("that is given more pods than there is room for", () => {
    beforeEach(() => {
      cluster.controller = (_, object) => {
        const counts = { replicas: 1, updatedReplicas: 1, availableReplicas: 1 };
        return { ...object, status: { observedGeneration: 1, ...counts } };
      };
      const pods = { selector: { matchLabels: { app: "web" } }, template: {} };
      cluster.patch(`${DEPLOYMENTS}/web`, { spec: { progressDeadlineSeconds: 1, ...pods } });
    });

    it("fails without progress, which the cluster does not call a failure", async () => {
      await assert.rejects(create({ ...inputs, pods: 3 }, run), (error: ResourceFailed) => {
        assert.match(error.reasons.join(), /qa\/web made no progress for 1 s/);
        return true;
      });
    });

    it("is left, and awaited again by the next run, when Pulumi is stopped", async () => {
      cluster.patch(`${DEPLOYMENTS}/web`, { spec: { progressDeadlineSeconds: 600 } });
      const stop = new AbortController();
      const pending = create({ ...inputs, pods: 3 }, stop);
      stop.abort();
      await assert.rejects(pending, (error: ResourceFailed) => {
        assert.match(error.reasons.join(), /the wait for qa\/web was stopped/);
        return true;
      });
    });
  });
});
