import * as assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { FLOW_FILE, readFlow } from "../../cli/flow";
import { Project } from "../../ledger/project";
import { parseRef, rowFor, type Flow } from "../../release/flow";
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
  before(async () => {
    const project = await Project.open(ROOT);
    [flow, path] = [await readFlow(project), await project.path()];
  });

  it("pin every action by its commit, and say which version that is", () => {
    const texts = [
      ...workflows.map(({ text }) => text),
      readFileSync(join(ROOT, ".github/actions/setup/action.yml"), "utf8"),
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
    for (const { name, permissions, jobs } of workflows) {
      assert.deepEqual(permissions, { contents: "read" }, name);
      for (const job of Object.values(jobs)) {
        const asked = Object.keys(job.permissions ?? {});
        assert.deepEqual(
          asked.filter((key) => !["contents", "id-token", "pull-requests"].includes(key)),
          [],
        );
      }
    }
    // What others may have written never runs with the right to push.
    for (const name of ["preview", "drift"]) {
      for (const { permissions } of Object.values(named(name).jobs))
        assert.equal(permissions?.["contents"], "read");
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
        ? (["release", `refs/tags/${exampleOf(row.tag)}`] as const)
        : ([row.build ? "build" : "promote", `refs/heads/${exampleOf(row.branch)}`] as const),
    );
    for (const [workflow, ref] of rows) assert.deepEqual(starting(ref), [workflow], ref);
    assert.deepEqual(starting("refs/tags/approve/prod/0123456789ab/bob-example.com"), ["deploy"]);
    for (const other of [
      "heads/main",
      "tags/outcome/prod/1",
      "tags/hold/1",
      "tags/reject/prod/1/b",
    ])
      assert.deepEqual(starting(`refs/${other}`), [], other);
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
    const choices = ["promote", "deploy"].map(
      (name) => named(name).on.workflow_dispatch?.inputs?.["environment"]?.options,
    );
    const nightly = named("drift").jobs["drift"]?.strategy?.matrix["environment"];
    for (const list of [...choices, nightly]) assert.deepEqual(list, path);
  });

  it("ask for a version where the branch is that its commits are on", () => {
    const checkout = named("release").jobs["request"]?.steps[0]?.with?.["ref"];
    for (const row of flow.rows) if ("tag" in row) assert.equal(checkout, row.on);
  });
});

describe("the Jenkinsfile", () => {
  const text = readFileSync(join(ROOT, "Jenkinsfile"), "utf8");
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
          .replace(/"refs\/(heads\/\$BRANCH_NAME|tags\/\$TAG_NAME)"/, '"$GITHUB_REF"')
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
    assert.deepEqual(ofStage("Request"), ofJob("release", "request"));
  });

  it("lets people say their word by the tool, and holds no agent meanwhile", () => {
    const approve = ["npm ci", "npm run --silent baton -- approve prod"];
    const deploy = "npm run --silent baton -- deploy prod --yes";
    assert.deepEqual(ofStage("Approve and deploy"), [...approve, deploy]);
    assert.match(text, /^ {2}agent none$/m);
    const [, last = ""] = text.split("stage('Approve and deploy')");
    assert.doesNotMatch(last, /\bagent\b/);
    assert.ok(last.indexOf("input(") < last.indexOf("node {"));
  });
});
