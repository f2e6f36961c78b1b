import * as pulumi from "@pulumi/pulumi";
import * as assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parse } from "yaml";
import { Project } from "../../ledger/project";
import { checkBranches } from "../../pipelines/deployments/config";
import program from "../../pipelines/deployments/index";
import { triggerFilter } from "../../release/trigger";
import { register, ROOT, STACKS, type Registered } from "../support/program";
import { PulumiCloudApi } from "../support/pulumi-cloud-api";

const PROJECT = "baton-deployments";
const SLACK = "https://hooks.slack.example/services/T0/B0/secret";
const SETTINGS = "pulumiservice:api/deployments:Settings";
const SCHEDULE = "pulumiservice:index:DriftSchedule";
const WEBHOOK = "pulumiservice:index:Webhook";

type Tree = Readonly<Record<string, unknown>>;

function committed(): Tree {
  const path = join(ROOT, "pipelines/deployments/Pulumi.main.yaml");
  const { config } = parse(readFileSync(path, "utf8")) as { config: Tree };
  return config;
}

function configure(changes: Tree = {}, secret: string | undefined = SLACK, encrypted = true) {
  const keys: Record<string, string> = {};
  for (const [key, value] of Object.entries({ ...committed(), ...changes })) {
    if (value === undefined) continue;
    keys[key] = typeof value === "string" ? value : JSON.stringify(value);
  }
  if (secret !== "") keys[`${PROJECT}:slackWebhook`] = secret;
  pulumi.runtime.setAllConfig(keys, encrypted ? [`${PROJECT}:slackWebhook`] : []);
}

/** What the committed files declare. */
async function declared(changes: Tree = {}) {
  configure(changes);
  const options = { stack: "main", project: PROJECT };
  const { resources, outputs } = await register(program, options);
  const of = (type: string, environment: string): Registered => {
    const found = resources.filter(
      (resource) => resource.type === type && resource.name.startsWith(`${environment}-`),
    );
    assert.equal(found.length, 1, `one ${type} for ${environment}`);
    return found[0] as Registered;
  };
  return { resources, outputs, of };
}

/** The words it is refused with. */
async function refusal(changes: Tree, secret?: string, encrypted?: boolean): Promise<string> {
  configure(changes, secret, encrypted);
  const resources: Registered[] = [];
  const error: unknown = await register(
    program,
    { stack: "main", project: PROJECT },
    resources,
  ).then(
    () => undefined,
    (reason: unknown) => reason,
  );
  assert.ok(pulumi.RunError.isInstance(error), "expected a refusal");
  assert.deepEqual(
    resources.filter(({ type }) => type.startsWith("pulumiservice:")),
    [],
  );
  return error.message;
}

/** What the API is sent: the resource's own names of the path are none of the body. */
function bodyOf({ inputs }: Registered): Tree {
  const { orgName, projectName, stackName, ...body } = inputs;
  assert.deepEqual([orgName, projectName], ["example", "baton"]);
  assert.ok(typeof stackName === "string");
  return body;
}

