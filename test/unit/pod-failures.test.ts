import * as assert from "node:assert/strict";
import type { V1ContainerStatus, V1Pod } from "@kubernetes/client-node";
import { explainEnds, explainPods } from "../../provider/pod-failures";
import { rolloutStatus } from "../../provider/cluster";

function container(status: Partial<V1ContainerStatus>): V1ContainerStatus {
  return { name: "web", image: "", imageID: "", ready: false, restartCount: 0, ...status };
}

function pod(...containerStatuses: V1ContainerStatus[]): V1Pod {
  return { status: { containerStatuses } };
}

describe("why pods are not ready", () => {
  it("is that a container crashes, with its last words", () => {
    const lastState = { terminated: { exitCode: 2, message: "panic: no config\n" } };
    const state = { waiting: { reason: "CrashLoopBackOff", message: "back-off 20s" } };
    assert.deepEqual(explainPods([pod(container({ state, lastState, restartCount: 3 }))]), [
      "container web ended 4 times with exit code 2; its last words:\n    panic: no config",
    ]);
  });

  it("is that a container used more than its limit", () => {
    const lastState = { terminated: { exitCode: 137, reason: "OOMKilled" } };
    assert.deepEqual(explainPods([pod(container({ lastState, restartCount: 1 }))]), [
      "container web was killed for using more memory than its limit (OOMKilled)",
    ]);
  });

  it("is that the image cannot be pulled", () => {
    const state = { waiting: { reason: "ImagePullBackOff", message: "not found" } };
    assert.deepEqual(explainPods([pod(container({ state }))]), [
      "container web: ImagePullBackOff: not found",
    ]);
  });

  it("is that no node has room", () => {
    const conditions = [{ type: "PodScheduled", status: "False", message: "Insufficient cpu" }];
    assert.deepEqual(explainPods([{ status: { conditions } }]), [
      "cannot be scheduled: Insufficient cpu",
    ]);
  });

  it("is that an init container fails", () => {
    const state = { terminated: { exitCode: 1, message: "no database" } };
    const failing = container({ name: "wait", state });
    assert.deepEqual(explainPods([{ status: { initContainerStatuses: [failing] } }]), [
      "init container wait ended with exit code 1; its last words:\n    no database",
    ]);
  });

  it("is that a probe fails", () => {
    const running = container({ state: { running: {} } });
    assert.deepEqual(explainPods([pod(running)]), [
      "container web runs, but is not ready: its readiness or startup probe fails",
    ]);
  });

  it("is that no pod may be made", () => {
    const message = 'pods "web-1" is forbidden: exceeded quota';
    const conditions = [{ type: "ReplicaFailure", status: "True", message }];
    assert.deepEqual(explainPods([], { status: { conditions } }), [
      `no pod can be created: ${message}`,
    ]);
  });

  it("is said once for pods that fail alike", () => {
    const conditions = [{ type: "PodScheduled", status: "False", message: "Insufficient cpu" }];
    const lines = explainPods([{ status: { conditions } }, { status: { conditions } }]);
    assert.deepEqual(lines, ["2 pods: cannot be scheduled: Insufficient cpu"]);
  });

  it("keeps the end of a long log", () => {
    const message = `${"x".repeat(5_000)}\nthe end`;
    const state = { terminated: { exitCode: 1, message } };
    const [line = ""] = explainPods([pod(container({ state }))]);
    assert.ok(line.length < 1_200 && line.endsWith("the end"));
  });

  it("is nothing where all is well", () => {
    assert.deepEqual(explainPods([pod(container({ ready: true, state: { running: {} } }))]), []);
  });
});

describe("the ends of containers that are to serve", () => {
  const ends = (status: Partial<V1ContainerStatus>) => {
    const one = container(status);
    const { status: at = {} } = pod(one);
    return explainEnds([{ metadata: { name: "web-1" }, status: at }], new Set([one]));
  };
  const running = { running: {} };

  it("are told where there was no error, also where it is not known how they were", () => {
    const lastState = { terminated: { exitCode: 0 } };
    const text = "container web of pod web-1 has ended";
    assert.deepEqual(ends({ state: running, lastState, restartCount: 1 }), [
      `${text} once (exit code 0)`,
    ]);
    const state = { waiting: { reason: "CrashLoopBackOff" } };
    assert.deepEqual(ends({ state, lastState, restartCount: 1 }), [
      `${text} 2 times (exit code 0)`,
    ]);
    assert.deepEqual(ends({ state: running, restartCount: 1 }), [`${text} once`]);
  });

  it("are left to what is said of failures where there was one", () => {
    const lastState = { terminated: { exitCode: 1 } };
    assert.deepEqual(ends({ state: running, lastState, restartCount: 1 }), []);
  });
});

describe("a rollout", () => {
  const deployment = (status: object, generation = 2) => ({
    metadata: { generation },
    spec: { replicas: 3, selector: {}, template: {} },
    status: { observedGeneration: 2, ...status },
  });
  const complete = { replicas: 3, updatedReplicas: 3, availableReplicas: 3 };

  it("is complete when all pods are new and available", () => {
    assert.equal(rolloutStatus(deployment(complete)), "complete");
  });

  it("progresses while the controller has not seen it", () => {
    assert.equal(rolloutStatus(deployment(complete, 3)), "progressing");
  });

  it("progresses while pods are missing, old or not available", () => {
    for (const part of [{ updatedReplicas: 2 }, { replicas: 4 }, { availableReplicas: 2 }]) {
      assert.equal(rolloutStatus(deployment({ ...complete, ...part })), "progressing");
    }
  });

  it("has failed when the cluster says it makes no progress", () => {
    const conditions = [
      { type: "Progressing", status: "False", reason: "ProgressDeadlineExceeded" },
    ];
    const status = { replicas: 4, updatedReplicas: 1, availableReplicas: 3, conditions };
    assert.equal(rolloutStatus(deployment(status)), "failed");
  });
});
