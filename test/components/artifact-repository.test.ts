import * as assert from "node:assert/strict";
import {
  ArtifactRepository,
  type ArtifactRepositoryArgs,
} from "../../components/artifact-repository";
import type { EcrSettings } from "../../registry/ecr-settings";
import { register } from "../support/program";

describe("ArtifactRepository", () => {
  const registry: ArtifactRepositoryArgs["registry"] = {
    kind: "ecr",
    repository: "123456789012.dkr.ecr.eu-west-1.amazonaws.com/team/podinfo",
    lifecycle: { keepAll: ["prod"], keepNewest: { build: 60 } },
    replication: [],
    pullAccounts: [],
    scanning: "basic",
  };
  const EMPTY: EcrSettings = {
    replication: [],
    scanning: { type: "BASIC", rules: [] },
    hasOthers: false,
  };
  /** What is registered, by type and region. */
  const make = async (
    given: Partial<ArtifactRepositoryArgs["registry"]> = {},
    settings: ArtifactRepositoryArgs["settings"] = {},
  ) => {
    const args = { registry: { ...registry, ...given }, settings, protect: false };
    const { resources } = await register(() => new ArtifactRepository("artifacts", args));
    return (type: string, region = "eu-west-1") => {
      const found = resources.filter(
        (one) => one.type.endsWith(`:${type}`) && one.inputs["region"] === region,
      );
      assert.ok(found.length <= 1, `${found.length} of ${type} in ${region}`);
      return found[0];
    };
  };

  it("is immutable, scanned, encrypted, and outlives its stack", async () => {
    const repository = (await make())("Repository");
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
    const policy = (await make())("LifecyclePolicy");
    assert.equal(policy?.inputs["repository"], "team/podinfo");
    const { rules } = JSON.parse(String(policy.inputs["policy"])) as { rules: unknown[] };
    assert.equal(rules.length, 3);
  });

  it("has nothing that nobody asks for", async () => {
    const find = await make({ lifecycle: undefined }, { "eu-west-1": EMPTY });
    for (const type of [
      "LifecyclePolicy",
      "RepositoryPolicy",
      "ReplicationConfiguration",
      "RegistryScanningConfiguration",
    ]) {
      assert.equal(find(type), undefined, type);
    }
  });

  it("has one like it in each region it is replicated to, before ECR could make one", async () => {
    const find = await make(
      {
        kmsKey: "arn:aws:kms:eu-west-1:123456789012:key/home",
        replication: [
          { region: "eu-central-1", kmsKey: "arn:aws:kms:eu-central-1:123456789012:key/far" },
        ],
      },
      { "eu-west-1": EMPTY },
    );
    const [home, far] = [find("Repository"), find("Repository", "eu-central-1")];
    const { encryptionConfigurations, ...same } = home?.inputs ?? {};
    assert.deepEqual(encryptionConfigurations, [
      { encryptionType: "KMS", kmsKey: "arn:aws:kms:eu-west-1:123456789012:key/home" },
    ]);
    assert.deepEqual(far?.inputs, {
      ...same,
      region: "eu-central-1",
      encryptionConfigurations: [
        { encryptionType: "KMS", kmsKey: "arn:aws:kms:eu-central-1:123456789012:key/far" },
      ],
    });
    assert.deepEqual(
      find("LifecyclePolicy", "eu-central-1")?.inputs["policy"],
      find("LifecyclePolicy")?.inputs["policy"],
    );
    const replication = find("ReplicationConfiguration");
    assert.deepEqual(replication?.dependsOn, ["artifacts-eu-central-1-repository"]);
    assert.equal(replication.options.retainOnDelete, true);
    assert.deepEqual(replication.inputs["replicationConfiguration"], {
      rules: [
        {
          destinations: [{ region: "eu-central-1", registryId: "123456789012" }],
          repositoryFilters: [{ filter: "team/podinfo", filterType: "PREFIX_MATCH" }],
        },
      ],
    });
  });

  it("keeps what others have set the registry to", async () => {
    const filters = (filter: string, filterType: "PREFIX_MATCH" | "WILDCARD") =>
      [{ filter, filterType }] as never[];
    const others = {
      destinations: [{ region: "us-east-1", registryId: "123456789012" }],
      repositoryFilters: filters("other/", "PREFIX_MATCH"),
    };
    const scanned = {
      scanFrequency: "SCAN_ON_PUSH" as const,
      repositoryFilters: filters("other/*", "WILDCARD"),
    };
    const settings = {
      ...EMPTY,
      replication: [others],
      scanning: { type: "ENHANCED" as const, rules: [scanned] },
    };
    const find = await make(
      { replication: [{ region: "eu-central-1" }], scanning: "enhanced" },
      { "eu-west-1": settings, "eu-central-1": EMPTY },
    );
    const { rules } = find("ReplicationConfiguration")?.inputs["replicationConfiguration"] as {
      rules: unknown[];
    };
    assert.deepEqual(rules[0], others);
    assert.equal(rules.length, 2);
    const own = {
      scanFrequency: "CONTINUOUS_SCAN",
      repositoryFilters: [{ filter: "team/podinfo", filterType: "WILDCARD" }],
    };
    const home = find("RegistryScanningConfiguration")?.inputs;
    assert.deepEqual(home, { region: "eu-west-1", scanType: "ENHANCED", rules: [scanned, own] });
    const far = find("RegistryScanningConfiguration", "eu-central-1")?.inputs;
    assert.deepEqual(far, { region: "eu-central-1", scanType: "ENHANCED", rules: [own] });
  });

  it("lets other accounts pull, and do nothing else", async () => {
    const find = await make(
      { pullAccounts: ["210987654321"], replication: [{ region: "eu-central-1" }] },
      { "eu-west-1": EMPTY },
    );
    for (const region of ["eu-west-1", "eu-central-1"]) {
      const policy = find("RepositoryPolicy", region);
      assert.deepEqual(JSON.parse(String(policy?.inputs["policy"])), {
        Version: "2012-10-17",
        Statement: [
          {
            Sid: "Pull",
            Effect: "Allow",
            Action: [
              "ecr:BatchCheckLayerAvailability",
              "ecr:BatchGetImage",
              "ecr:GetDownloadUrlForLayer",
            ],
            Principal: { AWS: ["arn:aws:iam::210987654321:root"] },
          },
        ],
      });
    }
  });
});