describe("pipelines/deployments", () => {
  const api = new PulumiCloudApi();

  it("declares settings, a drift schedule and a webhook for every stack file, and nothing else", async () => {
    const { resources } = await declared();
    const made = resources
      .filter(({ custom, type }) => custom && !type.startsWith("pulumi:"))
      .map(({ name }) => name)
      .sort();
    const expected = STACKS.flatMap((name) => [
      `${name}-drift`,
      `${name}-settings`,
      `${name}-slack`,
    ]);
    assert.deepEqual(made, expected.sort());
  });

  for (const environment of STACKS) {
    describe(environment, () => {
      let settings: Registered;
      let schedule: Registered;
      let webhook: Registered;
      before(async () => {
        const { of } = await declared();
        settings = of(SETTINGS, environment);
        schedule = of(SCHEDULE, environment);
        webhook = of(WEBHOOK, environment);
      });

      it("sends what the API takes", () => {
        assert.deepEqual(api.problems("DeploymentSettingsRequest", bodyOf(settings)), []);
        assert.deepEqual(api.problems("Webhook", webhook.inputs), []);
        const { scheduleCron, autoRemediate } = schedule.inputs;
        const body = { scheduleCron, autoRemediate };
        assert.deepEqual(api.problems("CreateScheduledDriftDeploymentRequest", body), []);
      });

      it("starts by its own tags only, never by a push of the branch", () => {
        assert.deepEqual(settings.inputs["vcs"], {
          provider: "github",
          repository: "example/podinfo-deployment",
          deployCommits: false,
          deployTags: true,
          tagFilters: [`deploy/baton/${environment}/*`],
          previewPullRequests: false,
          pullRequestTemplate: false,
        });
      });

      it("assumes its own role, which trusts nobody but its own stack", async () => {
        const { environments } = keysOf(committed()) as {
          environments: Record<string, { roleArn: string; drift: string }>;
        };
        const own = environments[environment];
        const { oidc } = settings.inputs["operationContext"] as { oidc: unknown };
        const sessionName = "${stack.name}-${deployment.version}";
        assert.deepEqual(oidc, { aws: { roleArn: own?.roleArn, sessionName } });
        const { outputs } = await declared();
        const policies = outputs["trustPolicies"] as Record<string, unknown>;
        const account = own?.roleArn.split(":")[4] ?? "";
        assert.deepEqual(policies[environment], {
          Version: "2012-10-17",
          Statement: [
            {
              Effect: "Allow",
              Principal: {
                Federated: `arn:aws:iam::${account}:oidc-provider/api.pulumi.com/oidc`,
              },
              Action: "sts:AssumeRoleWithWebIdentity",
              Condition: {
                StringEquals: { "api.pulumi.com/oidc:aud": "example" },
                StringLike: {
                  "api.pulumi.com/oidc:sub": ["update", "refresh", "detect-drift"].map(
                    (operation) =>
                      `pulumi:deploy:org:example:project:baton:stack:${environment}:operation:${operation}:*`,
                  ),
                },
              },
            },
          ],
        });
        assert.equal(schedule.inputs["scheduleCron"], own?.drift);
      });

      it("looks for drift once it has settings, and puts nothing right by itself", () => {
        assert.equal(schedule.inputs["stack"], environment);
        assert.equal(schedule.inputs["autoRemediate"], false);
        assert.deepEqual(schedule.dependsOn, [`${environment}-settings`]);
      });

      it("tells Slack how runs end, under a URL that stays secret", () => {
        assert.equal(webhook.inputs["format"], "slack");
        assert.equal(webhook.inputs["stackName"], environment);
        assert.deepEqual(webhook.secrets, ["payloadUrl"]);
        assert.deepEqual(webhook.inputs["filters"], [
          "update_succeeded",
          "update_failed",
          "deployment_failed",
          "drift_detected",
          "drift_detection_failed",
        ]);
      });

      it("checks what the tool checks before each update, and before no other operation", () => {
        const { preRunCommands } = settings.inputs["operationContext"] as {
          preRunCommands: string[];
        };
        assert.equal(preRunCommands[4], "npm ci");
        assert.equal(
          preRunCommands.at(-1),
          'case "$PULUMI_CI_OPERATION" in update | remediate-drift) ' +
            `npm run --silent baton -- check ${environment} ;; esac`,
        );
      });
    });
  }

  it("finds by the API's schema what does not belong in a body", async () => {
    const { of } = await declared();
    const body = bodyOf(of(SETTINGS, "prod"));
    const vcs = body["vcs"] as Tree;
    const wrong: readonly Tree[] = [
      { ...body, vcs: { ...vcs, tagFilter: ["v*"] } },
      { ...body, vcs: { ...vcs, tagFilters: "v*" } },
      { ...body, vcs: { ...vcs, provider: "sourcehut" } },
      { ...body, github: vcs },
      { ...body, operationContext: { postRunCommands: ["true"] } },
      { ...body, operationContext: { oidc: { aws: { roleARN: "arn" } } } },
      { ...body, executorContext: { executorImage: "pulumi/pulumi:latest" } },
    ];
    for (const each of wrong) {
      assert.notDeepEqual(
        api.problems("DeploymentSettingsRequest", each),
        [],
        JSON.stringify(each),
      );
    }
    assert.notDeepEqual(api.problems("Webhook", { active: true }), []);
  });

  it("passes the folder and the branch on where they are not the usual ones", async () => {
    const changes = { [`${PROJECT}:directory`]: "deploy/k8s", [`${PROJECT}:branch`]: "trunk" };
    const { of } = await declared(changes);
    assert.deepEqual(of(SETTINGS, "dev").inputs["sourceContext"], {
      git: { branch: "refs/heads/trunk", repoDir: "deploy/k8s" },
    });
  });

  it("says everything that is wrong with its configuration at once", async () => {
    const { environments } = keysOf(committed()) as { environments: Record<string, Tree> };
    const { dr, ...others } = environments;
    const message = await refusal(
      {
        [`${PROJECT}:organization`]: "Example",
        [`${PROJECT}:executorImage`]: "pulumi/pulumi",
        [`${PROJECT}:repo`]: "example/podinfo",
        [`${PROJECT}:environments`]: {
          ...others,
          qa: { ...others["qa"], drift: "daily", roleArn: "baton-qa" },
        },
      },
      "",
    );
    assert.ok(dr !== undefined);
    assert.deepEqual(message.split("\n"), [
      'main: organization is "Example"; expected a Pulumi Cloud organisation\'s name, in lower case. docs/deployments.md has an example.',
      'main: executorImage is "pulumi/pulumi"; expected an image with its tag or digest. docs/deployments.md has an example.',
      'main: environments.qa.roleArn is "baton-qa"; expected an IAM role\'s ARN. docs/deployments.md has an example.',
      'main: environments.qa.drift is "daily"; expected a schedule in cron\'s five fields. docs/deployments.md has an example.',
      "main: repo is not a key of this program; expected one of organization, repository, branch, directory, executorImage, environments, slackWebhook. Correct or remove it.",
      "main: slackWebhook is not set; expected an incoming webhook of Slack. Set it with `pulumi config set --secret slackWebhook`.",
      "main: environments.dr is missing; expected an entry, as there is a Pulumi.dr.yaml. Add its role, cluster and drift schedule.",
    ]);
  });

  it("names environments that have no stack file, and those that are not configured", async () => {
    const { environments } = keysOf(committed()) as { environments: Record<string, Tree> };
    const { dr, ...others } = environments;
    const message = await refusal({
      [`${PROJECT}:environments`]: { ...others, perf: dr },
    });
    assert.match(
      message,
      /^main: environments\.dr is missing; .*\nmain: environments\.perf is no environment; /,
    );
  });

  it("refuses a Slack webhook in plain text, without repeating it", async () => {
    const message = await refusal({}, SLACK, false);
    assert.match(message, /slackWebhook is in plain text; expected a secret/);
    assert.ok(!message.includes(SLACK));
  });

  it("refuses a Slack webhook that is no URL, without repeating it", async () => {
    const message = await refusal({}, "xoxb-secret");
    assert.match(message, /slackWebhook is not a URL/);
    assert.ok(!message.includes("xoxb-secret"));
  });
});

