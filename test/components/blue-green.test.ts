import * as assert from "node:assert/strict";
import { STACK } from "../../components/internal/labels";
import { ProgramHarness, type Registered, type Run } from "../support/program";
import { ProdReleases, release, ROOM } from "../support/releases";

const rollout = { strategy: "blueGreen", bake: "15m" };
const APP = "app.kubernetes.io/name";
const DEPLOYMENT = "kubernetes:apps/v1:Deployment";
const SERVICE = "kubernetes:core/v1:Service";
const SCALER = "kubernetes:autoscaling/v2:HorizontalPodAutoscaler";
const BUDGET = "kubernetes:policy/v1:PodDisruptionBudget";

describe("blueGreen", () => {
  let harness: ProgramHarness;
  let releases: ProdReleases;
  before(async () => {
    harness = await ProgramHarness.start();
    releases = new ProdReleases(harness, { rollout, quota: ROOM });
  });
  after(() => harness.stop());

  const find = ({ resources }: Run, type: string, name: string): Registered | undefined =>
    resources.find((one) => one.type === type && one.name === name);
  const specOf = (resource: Registered | undefined) =>
    resource?.inputs["spec"] as Record<string, unknown>;
  const switchesOf = (run: Run) =>
    JSON.parse(
      String(find(run, "promotion:index:Bake", "verification-bake")?.inputs["traffic"]),
    ) as unknown;

  it("gives a release a Deployment and a Service of its own", async () => {
    const run = await releases.deploy();
    assert.equal(find(run, DEPLOYMENT, "web"), undefined);
    assert.deepEqual(specOf(find(run, DEPLOYMENT, "web-stage-45"))["selector"], {
      matchLabels: { [APP]: "web-stage-45" },
    });
    assert.deepEqual(specOf(find(run, SERVICE, "web-stage-45"))["selector"], {
      [APP]: "web-stage-45",
    });
    assert.deepEqual(specOf(find(run, SERVICE, "web"))["selector"], { [APP]: "web-stage-45" });
    assert.ok(find(run, BUDGET, "web-stage-45"));
  });

  it("verifies it on its own Service, then switches, then bakes, then gives the tag", async () => {
    const run = await releases.deploy();
    const suite = find(run, "kubernetes:batch/v1:Job", "verification-smoke");
    assert.match(JSON.stringify(suite?.inputs), /"http:\/\/web-stage-45\.prod\.svc"/);
    assert.ok(suite);
    assert.ok(suite.dependsOn.includes("web-stage-45-rollout"));
    assert.ok(!suite.dependsOn.includes("web"), "no traffic before");
    const traffic = find(run, SERVICE, "web");
    assert.ok(traffic?.dependsOn.includes("verification-smoke"));
    // Idle pods would be taken away.
    const autoscaler = find(run, SCALER, "web-stage-45");
    assert.ok(autoscaler?.dependsOn.includes("web"));
    assert.ok(autoscaler?.dependsOn.includes("web-stage-45-autoscaled"));
    const gate = find(run, "promotion:index:Bake", "verification-bake");
    assert.ok(gate);
    assert.ok(gate.dependsOn.includes("web"));
    assert.ok(gate.dependsOn.includes("web-stage-45"));
    assert.equal(run.resources.at(-1)?.name, "verification-earned-tag");
    assert.ok(run.resources.at(-1)?.dependsOn.includes("verification-bake"));
  });

  it("keeps the former release as it was, with as many pods, and knows the way back", async () => {
    const first = await releases.deploy();
    const second = await releases.deployNext(first.outputs);
    for (const type of [DEPLOYMENT, SERVICE, BUDGET]) {
      const [was, is] = [first, second].map((run) => find(run, type, "web-stage-45"));
      assert.deepEqual(is?.inputs, was?.inputs, type);
      assert.equal(is?.parent, was?.parent, "or it would be made anew");
    }
    assert.deepEqual(find(second, DEPLOYMENT, "web-stage-45")?.options.ignoreChanges, [
      "spec.replicas",
    ]);
    assert.deepEqual(specOf(find(second, SCALER, "web-stage-45"))["behavior"], {
      scaleDown: { selectPolicy: "Disabled" },
    });
    assert.equal(specOf(find(second, SCALER, "web-stage-46"))["behavior"], undefined);
    const scaled = "promotion:index:Autoscaled";
    for (const tag of ["stage-45", "stage-46"]) {
      assert.ok(
        find(second, scaled, `web-${tag}-autoscaled`),
        "or its number stays the autoscaler's",
      );
    }
    for (const type of ["ConfigMap", "Secret"]) {
      const settings = find(second, `kubernetes:core/v1:${type}`, "settings-stage-45");
      assert.ok(settings, type);
      assert.ok(settings.options.ignoreChanges.includes("data"), type);
      const { labels, ...others } = settings.inputs["metadata"] as Record<string, object>;
      assert.equal((labels as Record<string, string>)["baton/image-tag"], "stage-45");
      // Pulumi refuses to be told the annotation by which it names them.
      assert.deepEqual(others, { namespace: "prod", annotations: { [STACK]: "baton/prod" } });
    }
    assert.equal(
      find(second, "promotion:index:Rollout", "web-stage-46-rollout")?.inputs["atLeast"],
      "web-stage-45",
    );
    assert.deepEqual(switchesOf(second), [
      { service: "web", to: { [APP]: "web-stage-46" }, from: { [APP]: "web-stage-45" } },
    ]);
  });

  it("keeps two releases, whatever is run again", async () => {
    const first = await releases.deploy();
    const second = await releases.deployNext(first.outputs);
    const again = await releases.deployNext(second.outputs);
    assert.deepEqual(again.outputs["colours"], second.outputs["colours"]);
    const names = ({ resources }: Run) =>
      resources.map(({ type, name }) => `${type} ${name}`).sort();
    assert.deepEqual(names(again), names(second));
    harness.registry.push("build 47", "stage-47");
    const third = await releases.deploy(second.outputs, {
      imageTag: "stage-47",
      version: "v1.6.0",
    });
    assert.equal(find(third, DEPLOYMENT, "web-stage-45"), undefined);
    assert.ok(find(third, DEPLOYMENT, "web-stage-46"));
  });

  it("removes the former release when it is told to, and no release that it would switch from", async () => {
    const first = await releases.deploy();
    const second = await releases.deployNext(first.outputs);
    process.env["BATON_CLEANUP"] = "1";
    try {
      const next = await releases.deployNext(first.outputs);
      assert.ok(find(next, DEPLOYMENT, "web-stage-45"), "serves until the switch");
      const cleaned = await releases.deployNext(second.outputs);
      const left = cleaned.resources.filter(({ name }) => name.includes("stage-45"));
      assert.deepEqual(left, []);
      assert.equal((cleaned.outputs["colours"] as { kept?: unknown }).kept, undefined);
      // What runs stays as it is.
      for (const { type, name, inputs } of cleaned.resources) {
        if (!type.startsWith("kubernetes:")) continue;
        assert.deepEqual(inputs, find(second, type, name)?.inputs, `${type} ${name}`);
      }
    } finally {
      delete process.env["BATON_CLEANUP"];
    }
  });

  it("goes back by a switch, and without a bake", async () => {
    const first = await releases.deploy();
    const second = await releases.deployNext(first.outputs);
    harness.registry.push("build 45", "prod-v1.4.0");
    const back = await releases.deploy(second.outputs, { rollbackOf: "stage-46" });
    for (const type of [DEPLOYMENT, SERVICE, BUDGET]) {
      const [was, is] = [first, back].map((run) => find(run, type, "web-stage-45"));
      assert.deepEqual(is?.inputs, was?.inputs, type);
    }
    assert.ok(find(back, DEPLOYMENT, "web-stage-46"), "stays beside it");
    const gate = find(back, "promotion:index:Bake", "verification-bake");
    assert.equal(gate?.inputs["seconds"], 0);
    assert.deepEqual(switchesOf(back), [{ service: "web", to: { [APP]: "web-stage-45" } }]);
  });

  it("takes over from another strategy without touching what serves", async () => {
    const running = { release: { imageTag: "stage-44" } };
    const run = await releases.deploy(running);
    assert.deepEqual(switchesOf(run), [
      { service: "web", to: { [APP]: "web-stage-45" }, from: { [APP]: "web" } },
    ]);
  });

  it("waits for as many pods as it declares, whose number Pulumi may not see changed", async () => {
    const run = await releases.deploy(undefined, {
      workloads: { web: { autoscale: null, replicas: 4 } },
    });
    const rollout = find(run, "promotion:index:Rollout", "web-stage-45-rollout");
    assert.equal(rollout?.inputs["pods"], 4);
  });

  it("takes the share of a canary of the former strategy before its own pods come up", async () => {
    const canary = await releases.deploy(undefined, { rollout: { strategy: "canary" } });
    const run = await releases.deployNext(canary.outputs);
    const unshared = find(run, "promotion:index:Unshared", "unshared");
    assert.match(String(unshared?.inputs["traffic"]), /"both":{"baton\/workload":"web"}/);
    assert.equal(unshared?.inputs["isLookedFor"], true, "each time but in a preview");
    assert.ok(find(run, DEPLOYMENT, "web-stage-46")?.dependsOn.includes("unshared"));
    assert.ok(!find(run, DEPLOYMENT, "web-stage-45")?.dependsOn.includes("unshared"));
    const bake = find(run, "promotion:index:Bake", "verification-bake");
    assert.equal(bake?.inputs["lease"], unshared.inputs["lease"], "and stops who drives it");
    harness.registry.push("build 45", "prod-v1.4.0");
    const back = await releases.deploy(run.outputs, { rollbackOf: "stage-46" });
    const switched = find(back, "promotion:index:Bake", "verification-bake");
    assert.equal(switched?.inputs["lease"], bake?.inputs["lease"]);
  });

  it("keeps no secret in its record", async () => {
    const { outputs } = await releases.deploy();
    assert.ok(!JSON.stringify(outputs["colours"]).includes("generated-"));
  });

  it("lets callers through to every colour", async () => {
    const run = await releases.deploy();
    const policy = find(
      run,
      "kubernetes:networking.k8s.io/v1:NetworkPolicy",
      "namespace-network-web-colours",
    );
    assert.deepEqual(specOf(policy)["podSelector"], { matchLabels: { "baton/workload": "web" } });
  });

  it("needs room for both releases, and the one before them, which is removed last", async () => {
    const message = await harness.refusal(
      release(harness, "prod", { config: { rollout, quota: { ...ROOM, pods: 33 } } }),
    );
    assert.match(
      message,
      /quota\["pods"\] is 33; expected at least 34: every workload at its largest, two former releases beside it, the rollout's surge and a suite/,
    );
  });

  it("refuses a suite that would meet the former release", async () => {
    const verification = { suites: { smoke: { through: "exposure" } } };
    const message = await harness.refusal(
      release(harness, "prod", { config: { rollout, verification } }),
    );
    assert.match(
      message,
      /suites\.smoke\.through is exposure; expected service while the strategy is blueGreen/,
    );
  });
});
