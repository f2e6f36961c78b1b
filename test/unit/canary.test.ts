import * as assert from "node:assert/strict";
import * as fc from "fast-check";
import { setTimeout } from "node:timers/promises";
import { create as bake } from "../../provider/bake";
import { create, read, type CanaryInputs } from "../../provider/canary";
import { ABORT, abortOf } from "../../provider/cluster";
import { BAKE, progressOf } from "../../provider/progress";
import { MOST_BY_PODS, podsFor, shareOf, type By } from "../../release/canary";
import { create as unshare, read as readUnshared } from "../../provider/unshared";
import { virtualClock } from "../support/clock";
import { failure } from "../support/failure";
import { KubernetesServer } from "../support/kubernetes";
import { PrometheusServer } from "../support/prometheus";

describe("a canary's pods", () => {
  const weight = fc.integer({ min: 1, max: 99 });
  const stable = fc.integer({ min: 1, max: 500 });

  it("have at least the share that was asked for, with as few pods as can", () => {
    fc.assert(
      fc.property(weight, stable, (share, of) => {
        const pods = podsFor(share, of, "pods");
        assert.ok(shareOf(pods, of) >= share - 1e-9);
        assert.ok(pods === 1 || shareOf(pods - 1, of) < share);
      }),
    );
  });

  it("are never more than the stable release's, up to the largest share by pods", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: MOST_BY_PODS }), stable, (share, of) => {
        assert.ok(podsFor(share, of, "pods") <= of);
      }),
    );
  });

  it("can carry what a route gives them, and are at least one", () => {
    fc.assert(
      fc.property(weight, fc.integer({ min: 0, max: 500 }), (share, of) => {
        const pods = podsFor(share, of, "route");
        assert.ok(pods >= 1 && pods <= Math.max(1, of));
        assert.ok(pods >= (of * share) / 100);
      }),
    );
  });

  it("become no fewer with a larger share", () => {
    const by = fc.constantFrom<By>("pods", "route");
    fc.assert(
      fc.property(weight, weight, stable, by, (one, other, of, how) => {
        const [less, more] = [Math.min(one, other), Math.max(one, other)];
        assert.ok(podsFor(less, of, how) <= podsFor(more, of, how));
      }),
    );
  });
});

const APPS = "/apis/apps/v1/namespaces/qa";
const NEW = `${APPS}/deployments/web-b`;
const OLD = `${APPS}/deployments/web-a`;
const SERVICE = "/api/v1/namespaces/qa/services/web";
const PODS = "/api/v1/namespaces/qa/pods";
const LEASES = "/apis/coordination.k8s.io/v1/namespaces/qa/leases";
const LEASE = `${LEASES}/baton-canary`;
const ROUTES = "/apis/gateway.networking.k8s.io/v1/namespaces/qa/httproutes";
const selects = (name: string) => ({ "app.kubernetes.io/name": name });
const BOTH = { "baton/workload": "web" };
const ONE_STEP = JSON.stringify([{ weight: 10, duration: 1 }]);

