import * as assert from "node:assert/strict";
import { ArtifactRepository } from "../../components/artifact-repository";
import { register } from "../support/program";

describe("ArtifactRepository", () => {
  const registry = {
    kind: "ecr" as const,
    repository: "123456789012.dkr.ecr.eu-west-1.amazonaws.com/team/podinfo",
    lifecycle: { keepAll: ["prod"], keepNewest: { build: 60 } },
  };

  it("is immutable, scanned, encrypted, and outlives its stack", async () => {
    const { resources } = await register(() => new ArtifactRepository("artifacts", { registry }));
    const repository = resources.find(({ type }) => type === "aws:ecr/repository:Repository");
    assert.deepEqual(repository?.inputs, {
      region: "eu-west-1",
      name: "team/podinfo",
      imageTagMutability: "IMMUTABLE",
      imageScanningConfiguration: { scanOnPush: true },
      encryptionConfigurations: [{ encryptionType: "AES256" }],
    });
    assert.equal(repository.options.retainOnDelete, true);
  });

  it("has the lifecycle that its configuration describes", async () => {
    const { resources } = await register(() => new ArtifactRepository("artifacts", { registry }));
    const policy = resources.find(({ type }) => type.includes("LifecyclePolicy"));
    assert.equal(policy?.inputs["repository"], "team/podinfo");
    const { rules } = JSON.parse(String(policy.inputs["policy"])) as { rules: unknown[] };
    assert.equal(rules.length, 3);
  });

  it("has no lifecycle where none is described", async () => {
    const { kind, repository } = registry;
    const bare = { registry: { kind, repository } };
    const { resources } = await register(() => new ArtifactRepository("artifacts", bare));
    assert.ok(!resources.some(({ type }) => type.includes("LifecyclePolicy")));
  });
});
