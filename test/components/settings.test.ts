import * as assert from "node:assert/strict";
import { ProgramHarness, type Registered } from "../support/program";
import { release } from "../support/releases";

describe("Settings", () => {
  let harness: ProgramHarness;
  before(async () => (harness = await ProgramHarness.start()));
  after(() => harness.stop());

  async function run(
    config: Record<string, unknown>,
    secrets: Record<string, string> = {},
  ): Promise<{ of: (type: string) => Registered[]; container: Container; volumes: unknown[] }> {
    const { resources } = await harness.run(release(harness, "qa", { config, secrets }));
    const of = (type: string) => resources.filter((resource) => resource.type === type);
    const { spec } = of("kubernetes:apps/v1:Deployment")[0]?.inputs as {
      spec: { template: { spec: { containers: Container[]; volumes: unknown[] } } };
    };
    const [container] = spec.template.spec.containers;
    assert.ok(container);
    return { of, container, volumes: spec.template.spec.volumes };
  }

  interface Container {
    env: unknown[];
    envFrom: { configMapRef?: { name: string }; secretRef?: { name: string } }[];
    volumeMounts: { name: string; mountPath: string }[];
  }

  it("are immutable objects whose logical names carry the release's tag", async () => {
    const { of } = await run({});
    const [configMap] = of("kubernetes:core/v1:ConfigMap");
    const [secret] = of("kubernetes:core/v1:Secret");
    for (const object of [configMap, secret]) {
      assert.equal(object?.name, "settings-dev-45");
      assert.equal(object.inputs["immutable"], true);
      const { name } = object.inputs["metadata"] as { name?: string };
      assert.equal(name, undefined, "Pulumi names it: the former release's stays beside it");
    }
  });

  it("are text, however YAML reads them", async () => {
    const { of } = await run({ settings: { config: { DEBUG: true, CACHE_TTL_SECONDS: 60 } } });
    const data = of("kubernetes:core/v1:ConfigMap")[0]?.inputs["data"] as Record<string, string>;
    assert.equal(data["DEBUG"], "true");
    assert.equal(data["CACHE_TTL_SECONDS"], "60");
  });

  it("reach the container as environment variables", async () => {
    const existing = { source: "existing", secret: "payments", key: "token" };
    const { container } = await run({ settings: { secrets: { PAYMENTS_TOKEN: existing } } });
    const [fromConfigMap, fromSecret] = container.envFrom;
    assert.match(fromConfigMap?.configMapRef?.name ?? "", /^settings-dev-45-/);
    assert.match(fromSecret?.secretRef?.name ?? "", /^settings-dev-45-/);
    assert.deepEqual(container.env, [
      {
        name: "PAYMENTS_TOKEN",
        valueFrom: { secretKeyRef: { name: "payments", key: "token" } },
      },
    ]);
  });

  it("reach the container as files where a folder is named", async () => {
    const existing = { source: "existing", secret: "payments", key: "token" };
    const settings = { mountPath: "/etc/podinfo", secrets: { PAYMENTS_TOKEN: existing } };
    const { container, volumes } = await run({ settings });
    assert.deepEqual([container.env, container.envFrom], [[], []]);
    assert.ok(container.volumeMounts.some(({ mountPath }) => mountPath === "/etc/podinfo"));
    const [{ projected }] = volumes as [{ projected: { sources: unknown[] } }];
    assert.equal(projected.sources.length, 3);
    assert.deepEqual(projected.sources[2], {
      secret: { name: "payments", items: [{ key: "token", path: "PAYMENTS_TOKEN" }] },
    });
  });

  it("make no Secret where every one is somebody else's", async () => {
    const existing = { source: "existing", secret: "app", key: "session" };
    const settings = { secrets: { SESSION_KEY: null, SESSION: existing } };
    const { of, container } = await run({ settings });
    assert.deepEqual(of("kubernetes:core/v1:Secret"), []);
    assert.equal(container.envFrom.length, 1);
  });

  it("generate a secret once, and another when its rotation changes", async () => {
    const generated = async (secret: object) => {
      const { of } = await run({ settings: { secrets: { SESSION_KEY: secret } } });
      return of("random:index/randomPassword:RandomPassword")[0];
    };
    const first = await generated({ source: "random" });
    assert.equal(first?.name, "settings-SESSION_KEY", "not tied to a release");
    const rotated = await generated({ source: "random", rotation: 2 });
    assert.equal(rotated?.name, first.name);
    assert.notDeepEqual(rotated.inputs["keepers"], first.inputs["keepers"]);
  });
});
