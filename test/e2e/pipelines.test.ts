import * as assert from "node:assert/strict";
import { execa } from "execa";
import { chmod, cp, mkdir, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { basename, delimiter, join } from "node:path";
import { parseDocument } from "yaml";
import { openRegistry, type Registry } from "../../registry/registry";
import { deleteNamespaces, kubeconfigOf } from "../../sandbox/cluster";
import { Project } from "../../sandbox/engine";
import { DR_REGISTRY, REGISTRY, ROOT, SANDBOX } from "../../sandbox/folder";
import { pushTests, targetsOf } from "../../sandbox/images";
import { latestPlan } from "../support/approve";
import { as } from "../support/person";
import { GH, Runner, type Ended } from "../support/runner";
import { onSandbox, PATIENCE, startSandbox } from "./scene";

const PREFIX = "baton-pipelines-";
const FOLDER = join(SANDBOX, "pipelines-e2e");
const REMOTE = join(FOLDER, "origin.git");

/**
 * The commands that are not run as they are, and why. With the actions in `runner.ts`, this is all
 * that stands in for something else.
 */
const COMMANDS: Readonly<Record<string, string>> = {
  // There is no Docker daemon: the sample app takes the place of what would be built.
  docker: `exec node -r ts-node/register ${ROOT}/test/support/docker.ts "$@"`,
  // Trivy is published as a binary only: the report of an image without findings.
  trivy: `exec node ${FOLDER}/trivy.js "$@"`,
  // GitHub starts a job on a branch.
  gh: GH,
  // What npm installs is there already; and what \`.ci/run\` has checked before is not checked again.
  npm: `case "$*" in
  "ci") ln -sfn ${ROOT}/node_modules node_modules ;;
  "ci --prefix app" | "run check:all" | "run test:all") echo "not run here" ;;
  "run --prefix app test:integration") test -n "$DATABASE_URL" && echo "not run here: needs PostgreSQL" ;;
  *) exec NPM "$@" ;;
esac`,
};

const TRIVY = `
const { readFileSync, writeFileSync } = require("node:fs");
const [command, ...args] = process.argv.slice(2);
const image = args.at(-1);
const { images } = JSON.parse(readFileSync(process.env.BATON_DOCKER, "utf8"));
const report = {
  SchemaVersion: 2,
  CreatedAt: new Date().toISOString(),
  ArtifactName: image,
  ArtifactType: "container_image",
  Metadata: { ImageID: images[image]?.id },
  Results: [],
};
if (command === "image") writeFileSync(args[args.indexOf("--output") + 1], JSON.stringify(report));
`;

/** The jobs that an approval's tag starts: one without rights, and one on the protected branch. */
const DEPLOY = ["dispatch deploy", "deploy deploy in prod"];
/** The jobs that a pull request starts which changes what prod is given. */
const PREVIEW = [
  ...["dispatch preview", "dispatch preview", "dispatch preview", "dispatch preview"],
  ...["preview preview", "dispatch preview"],
];
/** The jobs that a version's tag starts. */
const REQUEST = ["dispatch release", "release request in prod"];

(onSandbox ? describe : describe.skip)("the pipelines, from a push to prod and dr", () => {
  let project: Project;
  let registry: Registry;
  let runner: Runner;
  let github: Server;
  /** What GitHub was asked to make. */
  const made: { readonly path: string; readonly body: Record<string, string> }[] = [];
  const comments: { id: number; body: string; user: { login: string } }[] = [];
  const build = Math.floor(Date.now() / 1000);
  const repository = `${REGISTRY}/pipelines-${build}`;

  before(async () => {
    await startSandbox();
    await pushTests(targetsOf({}));
    await rm(FOLDER, { recursive: true, force: true });
    await rm(join(SANDBOX, "pipelines"), { recursive: true, force: true });
    await deleteNamespaces(kubeconfigOf({}), PREFIX, PATIENCE);
    project = await Project.open("pipelines", { namespacePrefix: PREFIX });
    registry = openRegistry({ kind: "oci", repository, plainHttp: true });
    await mkdir(FOLDER, { recursive: true });
    await makeRemote();
    github = await startGithub();
    const environment = { ...project.environment, ...(await standIns()) };
    runner = new Runner(
      {
        remote: REMOTE,
        folder: FOLDER,
        environment: {
          ...environment,
          GITHUB_API_URL: `http://127.0.0.1:${(github.address() as AddressInfo).port}`,
          NO_COLOR: "1",
        },
        names: {
          "vars.BATON_EMAIL": "baton@example.com",
          "vars.PULUMI_BACKEND_URL": project.environment["PULUMI_BACKEND_URL"] ?? "",
        },
      },
      build,
    );
  });
  after(async () => {
    github.closeAllConnections();
    await new Promise((resolve) => github.close(resolve));
    await deleteNamespaces(kubeconfigOf({}), PREFIX, PATIENCE);
  });

  /** This repository as it is, with the sandbox's stack files, in one commit on every branch. */
  async function makeRemote(): Promise<void> {
    const folder = join(FOLDER, "first");
    const left = ["node_modules", ".sandbox", ".git", "coverage", "reports", "dist"];
    await mkdir(folder);
    // One by one: what is copied must not hold the copy.
    for (const name of (await readdir(ROOT)).filter((one) => !left.includes(one))) {
      const filter = (path: string) => !left.includes(basename(path));
      await cp(join(ROOT, name), join(folder, name), { recursive: true, filter });
    }
    for (const file of ["Pulumi.yaml", ...project.path.map((name) => `Pulumi.${name}.yaml`)]) {
      const document = parseDocument(await readFile(join(project.folder, file), "utf8"));
      if (file === "Pulumi.yaml") {
        document.delete("main");
        document.setIn(["plugins", "providers", 0, "path"], "provider");
        document.setIn(["config", "baton:defaults", "value", "registry", "repository"], repository);
      }
      if (file === "Pulumi.dr.yaml") {
        const own = ["config", "baton:registry"];
        document.setIn([...own, "repository"], `${DR_REGISTRY}/pipelines-${build}`);
        document.setIn([...own, "replica", "mirrorOf", "repository"], repository);
      }
      if (file === "Pulumi.prod.yaml") {
        document.setIn(["config", "baton:approval"], document.createNode({ required: 2 }));
      }
      await writeFile(join(folder, file), document.toString());
    }
    const git = gitIn(folder, "ann");
    await git("init", "--quiet", "--initial-branch=main");
    await git("add", "--all");
    await git("commit", "--quiet", "-m", "Begin");
    for (const branch of ["dev", "qa"]) await git("branch", branch);
    await git("clone", "--quiet", "--bare", folder, REMOTE);
    // As GitHub and others learn of pushes.
    const hook = `#!/bin/sh\nwhile read old new ref; do echo "$ref" >> ${FOLDER}/pushed; done\n`;
    await writeFile(join(REMOTE, "hooks/post-receive"), hook, { mode: 0o755 });
  }

  async function standIns(): Promise<Record<string, string>> {
    const bin = join(FOLDER, "bin");
    await mkdir(bin);
    await writeFile(join(FOLDER, "trivy.js"), TRIVY);
    const npm = (await execa("sh", ["-c", "command -v npm"])).stdout;
    for (const [name, text] of Object.entries(COMMANDS)) {
      const body = `#!/bin/sh\n${text.replace("NPM", npm)}\n`;
      await writeFile(join(bin, name), body);
      await chmod(join(bin, name), 0o755);
    }
    const PATH = project.environment["PATH"] ?? process.env["PATH"] ?? "";
    return {
      PATH: [bin, PATH].join(delimiter),
      BATON_DOCKER: join(FOLDER, "docker.json"),
    };
  }

  async function startGithub(): Promise<Server> {
    const server = createServer((request, response) => {
      let text = "";
      request.on("data", (chunk: Buffer) => (text += chunk.toString()));
      request.on("end", () => {
        const { method = "", url: path = "" } = request;
        const body = (text === "" ? {} : JSON.parse(text)) as Record<string, string>;
        if (method !== "GET") made.push({ path, body });
        const former = comments.find(({ id }) => path.endsWith(`/issues/comments/${id}`));
        if (former !== undefined) former.body = body["body"] ?? "";
        if (method === "POST" && path.endsWith("/comments"))
          comments.push({
            id: comments.length + 1,
            body: body["body"] ?? "",
            user: { login: "github-actions[bot]" },
          });
        const isFirst = new URL(path, "http://github").searchParams.get("page") === "1";
        const answers: Record<string, unknown> = {
          comments: isFirst ? comments : [],
          pulls: method === "GET" ? [] : { html_url: "https://github.example/pull/1" },
        };
        const kind = /\/(comments|pulls)\b/.exec(path)?.[1] ?? "";
        response.end(
          JSON.stringify(
            method === "GET" || kind === "pulls" ? (answers[kind] ?? { ahead_by: 1 }) : {},
          ),
        );
      });
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return server;
  }

  const gitIn =
    (folder: string, person: string) =>
    async (...args: string[]): Promise<string> => {
      const settings = ["-c", "commit.gpgsign=false", "-c", "tag.gpgsign=false"];
      const env = as(person);
      return (await execa("git", [...settings, ...args], { cwd: folder, env })).stdout;
    };

  /** A person's own clone, as it is at the remote now, on a branch. */
  async function cloneOf(person: string, branch: string) {
    const folder = join(FOLDER, `clone-${person}`);
    await rm(folder, { recursive: true, force: true });
    await execa("git", ["clone", "--quiet", "--branch", branch, REMOTE, folder]);
    await symlink(join(ROOT, "node_modules"), join(folder, "node_modules"));
    await writeFile(join(folder, ".git/info/exclude"), "node_modules\n");
    return { folder, git: gitIn(folder, person) };
  }

  /** Pushes, and runs what each ref starts, as the remote has learned of it. */
  async function push(git: ReturnType<typeof gitIn>, ...refs: string[]): Promise<Ended[]> {
    await rm(join(FOLDER, "pushed"), { force: true });
    await git("push", "--quiet", "origin", ...refs);
    return startPushed();
  }

  async function startPushed(): Promise<Ended[]> {
    const refs = (await readFile(join(FOLDER, "pushed"), "utf8")).trim().split("\n");
    const ended: Ended[] = [];
    for (const ref of refs) ended.push(...(await runner.pushed(ref)));
    return ended;
  }

  /** Approves as a person does, on a machine of their own; gives what their tag has started. */
  async function approve(person: string): Promise<Ended[]> {
    const { folder } = await cloneOf(person, "main");
    await rm(join(FOLDER, "pushed"), { force: true });
    const plan = await latestPlan(folder, "prod");
    const command = ["-r", "ts-node/register", "cli/main.ts", "approve", "prod", plan];
    await execa("node", command, { cwd: folder, env: { ...project.environment, ...as(person) } });
    return startPushed();
  }

  const succeeded = (ended: readonly Ended[], ...jobs: string[]): string => {
    const log = ended.map((one) => one.log).join("\n");
    assert.deepEqual(
      ended.map(
        ({ workflow, job, environment, succeeded: well }) =>
          `${workflow} ${job}${environment && ` in ${environment}`}${well ? "" : " failed"}`,
      ),
      jobs,
      log,
    );
    return log;
  };
  /** The log of jobs of which the last one failed. */
  const failed = (ended: readonly Ended[]): string => {
    const log = ended.map((one) => one.log).join("\n");
    assert.deepEqual(
      ended.map((one) => one.succeeded),
      ended.map((_, index) => index < ended.length - 1),
      log,
    );
    return log;
  };

  const releaseOf = async (environment: string) =>
    (await project.outputs(environment))["release"] as
      { imageTag: string; digest: string; version?: string } | undefined;
  const digestOf = async (tag: string) => (await registry.resolve(tag)) ?? assert.fail(tag);

  it("builds what is pushed to dev, checks it before it is published, and deploys it in dev", async () => {
    const { git, folder } = await cloneOf("ann", "dev");
    await writeFile(join(folder, "app/CHANGES.md"), "One\n");
    await git("add", "--all");
    await git("commit", "--quiet", "-m", "Change the service");
    const revision = await git("rev-parse", "HEAD");
    const log = succeeded(await push(git, "dev"), "build build", "build promote in dev");
    const order = [
      "no leaks found",
      "/healthz answers",
      "/readyz answers",
      `build-${build}: pushed`,
    ];
    const found = order.map((text) => log.indexOf(text));
    assert.deepEqual(
      found,
      [...found].sort((one, other) => one - other),
      log,
    );
    assert.ok(
      found.every((index) => index >= 0),
      log,
    );
    const labels = await registry.labels(await digestOf(`dev-${build}`));
    assert.equal(labels["org.opencontainers.image.revision"], revision);
    assert.equal(labels["org.opencontainers.image.version"], String(build));
  });

  it("does the same again to no effect", async () => {
    const digest = await digestOf(`build-${build}`);
    const revision = (await registry.labels(digest))["org.opencontainers.image.revision"];
    const ended = await runner.pushed("refs/heads/dev", revision ?? assert.fail("no revision"));
    const log = succeeded(ended, "build build", "build promote in dev");
    assert.match(log, new RegExp(`build-${build}: there already, built of the same`));
    assert.match(log, new RegExp(`dev: build-${build} is deployed already`));
    assert.equal(await digestOf(`build-${build}`), digest);
  });

  it("builds nothing that holds a secret", async () => {
    const { git, folder } = await cloneOf("ann", "dev");
    await git("checkout", "--quiet", "-b", "feature/leak");
    // In two parts, or this file would be a finding itself.
    const key = ["AKIA", "Z7QX4LPM2NVK5RTD"].join("");
    await writeFile(join(folder, "app/deploy.sh"), `export AWS_ACCESS_KEY_ID=${key}\n`);
    await git("add", "--all");
    await git("commit", "--quiet", "-m", "Deploy by hand");
    const log = failed(await push(git, "feature/leak"));
    assert.match(log, /RuleID: +aws-access-token[^]*leaks found: 1/);
    assert.ok(!log.includes(key), "the log does not repeat it");
    assert.doesNotMatch(log, /image\.sh|pushed as/);
  });

  it("promotes to qa what a merge to qa contains (long)", async () => {
    const { git } = await cloneOf("ann", "qa");
    await git("merge", "--quiet", "--no-ff", "-m", "Merge dev", "origin/dev");
    succeeded(await push(git, "qa"), "promote promote in qa");
    assert.equal((await releaseOf("qa"))?.imageTag, `dev-${build}`);
  });

  it("promotes to stage what a release's branch contains (long)", async () => {
    const { git } = await cloneOf("ann", "qa");
    await git("checkout", "--quiet", "-b", "release/1.0.1");
    succeeded(await push(git, "release/1.0.1"), "promote promote in stage");
    assert.equal((await releaseOf("stage"))?.imageTag, `qa-${build}`);
  });

  it("refuses a version that is not on main, and one that nobody has verified (long)", async () => {
    const { git } = await cloneOf("ann", "dev");
    await git("tag", "-a", "-m", "Too early", "v1.0.0");
    assert.match(
      failed(await push(git, "v1.0.0")),
      /which is not on main; expected a commit of main/,
    );
    const main = await cloneOf("bob", "main");
    await main.git("tag", "-a", "-m", "Of something else", "v0.9.0");
    const log = failed(await push(main.git, "v0.9.0"));
    assert.match(
      log,
      /v0\.9\.0: \w{9} is nothing that stage has verified \(stage-\d+ is of \w{9}, which is not part of it\)/,
    );
    assert.equal(await releaseOf("prod"), undefined);
  });

  it("asks for prod when a version is tagged on main, and ends with what it waits for (long)", async () => {
    const { git } = await cloneOf("ann", "main");
    await git("merge", "--quiet", "--no-ff", "-m", "Release 1.0.1", "origin/release/1.0.1");
    assert.deepEqual(await push(git, "main"), []);
    await git("tag", "-a", "-m", "1.0.1", "v1.0.1");
    const log = succeeded(await push(git, "v1.0.1"), ...REQUEST);
    assert.match(log, /missing +prod: the request is approved by nobody; expected the word of 2/);
    assert.match(log, /prod: waiting\. The tag of the last approval starts the deployment\./);
    assert.equal(await releaseOf("prod"), undefined);
    assert.deepEqual(
      made.map(({ path, body }) => [path, body["head"], body["base"]]),
      [["/repos/team/orders/pulls", "main", "dev"]],
    );
  });

  it("waits for both approvals, and deploys prod on the second (long)", async () => {
    const first = succeeded(await approve("bob"), ...DEPLOY);
    assert.match(first, /approved by bob@example\.com only; expected .* 1 more must run/);
    assert.equal(await releaseOf("prod"), undefined);
    const second = succeeded(await approve("carol"), ...DEPLOY);
    assert.match(second, /prod: stage-\d+ is deployed and verified/);
    const release = await releaseOf("prod");
    assert.equal(release?.version, "v1.0.1");
    assert.equal(release.digest, await digestOf(`build-${build}`));
    assert.equal(await digestOf("prod-v1.0.1"), release.digest);
  });

  it("brings dr to the same digest with prod (long)", async () => {
    const release = await releaseOf("dr");
    assert.equal(release?.version, "v1.0.1");
    assert.equal(release.digest, await digestOf(`build-${build}`));
  });

  it("tells everybody at the remote, as the tool's own history has it (long)", async () => {
    const { folder } = await cloneOf("dora", "main");
    const command = ["-r", "ts-node/register", "cli/main.ts", "history", "--json"];
    const env = { ...project.environment, ...as("dora") };
    const { stdout } = await execa("node", command, { cwd: folder, env });
    const { entries } = JSON.parse(stdout) as {
      entries: { environment: string; result: string; approvedBy?: string[] }[];
    };
    assert.deepEqual(
      entries.map(({ environment, result }) => `${environment} ${result}`).reverse(),
      ["dev", "qa", "stage", "prod", "dr"].map((environment) => `${environment} deployed`),
    );
  });

  it("previews what a pull request would change, in one comment (long)", async () => {
    const { git, folder } = await cloneOf("ann", "main");
    await git("checkout", "--quiet", "-b", "louder");
    const file = join(folder, "Pulumi.prod.yaml");
    const text = await readFile(file, "utf8");
    await writeFile(file, text.replace("LOG_LEVEL: warn", "LOG_LEVEL: info"));
    await git("commit", "--quiet", "-am", "Say more");
    assert.deepEqual(await push(git, "louder"), []);
    for (let times = 0; times < 2; times += 1)
      succeeded(await runner.requested("dispatch", "louder", "main"), ...PREVIEW);
    assert.equal(comments.length, 1);
    assert.match(comments[0]?.body ?? "", /settings\.config\.LOG_LEVEL: warn → info/);
    assert.match(
      made.at(-1)?.path ?? "",
      /\/issues\/comments\/1$/,
      "the second time it is updated",
    );
  });

  it("finds no drift at night (long)", async () => {
    const ended = await runner.scheduled("dispatch");
    const log = succeeded(ended, ...project.path.flatMap(() => ["dispatch drift", "drift drift"]));
    for (const environment of project.path)
      assert.match(log, new RegExp(`${environment}: no drift`));
  });
});
