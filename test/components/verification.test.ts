import * as assert from "node:assert/strict";
import { ProgramHarness, type Registered } from "../support/program";
import { release } from "../support/releases";

describe("Verification", () => {
  let harness: ProgramHarness;
  before(async () => (harness = await ProgramHarness.start()));
  after(() => harness.stop());

  async function suite(name: string, description: object): Promise<Container> {
    const verification = { suites: { [name]: description }, run: ["smoke", name] };
    const run = await harness.run(
      release(harness, "qa", {
        config: { verification: { ...verification, run: [...new Set(verification.run)] } },
      }),
    );
    return containerOf(run.resources.find((one) => one.name === `verification-${name}`));
  }

  interface Container {
    image: string;
    env: { name: string; value: string }[];
  }

  function containerOf(job: Registered | undefined): Container {
    const { spec } = job?.inputs as { spec: { template: { spec: { containers: Container[] } } } };
    const [container] = spec.template.spec.containers;
    assert.ok(container);
    return container;
  }

  const variable = ({ env }: Container, name: string) =>
    env.find((one) => one.name === name)?.value;

  it("tells a suite where its target is, and what is verified", async () => {
    const smoke = await suite("smoke", {});
    assert.equal(variable(smoke, "TARGET_URL"), "http://web.qa.svc");
    assert.equal(variable(smoke, "RELEASE_TAG"), "dev-45");
  });

  it("sends a suite the way users come where it says so", async () => {
    const outside = await suite("outside", { target: "web", through: "exposure" });
    assert.equal(variable(outside, "TARGET_URL"), "https://podinfo.qa.example.com");
  });

  it("runs a suite from the release's own image unless told otherwise", async () => {
    const { host } = harness.registry;
    assert.match((await suite("own", {})).image, new RegExp(`^${host}/podinfo@sha256:`));
    assert.equal((await suite("other", { image: "tests:1" })).image, `${host}/tests:1`);
    const full = "registry.example.org/team/tests:1";
    assert.equal((await suite("far", { image: full })).image, full);
  });

  it("bakes a release after its suites where the stack file says so", async () => {
    const bakeOf = async (rollout: object, more: object = {}) => {
      const run = await harness.run(release(harness, "qa", { config: { rollout, ...more } }));
      return run.resources.find(({ type }) => type === "promotion:index:Bake");
    };
    assert.equal((await bakeOf({}))?.inputs["seconds"], 0);
    const watched = await bakeOf({ bake: "15m" });
    assert.equal(watched?.inputs["seconds"], 900);
    assert.equal(watched.inputs["deployments"], "web");
    // Nobody said where Prometheus is: the defaults' queries alone ask nothing.
    assert.equal(watched.inputs["analysis"], "");
    assert.ok(watched.dependsOn.includes("verification-regression"));

    const prometheus = "http://prometheus.example.com:9090";
    const judged = await bakeOf({ bake: "15m", analysis: { prometheus, queries: { extra } } });
    const analysis = JSON.parse(String(judged?.inputs["analysis"])) as Record<string, object>;
    assert.equal(analysis["prometheus"], prometheus);
    assert.deepEqual(Object.keys(analysis["queries"] ?? {}), [
      "error-rate",
      "latency-p95",
      "extra",
    ]);
    assert.equal(analysis["whenUnavailable"], "hold");

    harness.registry.push("build 45", "qa-45");
    const back = await bakeOf({ bake: "15m", analysis: { prometheus } }, { rollbackOf: "dev-46" });
    assert.equal(back?.inputs["seconds"], 0);
    assert.equal(back.inputs["analysis"], "");
  });
  const extra = { query: "sum(orders)", min: 3 };

  it("says how long each suite ran, and where its log is", async () => {
    const { outputs } = await harness.run(release(harness, "qa"));
    const suites = outputs["suites"] as { name: string; log: string }[];
    assert.deepEqual(suites, [
      { name: "smoke", result: "passed", seconds: 72, log: suites[0]?.log },
      { name: "regression", result: "passed", seconds: 72, log: suites[1]?.log },
    ]);
    const command = /^kubectl logs --context qa -n qa job\/verification-regression-[0-9a-f]{8}$/;
    assert.match(suites[1]?.log ?? "", command);
  });

  it("says it of the suites that ran, and no others", async () => {
    const back = { rollbackOf: "dev-46" };
    harness.registry.push("build 45", "qa-45");
    const { outputs } = await harness.run(release(harness, "qa", { config: back }));
    const names = (outputs["suites"] as { name: string }[]).map(({ name }) => name);
    assert.deepEqual(names, ["smoke"]);
    const foundation = await harness.run({ stack: "qa" });
    assert.equal(foundation.outputs["suites"], undefined);
  });
});
