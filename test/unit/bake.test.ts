import * as assert from "node:assert/strict";
import { setTimeout } from "node:timers/promises";
import { create, read, type BakeInputs } from "../../provider/bake";
import { ABORT, abortOf, kubeconfigOf } from "../../provider/cluster";
import { BAKE, runningBake } from "../../provider/progress";
import { Traffic, type Switch } from "../../provider/traffic";
import { virtualClock } from "../support/clock";
import { failure } from "../support/failure";
import { KubernetesServer } from "../support/kubernetes";
import { PrometheusServer } from "../support/prometheus";

const APPS = "/apis/apps/v1/namespaces/qa";
const NEW = `${APPS}/deployments/web-b`;
const OLD = `${APPS}/deployments/web-a`;
const SERVICE = "/api/v1/namespaces/qa/services/web";
const PODS = "/api/v1/namespaces/qa/pods";
const selects = (name: string) => ({ "app.kubernetes.io/name": name });

describe("a bake", () => {
  virtualClock();
  let cluster: KubernetesServer;
  let prometheus: PrometheusServer;
  let analysis: string;
  /** What Prometheus says of each query that holds the word. */
  let metrics: Record<string, number>;
  let asked: string[];
  let told: string[];

  before(async () => {
    prometheus = await PrometheusServer.start((query) => {
      asked.push(query);
      return metrics[query.split(" ")[0] ?? ""];
    });
    analysis = JSON.stringify({
      prometheus: prometheus.url,
      interval: 1,
      window: 10,
      failuresInARow: 1,
      traffic: { query: "requests $(NAMESPACE) $(PODS) $(WINDOW)", min: 20 },
      queries: { "error-rate": { query: "errors $(PODS)", unit: "%", max: 1, maxTimesStable: 3 } },
      whenUnavailable: "hold",
      whenTooLittleTraffic: "hold",
    });
  });
  after(() => prometheus.stop());

  beforeEach(async () => {
    metrics = { requests: 100, errors: 0 };
    asked = [];
    told = [];
    cluster = await KubernetesServer.start();
    for (const name of ["web-a", "web-b"]) {
      cluster.put(`${APPS}/deployments`, name, {
        metadata: {
          uid: name,
          namespace: "qa",
          generation: 1,
          labels: selects(name),
          annotations: { "deployment.kubernetes.io/revision": "1" },
        },
        spec: { replicas: 1, selector: { matchLabels: selects(name) }, template: {} },
        status: { observedGeneration: 1, replicas: 1, updatedReplicas: 1, availableReplicas: 1 },
      });
      cluster.put(`${APPS}/replicasets`, `${name}-5f`, {
        metadata: {
          ownerReferences: [{ name, uid: name }],
          creationTimestamp: "2026-11-20T12:00:00Z",
        },
      });
    }
    cluster.put(PODS, "web-b-5f-x", {
      metadata: { uid: "pod" },
      status: { containerStatuses: [{ name: "web", restartCount: 0, ready: true }] },
    });
    cluster.put("/api/v1/namespaces/qa/services", "web", { spec: { selector: selects("web-b") } });
  });
  afterEach(() => cluster.stop());

  const inputs = (more: Partial<BakeInputs> = {}): BakeInputs => ({
    namespace: "qa",
    deployments: "web-b",
    spec: "one",
    seconds: 2,
    analysis: "",
    traffic: JSON.stringify([{ service: "web", to: selects("web-b"), from: selects("web-a") }]),
    former: "web-a",
    ...more,
  });
  const start = (more: Partial<BakeInputs> = {}, signal = new AbortController().signal) =>
    create(inputs(more), { signal, tell: (line) => void told.push(line) });
  const selector = () => (cluster.get(SERVICE)?.["spec"] as { selector: object }).selector;
  const annotations = (path = NEW) =>
    cluster.get(path)?.metadata["annotations"] as Record<string, string>;
  const until = async (done: () => boolean) => {
    while (!done()) await setTimeout(20);
  };

  it("passes a release that stays good, and is not repeated", async () => {
    cluster.patch(SERVICE, { spec: { selector: selects("web-a") } });
    cluster.patch(OLD, { metadata: { annotations: { [BAKE]: "of a former time" } } });
    await start({ analysis });
    assert.deepEqual(selector(), selects("web-b"), "it has its traffic");
    assert.equal(annotations(OLD)[BAKE], undefined);
    assert.ok(asked.includes("requests qa (web-b-5f)-[a-z0-9]+ 10s"), asked.join("\n"));
    assert.ok(asked.includes("errors (web-a-5f)-[a-z0-9]+"), "compared with the stable release");
    assert.deepEqual(await read(inputs({ analysis })), inputs({ analysis }));
    assert.equal(await read(inputs()), undefined, "another bake");
    assert.equal(runningBake({ metadata: { annotations: annotations() } }), undefined);
    asked = [];
    await start({ analysis });
    assert.deepEqual(asked, []);
  });

  it("takes the traffic back from one that fails, and says why", async () => {
    metrics = { requests: 100, errors: 50 };
    const text = await failure(start({ analysis }));
    assert.match(text, /^qa\/web-b failed its bake, after 0 s of 2 s:\n {2}error-rate is 50 %;/);
    assert.match(text, /\n {2}web leads to the former release again$/);
    assert.deepEqual(selector(), selects("web-a"));
    assert.equal(annotations()[BAKE], undefined, "another try begins anew");
    assert.equal(await read(inputs({ analysis })), undefined);
  });

  it("keeps the traffic where the former release must not have it back, and says why", async () => {
    metrics = { requests: 100, errors: 50 };
    const text = await failure(start({ analysis, irreversible: "the schema is another one" }));
    assert.match(text, /\n {2}web stays where it is: the schema is another one$/);
    assert.deepEqual(selector(), selects("web-b"));
  });

  it("stops when another release has been given the traffic, and leaves it there", async () => {
    const bake = failure(start({ seconds: 600 }));
    await until(() => told.length > 0);
    cluster.patch(SERVICE, { spec: { selector: selects("web-c") } });
    const by = abortOf(new Date(), "bob@example.com", "orders are missing");
    cluster.patch(NEW, { metadata: { annotations: { [ABORT]: by } } });
    assert.match(await bake, /it does not have all traffic any more; this run has stopped/);
    assert.deepEqual(selector(), selects("web-c"));
  });

  it("passes no release that has lost its traffic", async () => {
    const bake = failure(start());
    await until(() => told.length > 0);
    cluster.patch(SERVICE, { spec: { selector: selects("web-a") } });
    assert.match(await bake, /it does not have all traffic any more/);
    assert.equal(await read(inputs()), undefined);
  });

  it("takes no traffic back that another release has by the time it fails", async () => {
    cluster.patch(SERVICE, { spec: { selector: selects("web-c") } });
    const { traffic = "" } = inputs();
    const takesBack = new Traffic(kubeconfigOf(undefined), "qa");
    const said = await takesBack.takeBack(JSON.parse(traffic) as Switch[], undefined);
    assert.deepEqual(said, ["web stays where it is: it leads to another release by now"]);
    assert.deepEqual(selector(), selects("web-c"));
  });

  it("leads to no former release that has lost its pods to a canary, and says so", async () => {
    metrics = { requests: 100, errors: 50 };
    cluster.patch(OLD, { spec: { replicas: 0 }, status: { availableReplicas: 0 } });
    const text = await failure(start({ analysis }));
    assert.match(text, /\n {2}web stays where it is: web-a has no pods$/);
    assert.deepEqual(selector(), selects("web-b"));
  });

  it("leads to a former release whose pods are not ready for a moment", async () => {
    metrics = { requests: 100, errors: 50 };
    cluster.patch(OLD, { status: { availableReplicas: 0 } });
    const text = await failure(start({ analysis }));
    assert.match(text, /\n {2}web leads to the former release again$/);
    assert.deepEqual(selector(), selects("web-a"));
  });

  it("fails when a container ends, also without a Prometheus", async () => {
    const bake = failure(start({ seconds: 60 }));
    await until(() => annotations()[BAKE]?.includes('"good":') === true);
    await setTimeout(1500);
    const ended = { exitCode: 3, reason: "Error", message: "out of luck" };
    cluster.patch(`${PODS}/web-b-5f-x`, {
      status: {
        containerStatuses: [
          { name: "web", restartCount: 1, ready: true, lastState: { terminated: ended } },
        ],
      },
    });
    assert.match(await bake, /container web ended 2 times with exit code 3; .*\n\s+out of luck/);
    assert.deepEqual(selector(), selects("web-a"));
    assert.match(told[0] ?? "", /judged by the pods alone, as no Prometheus is configured/);
  });

  it("fails when a container ends without an error, which is no way to serve either", async () => {
    const bake = failure(start({ seconds: 10 }));
    await until(() => annotations()[BAKE]?.includes('"good":') === true);
    await setTimeout(1500);
    const lastState = { terminated: { exitCode: 0, reason: "Completed" } };
    const state = { running: {} };
    cluster.patch(`${PODS}/web-b-5f-x`, {
      status: {
        containerStatuses: [{ name: "web", restartCount: 2, ready: true, state, lastState }],
      },
    });
    assert.match(
      await bake,
      /\n {2}container web of pod web-b-5f-x has ended 2 times \(exit code 0\)\n/,
    );
    assert.deepEqual(selector(), selects("web-a"));
  });

  it("fails when it is aborted, also before anybody listens", async () => {
    const stop = new AbortController();
    const first = failure(start({ seconds: 600 }, stop.signal));
    await until(() => runningBake({ metadata: { annotations: annotations() } }) !== undefined);
    stop.abort();
    assert.match(await first, /was stopped; the next `up` carries it on/);
    assert.deepEqual(selector(), selects("web-b"), "it is carried on");
    const by = abortOf(new Date(), "bob@example.com", "orders are missing");
    cluster.patch(NEW, { metadata: { annotations: { [ABORT]: by } } });
    const text = await failure(start({ seconds: 600 }));
    assert.match(text, /\n {2}aborted by bob@example\.com: orders are missing\n/);
    assert.deepEqual(selector(), selects("web-a"));
  });

  it("carries on from where another run stood", async () => {
    const killed = new AbortController();
    const first = failure(start({ seconds: 600 }, killed.signal));
    await until(() => runningBake({ metadata: { annotations: annotations() } }) !== undefined);
    killed.abort();
    await first;
    const progress = JSON.parse(annotations()[BAKE] ?? "") as object;
    const good = JSON.stringify({ ...progress, good: 599.5 });
    cluster.patch(NEW, { metadata: { annotations: { [BAKE]: good } } });
    told = [];
    await start({ seconds: 600 });
    assert.match(told[0] ?? "", /carried on after 9 min/);
  });

  it("stops when another run has taken it over", async () => {
    const first = failure(start({ seconds: 600 }));
    await until(() => runningBake({ metadata: { annotations: annotations() } }) !== undefined);
    const stop = new AbortController();
    const second = failure(start({ seconds: 600 }, stop.signal));
    assert.match(await first, /another run has taken the bake over/);
    assert.deepEqual(selector(), selects("web-b"), "which may still pass");
    stop.abort();
    await second;
  });
});
