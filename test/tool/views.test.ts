import * as assert from "node:assert/strict";
import { deploy } from "../../cli/deploy";
import { differences, drift } from "../../cli/drift";
import { history } from "../../cli/history";
import { stop } from "../../cli/hold";
import { request } from "../../cli/request";
import { rollback } from "../../cli/rollback";
import { status, type EnvironmentStatus } from "../../cli/status";
import type { SaidTerm } from "../../cli/text";
import { why } from "../../cli/why";
import type { Context, Report } from "../../cli/context";
import { stampOf } from "../../ledger/entries";
import { approveLatest } from "../support/approve";
import { digestOf, ToolScene } from "../support/tool";

const DEV = "config:\n  baton:imageTag: build-1\n";
const QA = `config:
  baton:upstream: dev
  baton:approval: { hotfix: { upstream: dev, required: 0, expiresAfter: 4h } }
`;
const STAGE = `config:
  baton:upstream: qa
  baton:soak: 1d
  baton:approval: { required: 1 }
`;

describe("the commands that look", () => {
  let scene: ToolScene;
  const see = async <T extends Report>(command: (context: Context) => Promise<T>): Promise<T> => {
    scene.printed.length = 0;
    return command(await scene.context());
  };
  const environments = async () => {
    const list = (await see(status))["environments"] as EnvironmentStatus[];
    return new Map(list.map((each) => [each.environment, each]));
  };
  const printed = () => scene.printed.join("\n");
  /** As if no line had been too long. */
  const text = () => printed().replace(/\n {2,}/g, " ");
  /** The stand-in prints one file for outputs and export; this state has no object to compare. */
  const compare = async (environment: string) => {
    const release = scene.runs(environment);
    scene.pulumi(`${environment}.json`, JSON.stringify({ release, deployment: {} }));
    return see((context) => drift(context, { environment }));
  };
  const states = (report: Report) =>
    Object.fromEntries((report["terms"] as SaidTerm[]).map(({ name, state }) => [name, state]));

  /** The ledger's times are whole seconds. */
  let begun: number;
  // One scene in which time passes: dev-1 runs in qa, qa-1 is asked for in stage.
  before(async () => {
    begun = Math.floor(Date.now() / 1000) * 1000;
    scene = await ToolScene.open({ dev: DEV, qa: QA, stage: STAGE });
    scene.hasDeployed("dev", "build-1", "dev-1");
    await request(await scene.context(), "qa", {});
    await deploy(await scene.context(), "qa", { yes: true });
    await request(await scene.context(), "stage", {});
  });
  after(async () => scene.remove());

  describe("status", () => {
    it("says what runs since when, by whom, and what holds what is asked for", async () => {
      const all = await environments();
      const qa = all.get("qa");
      assert.equal(qa?.runs?.digest, digestOf("dev-1"));
      assert.equal(qa.by, "ann@example.com");
      assert.ok(Date.parse(qa.since ?? "") >= begun, "a time in ISO 8601");
      assert.deepEqual(qa.heldBy, []);
      const stage = all.get("stage");
      assert.equal(stage?.request?.tag, "qa-1");
      const held = stage.heldBy.map(({ name, state }) => [name, state]);
      assert.deepEqual(held, [
        ["approvals", "waits"],
        ["soak", "waits"],
      ]);
      assert.match(printed(), /│ qa +│ dev-1 +│/);
      assert.match(printed(), /… stage: qa-1: approvals: 0 of 1 given: `baton why stage`/);
    });

    it("knows what was deployed without the tool, and why without approvals", async () => {
      const outputs = { earnedTag: "dev-1", breakGlass: "the shop is down" };
      const release = { imageTag: "build-1", digest: digestOf("build-1") };
      scene.pulumi("dev.json", JSON.stringify({ ...outputs, release }));
      const dev = (await environments()).get("dev");
      assert.equal(dev?.deployedByHand, true);
      assert.equal(dev.since, undefined);
      assert.equal(dev.breakGlass, "the shop is down");
      assert.match(
        printed(),
        /✖ dev: build-1 was deployed without its approvals \(the shop is down\)/,
      );
    });

    it("works in a folder that is no repository", async () => {
      const other = await ToolScene.open({ dev: DEV, qa: QA });
      try {
        other.hasDeployed("dev", "build-1", "dev-1");
        other.write(".git/HEAD", "");
        const context = await other.context();
        const list = (await status(context))["environments"] as EnvironmentStatus[];
        assert.equal(list[1]?.couldTake, "dev-1");
        assert.match(context.notes.join("\n"), /git repository is missing or empty/);
      } finally {
        await other.remove();
      }
    });
  });

  describe("why", () => {
    it("says of each term of the request whether it passes, and when it will", async () => {
      const report = await see((context) => why(context, "stage"));
      assert.deepEqual(states(report), {
        ...{ earned: "passes", pin: "passes", plan: "passes", order: "passes" },
        ...{
          start: "passes",
          approvals: "waits",
          hold: "passes",
          line: "passes",
          freeze: "passes",
        },
        ...{ soak: "waits", "sign-offs": "passes" },
      });
      const soak = (report["terms"] as SaidTerm[]).find(({ name }) => name === "soak");
      const deployed = Date.parse(soak?.passesAt ?? "") - 86_400_000;
      assert.ok(deployed >= begun && deployed <= Date.now());
      assert.match(printed(), /^✔ earned {5}given by qa$/m);
    });

    it("says what could move where nobody has asked, and what could never", async () => {
      scene.hasDeployed("dev", "build-2", "dev-2");
      const report = await see((context) => why(context, "qa"));
      assert.equal(report["tag"], "dev-2");
      assert.equal(states(report)["request"], "waits");
      assert.equal(states(report)["earned"], "passes");
      const other = await see((context) => why(context, "qa", { tag: "dev-77" }));
      assert.equal(states(other)["earned"], "fails");
      assert.equal(states(other)["soak"], undefined, "of an unknown image nothing is known");
      await assert.rejects(
        see((context) => why(context, "qa", { tag: "build-1" })),
        /expected a tag that dev has earned/,
      );
      scene.hasDeployed("dev", "build-1", "dev-1");
      const same = await see((context) => why(context, "qa"));
      assert.deepEqual(same["terms"], []);
    });
  });

  describe("drift", () => {
    it("finds none where ledger, state and stack file agree, whatever is asked for", async () => {
      assert.equal((await compare("qa")).outcome, "done", printed());
      assert.equal((await compare("stage")).outcome, "done", printed());
    });

    it("finds what was deployed by hand", async () => {
      scene.hasDeployed("qa", "dev-3", "qa-3");
      const report = await compare("qa");
      scene.hasDeployed("qa", "dev-1", "qa-1");
      assert.equal(report.outcome, "refused");
      assert.match(text(), /✖ qa: dev-3 \(sha256:\w+\) runs; expected dev-1 \(sha256:\w+\) by/);
      assert.match(text(), /✖ qa: Pulumi.qa.yaml asks for dev-1/);
    });

    it("compares what the program wants, and nothing else", () => {
      const wanted = {
        metadata: { labels: { "app.kubernetes.io/name": "web", tier: "front" } },
        spec: {
          env: [],
          resources: { limits: { cpu: 1, memory: "1Gi" } },
          from: [{ port: 80 }],
          token: { "4dabf18193072939515e22adb298388d": "x", ciphertext: "y" },
        },
      };
      const found = {
        metadata: { labels: { "app.kubernetes.io/name": "web", tier: "front", added: "x" } },
        spec: {
          resources: { limits: { cpu: "1000m", memory: "1Gi" } },
          _from: [{ port: "80", protocol: "TCP" }],
          token: "plain",
        },
        status: { ready: true },
      };
      assert.deepEqual(differences(wanted, found), []);
      const added = { spec: { ...found.spec, env: [{ name: "MESH" }] }, metadata: found.metadata };
      assert.deepEqual(differences(wanted, added), ["spec.env"]);
      assert.deepEqual(differences(wanted, added, added), [], "a webhook has added it");
      const changed = {
        ...found,
        metadata: { labels: { "app.kubernetes.io/name": "other" } },
        spec: { ...found.spec, env: [{ name: "A" }], resources: { limits: { cpu: "2" } } },
      };
      assert.deepEqual(differences(wanted, changed), [
        'metadata.labels["app.kubernetes.io/name"]',
        "metadata.labels.tier",
        "spec.env",
        "spec.resources.limits.cpu",
        "spec.resources.limits.memory",
      ]);
    });
  });

  // What follows says more to the ledger.
  describe("after what went wrong", () => {
    before(async () => {
      scene.as("bob");
      await approveLatest(await scene.context(), "stage");
      scene.hasDeployed("dev", "build-2", "dev-2");
      await request(await scene.context(), "qa", { hotfix: true });
      await deploy(await scene.context(), "qa", { yes: true });
      await rollback(await scene.context(), "qa", {});
      scene.hasDeployed("dev", "build-3", "dev-3");
      await request(await scene.context(), "qa", {});
      const ledger = (await scene.context()).ledger;
      const asked = await ledger.request("qa");
      if (asked === undefined) assert.fail("no request");
      const { environment, id, commit, tag, digest, plan, parts, former } = asked;
      const base = { environment, request: id, commit, tag, digest, plan, parts, former };
      const at = Date.now();
      const failed = { ...base, result: "failed", returningTo: "dev-1" } as const;
      await ledger.record({ ...failed, reason: "no image" }, new Date(at));
      await ledger.record({ ...base, result: "went-back" }, new Date(at));
      await ledger.record(failed, new Date(at));
      await stop(await scene.context(), { reason: "look \u001b[31mhere" });
    });

    it("status names what is stopped, unfinished and not reviewed", async () => {
      const qa = (await environments()).get("qa");
      assert.equal(qa?.failed?.returningTo, "dev-1");
      assert.equal(qa.by, "bob@example.com", "a way back says who runs what");
      assert.deepEqual(
        qa.unreviewed.map(({ tag }) => tag),
        ["dev-2"],
      );
      assert.match(text(), /✖ the path is stopped by bob@example.com since .* \(look �\[31mhere\)/);
      assert.ok(!text().includes("\u001b"), "nothing that a terminal obeys");
      assert.match(text(), /qa: dev-3 failed, and the way back to dev-1 is not finished/);
      // A review is another person's than who asked for the hotfix.
      scene.as("carol");
      const ledger = (await scene.context()).ledger;
      const hotfix = (await ledger.outcomes("qa")).find(({ hotfix }) => hotfix);
      await ledger.sayNamed("review", "qa", [stampOf(hotfix?.at ?? new Date(0))]);
      assert.deepEqual((await environments()).get("qa")?.unreviewed, []);
    });

    it("history says what happened, the newest first", async () => {
      const report = await see((context) => history(context, { environment: "qa", limit: 5 }));
      const entries = report["entries"] as { at: string; result: string; parts: unknown }[];
      assert.deepEqual(
        entries.map(({ result }) => result),
        ["failed", "went-back", "failed", "rolled-back", "deployed"],
      );
      assert.equal(report["total"], 6);
      assert.equal(new Date(entries[0]?.at ?? "").toISOString(), entries[0]?.at);
      assert.match(text(), /dev-3 failed, went back to dev-1 by bob@example.com/);
      assert.match(text(), /rolled back from dev-2 to dev-1 by/);
      assert.match(text(), /deployed dev-1 → dev-2, a hotfix, by bob@example.com; plan \w+/);
      assert.match(text(), /1 older one is not shown/);
    });
  });
});
