import * as assert from "node:assert/strict";
import { ProgramHarness, type Registered, type Run } from "../support/program";
import { ProdReleases, release, ROOM } from "../support/releases";

const steps = [
  { weight: 20, duration: "1m" },
  { weight: 50, duration: "2m" },
];
const rollout = { strategy: "canary", steps, bake: "15m" };
const APP = "app.kubernetes.io/name";
const DEPLOYMENT = "kubernetes:apps/v1:Deployment";
const SERVICE = "kubernetes:core/v1:Service";
const SCALER = "kubernetes:autoscaling/v2:HorizontalPodAutoscaler";
const CANARY = "promotion:index:Canary";
const BAKE = "promotion:index:Bake";
const ROLLOUT = "promotion:index:Rollout";
/** The autoscaler's minimum in prod. */
const LEAST = 5;
const GATEWAY = {
  entrances: {
    kind: "HTTPRoute",
    controller: "envoyGateway",
    public: { name: "gateway", namespace: "gateways", cidr: null },
    internal: { name: "gateway", namespace: "gateways", cidr: null },
  },
  workloads: { web: { exposure: { tls: null } } },
};

describe("canary", () => {
  let harness: ProgramHarness;
  let releases: ProdReleases;
  before(async () => {
    harness = await ProgramHarness.start();
    releases = new ProdReleases(harness, { rollout });
  });
  after(() => harness.stop());

  const find = ({ resources }: Run, type: string, name: string): Registered => {
    const found = resources.find((one) => one.type === type && one.name === name);
    assert.ok(found, `${type} ${name}`);
    return found;
  };
  const has = ({ resources }: Run, type: string) => resources.some((one) => one.type === type);
  const specOf = ({ inputs }: Registered) => inputs["spec"] as Record<string, unknown>;
  const gateOf = (run: Run) => find(run, CANARY, "verification-canary");
  const trafficOf = (resource: Registered) =>
    JSON.parse(String(resource.inputs["traffic"])) as unknown;

  it("gives an environment's first release all traffic at once", async () => {
    const run = await releases.deploy();
    assert.ok(!has(run, CANARY));
    assert.equal(find(run, ROLLOUT, "web-stage-45-rollout").inputs["pods"], LEAST);
  });

  it("verifies a release, then gives it its traffic in steps, then an autoscaler, then bakes", async () => {
    const first = await releases.deploy();
    const run = await releases.deployNext(first.outputs);
    const deployment = find(run, DEPLOYMENT, "web-stage-46");
    assert.ok(!("replicas" in specOf(deployment)), "one");
    assert.deepEqual(deployment.options.ignoreChanges, ["spec.replicas"]);
    const rollout = find(run, ROLLOUT, "web-stage-46-rollout");
    assert.equal(rollout.inputs["atLeast"], undefined);
    assert.equal(rollout.inputs["pods"], 1, "also where an earlier canary has taken all");
    const gate = gateOf(run);
    assert.ok(gate.dependsOn.includes("verification-smoke"));
    assert.ok(gate.dependsOn.includes("web-stage-45"), "which then keeps its pods");
    assert.equal(
      gate.inputs["steps"],
      JSON.stringify([
        { weight: 20, duration: 60 },
        { weight: 50, duration: 120 },
      ]),
    );
    assert.match(String(gate.inputs["deployments"]), /web-stage-46/);
    const service = find(run, SERVICE, "web");
    assert.ok(service.dependsOn.includes("verification-canary"));
    assert.ok(find(run, SCALER, "web-stage-46").dependsOn.includes("web"));
    assert.deepEqual(specOf(find(run, SCALER, "web-stage-45"))["behavior"], {
      scaleDown: { selectPolicy: "Disabled" },
    });
    const bake = find(run, BAKE, "verification-bake");
    assert.ok(bake.dependsOn.includes("web-stage-46"));
    const lease = gate.inputs["lease"];
    assert.equal(bake.inputs["lease"], lease);
    const to = { service: "web", to: { [APP]: "web-stage-46" }, from: { [APP]: "web-stage-45" } };
    assert.deepEqual(trafficOf(bake), [to]);
    assert.deepEqual(trafficOf(gate), [
      {
        ...to,
        canary: "web-stage-46",
        stable: "web-stage-45",
        both: { "baton/workload": "web" },
        replicas: LEAST,
        isAutoscaled: true,
      },
    ]);
  });

  it("takes the share of a canary that was killed before there are pods of another release", async () => {
    const first = await releases.deploy();
    const run = await releases.deployNext(first.outputs);
    const unshared = find(run, "promotion:index:Unshared", "unshared");
    assert.ok(find(run, DEPLOYMENT, "web-stage-46").dependsOn.includes("unshared"));
    assert.ok(!find(run, DEPLOYMENT, "web-stage-45").dependsOn.includes("unshared"));
    const gate = gateOf(run);
    for (const same of ["deployments", "spec", "steps", "analysis", "lease"]) {
      assert.equal(unshared.inputs[same], gate.inputs[same], "its own canary goes on");
    }
    assert.match(JSON.stringify(trafficOf(unshared)), /"from":{"[^}]*":"web-stage-45"}.*"both":/);
    harness.registry.push("build 45", "prod-v1.4.0");
    const back = await releases.deploy(run.outputs, { rollbackOf: "stage-46" });
    assert.ok(!has(first, "promotion:index:Unshared"));
    assert.ok(!has(back, "promotion:index:Unshared"), "what comes back has been verified");
  });

  it("keeps a release with the pods that it was given", async () => {
    const workloads = { web: { autoscale: null, replicas: 4 } };
    const first = await releases.deploy(undefined, { workloads });
    const second = await releases.deployNext(first.outputs, { workloads });
    assert.ok(!("replicas" in specOf(find(second, DEPLOYMENT, "web-stage-46"))), "one");
    harness.registry.push("build 47", "stage-47");
    const more = { imageTag: "stage-47", version: "v1.6.0", workloads };
    const third = await releases.deploy(second.outputs, more);
    const kept = find(third, DEPLOYMENT, "web-stage-46");
    assert.equal(specOf(kept)["replicas"], 4, "if it had to be made anew");
    assert.deepEqual(kept.options.ignoreChanges, ["spec.replicas"]);
  });

  it("is the same whatever is run again", async () => {
    const first = await releases.deploy();
    const second = await releases.deployNext(first.outputs);
    const again = await releases.deployNext(second.outputs);
    assert.deepEqual(gateOf(again).inputs, gateOf(second).inputs);
    assert.deepEqual(again.outputs["colours"], second.outputs["colours"]);
  });

  it("goes back by a switch, without steps and without a bake", async () => {
    const first = await releases.deploy();
    const second = await releases.deployNext(first.outputs);
    harness.registry.push("build 45", "prod-v1.4.0");
    const back = await releases.deploy(second.outputs, { rollbackOf: "stage-46" });
    assert.ok(!has(back, CANARY));
    const bake = find(back, BAKE, "verification-bake");
    assert.equal(bake.inputs["seconds"], 0);
    assert.deepEqual(trafficOf(bake), [{ service: "web", to: { [APP]: "web-stage-45" } }]);
    assert.equal(bake.inputs["lease"], gateOf(second).inputs["lease"], "and stops who drives it");
    assert.equal(bake.inputs["isLookedFor"], true, "each time, as a canary may have been killed");
  });

  it("switches at once from a strategy whose pods a Service cannot share", async () => {
    const run = await releases.deploy({ release: { imageTag: "stage-44" } });
    assert.ok(!has(run, CANARY));
    assert.deepEqual(trafficOf(find(run, BAKE, "verification-bake")), [
      { service: "web", to: { [APP]: "web-stage-45" }, from: { [APP]: "web" } },
    ]);
    assert.equal(find(run, ROLLOUT, "web-stage-45-rollout").inputs["pods"], LEAST);
  });

  it("goes on from blueGreen", async () => {
    const blueGreen = await releases.deploy(undefined, {
      rollout: { strategy: "blueGreen" },
      quota: ROOM,
    });
    const run = await releases.deployNext(blueGreen.outputs);
    assert.match(String(gateOf(run).inputs["traffic"]), /"stable":"web-stage-45"/);
  });

  it("leaves the division to an HTTPRoute where there is one", async () => {
    const first = await releases.deploy(undefined, GATEWAY);
    const run = await releases.deployNext(first.outputs, {
      ...GATEWAY,
      rollout: { ...rollout, steps: [{ weight: 90, duration: "1m" }] },
    });
    const gate = gateOf(run);
    assert.match(String(gate.inputs["traffic"]), /"route":"web"/);
    assert.match(String(find(run, BAKE, "verification-bake").inputs["traffic"]), /"route":"web"/);
    const blueGreen = { rollout: { strategy: "blueGreen" }, quota: ROOM };
    const switched = await releases.deployNext(first.outputs, { ...GATEWAY, ...blueGreen });
    const bake = find(switched, BAKE, "verification-bake");
    assert.match(String(bake.inputs["traffic"]), /"route":"web"/, "a killed one has divided it");
    const route = run.resources.find(({ type }) => type.endsWith(":HTTPRoute"));
    assert.ok(route);
    assert.ok(gate.dependsOn.includes(route.name));
  });

  it("refuses steps that are out of order, or need more pods than the stable release has", async () => {
    const refuse = (list: object[]) =>
      harness.refusal(
        release(harness, "prod", { config: { rollout: { ...rollout, steps: list } } }),
      );
    const step = (weight: number) => ({ weight, duration: "1m" });
    assert.match(
      await refuse([step(20), step(20)]),
      /rollout\.steps\[1\]\.weight is 20; expected more than 20\. Put the steps in order/,
    );
    assert.match(
      await refuse([step(75)]),
      /rollout\.steps\[0\]\.weight is 75; expected at most 50, as web has no HTTPRoute/,
    );
    assert.match(await refuse([step(100)]), /weight is 100; expected a percentage from 1 to 99/);
    assert.match(await refuse([]), /rollout\.steps is .*; expected at least one step/);
  });

  it("needs room for both releases", async () => {
    const quota = { pods: 20 };
    const message = await harness.refusal(release(harness, "prod", { config: { rollout, quota } }));
    assert.match(message, /expected at least 24: .* the former release beside it/);
  });
});
