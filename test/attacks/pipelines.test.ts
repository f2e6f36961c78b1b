import * as pulumi from "@pulumi/pulumi";
import * as assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, delimiter, join } from "node:path";
import { parse } from "yaml";
import { readFlow } from "../../cli/flow";
import { AccessRoles } from "../../components/access-roles";
import type { PolicyDocument, RolesConfig } from "../../components/internal/iam";
import { Config } from "../../config-schema";
import { Project } from "../../ledger/project";
import { settingsOf } from "../../pipelines/deployments/settings";
import { trustPolicyOf } from "../../pipelines/deployments/trust-policy";
import type { Flow } from "../../release/flow";
import {
  deployJenkinsHoles,
  jenkinsHoles,
  roleHoles,
  runTrustHoles,
  scriptHoles,
  settingsHoles,
  workflowHoles,
  type Settings,
} from "../support/pipeline-rules";
import { register } from "../support/program";
import { GH, Runner, type Ended } from "../support/runner";
import { parseWorkflow, readAction, ROOT, type Step } from "../support/workflows";

const read = (file: string) => readFileSync(join(ROOT, file), "utf8");

/** A file with a hole in it: a text, the text in its place, and the words of the rule that it breaks. */
type Planted = readonly [from: string | RegExp, to: string, hole: RegExp];

function plant(text: string, [from, to]: Planted): string {
  const changed = text.replace(from, to);
  assert.notEqual(changed, text, `${String(from)} is not there`);
  return changed;
}

