import * as assert from "node:assert/strict";
import { spawn, type ChildProcess } from "node:child_process";
import { existsSync, rmSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { deploy } from "../../cli/deploy";
import { request } from "../../cli/request";
import { approveLatest, latestPlan } from "../support/approve";
import { ToolScene } from "../support/tool";
import { killsOf, printOf, stateOf, Walk, type Kill } from "../support/walk";

const DEV = "config:\n  baton:imageTag: build-1\n";
const QA = "config:\n  baton:upstream: dev\n  baton:settings: { config: { LOG_LEVEL: info } }\n";
const PERF = "config:\n  baton:upstream: dev\n";

describe("a tool that is killed", () => {
  const walk = new Walk();
  let scene: ToolScene;
  beforeEach(async () => {
    scene = await ToolScene.open({ dev: DEV, qa: QA, perf: PERF });
    scene.git("config", "gc.auto", "0");
    scene.hasDeployed("dev", "build-1", "dev-1");
  });
  afterEach(async () => scene.remove());
  after(() => walk.remove());

  const ask = async () => request(await scene.context(), "qa", {});
  const go = async () => {
    const { outcome } = await deploy(await scene.context(), "qa", { yes: true });
    assert.equal(outcome, "done", scene.printed.join("\n"));
  };
  /** Another release in dev, which can be asked for. */
  const next = async (tag: string) => {
    scene.hasDeployed("dev", tag.replace("dev", "build"), tag);
    await ask();
  };
  const share = () => {
    scene.git("init", "--quiet", "--bare", "--initial-branch=main", ".pulumi/remote.git");
    scene.git("remote", "add", "origin", "./.pulumi/remote.git");
    scene.git("push", "--quiet", "origin", "main");
  };

  /**
   * Kills a command at every moment, and runs it again: it must end as if nothing had been. What
   * several kills have left alike is carried on once.
   */
  const expectFinished = async (args: readonly string[], exitCode: number, person = "ann") => {
    const undisturbed = scene.copy();
    const run = await walk.run(undisturbed, args, person, "look");
    const { calls } = run;
    assert.equal(run.exitCode, exitCode, run.text);
    const expected = stateOf(undisturbed, "qa");
    assert.deepEqual(expected.left, []);
    assert.deepEqual(expected.remote, []);
    assert.equal(expected.status, "");
    rmSync(undisturbed.folder, { recursive: true });

    const seen = new Set<string>();
    const kills = killsOf(run);
    let carriedOn = 0;
    const check = async (kill: Kill) => {
      const copy = scene.copy();
      try {
        const killed = await walk.run(copy, args, person, kill);
        const where = `killed ${kill.when} ${calls[kill.at - 1] ?? ""} (${kill.at})`;
        // Some calls are made at the same time, in any order: there may be one less.
        if (killed.calls.length >= kill.at) assert.equal(killed.exitCode, null, where);
        const print = printOf(copy);
        if (seen.has(print)) return;
        seen.add(print);
        carriedOn += 1;
        const again = await walk.run(copy, args, person);
        assert.deepEqual(stateOf(copy, "qa"), expected, `${where}\n${again.text}`);
        assert.equal(again.exitCode, exitCode, `${where}\n${again.text}`);
        assert.doesNotMatch(again.text, /\n\s+at .*:\d+:\d+/, "no stack trace");
      } finally {
        rmSync(copy.folder, { recursive: true });
      }
    };
    const workers = Array.from({ length: availableParallelism() }, async () => {
      for (let kill = kills.shift(); kill !== undefined; kill = kills.shift()) await check(kill);
    });
    await Promise.all(workers);
    assert.ok(carriedOn > 1, "some kills leave something");
  };

  it("finishes its request", async () => {
    await expectFinished(["request", "qa"], 0);
  });

  it("finishes its approval", async () => {
    await ask();
    await expectFinished(["approve", "qa", await latestPlan(scene.folder, "qa")], 0, "bob");
  });

  it("finishes its deployment", async () => {
    await ask();
    await go();
    await next("dev-2");
    await expectFinished(["deploy", "qa", "--yes"], 0);
  });

  it("knows what ran before a first deployment (long)", async () => {
    scene.hasDeployed("qa", "dev-7", "qa-7");
    await ask();
    await expectFinished(["deploy", "qa", "--yes"], 0);
  });

  it("goes back from a deployment that failed", async () => {
    await ask();
    await go();
    await next("dev-2");
    scene.pulumi("up-fails", "dev-2");
    await expectFinished(["deploy", "qa", "--yes"], 4);
  });

  it("finishes its way back, and goes no further (long)", async () => {
    await ask();
    await go();
    for (const tag of ["dev-2", "dev-3"]) {
      await next(tag);
      await go();
    }
    await expectFinished(["rollback", "qa"], 0);
  });

  it("gives a remote its request (long)", async () => {
    share();
    await expectFinished(["request", "qa"], 0);
  });

  it("gives a remote its deployment", async () => {
    share();
    await ask();
    await approveLatest(await scene.context(), "qa");
    await expectFinished(["deploy", "qa", "--yes"], 0);
  });
});

describe("two at once", () => {
  const walk = new Walk();
  let scene: ToolScene;
  let git: ChildProcess | undefined;
  beforeEach(async () => {
    scene = await ToolScene.open({ dev: DEV, qa: QA, perf: PERF });
    scene.hasDeployed("dev", "build-1", "dev-1");
    for (const environment of ["qa", "perf"]) {
      await request(await scene.context(), environment, {});
    }
  });
  afterEach(async () => {
    git?.kill();
    await scene.remove();
  });
  after(() => walk.remove());

  const DEPLOY = ["deploy", "qa", "--yes"];
  const HELD = /qa: the stack is held by \S+ on \S+ since 20\S+ \(process \d+\)/;
  /** Two at once; first the one that did what it was asked to. */
  const deployTwice = async () => {
    const [one, other] = await Promise.all([
      walk.run(scene, DEPLOY),
      walk.run(scene, DEPLOY, "bob"),
    ]);
    return one.exitCode === 0 ? ([one, other] as const) : ([other, one] as const);
  };
  const has = async (file: string) => {
    while (!existsSync(join(scene.folder, file))) await setTimeout(50);
  };

  it("refuse each other's lock at first; then one deploys, and the other finds that out", async () => {
    scene.pulumi("lock-takes", "1");
    const [first, second] = await deployTwice();
    assert.equal(first.exitCode, 0, first.text);
    if (second.exitCode !== 0) assert.match(second.text, HELD);
    assert.deepEqual(scene.results("qa"), ["deployed dev-1"]);
    assert.deepEqual(stateOf(scene, "qa").left, []);
  });

  it("say who is at work, and since when, where that takes its time", async () => {
    scene.pulumi("up-waits", "");
    const first = walk.run(scene, DEPLOY);
    await has(".pulumi/qa.pending");
    const second = await walk.run(scene, DEPLOY, "bob");
    assert.equal(second.exitCode, 1, second.text);
    assert.match(second.text, HELD);
    scene.pulumi("up-waits", undefined);
    const { exitCode, text } = await first;
    assert.equal(exitCode, 0, text);
    assert.deepEqual(scene.results("qa"), ["deployed dev-1"]);
  });

  it("go back once", async () => {
    assert.equal((await walk.run(scene, DEPLOY)).exitCode, 0);
    for (const tag of ["dev-2", "dev-3"]) {
      scene.hasDeployed("dev", tag.replace("dev", "build"), tag);
      assert.equal((await walk.run(scene, ["promote", "qa", "--yes"])).exitCode, 0);
    }
    scene.pulumi("lock-takes", "1");
    const runs = await Promise.all([1, 2].map(() => walk.run(scene, ["rollback", "qa"])));
    for (const { exitCode, text } of runs) assert.equal(exitCode, 0, text);
    assert.deepEqual(scene.results("qa").slice(3), ["rolled-back dev-2"]);
    assert.equal(scene.runs("qa")?.["imageTag"], "dev-2");
  });

  it("do not hinder each other in two environments", async () => {
    scene.hasDeployed("dev", "build-2", "dev-2");
    scene.pulumi("up-waits", "");
    const environments = ["qa", "perf"];
    const both = environments.map(async (name) => walk.run(scene, ["promote", name, "--yes"]));
    for (const name of environments) await has(`.pulumi/${name}.pending`);
    scene.pulumi("up-waits", undefined);
    const runs = await Promise.all(both);
    for (const { exitCode, text } of runs) assert.equal(exitCode, 0, text);
    for (const name of environments) assert.deepEqual(scene.results(name), ["deployed dev-2"]);
    assert.equal(scene.git("status", "--porcelain"), "");
  });

  it("wait for a deployment that was left alone, and record it once", async () => {
    const counted = scene.copy();
    const { calls } = await walk.run(counted, DEPLOY);
    rmSync(counted.folder, { recursive: true });
    scene.pulumi("up-waits", "");
    const at = calls.findIndex((call) => call.startsWith("pulumi up")) + 1;
    const killed = await walk.run(scene, DEPLOY, "ann", { at, when: "aside" });
    assert.equal(killed.exitCode, null);
    let carriesOn: ReturnType<Walk["run"]> | undefined;
    const waiting = new Promise<void>((resolve) => {
      carriesOn = walk.run(scene, DEPLOY, "ann", undefined, (text) => {
        if (/waiting for the run that was begun at 20/.test(text)) resolve();
      });
    });
    await Promise.race([waiting, carriesOn]);
    scene.pulumi("up-waits", undefined);
    const again = await carriesOn;
    assert.ok(again !== undefined);
    assert.equal(again.exitCode, 0, again.text);
    assert.match(again.text, /waiting for the run that was begun at 20/);
    assert.deepEqual(scene.results("qa"), ["deployed dev-1"]);
    assert.deepEqual(stateOf(scene, "qa").left, []);
  });

  it("leave a lock alone while another git is at work, and remove it then", async () => {
    scene.write(".git/index.lock", "");
    git = spawn("git", ["cat-file", "--batch"], { cwd: scene.folder });
    scene.hasDeployed("dev", "build-2", "dev-2");
    const run = walk.run(scene, ["request", "qa"]);
    await setTimeout(6000);
    assert.ok(existsSync(`${scene.folder}/.git/index.lock`), "it may be that git's");
    git.stdin?.end();
    const { exitCode, text } = await run;
    assert.equal(exitCode, 0, text);
    assert.equal(scene.git("log", "-1", "--format=%s"), "Request dev-2 for qa");
  });
});
