import * as assert from "node:assert/strict";
import { setTimeout } from "node:timers/promises";
import { create as bake, read as readBake, type BakeInputs } from "../../provider/bake";
import { ABORT, abortOf, kubeconfigOf, ResourceFailed } from "../../provider/cluster";
import { runningBake } from "../../provider/progress";
import { create as rollout, find, read as readRollout } from "../../provider/rollout";
import { ROLLOUT, Undo, withTemplate } from "../../provider/undo";
import { virtualClock } from "../support/clock";
import { failure } from "../support/failure";
import { KubernetesServer } from "../support/kubernetes";
import { PrometheusServer } from "../support/prometheus";

const APPS = "/apis/apps/v1/namespaces/qa";
const WEB = `${APPS}/deployments/web`;
const REVISION = "deployment.kubernetes.io/revision";

describe("a release that fails in place of the one before", () => {
  virtualClock();
  let cluster: KubernetesServer;
  let prometheus: PrometheusServer;
  let analysis: string;
  let errors: number;
  /** Whether new pods become available. */
  let healthy: boolean;

  before(async () => {
    prometheus = await PrometheusServer.start((query) => (query === "errors" ? errors : 100));
    analysis = JSON.stringify({
      prometheus: prometheus.url,
      interval: 1,
      window: 10,
      failuresInARow: 1,
      traffic: { query: "requests", min: 20 },
      queries: { "error-rate": { query: "errors", unit: "%", max: 1 } },
      whenUnavailable: "hold",
      whenTooLittleTraffic: "hold",
    });
  });
  after(() => prometheus.stop());

  const podsOf = (image: string) => ({
    metadata: { labels: { app: "web" } },
    spec: { containers: [{ name: "web", image }], volumes: [{ name: `settings-${image}` }] },
  });
  const replicaSet = (image: string, revision: number) => {
    const { metadata, spec } = podsOf(image);
    const labels = { ...metadata.labels, "pod-template-hash": image };
    cluster.put(`${APPS}/replicasets`, `web-${image}`, {
      metadata: {
        ownerReferences: [{ name: "web", uid: "web" }],
        annotations: { [REVISION]: String(revision) },
      },
      spec: { template: { metadata: { labels, creationTimestamp: null }, spec } },
    });
  };

  beforeEach(async () => {
    errors = 0;
    healthy = true;
    cluster = await KubernetesServer.start();
    let present = "";
    let generation = 0;
    cluster.controller = (path, object) => {
      if (path !== WEB) return object;
      const { template } = object["spec"] as { template: ReturnType<typeof podsOf> };
      const image = template.spec.containers[0]?.image ?? "";
      if (image !== present) {
        generation += 1;
        present = image;
        replicaSet(image, generation);
      }
      const metadata = object["metadata"] as { annotations?: object };
      const counts = { replicas: 2, updatedReplicas: 2, availableReplicas: 2 };
      const stuck = { conditions: [{ type: "Progressing", reason: "ProgressDeadlineExceeded" }] };
      return {
        ...object,
        metadata: {
          ...metadata,
          generation,
          annotations: { ...metadata.annotations, [REVISION]: String(generation) },
        },
        status: {
          observedGeneration: generation,
          ...(healthy || image === "a" ? counts : stuck),
        },
      };
    };
    cluster.put(`${APPS}/deployments`, "web", {
      metadata: { uid: "web", namespace: "qa" },
      spec: { replicas: 2, selector: { matchLabels: { app: "web" } }, template: podsOf("a") },
    });
    await deploy("a");
  });
  afterEach(() => cluster.stop());

  const inputs = (more: Partial<BakeInputs> = {}): BakeInputs => ({
    namespace: "qa",
    deployments: "web",
    inPlace: "web",
    spec: "one",
    seconds: 2,
    analysis,
    ...more,
  });
  const run = () => ({ signal: new AbortController().signal, tell: () => undefined });
  /** What Pulumi declares, and its wait. */
  const declare = (image: string, irreversible?: string) => {
    const was = imageNow();
    if (was !== image) cluster.patch(WEB, { spec: { template: podsOf(image) } });
    return rollOut(image, irreversible);
  };
  const undo = () => new Undo(kubeconfigOf(undefined), "qa", "web");
  const rolledOut = (image: string) => ({
    namespace: "qa",
    deployment: "web",
    spec: image,
    template: image,
    inPlace: "web",
  });
  const rollOut = (image: string, irreversible?: string) =>
    rollout(
      { ...rolledOut(image), ...(irreversible === undefined ? {} : { irreversible }) },
      run(),
    );
  const deploy = async (image: string) => {
    await declare(image);
    return bake(inputs({ spec: image }), run());
  };
  const imageOf = (deployment: object | undefined) =>
    (deployment as { spec: { template: ReturnType<typeof podsOf> } }).spec.template.spec
      .containers[0]?.image;
  const imageNow = () => imageOf(cluster.get(WEB));
  const known = () =>
    JSON.parse(
      (cluster.get(WEB)?.metadata["annotations"] as Record<string, string>)[ROLLOUT] ?? "{}",
    ) as Record<string, unknown>;

  it("makes way when it fails its bake", async () => {
    await declare("b");
    errors = 50;
    const text = await failure(bake(inputs({ spec: "b" }), run()));
    assert.match(text, /error-rate is 50 %;.*\n {2}web runs the former release again$/);
    assert.deepEqual((cluster.get(WEB)?.["spec"] as { template: object }).template, podsOf("a"));
    assert.equal(known()["verified"], "web-a");
  });

  it("comes back when it is tried again, and is what the next one makes way for", async () => {
    await declare("b");
    errors = 50;
    await failure(bake(inputs({ spec: "b" }), run()));
    errors = 0;
    // Nothing has changed for Pulumi: only what is gone, or has failed, runs again.
    assert.equal(await find(rolledOut("b")), undefined);
    await rollOut("b");
    assert.deepEqual(await find(rolledOut("b")), rolledOut("b"));
    await bake(inputs({ spec: "b" }), run());
    assert.equal(imageNow(), "b");
    assert.deepEqual(known(), { spec: "b", template: "b", verified: "web-b" });
    await declare("c");
    errors = 50;
    await failure(bake(inputs({ spec: "c" }), run()));
    assert.equal(imageNow(), "b");
  });

  it("never passes by the former one's pods", async () => {
    await declare("b");
    errors = 50;
    await failure(bake(inputs({ spec: "b" }), run()));
    const unwatched = inputs({ spec: "b", seconds: 0, analysis: "" });
    assert.match(await failure(bake(unwatched, run())), /^qa\/web: it runs the former release$/);
    assert.equal(await readBake(unwatched), undefined, "nor by a refresh");
    assert.equal(await readRollout(rolledOut("b")), undefined);
  });

  it("comes back with another number of pods, too, which is no other release", async () => {
    await declare("b");
    errors = 50;
    await failure(bake(inputs({ spec: "b" }), run()));
    await rollout({ ...rolledOut("b"), spec: "b, by an autoscaler" }, run());
    assert.equal(imageNow(), "b");
  });

  it("is waited for until it is there, whatever kills the wait", async () => {
    await declare("b");
    errors = 50;
    await failure(bake(inputs({ spec: "b" }), run()));
    const declared = { spec: "b", template: "b" };
    await undo().begin(declared);
    assert.equal(imageNow(), "b");
    assert.equal(await find(rolledOut("b")), undefined, "its pods may not be there");
    assert.deepEqual((await undo().undo()).said, ["web runs the former release again"]);
    await undo().complete(await undo().begin(declared));
    assert.equal(imageNow(), "b");
  });

  it("ends the watch of another one", async () => {
    await declare("b");
    const pending = failure(bake(inputs({ spec: "b", seconds: 600 }), run()));
    while (runningBake(cluster.get(WEB) as object) === undefined) await setTimeout(20);
    await declare("c");
    assert.match(await pending, /another release was rolled out; this run has stopped/);
    assert.equal(imageNow(), "c");
    assert.equal(known()["verified"], "web-a");
  });

  it("does not come back with another release, nor with the former one", async () => {
    for (const next of ["c", "a"]) {
      await declare("b");
      errors = 50;
      await failure(bake(inputs({ spec: "b" }), run()));
      errors = 0;
      await deploy(next);
      assert.equal(imageNow(), next);
      assert.deepEqual(known(), { spec: next, template: next, verified: `web-${next}` });
    }
  });

  it("makes way when its pods do not come up, and is waited for anew", async () => {
    healthy = false;
    const text = await failure(declare("b"));
    assert.match(text, /made no progress for 600 s.*\n.*\n {2}web runs the former release again$/);
    assert.equal(imageNow(), "a");
    healthy = true;
    await rollOut("b");
    assert.equal(imageNow(), "b");
    assert.equal(known()["verified"], "web-a", "it has not passed yet");
  });

  /** Declares one whose pods take their time. @returns what gives it time no more. */
  const declareSlowly = (image: string) => {
    cluster.patch(WEB, { spec: { template: podsOf(image) } });
    const waiting = cluster.controller;
    cluster.controller = (path, object) => {
      const made = waiting(path, object);
      if (path !== WEB || imageOf(object) !== image) return made;
      return { ...made, status: { ...(made["status"] as object), availableReplicas: 1 } };
    };
    cluster.patch(WEB, {});
    return () => void (cluster.controller = waiting);
  };
  const putAbort = () => {
    const by = abortOf(new Date(), "bob@example.com", "not today");
    cluster.patch(WEB, { metadata: { annotations: { [ABORT]: by } } });
  };
  const ABORTED = /aborted by bob@example\.com: not today\n {2}web runs the former/;

  it("makes way when its rollout is aborted", async () => {
    declareSlowly("b");
    const pending = failure(rollOut("b"));
    await setTimeout(1000);
    putAbort();
    assert.match(await pending, ABORTED);
    assert.equal(imageNow(), "a");
  });

  it("hears of an abort from when nobody carried its rollout on, and only once", async () => {
    const getsTime = declareSlowly("b");
    const stop = new AbortController();
    const killed = failure(rollout(rolledOut("b"), stop));
    await setTimeout(1000);
    stop.abort();
    assert.match(await killed, /was stopped/);
    putAbort();
    getsTime();
    assert.match(await failure(rollOut("b")), ABORTED);
    assert.equal(imageNow(), "a");
    // Whoever deploys it now knows of the abort.
    await rollOut("b");
    assert.equal(imageNow(), "b");
  });

  it("hears of an abort from just before it is complete", async () => {
    declareSlowly("b")();
    let reads = 0;
    cluster.afterRead = (path) => {
      reads += path === WEB ? 1 : 0;
      // The wait has read that the pods are there.
      if (known()["abort"] === undefined || reads < 4) return;
      cluster.afterRead = () => undefined;
      putAbort();
    };
    assert.match(await failure(rollOut("b")), ABORTED);
    assert.equal(imageNow(), "a");
  });

  it("heeds no abort of another one, nor of its own bake", async () => {
    declareSlowly("b")();
    putAbort();
    await declare("c");
    const pending = failure(bake(inputs({ spec: "c", seconds: 600 }), run()));
    while (runningBake(cluster.get(WEB) as object) === undefined) await setTimeout(20);
    putAbort();
    assert.match(await pending, /aborted by bob@example\.com/);
    assert.equal(imageNow(), "a");
    await rollOut("c");
    assert.equal(imageNow(), "c");
  });

  it("stays where the former one must not run again, and says why", async () => {
    await declare("b", "the schema is another one");
    errors = 50;
    const text = await failure(bake(inputs({ spec: "b" }), run()));
    assert.match(text, /\n {2}web stays as it is: the schema is another one$/);
    assert.equal(imageNow(), "b");
    errors = 0;
    await bake(inputs({ spec: "b" }), run());
    assert.deepEqual(known(), { spec: "b", template: "b", verified: "web-b" });
  });

  it("stays where nothing has passed before", async () => {
    cluster.patch(WEB, { metadata: { annotations: { [ROLLOUT]: null } } });
    await declare("b");
    errors = 50;
    assert.doesNotMatch(await failure(bake(inputs({ spec: "b" }), run())), /former/);
    assert.equal(imageNow(), "b");
  });

  it("makes way together with others, and is not complete by the former pods", async () => {
    const undone = undo();
    await declare("b");
    await undone.undo();
    await assert.rejects(undone.complete(""), ResourceFailed);
    assert.equal(imageNow(), "a");
  });

  it("says so where the former one cannot come back", async () => {
    await declare("b");
    cluster.patch(WEB, {
      metadata: { annotations: { [ROLLOUT]: JSON.stringify({ ...known(), verified: "web-x" }) } },
    });
    errors = 50;
    const text = await failure(bake(inputs({ spec: "b" }), run()));
    assert.match(text, /web could not be led back .*: qa\/web: its ReplicaSet web-x is gone$/);
  });
});

