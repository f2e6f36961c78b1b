import * as assert from "node:assert/strict";
import { AccessRoles, type AccessRolesArgs } from "../../components/access-roles";
import type { PolicyDocument } from "../../components/internal/iam";
import { register, type Registered } from "../support/program";

const BUCKET = "arn:aws:s3:::example-state";
const keyOf = (name: string) => `arn:aws:kms:eu-west-1:123456789012:key/${name}`;
const CLUSTER = "arn:aws:eks:eu-central-1:123456789012:cluster/dr";
const HOME = "arn:aws:ecr:eu-west-1:123456789012:repository/team/podinfo";
const FAR = "arn:aws:ecr:eu-central-1:123456789012:repository/team/podinfo";

const ARGS: AccessRolesArgs = {
  roles: {
    github: { repository: "example/podinfo" },
    build: { branches: ["dev", "feature/*"] },
    deploy: {
      dev: { branch: "dev", followers: [], kmsKey: keyOf("dev") },
      stage: { branch: "release/*", upstream: "dev", followers: [] },
      prod: { branch: "main", upstream: "stage", followers: ["dr"], kmsKey: keyOf("prod") },
      dr: {
        branch: "main",
        upstream: "prod",
        followers: [],
        kmsKey: keyOf("dr"),
        region: "eu-central-1",
        cluster: CLUSTER,
      },
    },
    state: { bucket: BUCKET },
    pull: ["prod-nodes"],
  },
  place: { account: "123456789012", name: "team/podinfo", regions: ["eu-west-1", "eu-central-1"] },
  project: "baton",
  owner: "dev",
};

async function make(change: Partial<AccessRolesArgs["roles"]> = {}) {
  const args = { ...ARGS, roles: { ...ARGS.roles, ...change } };
  const { resources } = await register(() => new AccessRoles("access", args));
  const find = (type: string, name: string): Registered => {
    const found = resources.filter((one) => one.type.endsWith(`:${type}`) && one.name === name);
    assert.equal(found.length, 1, `${type} ${name}`);
    return found[0] as Registered;
  };
  const read = (resource: Registered, key: string) =>
    JSON.parse(String(resource.inputs[key])) as PolicyDocument;
  return {
    resources,
    trust: (purpose: string) =>
      read(find("Role", `access-${purpose}`), "assumeRolePolicy").Statement,
    /** What a role may do, by the statements' names. */
    policy: (purpose: string) => {
      const { Statement } = read(find("RolePolicy", `access-${purpose}`), "policy");
      return Object.fromEntries(
        Statement.map(({ Sid, Effect, Action, Resource, ...rest }) => {
          assert.deepEqual([Effect, rest], ["Allow", {}]);
          return [Sid, { Action, Resource }];
        }),
      );
    },
    find,
  };
}

