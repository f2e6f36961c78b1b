import * as assert from "node:assert/strict";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { ProgramHarness } from "../support/program";

const REPOSITORY = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/podinfo";
const FOREIGN = {
  destinations: [{ region: "us-east-1", registryId: "123456789012" }],
  repositoryFilters: [{ filter: "other/", filterType: "PREFIX_MATCH" }],
};
const ROLES = {
  github: { repository: "example/podinfo" },
  build: { branches: ["dev"] },
  deploy: { dev: { branch: "dev" } },
};

describe("the stack that owns what is in AWS", () => {
  let harness: ProgramHarness;
  let ecr: Server;
  let answers: Record<string, object>;
  const environment = { ...process.env };

  before(async () => {
    ecr = createServer((request, response) => {
      const action = String(request.headers["x-amz-target"]).split(".")[1] ?? "";
      const answer = answers[action];
      response.writeHead(answer === undefined ? 400 : 200, {
        "content-type": "application/x-amz-json-1.1",
      });
      response.end(JSON.stringify(answer ?? { __type: "AccessDeniedException", message: action }));
    });
    await new Promise<void>((resolve) => ecr.listen(0, "127.0.0.1", resolve));
  });
  after(() => {
    ecr.closeAllConnections();
    ecr.close();
  });
  beforeEach(async () => {
    harness = await ProgramHarness.start();
    process.env["AWS_ENDPOINT_URL_ECR"] = `http://127.0.0.1:${(ecr.address() as AddressInfo).port}`;
    process.env["AWS_ACCESS_KEY_ID"] = "key";
    process.env["AWS_SECRET_ACCESS_KEY"] = "secret";
    answers = {
      DescribeRegistry: { replicationConfiguration: { rules: [FOREIGN] } },
      GetRegistryScanningConfiguration: {
        scanningConfiguration: { scanType: "BASIC", rules: [] },
      },
      DescribeRepositories: { repositories: [{ repositoryName: "other/shop" }] },
    };
  });
  afterEach(async () => {
    await harness.stop();
    process.env = { ...environment };
  });

  /** Its foundation, with another registry; no image is asked for. */
  const dev = (registry: Readonly<Record<string, unknown>>, own = {}) => ({
    stack: "dev",
    config: {
      registry: { kind: "ecr", repository: REPOSITORY, plainHttp: null, ...registry },
      ...own,
    },
  });
  const replication = [{ region: "eu-central-1" }];

  it("adds to the registry's replication, and takes nothing away", async () => {
    const { resources } = await harness.run(dev({ replication }));
    const found = resources.find(({ type }) => type.endsWith(":ReplicationConfiguration"));
    const { rules } = found?.inputs["replicationConfiguration"] as { rules: unknown[] };
    assert.deepEqual(rules[0], FOREIGN);
    assert.equal(rules.length, 2);
  });

  it("is refused before any resource where that cannot be known, or would change others", async () => {
    assert.match(
      await harness.refusal(dev({ scanning: "enhanced" })),
      /^dev: baton:registry\.scanning is enhanced, while the registry in eu-west-1/,
    );
    answers = {};
    assert.match(
      await harness.refusal(dev({ replication })),
      /^dev: the registry in eu-west-1: ECR in eu-west-1 refuses access \(AccessDeniedException/,
    );
  });

  it("makes the roles, and says which", async () => {
    const owns = ["repository", "roles"];
    const { resources, outputs } = await harness.run(dev({}, { owns, roles: ROLES }));
    const roles = resources.filter(({ type }) => type === "aws:iam/role:Role");
    assert.deepEqual(
      roles.map(({ inputs }) => inputs["name"]),
      ["podinfo-build", "podinfo-preview-dev", "podinfo-deploy-dev"],
    );
    assert.deepEqual(Object.keys(outputs["roles"] as object), [
      "build",
      "preview-dev",
      "deploy-dev",
    ]);
    assert.ok(!("roles" in (await harness.run(dev({}))).outputs));
  });

  it("is refused for what does not fit together", async () => {
    const refusal = async (registry: object, own = {}) =>
      harness.refusal(dev(registry as Record<string, unknown>, own));
    assert.match(
      await refusal({}, { owns: ["roles"] }),
      /baton:owns is roles; expected roles that/,
    );
    assert.match(
      await refusal({ replication: [...replication, { region: "eu-west-1" }, ...replication] }),
      /replication\[1\]\.region is eu-west-1; expected each other region once.*\n.*replication\[2\]\.region/,
    );
    assert.match(
      await refusal({ pullAccounts: [12345] }),
      /pullAccounts\.0 is 12345; expected an account's 12 digits, in quotes/,
    );
    const far = { ...ROLES, deploy: { dr: { region: "eu-central-1" } } };
    assert.match(
      await refusal({}, { owns: ["roles"], roles: far }),
      /roles\.deploy\.dr\.region is eu-central-1; expected eu-west-1\. Correct it, or replicate/,
    );
    const oci = { kind: "oci", repository: "registry.example.com/podinfo" };
    assert.match(
      await refusal(oci, { owns: ["roles"], roles: ROLES }),
      /baton:owns is roles; expected registry\.kind ecr/,
    );
    assert.match(
      await refusal({ ...oci, replication, scanning: "enhanced" }),
      /registry\.replication is set; expected no value with registry\.kind oci.*\n.*registry\.scanning/,
    );
    const refused = async (roles: object) => refusal({}, { owns: ["roles"], roles });
    for (const name of ["refs/tags/v*", "*", "ref:refs/pull/1"]) {
      assert.match(
        await refused({ ...ROLES, build: { branches: [name] } }),
        /roles\.build\.branches\.0 is ".*"; expected a branch, such as main or release\/\*/,
      );
    }
    const key = "arn:aws:kms:eu-west-1:123456789012:key/one";
    const shared = { dev: { kmsKey: key }, prod: { kmsKey: key, followers: ["dr"] } };
    assert.match(
      await refused({ ...ROLES, deploy: shared }),
      /deploy\.dev\.kmsKey is arn.*; expected a key of its own, as it is that of prod, too\. Make/,
    );
    assert.match(
      await refused({ ...ROLES, deploy: shared }),
      /deploy\.prod\.followers is dr; expected another environment under baton:roles\.deploy/,
    );
  });
});
