import * as assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import type { Context, Report } from "../../cli/context";
import { deploy } from "../../cli/deploy";
import { readFacts } from "../../cli/facts";
import { parityOf, type Parity } from "../../cli/parity";
import { promote } from "../../cli/promote";
import { record } from "../../cli/record";
import { request } from "../../cli/request";
import { rollback } from "../../cli/rollback";
import { status, type EnvironmentStatus } from "../../cli/status";
import { why } from "../../cli/why";
import { Refusal } from "../../ledger/refusal";
import { approveLatest } from "../support/approve";
import { digestOf, ToolScene } from "../support/tool";

const runs = (tag: string, more: string) =>
  `config:\n  baton:imageTag: ${tag}\n  baton:imageDigest: ${digestOf(tag)}\n${more}`;
const STAGE = runs("qa-1", "  baton:upstream: qa\n");
const PROD = runs("stage-1", "  baton:upstream: stage\n  baton:approval: { required: 1 }\n");
const DR = runs(
  "prod-1",
  "  baton:upstream: prod\n  baton:follows: true\n  baton:approval: { required: 1 }\n",
);

describe("an environment that follows its upstream", () => {
  let scene: ToolScene;
  let begun: () => void;
  /** As prod and dr are once stage-2 is asked for, is approved, and runs in both. */
  let asked: () => Promise<void>;
  let approved: () => Promise<void>;
  let deployed: () => Promise<void>;
  before(async () => {
    scene = await ToolScene.open({ dev: "{}", qa: "{}", stage: STAGE, prod: PROD, dr: DR });
    scene.hasDeployed("stage", "qa-2", "stage-2");
    scene.hasDeployed("prod", "stage-1", "prod-1");
    scene.hasDeployed("dr", "prod-1", "dr-1");
    begun = scene.keep();
    asked = scene.once(() => ask());
    approved = scene.once(async () => {
      await asked();
      await say();
    });
    deployed = scene.once(async () => {
      await approved();
      await roll();
    });
  });
  beforeEach(() => {
    begun();
  });
  after(async () => scene.remove());

  const as = async <T>(person: string, action: (context: Context) => Promise<T>): Promise<T> => {
    scene.as(person);
    scene.printed.length = 0;
    return action(await scene.context());
  };
  const printed = () => scene.printed.join("\n");
  const ask = (tag = "stage-2") => as("ann", (context) => request(context, "prod", { tag }));
  const roll = (): Promise<Report> =>
    as("ann", (context) => deploy(context, "prod", { yes: true }));
  const say = () => as("bob", (context) => approveLatest(context, "prod"));
  /** All of it, for another release. */
  const together = async (tag: string) => {
    await ask(tag);
    await say();
    return roll();
  };

  it("is asked for in the same commit, with the tag that the other will earn", async () => {
    const before = scene.git("rev-list", "--count", "HEAD");
    const { card } = await ask();
    assert.equal(scene.git("rev-list", "--count", "HEAD"), String(Number(before) + 1));
    assert.equal(scene.config("dr")["baton:imageTag"], "prod-2");
    assert.equal(scene.config("dr")["baton:imageDigest"], digestOf("stage-2"));
    assert.equal(scene.git("log", "-1", "--format=%s"), "Request stage-2 for prod and dr");
    assert.deepEqual(
      card.followers?.map(({ environment, from, to }) => [environment, from.tag, to.tag]),
      [["dr", "prod-1", "prod-2"]],
    );
    assert.match(printed(), /^ {2}dr +prod-1 → prod-2, once that has succeeded$/m);
    const { ledger } = await scene.context();
    const [prod, dr] = [await ledger.request("prod"), await ledger.request("dr")];
    assert.equal(dr?.id, prod?.id);
    assert.equal(dr?.tag, "prod-2");
    assert.deepEqual(dr.follows, { environment: "prod", plan: prod?.plan });
    assert.equal(prod?.follows, undefined);
    assert.notEqual(dr.plan, prod?.plan);
    await ask();
    assert.equal(scene.git("rev-list", "--count", "HEAD"), String(Number(before) + 1), "once");
  });

  it("is deployed after the other, under the other's approvals", async () => {
    await asked();
    assert.equal((await roll()).outcome, "waiting");
    await say();
    assert.match(
      printed(),
      /\n {2}dr +prod-1 → prod-2, once that has succeeded\n +plan [0-9a-f]{12};/,
    );
    const report = await roll();
    assert.equal(report.outcome, "done", printed());
    assert.equal(scene.runs("prod")?.["imageTag"], "stage-2");
    assert.equal(scene.runs("dr")?.["imageTag"], "prod-2");
    const [dr] = await (await scene.context()).ledger.outcomes("dr");
    assert.deepEqual(dr?.approvedBy, ["bob@example.com"]);
    const [follower] = report["followers"] as Report[];
    assert.equal(follower?.outcome, "done");
    assert.equal((await roll()).outcome, "done", "again");
    assert.deepEqual(scene.results("dr"), ["deployed prod-2"]);
  });

  it("waits for the other where it is deployed by itself, and takes no words of its own", async () => {
    await approved();
    const report = await as("ann", (context) => deploy(context, "dr", { yes: true }));
    assert.equal(report.outcome, "waiting");
    assert.match(printed(), /prod has not deployed it yet; expected prod to run it first/);
    assert.equal(scene.runs("dr")?.["imageTag"], "prod-1");
    await assert.rejects(
      as("bob", (context) => approveLatest(context, "dr")),
      /made together with prod's, whose words it stands under/,
    );
    const said = await as("ann", (context) => why(context, "dr"));
    const [first] = said["terms"] as { name: string; state: string }[];
    assert.deepEqual([first?.name, first?.state], ["lead", "waits"]);
    const { environments } = (await as("ann", status)) as unknown as {
      environments: EnvironmentStatus[];
    };
    assert.equal(environments.find((one) => one.environment === "dr")?.heldBy[0]?.name, "lead");
  });

  it("is deployed by itself once the other has been, by a run that got no further", async () => {
    await approved();
    scene.pulumi("up-fails", "prod-2");
    const report = await roll();
    assert.equal(report.outcome, "went-back", printed());
    assert.match(printed(), /dr has not followed prod, which stays as it is/);
    assert.equal(scene.runs("prod")?.["imageTag"], "stage-2");
    assert.deepEqual(scene.results("prod"), ["deployed stage-2"]);
    assert.equal(scene.runs("dr")?.["imageTag"], "prod-1");
  });

  it("goes back when the other does, and only as far as the other", async () => {
    await deployed();
    scene.hasDeployed("stage", "qa-3", "stage-3");
    const report = await together("stage-3");
    assert.equal(report.outcome, "done", printed());
    const back = await as("ann", (context) => rollback(context, "prod", {}));
    assert.equal(back.outcome, "done", printed());
    assert.equal(scene.runs("prod")?.["imageTag"], "stage-2");
    assert.equal(scene.runs("dr")?.["imageTag"], "prod-2", printed());
    assert.equal(scene.config("dr")["baton:rollbackOf"], "prod-3");
    // One that has stayed behind is where the other returns to.
    await together("stage-4");
    scene.pulumi("dr.json", scene.read(".pulumi/dr.json").replaceAll("-4", "-2"));
    await as("ann", (context) => rollback(context, "prod", { to: "stage-2" }));
    assert.equal(scene.runs("dr")?.["imageTag"], "prod-2");
    assert.equal(scene.results("dr").at(-1), "deployed prod-4");
  });

  /** Somebody's own `pulumi up` of prod, as its stack file is. */
  const upByHand = (startTime: string) => {
    const args = ["up", "--stack", "prod", "--config-file", "../Pulumi.prod.yaml"];
    execFileSync("pulumi", args, { cwd: scene.folder, stdio: "pipe" });
    const environment = { "git.head": scene.git("rev-parse", "HEAD") };
    const resourceChanges = { update: 1 };
    const run = { kind: "update", startTime, environment, resourceChanges, result: "succeeded" };
    scene.pulumi("prod.history", JSON.stringify([run]));
  };

  it("follows a run that the tool has not made, when that is recorded", async () => {
    await approved();
    upByHand("2026-11-21T10:01:00.000Z");
    const report = await as("ann", (context) => record(context, "prod", {}));
    assert.equal(report.outcome, "done", printed());
    assert.equal(scene.runs("dr")?.["imageTag"], "prod-2");
    assert.deepEqual(scene.results("dr"), ["deployed prod-2"]);

    const file = scene.read("Pulumi.prod.yaml");
    const back = file
      .replace(/imageTag: .*/, "imageTag: stage-1\n  baton:rollbackOf: stage-2")
      .replace(digestOf("stage-2"), digestOf("stage-1"));
    scene.write("Pulumi.prod.yaml", back);
    scene.git("commit", "--quiet", "-am", "Back to stage-1");
    upByHand("2026-11-21T10:02:00.000Z");
    scene.pulumi("prod.json", scene.read(".pulumi/prod.json").replaceAll("prod-2", "prod-1"));
    const returned = await as("ann", (context) => record(context, "prod", {}));
    assert.equal(returned.outcome, "done", printed());
    assert.equal(scene.runs("dr")?.["imageTag"], "prod-1", printed());
  });

  it("does not follow where its file has changed since, and the other stays", async () => {
    await approved();
    scene.write("Pulumi.dr.yaml", `${scene.read("Pulumi.dr.yaml")}  other:key: changed\n`);
    const report = await roll();
    assert.equal(report.outcome, "failed", "prod has moved");
    assert.match(printed(), /dr: the plan is another one: settings moved since the request/);
    assert.equal(scene.runs("prod")?.["imageTag"], "stage-2");
  });

  it("needs words of its own where it did not follow so far", async () => {
    scene.write("Pulumi.dr.yaml", DR.replace("  baton:follows: true\n", ""));
    scene.git("commit", "--quiet", "-am", "Apart");
    await as("ann", (context) => request(context, "dr", { tag: "prod-1" }));
    await as("bob", (context) => approveLatest(context, "dr"));
    const alone = await as("ann", (context) => deploy(context, "dr", { yes: true }));
    assert.equal(alone.outcome, "done", printed());
    scene.write(
      "Pulumi.dr.yaml",
      scene.read("Pulumi.dr.yaml").replace("prod\n", "prod\n  baton:follows: true\n"),
    );
    const report = await together("stage-2");
    assert.equal(report.outcome, "failed", "prod has moved");
    assert.match(printed(), /asked for together with prod, which it did not follow so far/);
    assert.equal(scene.runs("prod")?.["imageTag"], "stage-2");
    assert.equal(scene.runs("dr")?.["imageTag"], "prod-1");
  });

  it("is left out, and said, where it cannot be previewed", async () => {
    scene.pulumi("dr.preview-fails", "the cluster is away");
    const { card } = await ask();
    assert.deepEqual(card.followers, []);
    assert.match(printed(), /dr: left out of this request, .*the cluster is away/);
    assert.equal(scene.config("dr")["baton:imageTag"], "prod-1");
    await say();
    assert.equal((await roll()).outcome, "done");
    assert.match(printed(), /dr: no part of this request/);
    assert.equal(scene.runs("dr")?.["imageTag"], "prod-1");
  });

  it("is no way round the words for an environment that does not follow", async () => {
    // As somebody would write a request by hand that says it is prod's follower.
    scene.write("Pulumi.stage.yaml", `${STAGE}  baton:approval: { required: 1 }\n`);
    scene.git("commit", "--quiet", "-am", "Ask for words in stage");
    await ask();
    const message = scene
      .git("log", "-1", "--format=%B")
      .replace(/(?<=^Baton-Request: )dr$/m, "stage");
    scene.git("commit", "--quiet", "--amend", "-m", message);
    // Who is asked sees that environment, too, and what of it cannot be shown; a word is given all the same.
    await assert.rejects(say(), /stage: the request's plan is not of what its commit .* holds/);
    await as("bob", async ({ ledger }) => {
      await ledger.say((await ledger.request("prod")) ?? assert.fail(), "approve");
    });
    scene.write("Pulumi.stage.yaml", scene.read("Pulumi.stage.yaml").replaceAll("qa-1", "qa-2"));
    const report = await as("ann", async (context) => {
      try {
        return await deploy(context, "stage", { yes: true });
      } catch (error) {
        assert.ok(error instanceof Refusal);
        return { outcome: error.message };
      }
    });
    assert.match(report.outcome, /asked for together with prod/);
  });

  describe("compared with it", () => {
    const parity = () =>
      as("ann", async (context) => {
        const found = await parityOf(context, "dr", await readFacts(context));
        return found ?? assert.fail("dr follows nothing");
      });
    const more = (own: string) => `  baton:settings:\n    config: ${own}\n`;
    const size = (replicas: number, cpu: string) =>
      `  baton:workloads: { web: { replicas: ${replicas}, resources: { requests: { cpu: ${cpu} } } } }\n`;
    const write = (prod: string, dr: string) => {
      scene.write("Pulumi.prod.yaml", `${PROD}${prod}`);
      scene.write("Pulumi.dr.yaml", `${DR}${dr}`);
      scene.git("commit", "--quiet", "-am", "Set it up");
    };
    /** Without what is said of a cluster that no unit test has. */
    const breaks = ({ breaks: all }: Parity) => all.filter((text) => !/cluster/.test(text));

    it("is as the other, but for what its own file says", async () => {
      write(
        more("{ HOST: prod.example.com, LOG: warn }") + size(5, "500m"),
        more("{ HOST: dr.example.com, LOG: warn }") + size(6, "1"),
      );
      const found = await parity();
      assert.deepEqual(found.settings, { differing: ["HOST"], behind: [], missing: [] });
      assert.equal(found.secondsBehind, 0);
      assert.deepEqual(found.capacity, []);
      assert.deepEqual(breaks(found), []);
      assert.doesNotMatch(JSON.stringify(found), /example\.com/, "names and no values");
    });

    it("says how far behind it is, and since when", async () => {
      await approved();
      scene.pulumi("up-fails", "prod-2");
      await roll();
      scene.now = new Date(Date.now() + 3_600_000);
      const found = await parity();
      const { secondsBehind = 0 } = found;
      assert.ok(secondsBehind > 3590 && secondsBehind < 3700, String(secondsBehind));
      assert.match(breaks(found).join(), /users would get prod-1 \(.*\); prod runs stage-2 \(/);
    });

    it("says what would break: settings, secrets and room that it does not have", async () => {
      const secrets = (own: string) => `    secrets: ${own}\n`;
      const rotated = (times: number) => `{ source: random, rotation: ${times} }`;
      write(
        more("{ NEW: 1 }") +
          secrets(`{ KEY: ${rotated(2)}, ONLY: ${rotated(1)}, TOKEN: { source: config } }`) +
          "  baton:TOKEN: { secure: v1:prods }\n" +
          size(5, "500m"),
        more("{ }") +
          secrets(`{ KEY: ${rotated(1)}, TOKEN: { source: config } }`) +
          "  baton:TOKEN: { secure: v1:drs }\n" +
          size(2, "250m"),
      );
      assert.deepEqual((await parity()).secrets.behind, [
        { of: "KEY", here: "rotation 1", there: "rotation 2" },
      ]);
      // Another one in prod, later.
      scene.write(
        "Pulumi.prod.yaml",
        scene.read("Pulumi.prod.yaml").replace("v1:prods", "v1:others"),
      );
      execFileSync("git", ["commit", "--quiet", "-am", "Rotate"], {
        cwd: scene.folder,
        env: { ...process.env, GIT_COMMITTER_DATE: "2036-01-01T00:00:00Z" },
      });
      const found = await parity();
      assert.deepEqual(found.settings.missing, ["NEW"]);
      assert.deepEqual(found.secrets.missing, ["ONLY"]);
      assert.deepEqual(
        found.secrets.behind.map(({ of, there }) => `${of} ${there}`),
        ["KEY rotation 2", "TOKEN 2036-01-01 00:00 UTC"],
      );
      assert.deepEqual(
        found.capacity.map(({ of, here, there }) => `${of} ${here} ${there}`),
        ["web: replicas 2 5", "web: most replicas 2 5", "web: requests.cpu 250m 500m"],
      );
      assert.equal(breaks(found).length, 1 + 1 + 2 + 3);
      assert.doesNotMatch(JSON.stringify(found), /v1:/);
    });

    it("is by the ledger where the other's state is away", async () => {
      await deployed();
      scene.pulumi("prod.json", undefined);
      const found = await parity();
      assert.equal(found.thereBy, "ledger");
      assert.equal(found.same, true);
      assert.deepEqual(breaks(found), []);
    });

    it("says so where its own registry has lost what it runs", async () => {
      await deployed();
      scene.registry.tags.delete("prod-2");
      assert.match(breaks(await parity()).join(), /does not have prod-2 as it runs here/);
    });
  });

  it("is promoted together with it", async () => {
    scene.write("Pulumi.prod.yaml", PROD.replace("{ required: 1 }", "{ required: 0 }"));
    scene.write("Pulumi.dr.yaml", DR.replace("{ required: 1 }", "{ required: 0 }"));
    scene.git("commit", "--quiet", "-am", "Nobody's word");
    const report = await as("ann", (context) =>
      promote(context, "prod", { tag: "stage-2", yes: true }),
    );
    assert.equal(report.outcome, "done", printed());
    assert.equal(scene.runs("dr")?.["imageTag"], "prod-2");
  });
});
