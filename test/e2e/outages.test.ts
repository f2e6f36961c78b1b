import * as assert from "node:assert/strict";
import { mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Context, Report } from "../../cli/context";
import { deploy } from "../../cli/deploy";
import { hold, unhold } from "../../cli/hold";
import { request } from "../../cli/request";
import { rollback } from "../../cli/rollback";
import { approveLatest } from "../support/approve";
import { SlackServer } from "../support/slack";
import { ToolScene } from "../support/tool";

const DEV = "config:\n  baton:imageTag: build-1\n";
const QA = `config:
  baton:upstream: dev
  baton:slack: { channels: { releases: { name: releases, topic: Releases } } }
  baton:announce: { outcomes: [releases], failures: [releases] }
`;

/** One scene, on which one thing after the other is away. */
describe("an outage", () => {
  let scene: ToolScene;
  let slack: SlackServer;
  let remote: string;
  /** What is being waited for while the other tests go on. */
  let late: { context: Context; settled: Promise<void> };
  const environment = { ...process.env };

  before(async () => {
    scene = await ToolScene.open({ dev: DEV, qa: QA });
    slack = await SlackServer.start();
    slack.channels.set("releases", "C1");
    remote = mkdtempSync(join(tmpdir(), "baton-remote-"));
    scene.git("init", "--quiet", "--bare", "--initial-branch=main", remote);
    scene.git("remote", "add", "origin", remote);
    scene.git("push", "--quiet", "origin", "main");
  });
  after(async () => {
    process.env = { ...environment };
    await scene.remove();
    await slack.stop();
    rmSync(remote, { recursive: true });
  });

  type Command = (context: Context) => Promise<Report>;
  const ask: Command = async (context) => request(context, "qa", {});
  const go: Command = async (context) => deploy(context, "qa", { yes: true });
  const back: Command = async (context) => rollback(context, "qa", {});

  /** Runs a command to its end; gives its outcome and what people are told besides. */
  const run = async (command: Command) => {
    const context = await scene.context();
    const { outcome } = await command(context);
    await context.settle();
    return { outcome, notes: context.notes.join("\n") };
  };
  const done = { outcome: "done", notes: "" };
  const earn = (tag: string) => scene.hasDeployed("dev", tag.replace("dev", "build"), tag);
  /** All refs, here and at the remote, and what runs. */
  const state = () => [scene.git("for-each-ref"), scene.git("status", "--short"), scene.runs("qa")];
  const refs = (of: string) =>
    scene.git("ls-remote", of, "refs/heads/*", "refs/tags/*").replaceAll("refs/remotes/", "");
  const refused = async (command: Command, message: RegExp) => {
    const before = state();
    await assert.rejects(run(command), (error: Error) => {
      assert.match(error.message, message);
      assert.doesNotMatch(error.message, /\n/, "one problem");
      return true;
    });
    assert.deepEqual(state(), before);
  };

  it("of Slack delays no deployment", async () => {
    process.env["SLACK_TOKEN"] = slack.environment.SLACK_TOKEN;
    process.env["SLACK_API_URL"] = slack.environment.SLACK_API_URL;
    earn("dev-1");
    await run(ask);
    slack.troubles.set("*", "hang");
    const context = await scene.context();
    assert.equal((await go(context)).outcome, "done");
    assert.deepEqual(scene.results("qa"), ["deployed dev-1"]);
    late = { context, settled: context.settle() };
    // It hangs while all that follows goes on, which is silent.
    delete process.env["SLACK_TOKEN"];
  });

  it("of the registry stops requests and deployments", async () => {
    earn("dev-2");
    await run(ask);
    await run(go);
    earn("dev-3");
    await run(ask);
    scene.registry.failures = Array.from({ length: 8 }, () => 500);
    const build: Command = async (context) => request(context, "dev", { tag: "build-3" });
    await Promise.all([
      refused(go, /^qa: the registry is out of reach \(.*500.*\); expected an answer\./),
      refused(build, /500/),
    ]);
    assert.deepEqual(scene.registry.failures, []);
  });

  it("of the remote stops what goes forward, and no way back; the next command tells it", async () => {
    renameSync(remote, `${remote}.away`);
    await refused(ask, /^git: the remote is out of reach \(origin: .* not appear to be a git repo/);
    await refused(go, /^git: the remote is out of reach \(origin: /);
    scene.registry.failures = [500];
    const { outcome, notes } = await run(back);
    assert.equal(outcome, "done");
    assert.equal(scene.runs("qa")?.["imageTag"], "dev-1");
    assert.deepEqual(scene.registry.failures.splice(0), [500], "nobody asked the registry either");
    assert.match(notes, /^What others have said could not be fetched: origin: /);
    assert.match(notes, /\nKept here until the next command, as it could not be pushed: origin/);
    renameSync(`${remote}.away`, remote);
    assert.notEqual(refs(remote), refs(scene.folder));
    assert.deepEqual(await run(async (context) => approveLatest(context, "qa")), done);
    assert.equal(refs(remote), refs(scene.folder));
  });

  it("is also a remote that takes no branch: all is kept here, and others hear the tags", async () => {
    const hook = join(remote, "hooks/update");
    const words = '#!/bin/sh\ncase $1 in refs/heads/*) echo "main is protected"; exit 1;; esac\n';
    writeFileSync(hook, words, { mode: 0o755 });
    earn("dev-4");
    const asked = await run(ask);
    assert.equal(asked.outcome, "done");
    assert.match(asked.notes, /^Kept here until .*origin\/main: [^]*main is protected/);
    assert.equal((await run(go)).outcome, "done");
    const tags = (text: string) => text.split("\n").filter((line) => line.includes("refs/tags/"));
    assert.deepEqual(tags(refs(remote)), tags(refs(scene.folder)));
    // Some remotes then take nothing at all of the same push.
    rmSync(hook);
    const strict =
      "#!/bin/sh\nwhile read old new ref; do case $ref in refs/heads/*) exit 1;; esac; done\n";
    writeFileSync(join(remote, "hooks/pre-receive"), strict, { mode: 0o755 });
    assert.match(
      (await run(async (context) => approveLatest(context, "qa"))).notes,
      /^Kept here until/,
    );
    assert.deepEqual(tags(refs(remote)), tags(refs(scene.folder)));
    rmSync(join(remote, "hooks/pre-receive"));
    assert.deepEqual(await run(go), done);
    assert.equal(refs(remote), refs(scene.folder));
  });

  it("is also an entry that somebody has moved at the remote, which is named", async () => {
    const [first = "", second = ""] = scene.tags("outcome/baton/qa");
    const object = scene.git("rev-parse", `refs/tags/${first}`);
    scene.git("--git-dir", remote, "update-ref", `refs/tags/${first}`, `refs/tags/${second}`);
    earn("dev-5");
    await refused(ask, new RegExp(`^origin: ${first} is another one there than here`));
    const { outcome, notes } = await run(back);
    assert.equal(outcome, "done", "the way back is open");
    assert.match(notes, new RegExp(`${first} is another one there`));
    scene.git("--git-dir", remote, "update-ref", `refs/tags/${first}`, object);
  });

  it("of the clock changes no order", async () => {
    earn("dev-8");
    for (const act of [hold, unhold]) {
      await run(async (context) => act(context, "dev-8", { reason: "because" }));
    }
    // By less than what lies ahead may differ: an entry further ahead lets nothing go forward.
    scene.now = new Date(Date.now() - 300_000);
    const dates = ["GIT_COMMITTER_DATE", "GIT_AUTHOR_DATE"] as const;
    for (const name of dates) process.env[name] = scene.now.toISOString();
    assert.deepEqual(await run(ask), done);
    assert.match(scene.printed.join("\n"), /qa: .* → dev-8/, "the card is of the latest request");
    assert.deepEqual(await run(go), done);
    assert.equal(scene.results("qa").at(-1), "deployed dev-8", "the newest is the last one made");
    // What goes back after an unhold is held again, though its time is older.
    assert.deepEqual(await run(back), done);
    assert.deepEqual(await run(ask), done);
    await assert.rejects(run(go), /dev-8 is held by .* \(qa went back\)/);
    process.env = { ...environment, PATH: process.env["PATH"] };
    scene.now = undefined;
  });

  it("of Slack is noted in the end", async () => {
    await late.settled;
    assert.match(late.context.notes.join("\n"), /#releases was not told that .*no answer within/);
    slack.troubles.set("*", { status: 500 });
  });
});
