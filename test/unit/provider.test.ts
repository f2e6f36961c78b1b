import * as assert from "node:assert/strict";
import { createRequire } from "node:module";
import { join } from "node:path";
import type { Provider } from "@pulumi/pulumi/provider";
import { ROLLOUT } from "../../provider/undo";
import { virtualClock } from "../support/clock";
import { KubernetesServer } from "../support/kubernetes";

const load = createRequire(__filename);
const SCRIPT = join(__dirname, "..", "..", "provider", "pulumi-resource-promotion");

/** What the script serves, without the server that it starts. */
function served(): Provider {
  const sdk = load("@pulumi/pulumi/provider") as { main: (served: Provider) => void };
  const { main } = sdk;
  let provider: Provider | undefined;
  sdk.main = (given) => (provider = given);
  try {
    load(SCRIPT);
  } finally {
    sdk.main = main;
  }
  assert.ok(provider);
  return provider;
}

describe("the provider", () => {
  virtualClock();
  const provider = served();
  const urn = (type: string) => `urn:pulumi:qa::baton::a:b$promotion:index:${type}::name`;
  const diff = (type: string, olds: object, news: object) =>
    provider.diff?.("id", urn(type), olds, news);

  it("sees a change where an input has changed, and nowhere else", async () => {
    const bake = { namespace: "qa", deployments: "web", seconds: 5 };
    assert.deepEqual(await diff("Bake", bake, { ...bake }), { changes: false, replaces: [] });
    const longer = await diff("Bake", bake, { ...bake, seconds: 6 });
    assert.deepEqual(longer, { changes: true, replaces: [] });
    const unlike = await diff("Bake", { ...bake, irreversible: "until it had passed" }, bake);
    assert.deepEqual(unlike, { changes: false, replaces: [] });
    const other = await diff("Bake", bake, { ...bake, deployments: "web-b" });
    assert.deepEqual(other, { changes: true, replaces: ["deployments"] });
  });

  it("rolls a release out again that has made way since, and asks for it in no preview", async () => {
    const cluster = await KubernetesServer.start();
    try {
      const rollout = { namespace: "qa", deployment: "web", spec: "b", template: "b" };
      const changes = async (inputs: object) =>
        (await diff("Rollout", rollout, { ...rollout, ...inputs }))?.changes;
      const deployments = "/apis/apps/v1/namespaces/qa/deployments";
      const is = (known: object) => {
        const annotations = { [ROLLOUT]: JSON.stringify(known) };
        cluster.put(deployments, "web", { metadata: { annotations } });
      };
      is({ spec: "b", template: "b" });
      assert.equal(await changes({ isLookedFor: true }), false);
      is({ spec: "b", template: "b", undone: "web-b" });
      assert.equal(await changes({ isLookedFor: true }), true);
      assert.equal(await changes({}), false);
      is({ spec: "c", template: "c" });
      assert.equal(await changes({ isLookedFor: true }), true);
    } finally {
      await cluster.stop();
    }
  });

  it("gives a Deployment the pods that it declares when its autoscaler is gone", async () => {
    const cluster = await KubernetesServer.start();
    try {
      const deployments = "/apis/apps/v1/namespaces/qa/deployments";
      const metadata = { namespace: "qa", annotations: { "baton/replicas": "2" } };
      const status = { replicas: 2, updatedReplicas: 2, availableReplicas: 2 };
      cluster.put(deployments, "web", { metadata, spec: { replicas: 3 }, status });
      const inputs = { namespace: "qa", deployment: "web" };
      const replicas = () => cluster.get(`${deployments}/web`)?.["spec"];
      await provider.delete?.("id", urn("Rollout"), inputs);
      assert.deepEqual(replicas(), { replicas: 3 });
      await provider.delete?.("id", urn("Autoscaled"), inputs);
      assert.deepEqual(replicas(), { replicas: 2 });
      const conditions = [{ type: "Progressing", reason: "ProgressDeadlineExceeded" }];
      const selector = { matchLabels: { app: "web" } };
      cluster.patch(`${deployments}/web`, {
        spec: { replicas: 1, selector, template: {} },
        status: { conditions },
      });
      await assert.rejects(
        provider.delete?.("id", urn("Autoscaled"), inputs) ?? Promise.resolve(),
        /the rollout of qa\/web made no progress for 600 s/,
      );
    } finally {
      await cluster.stop();
    }
  });

  it("goes through a canary's steps again where its traffic was taken back", async () => {
    const cluster = await KubernetesServer.start();
    try {
      const selects = (name: string) => ({ "app.kubernetes.io/name": name });
      const traffic = JSON.stringify([{ service: "web", to: selects("web-b") }]);
      const canary = { namespace: "qa", deployments: "web-b", traffic };
      const changes = async () => (await diff("Canary", canary, { ...canary }))?.changes;
      const services = "/api/v1/namespaces/qa/services";
      assert.equal(await changes(), true, "there is no Service");
      cluster.put(services, "web", { spec: { selector: selects("web-b") } });
      assert.equal(await changes(), false);
      cluster.patch(`${services}/web`, { spec: { selector: selects("web-a") } });
      assert.equal(await changes(), true);
      cluster.failure = 403;
      assert.equal(await changes(), true, "whoever drives it will say why");
    } finally {
      await cluster.stop();
    }
  });

  it("takes the traffic from whoever has a share of it since, and asks for it in no preview", async () => {
    const cluster = await KubernetesServer.start();
    try {
      const to = { "app.kubernetes.io/name": "web-b" };
      const traffic = JSON.stringify([{ service: "web", to, route: "web" }]);
      const bake = { namespace: "qa", deployments: "web-b", seconds: 0, traffic };
      const changes = async (inputs: object = { isLookedFor: true }) =>
        (await diff("Bake", bake, { ...bake, ...inputs }))?.changes;
      const services = "/api/v1/namespaces/qa/services";
      const routes = "/apis/gateway.networking.k8s.io/v1/namespaces/qa/httproutes";
      const leads = (...backendRefs: object[]) => {
        cluster.put(routes, "web", { spec: { rules: [{ backendRefs }] } });
      };
      cluster.put(services, "web", { spec: { selector: to } });
      assert.equal(await changes(), false, "nobody comes by a route");
      leads({ name: "web", port: 80 });
      assert.equal(await changes(), false);
      leads({ name: "web", weight: 90 }, { name: "web-c", weight: 10 });
      assert.equal(await changes(), true);
      leads({ name: "web", weight: 1 });
      cluster.put(services, "web", { spec: { selector: { "baton/workload": "web" } } });
      assert.equal(await changes(), true);
      assert.equal(await changes({}), false);
    } finally {
      await cluster.stop();
    }
  });
});
