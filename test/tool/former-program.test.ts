import * as assert from "node:assert/strict";
import { existsSync, mkdirSync, readdirSync, realpathSync } from "node:fs";
import { join } from "node:path";
import { deploy } from "../../cli/deploy";
import { request } from "../../cli/request";
import { rollback } from "../../cli/rollback";
import { STATE_LAYOUT } from "../../release/state-layout";
import { ToolScene } from "../support/tool";

const DEV = "config:\n  baton:imageTag: build-1\n";
const QA = `config:
  baton:upstream: dev
  baton:settings: { config: { LOG_LEVEL: info } }
  baton:PASSWORD: { secure: v1:first }
`;

describe("a way back over a change of the program", () => {
  let scene: ToolScene;
  beforeEach(async () => {
    scene = await ToolScene.open({ dev: DEV, qa: QA });
    scene.pulumi("layout", String(STATE_LAYOUT));
    scene.write("index.ts", "export = 1;\n");
    commit("The first program");
    await release("dev-1");
  });
  afterEach(async () => scene.remove());

  const commit = (subject: string) => {
    scene.git("add", ".");
    scene.git("commit", "--quiet", "-m", subject);
  };
  const release = async (tag: string) => {
    scene.hasDeployed("dev", tag.replace("dev", "build"), tag);
    await request(await scene.context(), "qa", {});
    return deploy(await scene.context(), "qa", { yes: true });
  };
  /** What the stack was deployed with last, and under which settings. */
  const last = () => ({
    program: /export = (\d)/.exec(scene.programs().at(-1) ?? "")?.[1],
    defaults: /team: (\w+)/.exec(scene.programs().at(-1) ?? "")?.[1],
    config: scene.calls("up").at(-1) ?? {},
  });
  const said = () => scene.printed.join("\n");
  const setDefaults = (team: string) => {
    const text = scene.read("Pulumi.yaml").replace(/\n  baton:owner:[^]*/, "");
    scene.write("Pulumi.yaml", `${text.trimEnd()}\n  baton:owner: { value: { team: ${team} } }\n`);
  };
  /** The second program, with other defaults, settings and secrets. */
  const second = async () => {
    scene.write("index.ts", "export = 2;\n");
    setDefaults("second");
    const text = scene.read("Pulumi.qa.yaml");
    scene.write("Pulumi.qa.yaml", text.replace("info", "debug").replace("v1:first", "v1:second"));
    commit("The second program");
    return release("dev-2");
  };
  const isBack = (program: string) => {
    assert.equal(scene.runs("qa")?.["imageTag"], "dev-1", said());
    assert.equal(last().program, program, said());
    const { config } = last();
    assert.deepEqual(config["baton:settings"], { config: { LOG_LEVEL: "info" } });
    assert.deepEqual(config["baton:PASSWORD"], { secure: "v1:second" }, "secrets are the present");
    const left = readdirSync(join(scene.folder, ".git/baton"));
    assert.deepEqual(
      left.filter((name) => name.includes("program")),
      [],
    );
    assert.equal(scene.git("worktree", "list").split("\n").length, 1);
    assert.equal(scene.git("status", "--porcelain"), "");
  };

  it("runs the program, the defaults and the settings that were approved for the release", async () => {
    await second();
    assert.equal((await rollback(await scene.context(), "qa", {})).outcome, "done", said());
    isBack("1");
    assert.equal(last().defaults, undefined, "the first release had none");
    assert.match(said(), /qa: dev-1 goes back with its own program \([0-9a-f]{9}\)\./);
  });

  it("does so at once where a release has failed", async () => {
    scene.pulumi("up-fails", "dev-2");
    assert.equal((await second()).outcome, "went-back", said());
    isBack("1");
  });

  it("is the present program where that has not changed, with the defaults of then", async () => {
    setDefaults("second");
    commit("Other defaults");
    await release("dev-2");
    setDefaults("third");
    commit("Other defaults again");
    await release("dev-3");
    await rollback(await scene.context(), "qa", {});
    assert.equal(last().program, "1");
    assert.deepEqual(last().config["baton:owner"], { team: "second" });
    assert.equal(scene.config("qa")["baton:owner"], undefined, "the stack file stays as it was");
    assert.doesNotMatch(said(), /program/);
  });

  for (const [layout, number] of [
    [String(STATE_LAYOUT + 1), String(STATE_LAYOUT + 1)],
    [undefined, "not known"],
  ] as const) {
    it(`is the present program where the layout of the state is ${number}`, async () => {
      scene.pulumi("layout", layout);
      await second();
      assert.equal((await rollback(await scene.context(), "qa", {})).outcome, "done", said());
      isBack("2");
      const numbers = `is ${STATE_LAYOUT}, the stack's is ${number}, and the present one ${STATE_LAYOUT}`;
      const why = `its program's state layout ${numbers}`;
      assert.match(said(), new RegExp(`qa: the present program goes back to dev-1: ${why}\\.`));
    });
  }

  it("is the present program for a release that says no layout", async () => {
    await second();
    const [first = ""] = scene.tags("outcome/baton/qa");
    const message = scene.git("tag", "--list", "--format=%(contents)", first);
    const on = scene.git("rev-parse", `${first}^{commit}`);
    scene.git("tag", "-d", first);
    scene.git("tag", "-a", "-m", message.replace(/Baton-Layout: .*\n/, ""), first, on);
    await rollback(await scene.context(), "qa", {});
    isBack("2");
    assert.match(said(), /its program's state layout is not known/);
  });

  it("is the present program where the former one is refused before anything is changed", async () => {
    await second();
    scene.pulumi("program-refused", "export = 1\n");
    assert.equal((await rollback(await scene.context(), "qa", {})).outcome, "done", said());
    isBack("2");
    assert.match(said(), /goes back to dev-1: its own was refused \(no plugin for export = 1;\)\./);
  });

  it("is the present program where the commit has another one than was approved", async () => {
    scene.write("index.ts", "export = 5;\n");
    await release("dev-3");
    scene.git("checkout", "index.ts");
    await second();
    await rollback(await scene.context(), "qa", {});
    assert.equal(scene.runs("qa")?.["imageTag"], "dev-3", said());
    assert.equal(last().program, "2");
    assert.match(said(), /goes back to dev-3: its commit [0-9a-f]{9} has another program than was/);
  });

  it("is the present program where the outcome is on a commit that is not in the history", async () => {
    await second();
    const [first = ""] = scene.tags("outcome/baton/qa");
    const message = scene.git("tag", "--list", "--format=%(contents)", first);
    scene.write("index.ts", "export = 9;\n");
    scene.git("add", "index.ts");
    const elsewhere = scene.git("commit-tree", "-m", "Not reviewed", scene.git("write-tree"));
    scene.git("reset", "--quiet", "--hard");
    scene.git("tag", "-d", first);
    scene.git("tag", "-a", "-m", message.replace(/Baton-Id: .*\n/, ""), first, elsewhere);
    await rollback(await scene.context(), "qa", {});
    assert.equal(scene.runs("qa")?.["imageTag"], "dev-1", said());
    assert.equal(last().program, "2");
  });

  it("is the present program where no worktree can be made", async () => {
    await second();
    scene.write(".git/worktrees", "no folder\n");
    await rollback(await scene.context(), "qa", {});
    assert.equal(scene.runs("qa")?.["imageTag"], "dev-1", said());
    assert.equal(last().program, "2");
    assert.match(said(), /the present program goes back to dev-1: git worktree: /);
  });

  describe("with packages", () => {
    const lock = (version: string) =>
      JSON.stringify({
        name: "scene",
        lockfileVersion: 3,
        packages: {
          "": { name: "scene" },
          "node_modules/own": { resolved: "sdks/own", link: true },
          "node_modules/other": { version, resolved: "http://127.0.0.1:1/other.tgz" },
        },
      });
    beforeEach(async () => {
      for (const folder of ["node_modules", "sdks", "sdks/own", "sdks/own/bin"]) {
        mkdirSync(join(scene.folder, folder));
      }
      scene.write(".gitignore", ".pulumi\nbin\nnode_modules\n");
      scene.write("sdks/own/index.ts", "export {};\n");
      scene.write("sdks/own/bin/index.js", "// built\n");
      scene.write("package-lock.json", lock("1.0.0"));
      commit("Packages");
      await release("dev-4");
      scene.hasDeployed("dev", "build-5", "dev-5");
    });

    it("has those that are here, without an installation, where the lockfile is the same", async () => {
      scene.write("index.ts", "export = 2;\n");
      commit("The second program");
      await release("dev-5");
      process.env["MIDDLE"] =
        'readlink "$from/node_modules" > packages; cat "$from"/sdks/own/bin/* >> packages';
      try {
        await rollback(await scene.context(), "qa", {});
      } finally {
        delete process.env["MIDDLE"];
      }
      assert.equal(last().program, "1", said());
      const [folder, built] = scene.read(".pulumi/packages").split("\n");
      assert.equal(realpathSync(folder ?? ""), realpathSync(join(scene.folder, "node_modules")));
      assert.equal(built, "// built");
      assert.ok(existsSync(join(scene.folder, "sdks/own/bin/index.js")));
    });

    it("is the present program where they cannot be had any more", async () => {
      scene.write("package-lock.json", lock("2.0.0"));
      scene.write("index.ts", "export = 2;\n");
      commit("The second program");
      await release("dev-5");
      await rollback(await scene.context(), "qa", {});
      assert.equal(scene.runs("qa")?.["imageTag"], "dev-4", said());
      assert.equal(last().program, "2");
      assert.match(said(), /goes back to dev-4: its packages cannot be had \(npm ci: /);
    });
  });
});