describe("a canary", () => {
  virtualClock();
  let cluster: KubernetesServer;
  let prometheus: PrometheusServer;
  let analysis: string;
  /** What Prometheus says of a query. */
  let metric: (query: string) => number | undefined;
  let asked: string[];
  let told: string[];
  let stop: AbortController;

  before(async () => {
    prometheus = await PrometheusServer.start((query, isPast) => {
      asked.push(isPast ? `${query} at a time` : query);
      return metric(query);
    });
    analysis = JSON.stringify({
      prometheus: prometheus.url,
      interval: 1,
      window: 1,
      failuresInARow: 1,
      traffic: { query: "requests $(PODS)", min: 20 },
      queries: { errors: { query: "errors $(PODS)", unit: "%", max: 10, maxTimesStable: 3 } },
      whenUnavailable: "hold",
      whenTooLittleTraffic: "goBack",
    });
  });
  after(() => prometheus.stop());

  beforeEach(async () => {
    metric = (query) => (query.startsWith("requests") ? 100 : 0);
    asked = [];
    told = [];
    stop = new AbortController();
    cluster = await KubernetesServer.start();
    // Pods come at once.
    cluster.controller = (path, object) => {
      if (!path.includes("/deployments/")) return object;
      const { replicas } = object["spec"] as { replicas: number };
      const status = { observedGeneration: 1, replicas };
      return {
        ...object,
        status: { ...status, updatedReplicas: replicas, availableReplicas: replicas },
      };
    };
    putRelease("web-a", 3);
    putRelease("web-b", 1);
    cluster.put(PODS, "web-b-5f-x", {
      metadata: { uid: "pod" },
      status: { containerStatuses: [{ name: "web", restartCount: 0, ready: true }] },
    });
    cluster.put("/api/v1/namespaces/qa/services", "web", { spec: { selector: selects("web-a") } });
  });
  afterEach(() => cluster.stop());

  const putRelease = (name: string, replicas: number) => {
    cluster.put(`${APPS}/deployments`, name, {
      metadata: {
        uid: name,
        namespace: "qa",
        generation: 1,
        labels: { ...selects(name), ...BOTH },
        annotations: { "deployment.kubernetes.io/revision": "1" },
      },
      spec: { replicas, selector: { matchLabels: selects(name) }, template: {} },
    });
    cluster.put(`${APPS}/replicasets`, `${name}-5f`, {
      metadata: { ownerReferences: [{ name, uid: name }] },
    });
  };
  const inputs = (more: Partial<CanaryInputs> = {}, change: object = {}): CanaryInputs => ({
    namespace: "qa",
    deployments: "web-b",
    spec: "one",
    steps: JSON.stringify([
      { weight: 10, duration: 1 },
      { weight: 50, duration: 1 },
    ]),
    analysis,
    traffic: JSON.stringify([
      {
        service: "web",
        to: selects("web-b"),
        from: selects("web-a"),
        canary: "web-b",
        stable: "web-a",
        both: BOTH,
        replicas: 3,
        isAutoscaled: false,
        ...change,
      },
    ]),
    lease: "baton-canary",
    ...more,
  });
  const start = (given = inputs(), lines = told) =>
    create(given, { signal: stop.signal, tell: (line) => void lines.push(line) });
  const specOf = (path: string) =>
    cluster.get(path)?.["spec"] as Record<string, unknown> | undefined;
  const selector = () => specOf(SERVICE)?.["selector"];
  const replicas = (path: string) => specOf(path)?.["replicas"];
  const holder = () => specOf(LEASE)?.["holderIdentity"];
  const progress = () => progressOf(cluster.get(NEW));
  const until = async (done: () => boolean) => {
    while (!done()) await setTimeout(20);
  };
  const step = (number: number) => () => told.some((line) => line.startsWith(`step ${number} `));

  it("takes its traffic step by step, and is judged beside the stable release", async () => {
    assert.equal(await read(inputs()), undefined);
    const older = { metadata: { namespace: "qa", labels: BOTH }, spec: { replicas: 2 } };
    cluster.put(`${APPS}/deployments`, "web-0", older);
    const seen: unknown[] = [];
    const run = start();
    for (const number of [1, 2]) {
      await until(step(number));
      seen.push([selector(), replicas(NEW), replicas(OLD)]);
    }
    await run;
    assert.deepEqual(seen, [
      [BOTH, 1, 3],
      [BOTH, 3, 3],
    ]);
    assert.deepEqual(selector(), selects("web-b"));
    assert.equal(replicas(OLD), 3, "what to go back to");
    assert.equal(replicas(`${APPS}/deployments/web-0`), 0, "which the Service would select, too");
    assert.match(told[0] ?? "", /^step 1 of 2, 10 % for 1 s: 1 of 4 pods of web, 25 %; judged by/);
    assert.match(told.at(-1) ?? "", /it has all traffic/);
    assert.ok(asked.includes("errors (web-a-5f)-[a-z0-9]+"), asked.join("\n"));
    assert.ok(!asked.some((query) => query.endsWith("at a time")), "over the same time");
    assert.equal(holder(), "", "nobody has to wait");
    assert.deepEqual(await read(inputs()), inputs());
    asked = [];
    await start();
    assert.deepEqual(asked, [], "it is not repeated");
  });

  it("takes no pods from a release that serves without having passed, before the stable one does", async () => {
    const killed = { metadata: { namespace: "qa", labels: BOTH }, spec: { replicas: 3 } };
    cluster.put(`${APPS}/deployments`, "web-x", killed);
    cluster.patch(SERVICE, { spec: { selector: selects("web-x") } });
    const { controller } = cluster;
    let served: unknown;
    cluster.controller = (path, object) => {
      const { replicas: left } = object["spec"] as { replicas?: number };
      if (path.endsWith("/web-x") && left === 0) served ??= selector();
      return controller(path, object);
    };
    await start();
    assert.deepEqual(served, selects("web-a"));
    assert.equal(replicas(`${APPS}/deployments/web-x`), 0);
    assert.deepEqual(selector(), selects("web-b"));
  });

  /** As a killed bake leaves it, while the stable release has no available pod. @returns what brings it back. */
  const serveUnverified = (patience: number) => {
    let available = 0;
    const { controller } = cluster;
    cluster.controller = (path, object) => {
      const made = controller(path, object);
      const status = { ...(made["status"] as object), availableReplicas: available };
      return path.endsWith("/web-a") ? { ...made, status } : made;
    };
    cluster.patch(OLD, { spec: { progressDeadlineSeconds: patience } });
    const killed = { metadata: { namespace: "qa", labels: BOTH }, spec: { replicas: 3 } };
    cluster.put(`${APPS}/deployments`, "web-x", killed);
    cluster.patch(SERVICE, { spec: { selector: selects("web-x") } });
    return () => {
      available = 3;
      cluster.patch(OLD, {});
    };
  };

  it("leaves a release that serves its pods until the stable one has some available", async () => {
    const comeBack = serveUnverified(600);
    const run = start();
    await until(() => told.length > 0);
    await setTimeout(1500);
    assert.deepEqual(told, ["waiting for a pod of web-a, which web is to lead to first"]);
    assert.deepEqual(selector(), selects("web-x"));
    assert.equal(replicas(`${APPS}/deployments/web-x`), 3);
    comeBack();
    await run;
    assert.equal(replicas(`${APPS}/deployments/web-x`), 0);
    assert.deepEqual(selector(), selects("web-b"));
  });

  it("leaves a release that serves as it is where the stable one does not come back", async () => {
    serveUnverified(1);
    const text = await failure(start());
    assert.match(
      text,
      /^qa\/web-b: web-a has had no available pod for 1 s; expected one that web can lead to/,
    );
    assert.deepEqual(selector(), selects("web-x"));
    assert.equal(replicas(`${APPS}/deployments/web-x`), 3);
  });

  it("is divided by an HTTPRoute's weights, and the Service's callers meet the stable one", async () => {
    const backend = { name: "web", port: 80, weight: 1 };
    const others = { matches: [{}], backendRefs: [{ name: "other" }] };
    cluster.put(ROUTES, "web", { spec: { rules: [{ backendRefs: [backend] }, others] } });
    const given = inputs({ steps: ONE_STEP }, { route: "web" });
    const run = start(given);
    await until(step(1));
    const weights = () => specOf(`${ROUTES}/web`)?.["rules"] as { backendRefs: object[] }[];
    assert.deepEqual(weights()[0]?.backendRefs, [
      { ...backend, weight: 90 },
      { ...backend, name: "web-b", weight: 10 },
    ]);
    assert.deepEqual(weights()[1], others);
    assert.deepEqual(selector(), selects("web-a"));
    await run;
    assert.deepEqual(weights()[0]?.backendRefs, [backend]);
    assert.deepEqual(selector(), selects("web-b"));
    assert.match(told[0] ?? "", /: web gives it 10 % by its HTTPRoute;/);
  });

  for (const number of [1, 2]) {
    it(`that fails in step ${number} loses all traffic`, async () => {
      metric = (query) =>
        query.startsWith("requests") ? 100 : query.includes("web-a") ? 1 : step(number)() ? 5 : 0;
      const said = await failure(start());
      const head = `qa/web-b failed its step ${number} of 2 (${number === 1 ? 10 : 50} %), after 0 s of 1 s:`;
      assert.equal(said.split("\n")[0], head);
      assert.match(
        said,
        /errors is 5 %; expected at most 3 % \(3 times the stable release's 1 %\)/,
      );
      assert.match(said, /\n {2}web leads to the former release again$/);
      assert.deepEqual(selector(), selects("web-a"));
      assert.equal(progress(), undefined, "another try begins anew");
      assert.equal(holder(), "");
    });
  }

  it("without enough traffic has not passed", async () => {
    metric = (query) => (query.startsWith("requests") ? 3 : 0);
    assert.match(await failure(start()), /too little traffic: 3 requests in the last window/);
    assert.deepEqual(selector(), selects("web-a"));
  });

  it("that is aborted loses all traffic", async () => {
    const run = failure(start(inputs({ steps: '[{"weight":10,"duration":600}]' })));
    await until(step(1));
    const by = abortOf(new Date(), "bob@example.com", "orders are missing");
    cluster.patch(NEW, { metadata: { annotations: { [ABORT]: by } } });
    assert.match(await run, /aborted by bob@example\.com: orders are missing\n/);
    assert.deepEqual(selector(), selects("web-a"));
  });

  it("grows with the stable release, and leaves an autoscaled one no fewer pods", async () => {
    const steps = '[{"weight":50,"duration":600}]';
    const run = failure(start(inputs({ steps }, { isAutoscaled: true })));
    await until(step(1));
    assert.equal(replicas(NEW), 3);
    cluster.patch(OLD, { spec: { replicas: 5 } });
    await until(() => replicas(NEW) === 5);
    cluster.patch(OLD, { spec: { replicas: 2 } });
    await setTimeout(1500);
    assert.equal(replicas(NEW), 5);
    stop.abort();
    assert.match(await run, /the next `up` carries it on/);
  });

  it("begins anew with the pods of its share, whatever an autoscaler had made of them", async () => {
    cluster.patch(NEW, { spec: { replicas: 3 } });
    await start(inputs({ steps: ONE_STEP }, { isAutoscaled: true }));
    assert.match(told[0] ?? "", /^step 1 of 1, 10 % for 1 s: 1 of 4 pods of web, 25 %/);
    assert.deepEqual(selector(), selects("web-b"));
  });

  it("is carried on from its step by exactly one run, when another one has died", async () => {
    const stopped = failure(start(inputs({ steps: '[{"weight":10,"duration":600}]' })));
    await until(() => progress() !== undefined && step(1)());
    stop.abort();
    await stopped;
    const steps = JSON.stringify([
      { weight: 10, duration: 600 },
      { weight: 50, duration: 2 },
    ]);
    stop = new AbortController();
    const killed = failure(start(inputs({ steps })));
    await until(() => told.filter((line) => line.startsWith("step 1")).length === 2);
    stop.abort();
    await killed;
    const stood = JSON.stringify({ ...progress(), step: 1, good: 1.2 });
    cluster.patch(NEW, { metadata: { annotations: { [BAKE]: stood } } });
    // As a run leaves it that had no time to.
    cluster.patch(LEASE, { spec: { holderIdentity: "dead", leaseDurationSeconds: 1 } });
    stop = new AbortController();
    told = [];
    const lines: string[][] = [[], []];
    await Promise.all(lines.map((each) => start(inputs({ steps }), each)));
    const [driven = [], idle = []] = lines.sort((a, b) => b.length - a.length);
    assert.match(driven[0] ?? "", /^waiting for another run, dead, to end/);
    assert.match(driven[1] ?? "", /^step 2 of 2, 50 % for 2 s, carried on after 1 s: 3 of 6 pods/);
    assert.deepEqual(idle, driven.slice(0, 1));
    assert.deepEqual(selector(), selects("web-b"));
  });

  it("is not begun anew by a run that has waited for one that failed", async () => {
    const steps = '[{"weight":10,"duration":600}]';
    const first = failure(start(inputs({ steps })));
    await until(step(1));
    const lines: string[] = [];
    const second = failure(start(inputs({ steps }), lines));
    await until(() => lines.length > 0);
    metric = (query) => (query.startsWith("requests") ? 100 : 50);
    assert.match(await first, /errors is 50 %/);
    assert.match(await second, /another run has ended it, and the former release has the traffic/);
    assert.deepEqual(selector(), selects("web-a"));
  });

  it("stops when it has lost its Lease, and writes nothing more", async () => {
    const run = failure(start(inputs({ steps: '[{"weight":10,"duration":600}]' })));
    await until(step(1));
    cluster.patch(LEASE, { spec: { holderIdentity: "another one" } });
    assert.match(await run, /another run has taken over; this run has stopped/);
    assert.deepEqual(selector(), BOTH, "as the other one may want it");
    assert.equal(holder(), "another one");
  });

  it("stops when another machine goes back", async () => {
    const run = failure(start(inputs({ steps: '[{"weight":10,"duration":600}]' })));
    await until(step(1));
    const traffic = JSON.stringify([{ service: "web", to: selects("web-a") }]);
    const back = { namespace: "qa", deployments: "web-a", spec: "a", seconds: 0, analysis: "" };
    const others = { signal: new AbortController().signal, tell: () => undefined };
    await bake({ ...back, traffic, lease: "baton-canary" }, others);
    assert.deepEqual(selector(), selects("web-a"));
    assert.match(await run, /another run has taken over/);
    await setTimeout(1100);
    assert.deepEqual(selector(), selects("web-a"), "for good");
  });

  it("loses no write to a conflict", async () => {
    // An autoscaler, a person or a controller is faster, now and then.
    const reads = new Map<string, number>();
    cluster.afterRead = (path) => {
      const count = (reads.get(path) ?? 0) + 1;
      reads.set(path, count);
      if (count % 3 === 1 && count < 6)
        cluster.patch(path, { metadata: { labels: { n: String(count) } } });
    };
    cluster.put(ROUTES, "web", { spec: { rules: [{ backendRefs: [{ name: "web" }] }] } });
    await start(inputs({ steps: ONE_STEP }, { route: "web" }));
    assert.deepEqual(selector(), selects("web-b"));
    assert.equal(replicas(NEW), 3);
    assert.deepEqual(cluster.unconditional, []);
  });

  it("that has all traffic follows another number of pods", async () => {
    cluster.patch(SERVICE, { spec: { selector: selects("web-b") } });
    cluster.patch(SERVICE, { spec: { selector: { "baton/workload": null } } });
    await start(inputs({}, { replicas: 4 }));
    assert.equal(replicas(NEW), 4);
    assert.deepEqual(told, []);
  });

  it("keeps its pods when the stable release loses its own", async () => {
    const run = failure(start(inputs({ steps: '[{"weight":50,"duration":600}]' })));
    await until(step(1));
    assert.equal(replicas(NEW), 3);
    cluster.patch(OLD, { spec: { replicas: 0 } });
    await setTimeout(1500);
    assert.equal(replicas(NEW), 3);
    stop.abort();
    await run;
  });

  for (const isGone of [false, true]) {
    it(`gives all traffic at once where the stable release ${isGone ? "is gone" : "has no pods"}`, async () => {
      // As another release's canary leaves it that was killed.
      cluster.patch(SERVICE, { spec: { selector: { "app.kubernetes.io/name": null, ...BOTH } } });
      cluster.patch(NEW, { spec: { replicas: 5 } });
      cluster.patch(OLD, { spec: { replicas: 0 } });
      const others = { metadata: { namespace: "qa", labels: BOTH }, spec: { replicas: 1 } };
      cluster.put(`${APPS}/deployments`, "web-c", others);
      const selected: unknown[] = [];
      const fewest: number[] = [];
      cluster.afterRead = () => {
        selected.push(selector());
        fewest.push(Number(replicas(NEW)));
      };
      const stable = isGone ? "web-z" : "web-a";
      await start(inputs({}, { stable, from: selects(stable), replicas: 5 }));
      assert.deepEqual(told, [
        `${stable} has no pods to share the traffic with: it has all traffic`,
      ]);
      assert.deepEqual(selector(), selects("web-b"));
      assert.ok(!selected.some((one) => JSON.stringify(one).includes(stable)), "to nobody");
      assert.equal(Math.min(...fewest), 5, "what serves keeps its pods");
    });
  }

  it("that was killed keeps its share for its own next try, and shares nothing with others", async () => {
    const given = inputs({ steps: '[{"weight":10,"duration":600}]' });
    const killed = failure(start(given));
    await until(step(1));
    stop.abort();
    await killed;
    stop = new AbortController();
    const run = { signal: stop.signal, tell: (line: string) => void told.push(line) };
    assert.deepEqual(await readUnshared(given), given);
    await unshare(given, run);
    assert.deepEqual(selector(), BOTH, "it is carried on");
    for (const other of [
      { ...given, spec: "another one" },
      { ...given, deployments: "web-c" },
    ]) {
      cluster.patch(SERVICE, { spec: { selector: { "app.kubernetes.io/name": null, ...BOTH } } });
      assert.equal(await readUnshared(other), undefined);
      await unshare(other, run);
      const { "app.kubernetes.io/name": leads } = selector() as Record<string, string>;
      assert.equal(leads, "web-a");
      assert.equal(told.at(-1), "web leads to the former release again");
      assert.deepEqual(await readUnshared(other), other);
    }
    assert.equal(holder(), "");
  });

  for (const route of [undefined, "web"]) {
    const by = route === undefined ? "pods" : "an HTTPRoute";
    it(`that is still driven, by ${by}, is waited for by another release`, async () => {
      cluster.put(ROUTES, "web", { spec: { rules: [{ backendRefs: [{ name: "web" }] }] } });
      const given = inputs({ steps: ONE_STEP }, { route });
      const driven = start(given);
      await until(step(1));
      const lines: string[] = [];
      const other = { ...given, deployments: "web-c" };
      assert.equal(await readUnshared(other), undefined);
      await unshare(other, { signal: stop.signal, tell: (line) => void lines.push(line) });
      assert.equal(lines.length, 1, lines.join("\n"));
      assert.match(lines[0] ?? "", /^waiting for another run, /);
      await driven;
      assert.deepEqual(selector(), selects("web-b"));
      assert.deepEqual(await readUnshared(other), other);
    });
  }

  for (const passes of [true, false]) {
    it(`goes through its own steps after another release's that ${passes ? "passed" : "failed"}`, async () => {
      putRelease("web-c", 1);
      const steps = passes ? ONE_STEP : '[{"weight":10,"duration":600}]';
      const first = start(inputs({ steps })).catch((error: unknown) => error);
      await until(step(1));
      const lines: string[] = [];
      const change = { to: selects("web-c"), canary: "web-c" };
      const second = start(inputs({ steps: ONE_STEP, deployments: "web-c" }, change), lines);
      await until(() => lines.length > 0);
      if (!passes) {
        const by = abortOf(new Date(), "bob@example.com", "orders are missing");
        cluster.patch(NEW, { metadata: { annotations: { [ABORT]: by } } });
      }
      await first;
      await second;
      assert.match(lines[1] ?? "", /^step 1 of 1, 10 % for 1 s: 1 of 4 pods of web/);
      assert.deepEqual(selector(), selects("web-c"));
    });
  }
});
