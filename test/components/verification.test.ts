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
});
