import * as assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, rmSync } from "node:fs";
import { hostname } from "node:os";
import { dirname, join } from "node:path";
import { deploy } from "../../cli/deploy";
import { request } from "../../cli/request";
import { isUnreadable, removeEmptyAttributes } from "../../cli/state-file";
import { ToolScene } from "../support/tool";

const DEV = "config:\n  baton:imageTag: build-1\n";
const QA = "config:\n  baton:upstream: dev\n";
const ATTRIBUTES = ".pulumi/.pulumi/stacks/baton/qa.json.attrs";
const LOCK = ".pulumi/.pulumi/locks/organization/baton/qa/5f.json";

describe("a state that Pulumi's file backend was writing", () => {
  let scene: ToolScene;
  /** A process that has ended. */
  let dead = 0;
  before(async () => {
    scene = await ToolScene.open({ dev: DEV, qa: QA });
    scene.hasDeployed("dev", "build-1", "dev-1");
    const child = spawn("true");
    await once(child, "exit");
    dead = child.pid ?? 0;
  });
  after(() => scene.remove());
  beforeEach(() => {
    for (const file of [ATTRIBUTES, LOCK]) {
      mkdirSync(join(scene.folder, dirname(file)), { recursive: true });
      rmSync(join(scene.folder, file), { force: true });
    }
    scene.pulumi("unreadable", undefined);
  });

  const isThere = () => existsSync(join(scene.folder, ATTRIBUTES));
  const attempts = () => scene.read(".pulumi/unreadable").trim().split("\n");
  const lockedBy = (pid: number, host = hostname()) => {
    scene.write(LOCK, JSON.stringify({ pid, username: "ann", hostname: host }));
  };
  const heal = (url = "file://.pulumi", stack = "qa") =>
    removeEmptyAttributes({ url, folder: scene.folder, project: "baton", stack });

  it("is read again once it is written", async () => {
    scene.hasDeployed("qa", "dev-1", "qa-1");
    scene.write(ATTRIBUTES, "");
    scene.pulumi("being-written", "{}");
    lockedBy(process.pid);
    const { pulumi, notes } = await scene.context();
    assert.equal((await pulumi.outputs("qa")).earnedTag, "qa-1");
    assert.deepEqual(attempts(), ["stack"]);
    assert.equal(scene.read(ATTRIBUTES), "{}");
    assert.deepEqual(notes, []);
    scene.pulumi("qa.json", undefined);
  });

  it("is mended by the next command where its run was killed, which says so", async () => {
    await request(await scene.context(), "qa", {});
    scene.write(ATTRIBUTES, "");
    lockedBy(dead);
    const context = await scene.context();
    assert.equal((await deploy(context, "qa", { yes: true })).outcome, "done");
    assert.equal(isThere(), false);
    const [note = "", ...others] = context.notes.filter((text) => text.includes(".attrs"));
    assert.match(note, /^qa: removed \/.*\/stacks\/baton\/qa\.json\.attrs, which a killed run/);
    assert.match(note, /`\?metadata=skip` after the backend's URL/);
    assert.deepEqual(others, []);
  });

  it("is mended by an `up`, which has not begun", async () => {
    scene.write(ATTRIBUTES, "");
    const { pulumi } = await scene.context();
    const { succeeded } = await pulumi.up("qa", scene.read("Pulumi.qa.yaml"), () => undefined);
    assert.equal(succeeded, true);
    assert.deepEqual(attempts(), ["up"]);
  });

  it("is left to the run that has the stack's lock, by the name of both files", async () => {
    scene.write(ATTRIBUTES, "");
    const pulumi = spawn("sleep", ["infinity"], { argv0: "pulumi" });
    try {
      await once(pulumi, "spawn");
      for (const [pid, host] of [
        [pulumi.pid ?? 0, hostname()],
        [dead, "elsewhere"],
      ] as const) {
        lockedBy(pid, host);
        const found = await heal();
        assert.ok(found !== undefined);
        assert.equal(found.isRemoved, false);
        const text = `/qa/5f\\.json\\) has the stack's lock\\. Once that run has ended, remove`;
        assert.match(found.said, new RegExp(`as /.*/qa\\.json\\.attrs is empty, .*${text}`));
        assert.ok(isThere());
      }
    } finally {
      pulumi.kill();
    }
  });

  it("loses no other file", async () => {
    scene.write(ATTRIBUTES, "{}");
    assert.equal(await heal(), undefined);
    scene.write(ATTRIBUTES, "");
    assert.equal(await heal("s3://.pulumi"), undefined);
    assert.equal(await heal("file://elsewhere"), undefined);
    assert.equal(await heal("file://.pulumi", "prod"), undefined);
    assert.ok(isThere());
    assert.equal((await heal(`file://${scene.folder}/.pulumi?metadata=skip`))?.isRemoved, true);
  });

  it("is told from a run that has begun, and from other failures", () => {
    assert.ok(isUnreadable("error: failed to load checkpoint: EOF"));
    assert.ok(isUnreadable("error: failed to load checkpoint: unexpected EOF\n"));
    assert.ok(!isUnreadable("Updating (qa):\nerror: failed to load checkpoint: EOF"));
    assert.ok(!isUnreadable("error: failed to load checkpoint: no such file"));
  });
});
