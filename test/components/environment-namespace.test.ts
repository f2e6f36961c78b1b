import * as assert from "node:assert/strict";
import { ProgramHarness, type Registered } from "../support/program";

describe("EnvironmentNamespace", () => {
  let harness: ProgramHarness;
  before(async () => (harness = await ProgramHarness.start()));
  after(() => harness.stop());

  async function foundation(
    config: Record<string, unknown>,
    secrets: Record<string, string> = {},
  ): Promise<(type: string) => Registered[]> {
    const { resources } = await harness.run({ stack: "qa", config, secrets });
    return (type) => resources.filter((resource) => resource.type === `kubernetes:${type}`);
  }

  it("is named after its environment, or as its configuration says", async () => {
    const name = async (config: Record<string, unknown>) =>
      (await foundation(config))("core/v1:Namespace")[0]?.inputs["metadata"] as { name: string };
    assert.equal((await name({})).name, "qa");
    assert.equal((await name({ namespace: { name: "shop-qa" } })).name, "shop-qa");
  });

  it("makes no pull secret and no role unless asked to", async () => {
    const of = await foundation({});
    assert.deepEqual(of("core/v1:Secret"), []);
    assert.deepEqual(of("rbac.authorization.k8s.io/v1:Role"), []);
    assert.equal(of("core/v1:ServiceAccount")[0]?.inputs["imagePullSecrets"], undefined);
  });

  it("makes the pull secret from encrypted config", async () => {
    const pullSecret = { source: "config", username: "robot" };
    const of = await foundation({ registry: { pullSecret } }, { registryPassword: "hunter2" });
    const [secret] = of("core/v1:Secret");
    assert.ok(secret);
    assert.equal(secret.inputs["type"], "kubernetes.io/dockerconfigjson");
    assert.ok(
      secret.secrets.some((path) => path.startsWith("stringData")),
      "sent as a secret",
    );
    const stringData = secret.inputs["stringData"] as Record<string, string>;
    assert.deepEqual(JSON.parse(stringData[".dockerconfigjson"] ?? ""), {
      auths: {
        [harness.registry.host]: {
          username: "robot",
          password: "hunter2",
          auth: Buffer.from("robot:hunter2").toString("base64"),
        },
      },
    });
    const [account] = of("core/v1:ServiceAccount");
    const [reference] = account?.inputs["imagePullSecrets"] as { name: string }[];
    assert.match(reference?.name ?? "", /^namespace-pull-secret-/);
    assert.deepEqual(account?.secrets, [], "its name is no secret");
  });

  it("uses a pull secret that is there", async () => {
    const pullSecret = { source: "existing", secret: "regcred" };
    const of = await foundation({ registry: { pullSecret } });
    assert.deepEqual(of("core/v1:Secret"), []);
    assert.deepEqual(of("core/v1:ServiceAccount")[0]?.inputs["imagePullSecrets"], [
      { name: "regcred" },
    ]);
  });

  it("lets its deployers deploy, and not loosen what holds them", async () => {
    const of = await foundation({ namespace: { deployers: ["release-engineers"] } });
    const { rules } = of("rbac.authorization.k8s.io/v1:Role")[0]?.inputs as {
      rules: { apiGroups: string[]; resources: string[]; verbs: string[] }[];
    };
    const may = (verb: string, group: string, resource: string) =>
      rules.some(
        ({ apiGroups, resources, verbs }) =>
          apiGroups.includes(group) && resources.includes(resource) && verbs.includes(verb),
      );
    assert.ok(may("patch", "apps", "deployments"));
    assert.ok(may("create", "", "secrets"));
    const guards = [
      ["", "namespaces"],
      ["", "resourcequotas"],
      ["", "limitranges"],
      ["networking.k8s.io", "networkpolicies"],
      ["rbac.authorization.k8s.io", "roles"],
      ["rbac.authorization.k8s.io", "rolebindings"],
    ] as const;
    for (const [group, resource] of guards) {
      assert.ok(may("get", group, resource), resource);
      for (const verb of ["create", "update", "patch", "delete"]) {
        assert.ok(!may(verb, group, resource), `${verb} ${resource}`);
      }
    }
    const [binding] = of("rbac.authorization.k8s.io/v1:RoleBinding");
    assert.deepEqual(binding?.inputs["subjects"], [
      { apiGroup: "rbac.authorization.k8s.io", kind: "Group", name: "release-engineers" },
    ]);
  });
});