describe("AccessRoles", () => {
  it("trusts jobs of the one repository, by audience and subject", async () => {
    const { trust } = await make({
      github: { repository: "example/podinfo", provider: "arn:aws:iam::123456789012:oidc" },
    });
    const [statement, ...others] = trust("preview-prod");
    assert.deepEqual(others, []);
    assert.deepEqual(statement, {
      Sid: "GitHub",
      Effect: "Allow",
      Action: ["sts:AssumeRoleWithWebIdentity"],
      Principal: { Federated: "arn:aws:iam::123456789012:oidc" },
      Condition: {
        StringEquals: {
          "token.actions.githubusercontent.com:aud": ["sts.amazonaws.com"],
          "token.actions.githubusercontent.com:sub": [
            "repo:example/podinfo:ref:refs/heads/main:ref:refs/heads/main",
          ],
        },
      },
    });
  });

  it("matches branches by a pattern only where one is given, and never the audience", async () => {
    const { trust } = await make();
    assert.deepEqual(trust("build")[0]?.Condition, {
      StringEquals: { "token.actions.githubusercontent.com:aud": ["sts.amazonaws.com"] },
      StringLike: {
        "token.actions.githubusercontent.com:sub": [
          "repo:example/podinfo:ref:refs/heads/dev:ref:refs/heads/dev",
          "repo:example/podinfo:ref:refs/heads/feature/*:ref:refs/heads/feature/*",
        ],
      },
    });
  });

  it("lets each environment be deployed from its protected branch, by jobs that name it", async () => {
    const { trust } = await make();
    const subjects = { dev: "dev", stage: "release/*", prod: "main", dr: "main" };
    for (const [name, branch] of Object.entries(subjects)) {
      const match = branch.includes("*") ? "StringLike" : "StringEquals";
      assert.deepEqual(
        trust(`deploy-${name}`)[0]?.Condition?.[match]?.["token.actions.githubusercontent.com:sub"],
        [`repo:example/podinfo:ref:refs/heads/${branch}:environment:${name}`],
      );
    }
  });

  it("lets builds push to the one repository, and nothing else", async () => {
    assert.deepEqual((await make()).policy("build"), {
      LogIn: { Action: ["ecr:GetAuthorizationToken"], Resource: ["*"] },
      Push: {
        Action: [
          "ecr:BatchCheckLayerAvailability",
          "ecr:BatchGetImage",
          "ecr:CompleteLayerUpload",
          "ecr:GetDownloadUrlForLayer",
          "ecr:InitiateLayerUpload",
          "ecr:ListImages",
          "ecr:PutImage",
          "ecr:UploadLayerPart",
        ],
        Resource: [HOME],
      },
    });
  });

  const filesOf = (stack: string) => [
    `${BUCKET}/.pulumi/stacks/baton/${stack}.json*`,
    `${BUCKET}/.pulumi/history/baton/${stack}/*`,
    `${BUCKET}/.pulumi/backups/baton/${stack}/*`,
    `${BUCKET}/.pulumi/locks/organization/baton/${stack}/*`,
  ];

  it("lets previews read one environment, its upstream's state undecrypted, and write nothing", async () => {
    const { policy } = await make();
    assert.deepEqual(policy("preview-dr"), {
      ReadImages: { Action: READ, Resource: [FAR] },
      ListState: { Action: ["s3:ListBucket"], Resource: [BUCKET] },
      ReadState: {
        Action: ["s3:GetObject"],
        Resource: [
          `${BUCKET}/.pulumi/meta.yaml`,
          ...filesOf("dr"),
          `${BUCKET}/.pulumi/stacks/baton/prod.json*`,
        ],
      },
      ReadSecrets: { Action: ["kms:Decrypt"], Resource: [keyOf("dr")] },
      FindCluster: { Action: ["eks:DescribeCluster"], Resource: [CLUSTER] },
    });
    assert.equal(policy("preview-stage")["ReadSecrets"], undefined);
  });

  it("lets them read what follows the environment, as both are asked for together", async () => {
    const { policy } = await make();
    const prod = policy("preview-prod");
    assert.deepEqual(prod["ReadImages"]?.Resource, [HOME, FAR]);
    assert.deepEqual(prod["ReadState"]?.Resource, [
      `${BUCKET}/.pulumi/meta.yaml`,
      ...filesOf("prod"),
      ...filesOf("dr"),
      `${BUCKET}/.pulumi/stacks/baton/stage.json*`,
    ]);
    assert.deepEqual(prod["ReadSecrets"]?.Resource, [keyOf("prod"), keyOf("dr")]);
    assert.deepEqual(prod["FindCluster"]?.Resource, [CLUSTER]);
  });

  it("lets a deployment tag, in its own region, and write its own stack's state", async () => {
    const { policy } = await make();
    assert.deepEqual(policy("deploy-dr"), {
      ...policy("preview-dr"),
      Tag: { Action: ["ecr:PutImage"], Resource: [FAR] },
      WriteState: { Action: ["s3:DeleteObject", "s3:PutObject"], Resource: filesOf("dr") },
    });
    assert.deepEqual(policy("deploy-prod")["Tag"]?.Resource, [HOME]);
    assert.deepEqual(policy("deploy-prod")["WriteState"]?.Resource, filesOf("prod"));
    assert.equal(policy("deploy-prod")["ReadSettings"], undefined);
    assert.deepEqual(policy("deploy-dev")["ReadSettings"], {
      Action: [
        "ecr:DescribeRegistry",
        "ecr:DescribeRepositories",
        "ecr:GetRegistryScanningConfiguration",
      ],
      Resource: ["*"],
    });
  });

  it("lets nodes pull, from every region", async () => {
    const { policy, find } = await make();
    assert.equal(find("RolePolicy", "access-pull-prod-nodes").inputs["role"], "prod-nodes");
    assert.deepEqual(policy("pull-prod-nodes"), {
      LogIn: { Action: ["ecr:GetAuthorizationToken"], Resource: ["*"] },
      Pull: {
        Action: [
          "ecr:BatchCheckLayerAvailability",
          "ecr:BatchGetImage",
          "ecr:GetDownloadUrlForLayer",
        ],
        Resource: [HOME, FAR],
      },
    });
  });

  it("gives nobody what moves or removes a tag, nor a wildcard for an action", async () => {
    const { resources } = await make();
    const documents = resources.flatMap(({ inputs }) =>
      typeof inputs["policy"] === "string" ? [JSON.parse(inputs["policy"]) as PolicyDocument] : [],
    );
    assert.equal(documents.length, 10);
    const statements = documents.flatMap(({ Statement }) => Statement);
    for (const { Action, Resource = [] } of statements) {
      for (const action of Action) {
        assert.doesNotMatch(action, /\*|Delete(?!Object$)|Mutability|Policy|iam:|Replication/);
      }
      const [only] = Action;
      const unlimited = only === "ecr:GetAuthorizationToken" || only === "ecr:DescribeRegistry";
      assert.equal(Resource.includes("*"), unlimited, Action.join());
    }
  });

  it("makes GitHub's provider only where the account has none, and leaves it there", async () => {
    const made = (await make()).resources.filter(({ type }) => type.includes("OpenIdConnect"));
    assert.deepEqual(
      made.map(({ inputs, options }) => [inputs, options.retainOnDelete]),
      [
        [
          {
            url: "https://token.actions.githubusercontent.com",
            clientIdLists: ["sts.amazonaws.com"],
          },
          true,
        ],
      ],
    );
    const provider = "arn:aws:iam::123456789012:oidc";
    const { resources } = await make({ github: { repository: "example/podinfo", provider } });
    assert.ok(!resources.some(({ type }) => type.includes("OpenIdConnect")));
  });
});

const READ = [
  "ecr:BatchGetImage",
  "ecr:DescribeImageScanFindings",
  "ecr:GetDownloadUrlForLayer",
  "ecr:ListImageReferrers",
  "ecr:ListImages",
];
