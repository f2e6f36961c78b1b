import * as assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { check } from "../../cli/check";
import { openContext, type Report } from "../../cli/context";
import { deploy } from "../../cli/deploy";
import { history } from "../../cli/history";
import { hold, unhold } from "../../cli/hold";
import { showNothing } from "../../cli/progress";
import { record } from "../../cli/record";
import { request } from "../../cli/request";
import { rollback } from "../../cli/rollback";
import { status, type EnvironmentStatus } from "../../cli/status";
import { unapproved } from "../../ledger/program-check";
import { approveLatest } from "../support/approve";
import { digestOf, ToolScene } from "../support/tool";

const QA = `config:
  baton:upstream: dev
  baton:approval: { required: 2 }
  baton:deployedBy: pulumi-deployments
`;

/** Everything but Pulumi Cloud itself: the tags that start it, and what its runs do first. */
describe("where Pulumi Deployments deploys", () => {
  let scene: ToolScene;
  let remote: string;
  let folders: string[];

  const folder = () => {
    const made = mkdtempSync(join(tmpdir(), "baton-test-"));
    folders.push(made);
    return made;
  };
  const git = (cwd: string, ...args: string[]) =>
    execFileSync("git", args, { cwd, encoding: "utf8" }).trim();
  const as = (person: string) => scene.as(person, `file://${remote}`);

  /** The scene and its remote as they are now, to be put back. */
  const keep = () => scene.keep(remote);
  let asBegun: () => void;
  let asApproved: () => void;

  before(async () => {
    folders = [];
    remote = folder();
    git(remote, "init", "--quiet", "--bare", "--initial-branch=main");
    // Each push, with the refs that it brought, on a line.
    const hook = `#!/bin/sh\nwhile read old new ref; do refs="$refs $ref"; done\necho $refs >> pushes\n`;
    writeFileSync(join(remote, "hooks/post-receive"), hook, { mode: 0o755 });
    scene = await ToolScene.open({ dev: "config:\n  baton:imageTag: build-1\n", qa: QA });
    scene.hasDeployed("dev", "build-1", "dev-1");
    as("ann");
    await request(await scene.context(), "qa", {});
    scene.git("push", "--quiet", "origin", "main");
    await say("bob");
    asBegun = keep();
    await say("carol");
    asApproved = keep();
  });
  after(async () => {
    await scene.remove();
    for (const each of folders) rmSync(each, { recursive: true });
  });

  const say = async (person: string): Promise<Report> => {
    as(person);
    return approveLatest(await scene.context(), "qa");
  };
  const go = async (): Promise<Report> => deploy(await scene.context(), "qa", { yes: true });
  const started = () => git(remote, "tag", "--list", "deploy/*").split("\n").filter(Boolean);
  const asked = () => scene.git("log", "-1", "--format=%H", "--grep=^Baton-Request: qa$");

  /** What a run checks out: the tag's commit by itself, without history or other tags. */
  const runOf = (tag: string) => {
    const checkout = folder();
    const clone = [
      "-c",
      "advice.detachedHead=false",
      "clone",
      "--quiet",
      "--depth=1",
      "--no-tags",
      "--branch",
      tag,
    ];
    git(checkout, ...clone, `file://${remote}`, ".");
    cpSync(join(scene.folder, ".pulumi"), join(checkout, ".pulumi"), { recursive: true });
    const printed: string[] = [];
    const context = openContext(checkout, {
      print: (text) => printed.push(text),
      showProgress: showNothing,
    });
    return {
      printed,
      check: async () => check(await context, "qa"),
      /** What the program says to a plain `pulumi up` there. */
      refuses: () =>
        unapproved({
          folder: checkout,
          environment: "qa",
          given: {
            "baton:defaults": `{"registry":{"kind":"oci","repository":"${scene.registry.host}/podinfo","plainHttp":true}}`,
            "baton:upstream": "dev",
            "baton:approval": '{"required":2}',
            "baton:deployedBy": "pulumi-deployments",
            "baton:imageTag": "dev-1",
            "baton:imageDigest": digestOf("dev-1"),
          },
          digest: digestOf("dev-1"),
          now: new Date(),
          running: async () => Promise.resolve(undefined),
        }),
    };
  };

  describe("approve", () => {
    beforeEach(() => asBegun());

    it("starts a run with the word that completes what is needed, on the request's commit", async () => {
      assert.deepEqual(started(), []);
      await assert.rejects(say("ann"), /whose own request for dev-1 it is/);
      assert.deepEqual(started(), []);
      const second = await say("carol");
      const [tag = "", ...others] = started();
      assert.deepEqual(others, []);
      assert.match(tag, /^deploy\/baton\/qa\/\d{8}T\d{6}\.\d{3}Z$/);
      assert.equal(second["started"], tag);
      assert.equal(second.outcome, "done");
      assert.equal(git(remote, "rev-parse", `${tag}^{commit}`), asked());
      assert.equal(git(remote, "cat-file", "-t", tag), "tag");
      assert.match(git(remote, "tag", "--list", "--format=%(taggeremail)", tag), /carol@/);
      assert.deepEqual(scene.calls("up"), []);
    });

    it("pushes that tag by itself, after all that the run reads", async () => {
      await say("carol");
      const pushes = readFileSync(join(remote, "pushes"), "utf8").trim().split("\n");
      assert.deepEqual(pushes.at(-1), `refs/tags/${started()[0] ?? ""}`);
      assert.match(pushes.at(-2) ?? "", /^refs\/tags\/approve\/baton\/qa\/\w+\/carol-/);
    });

    it("starts nothing a second time", async () => {
      for (const person of ["carol", "dave", "carol"]) await say(person);
      assert.equal(started().length, 1);
    });

    it("starts nothing that is held, and says why; the word counts all the same", async () => {
      await hold(await scene.context(), "dev-1", { reason: "wait" });
      const context = await scene.context();
      as("carol");
      const report = await approveLatest(context, "qa");
      assert.equal(report.outcome, "done");
      assert.deepEqual(report["missing"], []);
      assert.match(context.notes.join("\n"), /qa: .*held/);
      assert.deepEqual(started(), []);
      await unhold(await scene.context(), "dev-1", { reason: "fine" });
      assert.equal((await go()).outcome, "waiting");
      assert.equal(started().length, 1);
    });

    it("leaves nothing behind that could start something later, where the remote is away", async () => {
      const gone = `${remote}.gone`;
      execFileSync("mv", [remote, gone]);
      const context = await scene.context();
      as("carol");
      await approveLatest(context, "qa");
      assert.match(
        context.notes.join("\n"),
        /the tag that starts Pulumi Deployments is not pushed/,
      );
      execFileSync("mv", [gone, remote]);
      assert.deepEqual(scene.tags("deploy"), []);
      await say("dave");
      assert.equal(started().length, 1);
    });
  });

  describe("deploy", () => {
    beforeEach(() => asApproved());

    it("waits for the words that are missing, and starts nothing", async () => {
      asBegun();
      as("ann");
      const report = await go();
      assert.equal(report.outcome, "waiting");
      assert.match((report["waitsFor"] as string[]).join(), /approved by bob@example\.com/);
      assert.deepEqual(started(), []);
    });

    it("starts a run in place of running Pulumi, and once more when asked again", async () => {
      const report = await go();
      assert.equal(report.outcome, "waiting");
      assert.equal(started().length, 2);
      assert.equal(report["started"], started()[1]);
      assert.deepEqual(scene.calls("up"), []);
      assert.deepEqual(scene.results("qa"), []);
    });

    it("refuses where there is no remote to start anything at", async () => {
      scene.as("ann");
      await assert.rejects(go(), /not pushed \(the repository has no remote\)/);
    });
  });

  describe("a run", () => {
    beforeEach(() => asApproved());

    it("is let through by what is checked first and by the program, from a shallow checkout", async () => {
      const refs = git(remote, "for-each-ref");
      const run = runOf(started()[0] ?? "");
      const report = await run.check();
      assert.equal(report.outcome, "done", run.printed.join("\n"));
      assert.deepEqual(report["approvedBy"], ["bob@example.com", "carol@example.com"]);
      assert.deepEqual(await run.refuses(), []);
      assert.equal(git(remote, "for-each-ref"), refs);
      assert.equal(scene.runs("qa"), undefined);
    });

    it("ends before it begins where somebody started it without the words", async () => {
      asBegun();
      scene.git("tag", "-a", "-m", "go", "deploy/baton/qa/by-hand", asked());
      scene.git("push", "--quiet", "origin", "deploy/baton/qa/by-hand");
      const run = runOf("deploy/baton/qa/by-hand");
      const report = await run.check();
      assert.equal(report.outcome, "waiting");
      assert.match(run.printed.join("\n"), /expected the word of 2 people/);
      const [problem] = await run.refuses();
      assert.match(problem?.value ?? "", /approved by bob@example\.com/);
    });

    it("ends before it begins where somebody has held or rejected it since", async () => {
      await hold(await scene.context(), "dev-1", { reason: "wait" });
      const run = runOf(started()[0] ?? "");
      await assert.rejects(run.check(), /held/);
    });

    it("ends before it begins where it would do more than was previewed", async () => {
      const bin = join(scene.folder, ".pulumi/bin/pulumi");
      const text = readFileSync(bin, "utf8");
      writeFileSync(bin, text.replace('"op":"update"', '"op":"replace"'));
      await assert.rejects(runOf(started()[0] ?? "").check(), /no more than was approved/);
    });
  });

  describe("record", () => {
    let asDeployed: () => void;
    let asAskedAgain: () => void;
    let runs = 0;

    const note = async (options = {}): Promise<Report> =>
      record(await scene.context(), "qa", options);
    const statusOf = async (): Promise<EnvironmentStatus> => {
      const { environments } = await status(await scene.context());
      const found = (environments as EnvironmentStatus[]).find((one) => one.environment === "qa");
      assert.ok(found !== undefined);
      return found;
    };
    /** What Pulumi's history says of a run, the newest first. */
    const hasRun = (
      result: string,
      resourceChanges: Record<string, number> = { same: 3, update: 1 },
      { commit = asked(), message = "" } = {},
    ) => {
      runs += 1;
      const startTime = `2026-11-21T10:${String(runs).padStart(2, "0")}:00.000Z`;
      const environment = { "git.head": commit };
      const run = { kind: "update", startTime, message, environment, resourceChanges, result };
      const drift = { kind: "refresh", startTime: "2026-11-21T11:00:00.000Z", result: "succeeded" };
      scene.pulumi("qa.history", JSON.stringify([drift, run]));
    };
    /** As Pulumi Deployments does: no tool, and the checkout's own stack file. */
    const up = () => {
      const args = ["up", "--stack", "qa", "--config-file", "../Pulumi.qa.yaml"];
      try {
        execFileSync("pulumi", args, { cwd: scene.folder, stdio: "pipe" });
        hasRun("succeeded");
      } catch {
        hasRun("failed");
      }
    };
    const messageOf = (ref: unknown) =>
      git(remote, "tag", "--list", "--format=%(contents)", ref as string);

    before(async () => {
      asApproved();
      up();
      asDeployed = keep();
      await note();
      scene.hasDeployed("dev", "build-2", "dev-2");
      as("ann");
      await request(await scene.context(), "qa", {});
      for (const person of ["bob", "carol"]) await say(person);
      as("ann");
      asAskedAgain = keep();
    });

    it("puts a run that succeeded into the ledger as deploy would have, once", async () => {
      asDeployed();
      const former = await statusOf();
      assert.equal(former.unrecorded?.news, "succeeded");
      assert.match(
        scene.printed.at(-1) ?? "",
        /qa: the update of .* succeeded, and is not recorded:\s+`baton record qa`/,
      );
      const report = await note();
      assert.equal(report.outcome, "done");
      const message = messageOf(report["ref"]);
      for (const line of [
        "Baton-Result: deployed",
        "Baton-Tag: dev-1",
        `Baton-Digest: ${digestOf("dev-1")}`,
        `Baton-Id: ${/Baton-Id: (.*)/.exec(scene.git("log", "-1", "--format=%B", asked()))?.[1] ?? ""}`,
        "Baton-Approved-By: bob@example.com carol@example.com",
      ]) {
        assert.ok(message.includes(`${line}\n`), `${line} in ${message}`);
      }
      assert.equal(git(remote, "rev-parse", `${report["ref"] as string}^{commit}`), asked());
      assert.equal((await note()).outcome, "done");
      assert.deepEqual(scene.results("qa"), ["deployed dev-1"]);
      const now = await statusOf();
      assert.equal(now.unrecorded, undefined);
      assert.equal(now.started, undefined);
      assert.equal(now.deployedByHand, false);
      assert.equal(now.request, undefined);
      const { entries } = await history(await scene.context(), { environment: "qa" });
      assert.equal((entries as unknown[]).length, 1);
      const again = await go();
      assert.equal(again.outcome, "done");
    });

    it("is let through after another one, which its shallow checkout does not reach", async () => {
      asAskedAgain();
      const run = runOf(started().at(-1) ?? "");
      assert.equal((await run.check()).outcome, "done", run.printed.join("\n"));
    });

    it("says of a run that has not ended that it has not", async () => {
      asAskedAgain();
      const { started: tag, unrecorded } = await statusOf();
      assert.match(tag ?? "", /^deploy\/baton\/qa\//);
      assert.equal(unrecorded, undefined);
      assert.match(
        scene.printed.at(-1) ?? "",
        /dev-2: deploy\/baton\/qa\/\S+ has\s+started a\s+run\s+that\s+is\s+not\s+recorded/,
      );
      hasRun("in-progress", {});
      assert.equal((await note()).outcome, "waiting");
      assert.equal((await statusOf()).unrecorded?.news, "running");
      assert.deepEqual(scene.results("qa"), ["deployed dev-1"]);
    });

    it("records a run that failed, and names the way back", async () => {
      asAskedAgain();
      scene.pulumi("up-fails", "dev-2");
      up();
      assert.equal((await statusOf()).unrecorded?.news, "failed");
      const report = await note();
      assert.equal(report.outcome, "failed");
      assert.match(
        scene.printed.at(-1) ?? "",
        /dev-2 failed .*`baton rollback qa` goes back to dev-1/,
      );
      assert.deepEqual(scene.results("qa"), ["deployed dev-1", "failed dev-2"]);
      const { failed } = await statusOf();
      assert.equal(failed?.returningTo, "dev-1");
      assert.equal((await note()).outcome, "done");
      assert.equal((await rollback(await scene.context(), "qa", {})).outcome, "done");
      assert.equal(scene.runs("qa")?.["imageTag"], "dev-1");
    });

    it("goes back at once where it is told to, and holds what failed", async () => {
      asAskedAgain();
      scene.pulumi("up-fails", "dev-2");
      up();
      const report = await note({ goBack: true });
      assert.equal(report.outcome, "went-back");
      assert.deepEqual(scene.results("qa"), ["deployed dev-1", "failed dev-2", "went-back dev-2"]);
      assert.equal(scene.runs("qa")?.["imageTag"], "dev-1");
      assert.equal(scene.config("qa")["baton:imageTag"], "dev-2");
      assert.match(scene.printed.join("\n"), /dev-2 is held everywhere/);
    });

    it("goes back also where the remote is away and git knows no person, and records that later", async () => {
      asAskedAgain();
      scene.pulumi("up-fails", "dev-2");
      up();
      const config = scene.read(".git/config");
      scene.git("remote", "set-url", "origin", "/nowhere");
      scene.git("config", "user.useConfigOnly", "true");
      scene.git("config", "user.email", "");
      assert.equal((await note({ goBack: true })).outcome, "went-back");
      assert.equal(scene.runs("qa")?.["imageTag"], "dev-1");
      assert.deepEqual(scene.results("qa"), ["deployed dev-1"]);
      scene.write(".git/config", config);
      assert.equal((await note({ goBack: true })).outcome, "done");
      assert.deepEqual(scene.results("qa"), ["deployed dev-1", "failed dev-2", "went-back dev-2"]);
    });

    it("finishes a way back that a former one has left", async () => {
      asAskedAgain();
      scene.pulumi("up-fails", "dev-2");
      up();
      await note();
      assert.equal((await note({ goBack: true })).outcome, "went-back");
      assert.equal((await note({ goBack: true })).outcome, "done");
      assert.deepEqual(scene.results("qa"), ["deployed dev-1", "failed dev-2", "went-back dev-2"]);
    });

    it("records nothing of a run that was refused before anything was changed", async () => {
      asAskedAgain();
      hasRun("failed", { same: 12, read: 1 });
      assert.equal((await note()).outcome, "done");
      assert.equal((await statusOf()).unrecorded, undefined);
      assert.deepEqual(scene.results("qa"), ["deployed dev-1"]);
    });

    it("leaves the tool's own runs to the tool", async () => {
      asAskedAgain();
      hasRun("failed", { update: 1 }, { message: "by baton" });
      assert.equal((await note()).outcome, "done");
      assert.deepEqual(scene.results("qa"), ["deployed dev-1"]);
    });

    it("records what nobody has approved as that", async () => {
      asAskedAgain();
      for (const tag of scene.tags("approve/baton/qa")) {
        if (scene.git("rev-parse", `${tag}^{commit}`) !== asked()) continue;
        scene.git("tag", "--delete", tag);
        scene.git("push", "--quiet", "origin", `:refs/tags/${tag}`);
      }
      up();
      assert.equal((await note()).outcome, "refused");
      assert.deepEqual(scene.results("qa"), ["deployed dev-1", "unapproved dev-2"]);
      assert.equal((await note()).outcome, "done");
    });

    it("refuses what nobody has requested", async () => {
      asAskedAgain();
      scene.write("Pulumi.qa.yaml", scene.read("Pulumi.qa.yaml").replaceAll("dev-2", "dev-3"));
      up();
      await assert.rejects(note(), /of nobody's request; it deployed dev-3/);
      assert.deepEqual(scene.results("qa"), ["deployed dev-1"]);
      const all = await record(await scene.context(), undefined, {});
      assert.equal(all.outcome, "refused");
      assert.equal((all["environments"] as unknown[]).length, 1);
    });

    it("records a way back by hand", async () => {
      asAskedAgain();
      up();
      await note();
      const text = scene.read("Pulumi.qa.yaml").replaceAll("dev-2", "dev-1");
      const pinned = text.replace(digestOf("dev-2"), digestOf("dev-1"));
      scene.write("Pulumi.qa.yaml", `${pinned.trimEnd()}\n  baton:rollbackOf: dev-2\n`);
      up();
      assert.equal((await note()).outcome, "done");
      assert.deepEqual(scene.results("qa"), [
        "deployed dev-1",
        "deployed dev-2",
        "rolled-back dev-1",
      ]);
    });
  });
});
