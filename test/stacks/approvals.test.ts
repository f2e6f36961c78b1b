import * as pulumi from "@pulumi/pulumi";
import * as assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { stringify } from "yaml";
import { Ledger } from "../../ledger/ledger";
import { Project } from "../../ledger/project";
import { formatParts } from "../../release/plan";
import { ProgramHarness, type RunOptions } from "../support/program";
import { release } from "../support/releases";

const APPROVAL = { required: 1 };

describe("a plain `pulumi up` where people have to approve", () => {
  let harness: ProgramHarness;
  let folder: string;
  const { warn } = pulumi.log;
  const root = pulumi.runtime.getRootDirectory;
  let warnings: string[];
  before(async () => {
    process.env["NPM_CONFIG_USERCONFIG"] = "/dev/null";
    harness = await ProgramHarness.start();
  });
  after(async () => {
    delete process.env["NPM_CONFIG_USERCONFIG"];
    await harness.stop();
  });
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "baton-test-"));
    writeFileSync(join(folder, "Pulumi.yaml"), "name: baton\nruntime: nodejs\n");
    warnings = [];
    Object.assign(pulumi.runtime, { getRootDirectory: () => folder });
    Object.assign(pulumi.log, {
      warn: async (message: string) => {
        warnings.push(message);
        return Promise.resolve();
      },
    });
  });
  afterEach(() => {
    Object.assign(pulumi.runtime, { getRootDirectory: root });
    Object.assign(pulumi.log, { warn });
    delete process.env["BATON_BREAK_GLASS"];
    rmSync(folder, { recursive: true });
  });

  const qa = (more: Omit<RunOptions, "stack"> = {}) =>
    release(harness, "qa", {
      ...more,
      config: {
        approval: APPROVAL,
        imageDigest: digest(),
        verification: { run: ["smoke"] },
        ...more.config,
      },
    });
  const digest = () => harness.registry.push("build 45", "dev-45");
  const git = (...args: string[]) => {
    const who = ["-c", "user.name=ann", "-c", "user.email=ann@example.com"];
    execFileSync("git", [...who, ...args], { cwd: folder });
  };
  /** A repository in which what the program is given is asked for, and approved by bob. */
  const approve = async () => {
    const all = Object.entries(pulumi.runtime.allConfig()).map(([key, value]) => {
      const structured = /^[[{]/.test(value);
      return [key, structured ? (JSON.parse(value) as unknown) : value] as const;
    });
    writeFileSync(join(folder, "Pulumi.qa.yaml"), stringify({ config: Object.fromEntries(all) }));
    git("init", "--quiet", "--initial-branch=main");
    git("config", "user.name", "x");
    git("config", "user.email", "ann@example.com");
    git("add", ".");
    git("commit", "--quiet", "-m", "Begin");
    const project = await Project.open(folder);
    const { hash, parts } = await project.plan("qa", await project.read("qa"));
    const target = { tag: "dev-45", digest: digest(), version: undefined };
    const said = { hash, parts: formatParts(parts) };
    const ledger = new Ledger(project);
    const wish = { environment: "qa", file: "Pulumi.qa.yaml", target, plan: said };
    await ledger.ask([{ ...wish, hotfix: false, operations: [] }], { notes: "" });
    git("config", "user.email", "bob@example.com");
    await ledger.say((await ledger.request("qa")) ?? assert.fail("no request"), "approve");
  };

  it("is refused before any resource, and says what to do", async () => {
    const message = await harness.refusal(qa());
    assert.match(
      message,
      /^qa: the request is missing; .*`baton request qa`, or set BATON_BREAK_GLASS/,
    );
  });

  it("goes on once it is asked for and approved, and not with anything else", async () => {
    await harness.run(qa({ preview: true }));
    await approve();
    const run = await harness.run(qa());
    assert.ok(run.outputs["earnedTag"]);
    assert.ok(!("breakGlass" in run.outputs));
    const message = await harness.refusal(qa({ config: { soak: "1h" } }));
    assert.match(
      message,
      /^qa: the configuration is another one than Pulumi.qa.yaml: policy differ/,
    );
  });

  it("is never refused as a preview", async () => {
    assert.ok((await harness.run(qa({ preview: true }))).resources.length > 1);
  });

  it("goes on in an emergency, which it says in a warning and in its outputs", async () => {
    process.env["BATON_BREAK_GLASS"] = " nobody is there ";
    const run = await harness.run(qa());
    assert.equal(run.outputs["breakGlass"], "nobody is there");
    assert.ok(run.outputs["earnedTag"]);
    assert.match(
      warnings.join("\n"),
      /reason “nobody is there”, and not approved:\nqa: the request/,
    );
    await harness.run(qa({ preview: true }));
    await approve();
    assert.ok(!("breakGlass" in (await harness.run(qa())).outputs), "it was none");
  });

  it("takes no image of a suite by a tag, of which a preview warns", async () => {
    const unpinned = { config: { verification: { run: ["smoke", "regression"] } } };
    const said =
      /baton:verification\.suites\.regression\.image is podinfo-tests:1; expected an image with/;
    assert.match(await harness.refusal(qa(unpinned)), said);
    assert.deepEqual(warnings, []);
    await harness.run(qa({ ...unpinned, preview: true }));
    assert.match(warnings.join("\n"), said);
    const suites = { regression: { image: `podinfo-tests@sha256:${"a".repeat(64)}` } };
    const pinned = { config: { verification: { suites, run: ["smoke", "regression"] } } };
    assert.doesNotMatch(await harness.refusal(qa(pinned)), /image/);
  });

  it("takes no reason where an imported environment may have given it", async () => {
    process.env["BATON_BREAK_GLASS"] = "why not";
    await harness.run(qa({ preview: true }));
    await approve();
    const file = join(folder, "Pulumi.qa.yaml");
    writeFileSync(file, `environment: [team/aws]\n${readFileSync(file, "utf8")}`);
    assert.match(
      await harness.refusal(qa()),
      /environment team\/aws is not pinned; .*; BATON_BREAK_GLASS counts only where the caller of `pulumi` sets/,
    );
  });

  it("takes no empty reason", async () => {
    process.env["BATON_BREAK_GLASS"] = " ";
    assert.match(await harness.refusal(qa()), /the request is missing/);
  });

  it("is refused where the ledger cannot be read, but for an emergency", async () => {
    writeFileSync(join(folder, "Pulumi.yaml"), "a: [");
    assert.match(await harness.refusal(qa()), /^qa: the ledger is unreadable \(Pulumi.yaml: /);
    process.env["BATON_BREAK_GLASS"] = "the ledger is gone";
    assert.equal((await harness.run(qa())).outputs["breakGlass"], "the ledger is gone");
  });

  it("says nothing of approvals while anything else is wrong", async () => {
    const message = await harness.refusal(qa({ config: { imageTag: "dev-46" } }));
    assert.doesNotMatch(message, /request/);
  });
});