describe("the pods of a Deployment that Pulumi applies", () => {
  const deployment = {
    apiVersion: "apps/v1",
    kind: "Deployment",
    metadata: {
      name: "web",
      namespace: "qa",
      resourceVersion: "7",
      labels: { app: "web", other: "theirs" },
      finalizers: ["a", "b"],
      managedFields: [
        { manager: "kube-controller-manager", operation: "Update", subresource: "status" },
        {
          manager: "pulumi-kubernetes-1a2b",
          operation: "Apply",
          fieldsV1: {
            "f:metadata": { "f:labels": { "f:app": {} }, "f:finalizers": { 'v:"a"': {} } },
            "f:spec": {
              "f:selector": {},
              "f:strategy": { "f:type": {} },
              "f:template": { "f:spec": {} },
            },
          },
        },
      ],
    },
    spec: {
      replicas: 5,
      selector: { matchLabels: { app: "web" } },
      strategy: { type: "RollingUpdate", rollingUpdate: { maxSurge: 1 } },
      template: { spec: { containers: [] } },
    },
    status: {},
  };
  const template = { spec: { containers: [{ name: "web" }] } };

  it("are applied as what Pulumi declares, and no more", () => {
    assert.deepEqual(withTemplate(deployment, template), {
      fieldManager: "pulumi-kubernetes-1a2b",
      object: {
        apiVersion: "apps/v1",
        kind: "Deployment",
        metadata: {
          name: "web",
          namespace: "qa",
          resourceVersion: "7",
          labels: { app: "web" },
          finalizers: ["a", "b"],
        },
        spec: {
          selector: { matchLabels: { app: "web" } },
          strategy: { type: "RollingUpdate" },
          template,
        },
      },
    });
  });

  it("take the place of the former ones where it was declared otherwise", () => {
    const [own] = deployment.metadata.managedFields;
    const metadata = { ...deployment.metadata, managedFields: [own] };
    assert.deepEqual(withTemplate({ ...deployment, metadata }, template), {
      object: { ...deployment, metadata, spec: { ...deployment.spec, template } },
    });
  });
});
