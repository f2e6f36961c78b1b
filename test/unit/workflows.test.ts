import * as assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { readFlow } from "../../cli/flow";
import { Project } from "../../ledger/project";
import { FLOW_FILE, parseRef, protectedBranch, rowFor, type Flow } from "../../release/flow";
import { GH } from "../support/runner";
import { readAction, readWorkflows, ROOT, startsOn } from "../support/workflows";

/** One name for each pattern of the table, as people would push it. */
const exampleOf = (pattern: string) =>
  pattern.replace("{version}", "1.4.0").replace(/\*+/g, "something");

describe("the workflows", () => {
  const workflows = readWorkflows();
  const named = (name: string) =>
    workflows.find((workflow) => workflow.name === name) ?? assert.fail(name);
  let flow: Flow;
  let path: string[];
  let project: Project;
  before(async () => {
    project = await Project.open(ROOT);
    [flow, path] = [await readFlow(project), await project.path()];
  });

  it("pin every action by its commit, and say which version that is", () => {
    const texts = [
      ...workflows.map(({ text }) => text),
      ...["check", "setup"].map((name) =>
        readFileSync(join(ROOT, `.github/actions/${name}/action.yml`), "utf8"),
      ),
    ];
    const used = texts.flatMap((text) => [...text.matchAll(/^.*\buses: (.*)$/gm)]);
    assert.ok(used.length > 20);
    for (const [line, action = ""] of used) {
      assert.match(action, /^(\.\/\.github\/|[\w-]+\/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$)/, line);
    }
    const versions = new Map<string, string>();
    for (const [, action = ""] of used.filter(([, action]) => !action?.startsWith("./"))) {
      const [name = ""] = action.split("@");
      assert.equal(versions.get(name) ?? action, action, "the same everywhere");
      versions.set(name, action);
    }
  });

  it("give no job more than it needs", () => {
    for (const { name, permissions = {}, jobs } of workflows) {
      assert.deepEqual(permissions, name === "dispatch" ? {} : { contents: "read" }, name);
      for (const job of Object.values(jobs)) {
        const asked = Object.keys(job.permissions ?? {});
        const known = ["actions", "contents", "id-token", "pull-requests"];
        assert.deepEqual(
          asked.filter((key) => !known.includes(key)),
          [],
        );
        assert.equal("actions" in (job.permissions ?? {}), name === "dispatch");
      }
    }
  });

  it("stop no deployment for another", () => {
    for (const { name, jobs } of workflows) {
      for (const [job, { permissions, concurrency }] of Object.entries(jobs)) {
        if (permissions?.["contents"] !== "write") continue;
        assert.equal(concurrency?.["cancel-in-progress"], false, `${name}: ${job}`);
      }
    }
  });

  it("hold no keys", () => {
    for (const { text } of workflows) assert.doesNotMatch(text, /aws-(access|secret)/i);
  });

  it("put nothing that others write into a script", () => {
    for (const { name, jobs } of workflows) {
      for (const { run } of Object.values(jobs).flatMap(({ steps }) => steps))
        assert.doesNotMatch(run ?? "", /\$\{\{/, name);
    }
  });

  it("start on what the table has a row for, each in one of them, and on approvals", () => {
    const starting = (ref: string) => {
      const parsed = parseRef(ref) ?? assert.fail(ref);
      return workflows.filter((one) => startsOn(one, parsed)).map(({ name }) => name);
    };
    const rows = flow.rows.map((row) =>
      "tag" in row
        ? (["dispatch", `refs/tags/${exampleOf(row.tag)}`] as const)
        : ([row.build ? "build" : "promote", `refs/heads/${exampleOf(row.branch)}`] as const),
    );
    for (const [workflow, ref] of rows) assert.deepEqual(starting(ref), [workflow], ref);
    const approval = `approve/${project.name}/prod/0123456789ab/bob-example.com`;
    assert.deepEqual(starting(`refs/tags/${approval}`), ["dispatch"]);
    for (const other of [
      "heads/main",
      "tags/approve/orders/prod/0123456789ab/bob-example.com",
      `tags/outcome/${project.name}/prod/1`,
      `tags/hold/${project.name}/1`,
      `tags/reject/${project.name}/prod/1/b`,
    ])
      assert.deepEqual(starting(`refs/${other}`), [], other);
  });

  /** Runs the script of a job of `dispatch`, and gives the command that it starts a job with. */
  const dispatched = (job: string, names: Readonly<Record<string, string>>): string => {
    const folder = mkdtempSync(join(tmpdir(), "baton-dispatch-"));
    try {
      writeFileSync(join(folder, "gh"), `#!/bin/sh\n${GH}\n`, { mode: 0o755 });
      const [step] =
        named("dispatch").jobs[job]?.steps.filter(({ run }) => run !== undefined) ?? [];
      const env = {
        ...process.env,
        ...{ PATH: `${folder}${delimiter}${process.env["PATH"] ?? ""}`, GITHUB_REPOSITORY: "o/n" },
        ...{ GH_DISPATCHED: join(folder, "dispatched"), ...names },
      };
      execFileSync("bash", ["-e", "-c", step?.run ?? ""], { cwd: folder, env });
      return readFileSync(join(folder, "dispatched"), "utf8").trim().split("\n").join(" ");
    } finally {
      rmSync(folder, { recursive: true });
    }
  };

  it("start what an approval's tag asks for on the environment's protected branch", async () => {
    for (const name of path) {
      const { approval } = await project.config(name);
      const branch = protectedBranch(flow, name);
      // A pattern is no branch: `readFlow` refuses one where approvals are asked for.
      if (branch.includes("{version}")) {
        assert.equal(approval.required, 0);
        continue;
      }
      const tag = `approve/${project.name}/${name}/0123456789ab/bob-example.com`;
      assert.equal(
        dispatched("deploy", { GITHUB_REF_NAME: tag }),
        `workflow run deploy.yml --repo o/n --ref ${branch} -f environment=${name}`,
      );
    }
  });

  it("pass a version's tag on as data, to the branch that its commits are on", () => {
    const evil = "v1.0.0$(touch$IFS/tmp/x)";
    for (const row of flow.rows.filter((one) => "tag" in one)) {
      assert.equal(
        dispatched("release", { GITHUB_REF_NAME: evil }),
        `workflow run release.yml --repo o/n --ref ${row.on} -f tag=${evil}`,
      );
      assert.equal(named("release").jobs["request"]?.environment, row.promote);
    }
  });

  it("preview and compare each environment on its protected branch", () => {
    const expected = path.map((environment) => ({
      environment,
      branch: protectedBranch(flow, environment).replace("{version}", "*"),
    }));
    for (const job of ["preview", "drift"]) {
      assert.deepEqual(named("dispatch").jobs[job]?.strategy?.matrix.include, expected);
    }
  });

  it("start on nothing that the table would refuse", () => {
    for (const { name, on } of workflows) {
      const refs = [
        ...(on.push?.branches ?? []).map((pattern) => `refs/heads/${pattern}`),
        ...(on.push?.tags ?? []).map((pattern) => `refs/tags/${pattern}`),
      ].map((pattern) => pattern.replace(/(release\/|tags\/v)\*+$/, "$11.4.0").replace(/\*+/, "x"));
      for (const ref of refs.filter((one) => !one.includes("/approve/"))) {
        const row = rowFor(flow, parseRef(ref) ?? assert.fail(ref));
        assert.ok(row, `${name}: ${FLOW_FILE} has no row for ${ref}`);
      }
    }
  });

  it("know every environment", () => {
    for (const name of ["promote", "deploy", "preview", "drift"]) {
      const { options } = named(name).on.workflow_dispatch?.inputs?.["environment"] ?? {};
      assert.deepEqual(options, path, name);
    }
  });
});

describe("the Jenkinsfiles", () => {
  const text = ["Jenkinsfile", "pipelines/Jenkinsfile"]
    .map((file) => readFileSync(join(ROOT, file), "utf8"))
    .join("\n");
  const workflows = readWorkflows();
  /** Setting up a machine is each kind's own, and so is what only GitHub can do. */
  const OWN =
    /^(git fetch|sonar-scanner$|echo .*docker login|pipelines\/clusters\.sh$|npm run --silent github)/;

  /** The commands of a workflow's job, those of the repository's own actions among them. */
  const ofJob = (workflow: string, name: string): string[] => {
    const steps = workflows.find((one) => one.name === workflow)?.jobs[name]?.steps ?? [];
    return steps
      .flatMap((step) => (step.uses?.startsWith("./") ? readAction(step.uses) : [step]))
      .flatMap(({ run }) => (run === undefined || OWN.test(run) ? [] : [run]));
  };

  /** The commands of a stage, with what Jenkins knows by the names that GitHub gives it. */
  const ofStage = (stage: string): string[] => {
    const [, part = ""] = text.split(`stage('${stage}')`);
    const [body = ""] = part.split(/\bstage\('/);
    return [...body.matchAll(/\bsh(?:\(script:)? '([^']*)'/g)]
      .map(([, command = ""]) =>
        command
          .replace('"$REF"', stage === "Request" ? '"refs/tags/$TAG"' : '"$GITHUB_REF"')
          .replace('build-$BUILD"', 'build-$BUILD_NUMBER"')
          .replace("$GIT_COMMIT", "$GITHUB_SHA")
          .replace("$BUILD_URL", "$RUN"),
      )
      .filter((command) => !OWN.test(command));
  };

  it("runs what the workflows run, in their order", () => {
    assert.deepEqual(ofStage("Build"), ofJob("build", "build"));
    const byHand = (command: string) => command.includes("$ENVIRONMENT");
    const promote = [...ofJob("build", "promote"), ...ofJob("promote", "promote")];
    assert.deepEqual(ofStage("Promote"), [
      ...new Set(promote.filter((command) => !byHand(command))),
    ]);
    // Jenkins asks people itself, so it shows what they decide on.
    const isShow = (command: string) => command.includes(" show prod");
    const request = ofStage("Request");
    assert.deepEqual(
      request.filter((command) => !isShow(command)),
      ofJob("release", "request"),
    );
    assert.equal(request.filter(isShow).length, 2);
  });

  it("lets people say their word by the tool, and holds no agent meanwhile", () => {
    const approve = ["npm ci", 'npm run --silent baton -- approve prod "$PLAN"'];
    const deploy = "npm run --silent baton -- pipeline prod";
    assert.deepEqual(ofStage("Approve and deploy"), [...approve, deploy]);
    assert.equal(text.match(/^ {2}agent none$/gm)?.length, 2);
    const [, last = ""] = text.split("stage('Approve and deploy')");
    assert.doesNotMatch(last, /\bagent\b/);
    assert.ok(last.indexOf("input(") < last.indexOf("node("));
  });
});
