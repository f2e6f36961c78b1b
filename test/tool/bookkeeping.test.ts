import * as assert from "node:assert/strict";
import { execa } from "execa";
import { existsSync } from "node:fs";
import { delimiter, join } from "node:path";
import { openContext, type Context, type Report } from "../../cli/context";
import { deploy } from "../../cli/deploy";
import { history } from "../../cli/history";
import { request } from "../../cli/request";
import { rollback } from "../../cli/rollback";
import { Faults, type Fault } from "../support/faults";
import { as } from "../support/person";
import { ROOT } from "../support/program";
import { ToolScene } from "../support/tool";

const DEV = "config:\n  baton:imageTag: build-1\n";
const QA = "config:\n  baton:upstream: dev\n";

/** A walk over each call that a command makes once Pulumi has begun to change the stack. */
describe("once Pulumi has touched a stack", () => {
  let scene: ToolScene;
  let faults: Faults;
  let restore: () => void;
  before(async () => {
    scene = await ToolScene.open({ dev: DEV, qa: QA });
    faults = new Faults(scene);
    for (const number of [1, 2]) {
      if (number === 2) scene.pulumi("up-fails", undefined);
      scene.hasDeployed("dev", `build-${number}`, `dev-${number}`);
      await request(await scene.context(), "qa", {});
      if (number === 1) await deploy(await scene.context(), "qa", { yes: true });
    }
    restore = scene.keep();
  });
  after(async () => {
    faults.remove();
    await scene.remove();
  });

  type Command = (context: Context) => Promise<Report>;
  const go: Command = async (context) => deploy(context, "qa", { yes: true });
  const back: Command = async (context) => rollback(context, "qa", {});
  const look: Command = async (context) => history(context, {});
  const deployed = async () => {
    assert.equal((await go(await scene.context())).outcome, "done", scene.printed.join("\n"));
  };

  /**
   * Lets each call of a kind fail in turn. The stack must run what it should in the end, the command
   * must not say that nothing moved, and the next one must record what it could not.
   */
  const walk = async (
    of: Fault["of"],
    then: Fault["then"],
    command: Command,
    expected: { outcome: Report["outcome"]; runs: string; results: readonly string[] },
    lead: () => Promise<void> = async () => {},
  ) => {
    const run = async (at: number): Promise<number> => {
      restore();
      await lead();
      scene.printed.length = 0;
      const where = () => `${of} ${at} ${then}\n${scene.printed.join("\n")}`;
      let report: Report | undefined;
      const count = await faults.during({ of, at, then }, async () => {
        report = await command(await scene.context());
      });
      assert.equal(scene.runs("qa")?.["imageTag"], expected.runs, where());
      if (at === 0) assert.equal(report?.outcome, expected.outcome, where());
      assert.ok([expected.outcome, "failed"].includes(report?.outcome ?? ""), where());
      const unsaid = report?.outcome === "failed" && !/cannot be recorded|again for/.test(where());
      assert.ok(!unsaid, where());
      await look(await scene.context());
      const left = existsSync(join(scene.folder, ".git/baton/baton/qa.unrecorded"));
      // The same command does what the next one does not know of.
      if (scene.results("qa").join() !== expected.results.join()) {
        await command(await scene.context());
      }
      assert.deepEqual(scene.results("qa"), expected.results, where());
      assert.equal(left, false, where());
      return count;
    };
    const count = await run(0);
    assert.ok(count > 2, `${count} calls`);
    for (let at = 1; at <= count; at += 1) await run(at);
  };

  const failing = async () => {
    scene.pulumi("up-fails", "dev-2");
    return Promise.resolve();
  };
  const wentBack = {
    outcome: "went-back",
    runs: "dev-1",
    results: ["deployed dev-1", "failed dev-2", "went-back dev-2"],
  } as const;
  const isDeployed = {
    outcome: "done",
    runs: "dev-2",
    results: ["deployed dev-1", "deployed dev-2"],
  } as const;
  const rolledBack = {
    outcome: "done",
    runs: "dev-1",
    results: ["deployed dev-1", "deployed dev-2", "rolled-back dev-1"],
  } as const;

  const all = process.env["WALK"] === "all";
  for (const kind of ["git", "files"] as const) {
    for (const then of ["heals", "stays"] as const) {
      const what = `${kind === "git" ? "git" : "a full disk"} that ${then}`;
      it(`no failure of ${what} keeps the former release from returning`, async () => {
        await walk(kind, then, go, wentBack, failing);
      });
      if (!all && !(kind === "git" && then === "stays")) continue;
      it(`no failure of ${what} makes a deployment look as if nothing had moved`, async () => {
        await walk(kind, then, go, isDeployed);
      });
      it(`no failure of ${what} undoes a way back, which is recorded later`, async () => {
        await walk(kind, then, back, rolledBack, deployed);
      });
    }
  }

  it("a folder of git's that is gone altogether keeps no release from returning", async () => {
    restore();
    await failing();
    process.env["MIDDLE"] = "[ -f armed ] || mv ../.git ../.git.away; : > armed";
    try {
      const report = await go(await scene.context());
      assert.equal(report.outcome, "went-back", scene.printed.join("\n"));
    } finally {
      delete process.env["MIDDLE"];
    }
    assert.equal(scene.runs("qa")?.["imageTag"], "dev-1");
    assert.match(
      scene.printed.join("\n"),
      /how dev-2 ended \(failed\) cannot be recorded: git \S+: fatal: not a git/,
    );
  });

  it("a deployment that is not recorded says so, and ends as failed", async () => {
    restore();
    const fault = { of: "git", at: 1, then: "stays" } as const;
    let report: Report | undefined;
    await faults.during(fault, async () => {
      report = await go(await scene.context());
    });
    assert.equal(report?.outcome, "failed");
    assert.match(
      scene.printed.join("\n"),
      /qa: how dev-2 ended \(deployed\) cannot be recorded: .*no space left.*the next command records it\./,
    );
    await assert.doesNotReject(look(await scene.context()));
    assert.deepEqual(scene.results("qa"), isDeployed.results);
  });

  it("nothing goes forward before all is recorded", async () => {
    restore();
    await failing();
    scene.git("init", "--quiet", "--bare", "--initial-branch=main", ".pulumi/remote.git");
    scene.git("remote", "add", "origin", "./.pulumi/remote.git");
    await faults.during({ of: "git", at: 1, then: "stays" }, async () => {
      assert.equal((await go(await scene.context())).outcome, "went-back");
    });
    scene.git("config", "user.useConfigOnly", "true");
    scene.git("config", "user.email", "");
    await assert.rejects(
      request(await scene.context(), "qa", {}),
      /git: the ledger is not complete \(qa: how dev-2 ended \(failed\) cannot be recorded: /,
    );
  });

  it("the way back waits neither for its outcome's name, nor for Slack, the clock or a reader", async () => {
    restore();
    await failing();
    process.env["MIDDLE"] = "echo '{' > ../Pulumi.qa.yaml; : > armed; : > outputs-fail";
    try {
      const context = await openContext(scene.folder, {
        print: () => {
          throw new Error("EPIPE");
        },
        showProgress: async (_, action) =>
          action(() => {
            throw new Error("EPIPE");
          }),
        now: () => new Date("1975-01-01T00:00:00Z"),
      });
      assert.equal((await go(context)).outcome, "went-back");
      await context.settle();
    } finally {
      delete process.env["MIDDLE"];
    }
    assert.equal(scene.runs("qa")?.["imageTag"], "dev-1");
    assert.deepEqual(scene.results("qa"), wentBack.results);
  });

  it("a reader that has gone ends no command half way", async () => {
    restore();
    await failing();
    const command = 'node -r ts-node/register cli/main.ts -C "$0" deploy qa --yes | true';
    const env = { ...process.env, ...as("ann"), PATH: pathOf(scene) };
    const args = ["-o", "pipefail", "-c", command, scene.folder];
    const run = await execa("bash", args, { cwd: ROOT, env, reject: false });
    assert.equal(run.exitCode, 4, run.stderr);
    assert.deepEqual(scene.results("qa"), wentBack.results);
  });

  it("a stack that is locked before is refused: nothing has moved", async () => {
    restore();
    scene.pulumi("qa.lock.1", "2026-11-21T10:00:00Z");
    await assert.rejects(go(await scene.context()), /qa: the stack is held by /);
  });

  it("a stack that is locked meanwhile leaves a failure, and the way back goes on without a remote", async () => {
    restore();
    await failing();
    const lock = "2026-11-21T10:00:00Z";
    process.env["MIDDLE"] = `[ -f armed ] || { : > armed; echo ${lock} > qa.lock.1; }`;
    try {
      const report = await go(await scene.context());
      assert.equal(report.outcome, "failed", scene.printed.join("\n"));
      assert.match(scene.printed.join("\n"), /held by [^]*Pulumi had begun by then/);
    } finally {
      delete process.env["MIDDLE"];
    }
    scene.pulumi("qa.lock.1", undefined);
    scene.git("remote", "add", "origin", "/nowhere");
    const again = await go(await scene.context());
    assert.equal(again.outcome, "went-back", scene.printed.join("\n"));
    assert.deepEqual(scene.results("qa"), wentBack.results);
  });
});

function pathOf(scene: ToolScene): string {
  return [join(scene.folder, "bin"), process.env["PATH"]].join(delimiter);
}
