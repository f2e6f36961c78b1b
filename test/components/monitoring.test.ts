import * as assert from "node:assert/strict";
import { ProgramHarness } from "../support/program";
import { ProdReleases, release, ROOM } from "../support/releases";

describe("Monitoring", () => {
  let harness: ProgramHarness;
  before(async () => (harness = await ProgramHarness.start()));
  after(() => harness.stop());

  async function monitored(monitoring: object) {
    const { resources } = await harness.run(release(harness, "qa", { config: { monitoring } }));
    const deployment = resources.find(({ type }) => type.endsWith(":Deployment"));
    const { template } = deployment?.inputs["spec"] as {
      template: { metadata: { annotations: Record<string, string> } };
    };
    const kinds = resources
      .filter(({ type }) => type.includes("monitoring.coreos.com"))
      .map(({ type }) => type.split(":").pop());
    return { annotations: template.metadata.annotations, kinds };
  }

  it("is nothing at level none", async () => {
    assert.deepEqual(await monitored({ level: "none" }), { annotations: {}, kinds: [] });
  });

  it("is annotations without the operator", async () => {
    assert.deepEqual(await monitored({ level: "scrape" }), {
      annotations: {
        "prometheus.io/scrape": "true",
        "prometheus.io/path": "/metrics",
        "prometheus.io/port": "9898",
      },
      kinds: [],
    });
  });

  it("is a ServiceMonitor with the operator", async () => {
    const { annotations, kinds } = await monitored({ level: "scrape", prometheusOperator: true });
    assert.deepEqual([annotations, kinds], [{}, ["ServiceMonitor"]]);
  });

  it("is rules too at level alerts", async () => {
    const { kinds } = await monitored({ level: "alerts", prometheusOperator: true });
    assert.deepEqual(kinds, ["ServiceMonitor", "PrometheusRule"]);
  });

  it("scrapes each pod of releases that stand side by side once", async () => {
    const releases = new ProdReleases(harness, {
      rollout: { strategy: "canary" },
      monitoring: { level: "scrape", prometheusOperator: true },
      workloads: { web: { selector: { app: "shop" } } },
      quota: ROOM,
    });
    const { resources } = await releases.deployNext((await releases.deploy()).outputs);
    const of = (type: string) => resources.filter((one) => one.type.endsWith(`:${type}`));
    const [monitor] = of("ServiceMonitor");
    const { selector } = monitor?.inputs["spec"] as {
      selector: { matchLabels: Record<string, string> };
    };
    const selected = of("Service").filter(({ inputs }) => {
      const { labels } = inputs["metadata"] as { labels: Record<string, string> };
      return Object.entries(selector.matchLabels).every(([key, value]) => labels[key] === value);
    });
    assert.deepEqual(selected.map(({ name }) => name).sort(), ["web-stage-45", "web-stage-46"]);
  });
});
