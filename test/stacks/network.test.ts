import * as assert from "node:assert/strict";
import type { NetworkPolicy } from "../../components/internal/network-policies";
import { isAllowed, type Endpoint } from "../support/network";
import { ProgramHarness, STACKS, type Registered } from "../support/program";
import { release } from "../support/releases";

const OUTSIDE: Endpoint = { ip: "93.184.216.34" };

for (const stack of STACKS) {
  describe(`the network of ${stack}`, () => {
    let harness: ProgramHarness;
    let policies: NetworkPolicy[];
    let app: Endpoint;
    let suite: Endpoint;

    before(async () => {
      harness = await ProgramHarness.start();
      const { resources } = await harness.run(release(harness, stack));
      policies = ofType(resources, "kubernetes:networking.k8s.io/v1:NetworkPolicy").map(
        ({ name, inputs }) => ({ name, spec: inputs["spec"] as NetworkPolicy["spec"] }),
      );
      app = pod(resources, "kubernetes:apps/v1:Deployment");
      suite = pod(resources, "kubernetes:batch/v1:Job");
    });
    after(() => harness.stop());

    const allowed = (...args: [Endpoint, Endpoint, number, "UDP"?]) =>
      isAllowed(policies, stack, ...args);

    it("lets suites call the app", () => assert.ok(allowed(suite, app, 9898)));

    it("lets app and suites ask any DNS", () => {
      for (const from of [app, suite]) {
        for (const ip of ["10.96.0.10", "169.254.20.10"]) {
          assert.ok(allowed(from, { ip }, 53, "UDP"));
          assert.ok(allowed(from, { ip }, 53));
        }
      }
    });

    it("lets the entrance call the app", () => {
      assert.ok(allowed({ ip: "10.0.3.4" }, app, 9898), "the load balancer's subnets");
    });

    it("lets Prometheus scrape the app where it is to", () => {
      const prometheus = { namespace: "monitoring", ip: "10.244.0.9" };
      assert.equal(allowed(prometheus, app, 9898), stack !== "dev");
    });

    it("lets the app call what is behind it", () => {
      const network: Record<string, string> = { qa: "20", stage: "30", prod: "40", dr: "50" };
      const ip = `10.${network[stack] ?? ""}.3.4`;
      if (stack === "dev") {
        const mocks = { namespace: "mocks", ip: "10.244.0.8" };
        assert.ok(allowed(app, mocks, 80));
        assert.ok(!allowed(app, OUTSIDE, 443), "dev calls mocks only");
      } else {
        assert.ok(allowed(app, { ip }, 5432), "database");
        assert.ok(allowed(app, { ip }, 6379), "cache");
        assert.ok(allowed(app, OUTSIDE, 443), "the payment service");
      }
    });

    it("lets nothing else through", () => {
      const stranger = { namespace: "other", labels: app.labels ?? {}, ip: "10.244.0.10" };
      assert.ok(!allowed(stranger, app, 9898), "another namespace");
      assert.ok(!allowed(app, stranger, 9898), "to another namespace");
      assert.ok(!allowed(OUTSIDE, app, 9898), "the internet");
      assert.ok(!allowed(app, OUTSIDE, 25), "mail to the internet");
      assert.ok(!allowed(app, { ip: "169.254.169.254" }, 443), "the cloud's metadata");
      assert.ok(!allowed(app, { ip: "10.60.0.1" }, 5432), "another environment's database");
    });
  });
}

function ofType(resources: readonly Registered[], type: string): Registered[] {
  return resources.filter((resource) => resource.type === type);
}

function pod(resources: readonly Registered[], type: string): Endpoint {
  const [owner] = ofType(resources, type);
  const { metadata, spec } = owner?.inputs as {
    metadata: { namespace: string };
    spec: { template: { metadata: { labels: Record<string, string> } } };
  };
  const { namespace } = metadata;
  return { namespace, labels: spec.template.metadata.labels, ip: "10.244.0.7" };
}
