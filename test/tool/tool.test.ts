import * as assert from "node:assert/strict";
import { reject } from "../../cli/approve";
import { deploy } from "../../cli/deploy";
import { unhold } from "../../cli/hold";
import { request } from "../../cli/request";
import { rollback } from "../../cli/rollback";
import { status } from "../../cli/status";
import { approveLatest } from "../support/approve";
import { digestOf, ToolScene } from "../support/tool";
import type { Report } from "../../cli/context";

const DEV = "config:\n  baton:imageTag: build-1\n";
const QA = `# qa
config:
  baton:upstream: dev
  baton:settings: { config: { LOG_LEVEL: info } } # quiet
`;
const STAGE = `config:
  baton:upstream: qa
  baton:versioned: true
  baton:approval: { required: 1 }
`;

describe("the tool", () => {
  let scene: ToolScene;
  let begun: () => void;
  /** As qa is once dev-1 is asked for. */
  let asked: () => Promise<void>;
  /** As qa is with dev-1, and then with dev-2. */
  let carried: () => Promise<void>;
  let carriedOn: () => Promise<void>;
  before(async () => {
    scene = await ToolScene.open({ dev: DEV, qa: QA, stage: STAGE });
    scene.hasDeployed("dev", "build-1", "dev-1");
    begun = scene.keep();
    asked = scene.once(() => ask("qa"));
    carried = scene.once(() => carry("qa", "dev-1"));
    carriedOn = scene.once(async () => {
      await carried();
      await carry("qa", "dev-2");
    });
  });
  beforeEach(() => begun());
  after(async () => scene.remove());

  const ask = async (environment: string, options = {}) =>
    request(await scene.context(), environment, options);
  const go = async (environment: string) =>
    deploy(await scene.context(), environment, { yes: true });
  const back = async (environment: string, to?: string) =>
    rollback(await scene.context(), environment, to === undefined ? {} : { to });
  /** What is made of a request that the gate lets through. */
  const outcome = async (report: Promise<Report>) => (await report).outcome;
  const last = () => scene.printed.at(-1) ?? "";
  /** Carries a build into an environment. */
  const carry = async (environment: string, tag: string, upstream = "dev") => {
    scene.hasDeployed(upstream, tag.replace(/^[a-z]+/, "build"), tag);
    await ask(environment);
    assert.equal(await outcome(go(environment)), "done", scene.printed.join("\n"));
  };

  describe("request", () => {
    it("copies the upstream's earned tag and digest, and commits them", async () => {
      await ask("qa");
      assert.equal(
        scene.read("Pulumi.qa.yaml"),
        `${QA}  baton:imageTag: dev-1\n  baton:imageDigest: ${digestOf("build-1")}\n`,
      );
      assert.equal(scene.git("status", "--short"), "");
      const message = scene.git("log", "-1", "--format=%B");
      assert.match(
        message,
        /^Request dev-1 for qa\n\nBaton-Request: qa\nBaton-Project: baton\nBaton-Id: .*\nBaton-Tag: dev-1\n/,
      );
      assert.match(message, /\nBaton-Plan: [0-9a-f]{64}\n/);
      assert.match(scene.printed[0] ?? "", /^qa: nothing → dev-1\n[^]*update +1 kubernetes:apps/);
    });

    it("is made once, however often it is asked for", async () => {
      await asked();
      const commit = scene.git("rev-parse", "HEAD");
      await ask("qa");
      assert.equal(scene.git("rev-parse", "HEAD"), commit);
    });

    it("is finished by the next one when it was killed before its commit", async () => {
      await asked();
      scene.git("reset", "--soft", "--quiet", "HEAD~1");
      await ask("qa");
      assert.match(scene.git("log", "-1", "--format=%s"), /Request dev-1 for qa/);
      assert.equal(scene.git("status", "--short"), "");
    });

    it("writes nothing when the preview fails", async () => {
      scene.pulumi("preview-fails", "qa: baton:quota is too small");
      const commit = scene.git("rev-parse", "HEAD");
      await assert.rejects(ask("qa"), { message: "qa: baton:quota is too small" });
      assert.equal(scene.read("Pulumi.qa.yaml"), QA);
      assert.equal(scene.git("rev-parse", "HEAD"), commit);
    });

    it("is refused for what the upstream has not earned", async () => {
      await assert.rejects(ask("stage", { version: "v1.0.0" }), /qa's earnedTag is not set/);
      await assert.rejects(ask("qa", { tag: "build-1" }), /expected a tag that dev has earned/);
      await assert.rejects(ask("dev"), /dev: --tag is not set; expected a build's tag/);
      await assert.rejects(ask("perf"), /perf: Pulumi.perf.yaml is missing.*dev, qa, stage/);
      await assert.rejects(ask("dev", { tag: "build-99" }), /a tag that exists in the registry/);
    });

    it("asks for a version where releases have one", async () => {
      scene.hasDeployed("qa", "dev-1", "qa-1");
      await assert.rejects(ask("stage"), /version is not set.*name it with --version/);
      await ask("stage", { version: "v1.0.0" });
      assert.equal(scene.config("stage")["baton:version"], "v1.0.0");
    });
  });

  describe("deploy", () => {
    it("deploys what was requested, and records it once", async () => {
      await asked();
      assert.equal(await outcome(go("qa")), "done");
      assert.equal(scene.runs("qa")?.["imageTag"], "dev-1");
      assert.equal(await outcome(go("qa")), "done");
      assert.match(last(), /deployed already/);
      assert.deepEqual(scene.results("qa"), ["deployed dev-1"]);
      assert.equal(scene.calls("up").length, 1);
    });

    it("needs a request", async () => {
      await assert.rejects(go("qa"), /qa: the request is missing/);
    });

    it("refuses another plan than the requested one, and says what moved", async () => {
      await asked();
      const requested = scene.read("Pulumi.qa.yaml");
      const files = {
        settings: ["Pulumi.qa.yaml", requested.replace("info", "debug")],
        digest: ["Pulumi.qa.yaml", requested.replace(digestOf("build-1"), digestOf("build-2"))],
        tag: ["Pulumi.qa.yaml", requested.replace("dev-1", "dev-2")],
        policy: ["Pulumi.qa.yaml", `${requested}  baton:approval: { required: 1 }\n`],
        lockfile: ["package-lock.json", "[]\n"],
        program: ["index.ts", "export const changed = true;\n"],
      } as const;
      for (const [part, [file, text]] of Object.entries(files)) {
        const former = scene.read(file);
        scene.write(file, text);
        await assert.rejects(go("qa"), new RegExp(`another one: ${part} moved`));
        scene.write(file, former);
      }
      scene.write("Pulumi.dev.yaml", `${DEV}  baton:settings: { config: { A: 1 } }\n`);
      scene.git("commit", "--quiet", "-am", "Another environment");
      assert.equal(
        await outcome(go("qa")),
        "done",
        "another environment's file is no part of the plan",
      );
    });

    it("waits for the approvals that the policy asks for", async () => {
      scene.hasDeployed("qa", "dev-1", "qa-1");
      await ask("stage", { version: "v1.0.0" });
      assert.match(scene.printed[0] ?? "", /missing +stage: the request is approved by nobody/);
      assert.match(scene.printed[0] ?? "", /\n {2}approve {3}baton approve stage [0-9a-f]{12}$/);
      await assert.rejects(
        approveLatest(await scene.context(), "stage"),
        /^Refusal: stage: the word is of ann@example.com, whose own request for qa-1 it is/,
      );
      assert.deepEqual(scene.tags("approve"), []);
      assert.equal(await outcome(go("stage")), "waiting");
      assert.match(last(), /approved by nobody/);
      scene.as("bob");
      await approveLatest(await scene.context(), "stage");
      assert.match(last(), /Go on with `baton deploy stage`/);
      assert.equal(await outcome(go("stage")), "done");
    });

    it("is held by a rejection until it is asked for anew", async () => {
      await asked();
      await reject(await scene.context(), "qa", { reason: "not today" });
      await assert.rejects(go("qa"), /rejected by ann@example.com \(not today\)/);
      await ask("qa");
      assert.equal(await outcome(go("qa")), "done");
    });

    it("is held to the policy that was deployed last, not to the one it brings", async () => {
      scene.hasDeployed("qa", "dev-1", "qa-1");
      await ask("stage", { version: "v1.0.0" });
      scene.as("bob");
      await approveLatest(await scene.context(), "stage");
      await go("stage");

      scene.write(
        "Pulumi.stage.yaml",
        scene.read("Pulumi.stage.yaml").replace("required: 1", "required: 0"),
      );
      scene.hasDeployed("qa", "dev-2", "qa-2");
      await ask("stage", { version: "v2.0.0" });
      assert.equal(await outcome(go("stage")), "waiting");
      assert.match(last(), /expected the word of 1 person/);
      // Nor by way of going back, which nobody approves.
      await rollback(await scene.context(), "stage", { to: "qa-1" });
      await ask("stage", { version: "v2.0.0" });
      assert.equal(await outcome(go("stage")), "waiting");
      assert.match(last(), /expected the word of 1 person/);
    });

    it("goes back at once when it fails, settings included", async () => {
      await carried();
      const text = scene.read("Pulumi.qa.yaml").replace("info", "debug");
      scene.write("Pulumi.qa.yaml", `${text}  baton:approval: { required: 0 }\n`);
      scene.hasDeployed("dev", "build-2", "dev-2");
      await ask("qa");
      const requested = scene.read("Pulumi.qa.yaml");
      scene.pulumi("up-fails", "dev-2");
      assert.notEqual(await outcome(go("qa")), "done");
      assert.match(scene.printed.join("\n"), /ImagePullBackOff/);
      assert.match(scene.printed.join("\n"), /dev-2 failed; dev-1 runs again/);
      assert.match(last(), /dev-2 is held everywhere/);
      const results = ["deployed dev-1", "failed dev-2", "went-back dev-2"];
      assert.deepEqual(scene.results("qa"), results);
      assert.equal(scene.runs("qa")?.["rollbackOf"], "dev-2");
      const config = scene.calls("up").at(-1) ?? {};
      assert.equal(config["baton:imageDigest"], digestOf("build-1"));
      assert.deepEqual(config["baton:settings"], { config: { LOG_LEVEL: "info" } });
      assert.deepEqual(config["baton:approval"], { required: 0 }, "the policy stays");
      assert.equal(scene.read("Pulumi.qa.yaml"), requested, "the stack file still asks for it");
    });

    it("touches nothing more when it was refused before anything changed", async () => {
      await carried();
      scene.hasDeployed("dev", "build-2", "dev-2");
      await ask("qa");
      scene.pulumi("up-refused", "the stack is currently locked by 1 lock(s)");
      assert.notEqual(await outcome(go("qa")), "done");
      assert.match(scene.printed.join("\n"), /currently locked/);
      assert.match(last(), /refused before anything was changed/);
      assert.equal(scene.calls("up").length, 2);
      scene.pulumi("up-refused", undefined);
      assert.equal(await outcome(go("qa")), "done", "the same command again");
    });

    it("says so when the way back fails too, and rollback goes on from there", async () => {
      await carried();
      scene.hasDeployed("dev", "build-2", "dev-2");
      await ask("qa");
      scene.pulumi("up-fails", "dev-1\ndev-2");
      assert.notEqual(await outcome(go("qa")), "done");
      assert.match(last(), /dev-2 failed, and so did the way back to dev-1/);
      scene.pulumi("up-fails", undefined);
      assert.equal(await outcome(back("qa")), "done");
      assert.deepEqual(scene.config("qa")["baton:imageTag"], "dev-1");
      assert.deepEqual(scene.config("qa")["baton:rollbackOf"], "dev-2");
      assert.deepEqual(scene.results("qa"), [
        "deployed dev-1",
        "failed dev-2",
        "rolled-back dev-1",
      ]);
    });

    it("fails plainly where there is nothing to go back to", async () => {
      await asked();
      scene.pulumi("up-fails", "dev-1");
      assert.notEqual(await outcome(go("qa")), "done");
      assert.match(last(), /dev-1 failed, and there is no former release/);
    });
  });

  describe("rollback", () => {
    it("is recorded once, where two have gone the same way", async () => {
      await carriedOn();
      const context = await scene.context();
      const up = context.pulumi.up.bind(context.pulumi);
      // The other one comes as soon as this one lets go of the stack.
      context.pulumi.up = async (...args) => {
        const result = await up(...args);
        assert.equal(await outcome(back("qa")), "done");
        return result;
      };
      assert.equal(await outcome(rollback(context, "qa", {})), "done");
      assert.deepEqual(scene.results("qa").slice(1), ["deployed dev-2", "rolled-back dev-1"]);
    });

    it("goes to the former release, and commits it", async () => {
      await carriedOn();
      assert.equal(await outcome(back("qa")), "done");
      assert.deepEqual(scene.runs("qa"), {
        imageTag: "dev-1",
        digest: digestOf("build-1"),
        rollbackOf: "dev-2",
        earnedTag: "qa-1",
      });
      assert.equal(scene.git("status", "--short"), "");
      assert.match(scene.git("log", "-1", "--format=%s"), /Roll qa back from dev-2 to dev-1/);
      assert.match(scene.printed.at(-2) ?? "", /dev-1 runs again; dev-2 was left/);
      assert.match(scene.read("Pulumi.qa.yaml"), /# quiet/);
    });

    it("is undone by a new request, which needs new words", async () => {
      await carriedOn();
      await back("qa");
      await assert.rejects(go("qa"), /another one: tag, digest moved/);
      await ask("qa");
      await assert.rejects(go("qa"), /dev-2 is held by .* \(qa went back\)/);
      await unhold(await scene.context(), "dev-2", { reason: "the database was full" });
      assert.equal(scene.config("qa")["baton:rollbackOf"], undefined);
      assert.equal(await outcome(go("qa")), "done");
      assert.equal(scene.runs("qa")?.["imageTag"], "dev-2");
    });

    it("goes further back the second time, or where it is told", async () => {
      await carriedOn();
      await carry("qa", "dev-3");
      await back("qa");
      await back("qa");
      assert.equal(scene.runs("qa")?.["imageTag"], "dev-1");
      await back("qa", "dev-2");
      assert.equal(scene.runs("qa")?.["imageTag"], "dev-2");
      await assert.rejects(back("qa", "dev-9"), /--to is dev-9; expected a release.*dev-3, dev-2/);
    });

    it("is refused where nothing was deployed before", async () => {
      await carried();
      await assert.rejects(back("qa"), /the former release is missing/);
    });

    it("goes to what had been deployed by hand before the tool", async () => {
      scene.hasDeployed("qa", "dev-7", "qa-7");
      await carry("qa", "dev-8");
      assert.equal(await outcome(back("qa")), "done");
      assert.equal(scene.runs("qa")?.["imageTag"], "dev-7");
      assert.equal(scene.config("qa")["baton:rollbackOf"], "dev-8");
    });

    it("is finished by the same command when it was killed before its commit", async () => {
      await carriedOn();
      const [file, commit] = [scene.read("Pulumi.qa.yaml"), scene.git("rev-parse", "HEAD")];
      await back("qa");
      // As if the tool had been killed right after Pulumi was done.
      for (const tag of scene.tags("outcome/baton/qa").slice(2)) scene.git("tag", "--delete", tag);
      scene.git("reset", "--hard", "--quiet", commit);
      assert.equal(scene.read("Pulumi.qa.yaml"), file);
      await back("qa");
      assert.equal(scene.config("qa")["baton:imageTag"], "dev-1");
      assert.deepEqual(scene.results("qa").slice(2), ["rolled-back dev-1"]);
    });

    it("loses nothing that was not committed", async () => {
      await carriedOn();
      const edited = `${scene.read("Pulumi.qa.yaml")}  baton:quota: { pods: 5 }\n`;
      scene.write("Pulumi.qa.yaml", edited);
      await back("qa");
      assert.equal(scene.config("qa")["baton:quota"], undefined);
      assert.equal(scene.read("Pulumi.qa.yaml.orig"), edited);
    });

    it("leaves the stack file alone when it fails", async () => {
      await carriedOn();
      const file = scene.read("Pulumi.qa.yaml");
      scene.pulumi("up-fails", "dev-1");
      assert.equal(await outcome(back("qa")), "failed");
      assert.equal(scene.read("Pulumi.qa.yaml"), file);
    });
  });

  describe("status", () => {
    it("says what runs, what is asked for and what could move", async () => {
      await carried();
      scene.hasDeployed("dev", "build-2", "dev-2");
      const { environments } = (await status(await scene.context())) as unknown as {
        environments: Record<string, unknown>[];
      };
      assert.deepEqual(
        environments.map(({ environment, earnedTag, asksFor, couldTake }) => [
          environment,
          earnedTag,
          asksFor,
          couldTake,
        ]),
        [
          ["dev", "dev-2", "build-1", undefined],
          ["qa", "qa-1", "dev-1", "dev-2"],
          ["stage", undefined, undefined, "qa-1"],
        ],
      );
    });

    it("is a table for people", async () => {
      await status(await scene.context());
      assert.match(last(), /│ stage +│ – +│/);
      assert.ok(!last().includes("\u001b"), "without colour, as this is no terminal");
    });
  });
});