describe("code that is not on a protected branch gets no credentials", () => {
  let flow: Flow;
  let path: string[];
  before(async () => {
    const project = await Project.open(ROOT);
    [flow, path] = [await readFlow(project), await project.path()];
  });

  describe("in the workflows", () => {
    const FOLDER = ".github/workflows";
    const holesOf = (text: string) => workflowHoles(parseWorkflow(text), flow, readAction);

    for (const file of readdirSync(join(ROOT, FOLDER))) {
      it(`of ${file}`, () => assert.deepEqual(holesOf(read(`${FOLDER}/${file}`)), []));
    }

    const PLANTED: Readonly<Record<string, readonly Planted[]>> = {
      "dispatch.yml": [
        [
          "    timeout-minutes: 5\n",
          "    timeout-minutes: 5\n    environment: prod\n",
          /a tag starts it in an environment/,
        ],
        [
          "      actions: write\n",
          "      actions: write\n      id-token: write\n",
          /a tag starts it with a role/,
        ],
        [
          "      actions: write\n",
          "      contents: write\n",
          /a tag starts it with more than to dispatch/,
        ],
        [
          "GH_TOKEN: ${{ github.token }}",
          "GH_TOKEN: ${{ secrets.PAT }}",
          /a tag starts it with a secret/,
        ],
        [
          "    steps:\n",
          "    steps:\n      - uses: actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1\n        with: { persist-credentials: false }\n",
          /a tag starts it with more than a script/,
        ],
        [
          "          environment=$(cut",
          "          npm ci\n          environment=$(cut",
          /a tag starts it on its own commit's code/,
        ],
        [
          "          if git diff",
          "          pipelines/dispatch.sh\n          if git diff",
          /a pull request starts it on its own commit's code/,
        ],
        [", persist-credentials: false", "", /keeps a token in a checkout that pushes nothing/],
        ["permissions: {}", "permissions: write-all", /gives every job more than to read/],
        [
          '-f environment="$environment"',
          "-f environment=${{ github.ref_name }}",
          /has a script with an expression/,
        ],
      ],
      "dispatch.yml, which names the branch": [
        ["--ref main", '--ref "$GITHUB_REF_NAME"', /starts a job on "\$GITHUB_REF_NAME"/],
        ["branch=dev ;;", 'branch="$GITHUB_REF_NAME" ;;', /starts a job on "\$GITHUB_REF_NAME"/],
        [
          "BRANCH: ${{ matrix.branch }}",
          "BRANCH: ${{ github.head_ref }}",
          /on \$\{\{ github.head_ref/,
        ],
        [
          "refs/remotes/origin/$BRANCH",
          "refs/tags/$BRANCH",
          /starts a job on \$\(git for-each-ref/,
        ],
        [' --ref "$branch"', "", /starts a job on the default branch/],
      ],
      "check.yml": [
        [
          "    timeout-minutes",
          "    permissions: { id-token: write }\n    timeout-minutes",
          /a pull request starts it with a role/,
        ],
        [
          "    timeout-minutes",
          "    environment: dev\n    timeout-minutes",
          /a pull request starts it in an environment/,
        ],
        [
          "  pull_request:",
          "  pull_request_target:",
          /starts by pull_request_target, which the rules do not know/,
        ],
        [
          "./.github/actions/check\n",
          './.github/actions/check\n        env: { SONAR_TOKEN: "${{ secrets.SONAR_TOKEN }}" }\n',
          /a pull request starts it with a secret/,
        ],
        [
          "fetch-depth: 0, ",
          'ref: "${{ github.head_ref }}", ',
          /checks out \$\{\{ github\.head_ref/,
        ],
      ],
      "deploy.yml": [
        ["on:\n", "on:\n  push: { tags: [approve/**] }\n", /a tag starts it in an environment/],
        ["on:\n", "on:\n  push:\n", /a tag starts it in an environment/],
        [
          "permissions:\n",
          'env: { SLACK_TOKEN: "${{ secrets.SLACK_TOKEN }}" }\npermissions:\n',
          /gives a secret to every job/,
        ],
        [
          "      GIT_COMMITTER_NAME: baton\n",
          "      SLACK_TOKEN: ${{ secrets.SLACK_TOKEN }}\n",
          /gives a secret to every step/,
        ],
        [
          'ref: "${{ github.ref_name }}"',
          'ref: "${{ inputs.tag }}"',
          /checks out \$\{\{ inputs\.tag/,
        ],
        [
          "run: pipelines/baton pipeline",
          'run: git checkout "$TAG" && pipelines/baton pipeline',
          /runs on other files than those of its branch/,
        ],
        [
          "          region:",
          "          key: ${{ secrets.KEY }}\n          region:",
          /gives \.\/\.github\/actions\/setup a secret as an input/,
        ],
      ],
      "build.yml": [
        [
          / {4}if: .*protected branch of dev\n/,
          "",
          /promote: a push to feature\/prod\/0\/bob starts it in dev/,
        ],
        [
          "vars.AWS_ROLE_BUILD",
          "vars.AWS_ROLE_DEPLOY",
          /a push to dev starts it with an environment's role/,
        ],
        ["  push:\n", "  pull_request:\n  push:\n", /build: a pull request starts it with a role/],
        ["environment: dev #", "environment: prod #", /promote: a push to dev starts it in prod/],
        ["@3d3c42e5aac5ba805825da76410c181273ba90b1", "@v7", /does not pin actions\/checkout@v7/],
      ],
      "promote.yml": [
        ["&& 'qa') || 'stage'", "&& 'prod') || 'stage'", /a push to qa starts it in prod/],
        [
          "[qa, release/*]",
          "[qa, release/*, hotfix/*]",
          /a push to hotfix\/1\.4\.0 starts it in stage/,
        ],
        ["[qa, release/*]", "[qa, release/*]\n    tags: [v*]", /a tag starts it in an environment/],
      ],
      "preview.yml": [
        [
          "fetch-depth: 0, ",
          'fetch-depth: 0, ref: "${{ inputs.commit }}", ',
          /checks out \$\{\{ inputs\.commit/,
        ],
        [
          'preview "$ENVIRONMENT" --of "$COMMIT"',
          'preview --base "$COMMIT"',
          /previews otherwise than by a stack file as data/,
        ],
        [
          "-${{ inputs.environment }}\n          region",
          "\n          region",
          /reads with a role of more than one environment/,
        ],
        [
          "  workflow_dispatch:",
          "  pull_request:\n  workflow_dispatch:",
          /a pull request starts it with a role/,
        ],
        [
          "run: npm run --silent baton",
          'run: git merge "$COMMIT" && npm run --silent baton',
          /runs on other files/,
        ],
      ],
      "drift.yml": [
        [", persist-credentials: false", "", /keeps a token/],
        [
          /( {6}- uses: \.\/\.github[^]*?)( {6}- name: take[^]*?)( {6}- name: compare)/,
          "$2$1$3",
          /sets up the tool by other files/,
        ],
        [
          "run: pipelines/last-deployed.sh",
          "run: git checkout outcome/prod && pipelines/last-deployed.sh",
          /runs on other files/,
        ],
      ],
    };
    for (const [file, planted] of Object.entries(PLANTED)) {
      it(`finds what is planted in ${file}`, () => {
        for (const each of planted) {
          const [name = ""] = file.split(",");
          const holes = holesOf(plant(read(`${FOLDER}/${name}`), each)).join("\n");
          assert.match(holes, each[2], each[1]);
        }
      });
    }

    it("finds what is planted in the action that sets up every job with a role", () => {
      const planted: readonly Planted[] = [
        ["- run: npm ci", "- run: npm ci && git checkout $TAG", /runs on other files/],
        ["- run: npm ci", "- run: echo ${{ inputs.role }}", /has a script with an expression/],
        [/pulumi\/actions@\w+/, "pulumi/actions@v7", /does not pin pulumi\/actions@v7/],
        ["{ node-version: 22", '{ token: "${{ secrets.PAT }}"', /a secret as an input/],
        [
          "- run: npm ci",
          "- uses: actions/checkout@v7\n    - run: npm ci",
          /keeps a token|does not pin/,
        ],
      ];
      const action = read(".github/actions/setup/action.yml");
      const drift = parseWorkflow(read(`${FOLDER}/drift.yml`));
      for (const each of planted) {
        const { runs } = parse(plant(action, each)) as { runs: { steps: Step[] } };
        const holes = workflowHoles(drift, flow, () => runs.steps).join("\n");
        assert.match(holes, each[2], each[1]);
      }
    });

    describe("when they run", () => {
      let scene: ReturnType<typeof repository>;
      let runner: Runner;
      before(() => {
        scene = repository();
        const { git, write, folder } = scene;
        for (const name of ["bin", "pipelines"]) mkdirSync(join(folder, name));
        write(".gitignore", "bin\n");
        for (const file of ["baton", "clusters.sh", "last-deployed.sh"]) {
          write(`pipelines/${file}`, read(`pipelines/${file}`));
          chmodSync(join(folder, "pipelines", file), 0o755);
        }
        write("Pulumi.yaml", "name: baton\n");
        for (const name of path) write(`Pulumi.${name}.yaml`, "config: {}\n");
        const branches = ["dev", "qa", "release/1.2.0", "release/1.10.0", "evil"];
        const commit = (branch: string) => {
          write("branch", branch);
          git("add", ".");
          git("commit", "--quiet", "--allow-empty", "-m", branch);
        };
        commit("main");
        for (const branch of branches) {
          git("checkout", "--quiet", "-b", branch, "main");
          if (branch === "evil") write("Pulumi.prod.yaml", "config: { baton:version: v9 }\n");
          commit(branch);
        }
        for (const tag of ["approve/baton/prod/0/bob", "v9.0.0"]) git("tag", tag);
        // In place of npm: which command would run, and of which branch the files around it are.
        write("bin/npm", '#!/bin/sh\necho "npm $*, of $(cat branch)"\n');
        write("bin/gh", `#!/bin/sh\n${GH}\n`);
        for (const name of ["npm", "gh"]) chmodSync(join(folder, "bin", name), 0o755);
        const PATH = [join(folder, "bin"), process.env["PATH"] ?? ""].join(delimiter);
        const runs = join(folder, "..", `${basename(folder)}-runs`);
        runner = new Runner({ remote: folder, folder: runs, environment: { PATH }, names: {} }, 1);
      });
      after(() => {
        rmSync(`${scene.folder}-runs`, { recursive: true });
        scene.remove();
      });
      /** What ran in each job, and of which branch. */
      const ran = (ended: readonly Ended[]) =>
        ended.map(({ workflow, environment, log, succeeded }) => {
          assert.ok(succeeded, log);
          const commands = [
            ...log.matchAll(/^npm (?:ci|.* (?:baton|github) --) ?(.*), of (.*)$/gm),
          ];
          return [workflow, environment, commands.map(([, what, branch]) => [what, branch])];
        });

      it("run nothing of the commit that an approval's or a version's tag names", async () => {
        assert.deepEqual(ran(await runner.pushed("refs/tags/approve/baton/prod/0/bob")), [
          ["dispatch", "", []],
          [
            "deploy",
            "prod",
            [
              ["", "main"],
              ["pipeline prod", "main"],
            ],
          ],
        ]);
        assert.deepEqual(ran(await runner.pushed("refs/tags/v9.0.0")), [
          ["dispatch", "", []],
          [
            "release",
            "prod",
            [
              ["", "main"],
              ["pipeline refs/tags/v9.0.0", "main"],
              ["pull-request refs/tags/v9.0.0", "main"],
            ],
          ],
        ]);
      });

      it("preview a pull request by the program of the protected branch", async () => {
        const ended = ran(await runner.requested("dispatch", "evil", "main"));
        assert.deepEqual(
          ended.filter(([workflow]) => workflow === "preview"),
          [
            [
              "preview",
              "",
              [
                ["", "main"],
                ["comment prod preview.json", "main"],
              ],
            ],
          ],
        );
      });

      it("look for drift on each environment's own branch, the newest of a pattern's", async () => {
        const ended = ran(await runner.scheduled("dispatch"));
        const branches = ["dev", "qa", "release/1.10.0", "main", "main"];
        assert.deepEqual(
          ended.filter(([workflow]) => workflow === "drift"),
          path.map((name, index) => [
            "drift",
            "",
            [
              ["", branches[index]],
              [`drift ${name}`, branches[index]],
            ],
          ]),
        );
      });
    });
  });

  describe("by the script that takes stack files for the search for drift", () => {
    const SCRIPT = "pipelines/last-deployed.sh";
    it("in its text", () => assert.deepEqual(scriptHoles(read(SCRIPT)), []));

    it("where it is planted", () => {
      const planted: readonly Planted[] = [
        [" -- 'Pulumi.*.yaml'", "", /takes more than stack files/],
        [" -- 'Pulumi.*.yaml'", " -- .", /takes more than stack files/],
        [" -- 'Pulumi.*.yaml'", " -- 'Pulumi*.yaml'", /takes more than stack files/],
        [
          'if git merge-base --is-ancestor "$tag^{commit}" HEAD; then',
          "if true; then",
          /no part of the branch/,
        ],
        [
          '--is-ancestor "$tag^{commit}" HEAD',
          '--is-ancestor HEAD "$tag^{commit}"',
          /no part of the branch/,
        ],
        ["outcome/$project/$1/", "outcome/", /tags of other projects/],
      ];
      for (const each of planted) {
        assert.match(scriptHoles(plant(read(SCRIPT), each)).join("\n"), each[2], each[1]);
      }
    });

    it("when it runs: a forged outcome brings nothing, and a true one its stack files only", () => {
      const { git, write, folder, remove } = repository();
      try {
        write("Pulumi.yaml", "name: baton\n");
        write("Pulumi.prod.yaml", "config: {}\n");
        write("package.json", "first");
        git("add", ".");
        git("commit", "--quiet", "-m", "Deployed");
        git("tag", "-a", "-m", "It ran", "outcome/baton/prod/2026");
        write("Pulumi.yaml", "name: baton\nmain: src\n");
        write("Pulumi.prod.yaml", "config: { baton:version: v2 }\n");
        write("package.json", "second");
        git("commit", "--quiet", "-am", "Asked for");
        git("checkout", "--quiet", "-b", "evil");
        write("Pulumi.prod.yaml", "config: { baton:version: evil }\n");
        git("commit", "--quiet", "-am", "Not merged");
        git("tag", "-a", "-m", "It did not run", "outcome/baton/prod/9999");
        git("tag", "-a", "-m", "Of another project", "outcome/orders/prod/9999", "main");
        git("checkout", "--quiet", "main");
        execFileSync("sh", [join(ROOT, SCRIPT), "prod"], { cwd: folder });
        const now = ["Pulumi.prod.yaml", "Pulumi.yaml", "package.json"].map((file) =>
          readFileSync(join(folder, file), "utf8"),
        );
        assert.deepEqual(now, ["config: {}\n", "name: baton\nmain: src\n", "second"]);
      } finally {
        remove();
      }
    });
  });

  describe("in Jenkins", () => {
    const OPEN = "Jenkinsfile";
    const DEPLOYS = "pipelines/Jenkinsfile";
    it("by the file that each branch brings", () => assert.deepEqual(jenkinsHoles(read(OPEN)), []));
    it("by the file of the protected branch", () =>
      assert.deepEqual(deployJenkinsHoles(read(DEPLOYS), flow), []));

    it("where it is planted", () => {
      const open: readonly Planted[] = [
        [
          "        build job:",
          "        sh 'npm ci'\n        build job:",
          /Dispatch: a tag starts it with more/,
        ],
        [
          "      steps {\n        build job",
          "      agent any\n      steps {\n        checkout scm\n        build job",
          /Dispatch: a tag starts it with more/,
        ],
        ["credentialsId: 'registry'", "credentialsId: 'aws-prod'", /has the credentials aws-prod/],
        ["if (!env.CHANGE_ID) {", "if (true) {", /Build: a pull request has credentials/],
        [
          "  stages {",
          "  environment { SLACK_TOKEN = credentials('slack') }\n  stages {",
          /gives credentials to every stage/,
        ],
        ["agent any", "agent { label 'baton-prod' }", /chooses an agent/],
        ["sh 'npm ci'", "sh 'npm run --silent baton -- deploy prod'", /deploys/],
      ];
      for (const each of open) {
        assert.match(jenkinsHoles(plant(read(OPEN), each)).join("\n"), each[2], each[1]);
      }
      const deploys: readonly Planted[] = [
        ["git checkout -B main origin/main", 'git checkout "$TAG_NAME"', /checks out "\$TAG_NAME"/],
        [
          "checkout scm\n",
          "checkout([$class: 'GitSCM', branches: [[name: params.REF]]])\n",
          /checks out by itself/,
        ],
        [
          "sh 'pipelines/baton pipeline \"$REF\"'",
          'sh "pipelines/baton pipeline ${params.REF}"',
          /puts a value into a script/,
        ],
        ["branch == 'qa' ? 'qa'", "branch == 'feature' ? 'qa'", /deploys qa from feature/],
        ["'release/[^/]+' ? 'stage' : ''", "'.*' ? 'stage' : ''", /deploys stage from \.\*/],
        ["if (environment == '') {", "if (false) {", /does not refuse each branch/],
        ["label 'baton-prod'", "label 'any'", /runs on any/],
        [
          "        script {\n",
          "        script {\n          load 'deploy.groovy'\n",
          /loads other code/,
        ],
      ];
      for (const each of deploys) {
        assert.match(
          deployJenkinsHoles(plant(read(DEPLOYS), each), flow).join("\n"),
          each[2],
          each[1],
        );
      }
    });
  });

  describe("in Pulumi Deployments", () => {
    const CONFIG = {
      organization: "example",
      repository: "example/podinfo",
      branch: "main",
      executorImage: "pulumi:1",
      environments: {},
      slackWebhook: pulumi.output("https://hooks.slack.example/services/1"),
    };
    const settings = (environment: string): Settings =>
      settingsOf(CONFIG, {
        project: "baton",
        environment,
        context: environment,
        config: {
          roleArn: "arn:aws:iam::111111111111:role/baton",
          cluster: { name: environment, region: "eu-west-1" },
          drift: "0 5 * * *",
        },
      });
    const holesOf = (value: Settings) => settingsHoles(value, "baton", "prod");
    const policy = trustPolicyOf(
      { organization: "example", project: "baton", stack: "prod" },
      "arn:aws:iam::111111111111:role/baton",
    );
    const trustHoles = (value: typeof policy) =>
      runTrustHoles(value as Parameters<typeof runTrustHoles>[0], "example", "baton", "prod");

    it("by the settings and the trust policy of each environment", () => {
      for (const name of path) {
        assert.deepEqual(settingsHoles(settings(name), "baton", name), [], name);
      }
      assert.deepEqual(trustHoles(policy), []);
    });

    it("where it is planted", () => {
      const planted: readonly Planted[] = [
        [/"git --no-replace[^"]*",/, "", /does not check that the commit is merged/],
        [/("git --no-replace[^"]*"),"npm ci"/, '"npm ci",$1', /runs npm ci before it is checked/],
        ["exit 1; }", "true; }", /does not check that the commit is merged/],
        [
          "--is-ancestor HEAD refs/remotes/origin/main",
          "--is-ancestor HEAD HEAD",
          /does not check/,
        ],
        [
          '"git --no-replace',
          '"./check.sh","git --no-replace',
          /runs \.\/check\.sh before it is checked/,
        ],
        [
          "git fetch --quiet --no-tags origin '+refs/heads/main",
          "git fetch --quiet --no-tags origin '+refs/heads/x",
          /compares with another main/,
        ],
        ['"previewPullRequests":false', '"previewPullRequests":true', /runs pull requests/],
        ['"deployCommits":false', '"deployCommits":true', /deploys each push/],
        ["deploy/baton/prod/*", "deploy/*", /starts by the tags deploy\/\*/],
      ];
      for (const each of planted) {
        const changed = JSON.parse(plant(JSON.stringify(settings("prod")), each)) as Settings;
        assert.match(holesOf(changed).join("\n"), each[2], each[1]);
      }
      const trust: readonly Planted[] = [
        [/stack:prod:operation:update/, "stack:*:operation:update", /trusts pulumi:.*stack:\*/],
        [":operation:update:*", ":*", /trusts pulumi:.*stack:prod:\*/],
        [":operation:update:", ":operation:preview:", /trusts preview/],
        [/"StringLike":\{[^}]*\}/, '"StringLike":{}', /trusts every run/],
        ['oidc:aud":"example"', 'oidc:aud":"others"', /another audience/],
      ];
      for (const each of trust) {
        const changed = JSON.parse(plant(JSON.stringify(policy), each)) as typeof policy;
        assert.match(trustHoles(changed).join("\n"), each[2], each[1]);
      }
    });

    it("when the commands run: those of a tag that is not merged end before npm", () => {
      const { git, write, folder, remove } = repository();
      try {
        write("package.json", "{}");
        git("add", ".");
        git("commit", "--quiet", "-m", "Merged");
        git("tag", "merged");
        git("commit", "--quiet", "--allow-empty", "-m", "Later");
        git("checkout", "--quiet", "-b", "evil", "merged");
        git("commit", "--quiet", "--allow-empty", "-m", "Not merged");
        git("tag", "evil-tag");
        // The branch of the same name that a tag brings along is not the remote's.
        git("tag", "main", "evil");
        git("checkout", "--quiet", "refs/heads/main");
        const run = (tag: string) => {
          const clone = join(folder, `clone-${tag}`);
          const made = [
            "clone",
            "--quiet",
            "--no-local",
            "--depth=1",
            "--branch",
            tag,
            `file://${folder}`,
            clone,
          ];
          execFileSync("git", made, { stdio: "ignore" });
          const bin = join(folder, `bin-${tag}`);
          execFileSync("mkdir", [bin]);
          for (const program of ["npm", "pulumi", "aws"]) {
            writeFileSync(join(bin, program), `#!/bin/sh\ntouch ${clone}/${program}-ran\n`);
            chmodSync(join(bin, program), 0o755);
          }
          const env = {
            ...process.env,
            HOME: folder,
            PATH: `${bin}:${process.env["PATH"] ?? ""}`,
            PULUMI_CI_OPERATION: "update",
          };
          for (const command of settings("prod").operationContext.preRunCommands) {
            const ended = spawnSync("sh", ["-c", command], { cwd: clone, env, encoding: "utf8" });
            if (ended.status !== 0)
              return { said: ended.stderr, ran: existsSync(`${clone}/npm-ran`) };
          }
          return { said: "", ran: existsSync(`${clone}/npm-ran`) };
        };
        assert.deepEqual(run("merged"), { said: "", ran: true });
        const refused = run("evil-tag");
        assert.match(
          refused.said,
          /^prod: the commit is no part of main; expected one that was merged/,
        );
        assert.equal(refused.ran, false);
      } finally {
        remove();
      }
    });
  });

  describe("in AWS", () => {
    /** The roles of docs/aws.md, which names each environment with its protected branch. */
    const example = (): RolesConfig => {
      const blocks = [...read("docs/aws.md").matchAll(/```yaml\n([^]*?)```/g)].map(
        ([, text]) => (parse(text ?? "") ?? {}) as Record<string, unknown>,
      );
      const roles = blocks.find((block) => "baton:roles" in block)?.["baton:roles"];
      return Config.shape.roles.unwrap().parse(roles);
    };
    type Documents = Record<string, { trust: PolicyDocument; policy: PolicyDocument }>;
    const documentsOf = async (roles: RolesConfig): Promise<Documents> => {
      const place = {
        account: "123456789012",
        name: "podinfo",
        regions: ["eu-west-1", "eu-central-1"],
      };
      const args = { roles, place, project: "baton", owner: "dev" };
      const { resources } = await register(() => new AccessRoles("access", args));
      const found: Documents = {};
      for (const { type, name, inputs } of resources) {
        if (!type.endsWith(":Role")) continue;
        const policy = resources.find(
          (one) => one.type.endsWith(":RolePolicy") && one.name === name,
        );
        found[name.replace("access-", "")] = {
          trust: JSON.parse(String(inputs["assumeRolePolicy"])) as PolicyDocument,
          policy: JSON.parse(String(policy?.inputs["policy"])) as PolicyDocument,
        };
      }
      return found;
    };
    const holesOf = (purpose: string, documents: Documents[string]) =>
      roleHoles(purpose, documents, example(), flow, "baton");

    it("by the roles of the example, which has one to preview and one to deploy for each environment", async () => {
      const documents = await documentsOf(example());
      const purposes = path.flatMap((name) => [`preview-${name}`, `deploy-${name}`]);
      assert.deepEqual(Object.keys(documents).sort(), ["build", ...purposes].sort());
      for (const [purpose, each] of Object.entries(documents)) {
        assert.deepEqual(holesOf(purpose, each), [], purpose);
      }
    });

    it("where it is planted", async () => {
      const documents = await documentsOf(example());
      const SUBJECT = "ref:refs/heads/main:environment:prod";
      const planted: readonly (readonly [string, ...Planted])[] = [
        ["deploy-prod", SUBJECT, "ref:refs/tags/*:environment:prod", /trusts .*refs\/tags/],
        ["deploy-prod", SUBJECT, "ref:refs/heads/*:environment:prod", /trusts .*heads\/\*/],
        ["deploy-prod", SUBJECT, "ref:refs/heads/dev:environment:prod", /trusts .*heads\/dev/],
        [
          "deploy-prod",
          `repo:example/podinfo:${SUBJECT}`,
          "repo:example/podinfo:environment:prod",
          /trusts repo/,
        ],
        [
          "preview-prod",
          "ref:refs/heads/main:ref:refs/heads/main",
          "pull_request",
          /trusts .*pull_request/,
        ],
        ["preview-dev", "ref:refs/heads/dev:ref", "ref:refs/heads/*:ref", /trusts .*heads\/\*/],
        [
          "build",
          "ref:refs/heads/dev:ref:refs/heads/dev",
          "ref:refs/tags/v1:ref:refs/tags/v1",
          /trusts .*tags/,
        ],
        ["deploy-prod", "repo:example/podinfo:", "repo:*:", /trusts repo:\*/],
        ["deploy-dev", "key/1111", "key/4444", /uses the key .*4444.*Decrypt/],
        ["deploy-dev", /"arn:aws:kms[^"]*"/, '"*"', /uses the key \* by kms:Decrypt/],
        ["preview-dev", "kms:Decrypt", "kms:*", /may do kms:\*/],
        ["deploy-dev", ".pulumi/meta.yaml", ".pulumi/*", /reads .*\.pulumi\/\*/],
        ["preview-qa", "stacks/baton/dev.json*", "stacks/baton/prod.json*", /reads .*prod\.json/],
        [
          "preview-qa",
          "stacks/baton/dev.json*",
          "history/baton/dev/*",
          /reads .*history\/baton\/dev/,
        ],
        [
          "deploy-dev",
          /("s3:PutObject"\],"Resource":\["[^"]*stacks\/baton\/)dev/,
          "$1*",
          /writes .*stacks\/baton\/\*/,
        ],
        ["preview-prod", "s3:GetObject", "s3:PutObject", /writes by s3:PutObject/],
      ];
      for (const [purpose, ...each] of planted) {
        const known = documents[purpose] ?? assert.fail(purpose);
        const changed = JSON.parse(plant(JSON.stringify(known), each)) as Documents[string];
        assert.match(holesOf(purpose, changed).join("\n"), each[2], `${purpose}: ${each[1]}`);
      }
    });

    it("by the keys of the examples: no two environments have one", () => {
      const files = ["README.md", ...readdirSync(join(ROOT, "docs")).map((file) => `docs/${file}`)];
      const named = files.flatMap((file) =>
        [...read(file).matchAll(/^.*awskms:\/\/([^?"\s]*).*$/gm)].map(([line, key]) => ({
          key,
          stack: /stack init (\w+)|--stack (\w+)/.exec(line)?.slice(1).find(Boolean),
        })),
      );
      assert.ok(named.length >= 3);
      for (const { key, stack } of named) assert.equal(key, `alias/baton-${stack ?? ""}`);
    });
  });
});

/** An empty repository on the branch main. */
function repository() {
  const folder = mkdtempSync(join(tmpdir(), "baton-pipelines-"));
  const who = ["-c", "user.name=ann", "-c", "user.email=ann@example.com"];
  const own = [...who, "-c", "commit.gpgsign=false", "-c", "tag.gpgsign=false"];
  const git = (...args: string[]) => execFileSync("git", [...own, ...args], { cwd: folder });
  git("init", "--quiet", "--initial-branch=main");
  return {
    folder,
    git,
    write: (file: string, text: string) => writeFileSync(join(folder, file), text),
    remove: () => rmSync(folder, { recursive: true }),
  };
}