describe("the branch of the settings", () => {
  it("is the protected branch of each environment that Pulumi Deployments deploys", async () => {
    const folder = mkdtempSync(join(tmpdir(), "baton-deployments-"));
    const write = (file: string, text: string) => writeFileSync(join(folder, file), text);
    try {
      const registry = "registry: { kind: oci, repository: registry.example.com/podinfo }";
      write("Pulumi.yaml", `name: baton\nconfig: { baton:defaults: { value: { ${registry} } } }\n`);
      write("Pulumi.dev.yaml", "config: {}\n");
      write(
        "Pulumi.qa.yaml",
        "config: { baton:upstream: dev, baton:deployedBy: pulumi-deployments }\n",
      );
      mkdirSync(join(folder, "pipelines"));
      const rows = "application: .\nrows: [{ branch: feature/*, build: true }]\n";
      write("pipelines/flow.yaml", `protected: { dev: dev, qa: qa }\n${rows}`);
      const project = await Project.open(folder);
      await assert.rejects(
        checkBranches(project, { branch: "main" }),
        /pipelines\/flow\.yaml: protected\.qa is qa; expected main, the branch of these settings\. Let both name one branch\.$/,
      );
      await checkBranches(project, { branch: "qa" });
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

describe("the tags that start a run", () => {
  it("match the filter of their environment, whether `*` stands for a slash or not", () => {
    const asRegExp = (glob: string, star: string) => new RegExp(`^${glob.replaceAll("*", star)}$`);
    const tag = "deploy/baton/prod/20261121T101500.000Z";
    for (const star of ["[^/]*", ".*"]) {
      assert.match(tag, asRegExp(triggerFilter("baton", "prod"), star));
      assert.doesNotMatch(tag, asRegExp(triggerFilter("baton", "dev"), star));
      assert.doesNotMatch(tag, asRegExp(triggerFilter("orders", "prod"), star));
      assert.doesNotMatch(
        "approve/baton/prod/0/bob",
        asRegExp(triggerFilter("baton", "prod"), star),
      );
    }
  });
});

function keysOf(config: Tree): Tree {
  const entries = Object.entries(config).map(([key, value]) => [
    key.slice(PROJECT.length + 1),
    value,
  ]);
  return Object.fromEntries(entries) as Tree;
}
