import * as assert from "node:assert/strict";
import { parse } from "yaml";
import { deploy } from "../../cli/deploy";
import { request } from "../../cli/request";
import { restore } from "../../cli/restore";
import { why } from "../../cli/why";
import { Ledger } from "../../ledger/ledger";
import { Project } from "../../ledger/project";
import { unapproved } from "../../ledger/program-check";
import { policyFor } from "../../release/approval";
import { formatProblems } from "../../release/problem";
import { schemaChange, type SchemaRecord } from "../../release/schema";
import { approveLatest } from "../support/approve";
import { labels, schema } from "../support/database";
import { digestOf, ToolScene } from "../support/tool";

const QA = `config:
  baton:upstream: dev
  baton:approval: { required: 1, irreversible: { required: 2 }, unattended: {} }
  baton:settings: { secrets: { DATABASE_URL: { source: config } } }
  baton:database:
    url: DATABASE_URL
    client: postgres-client:15
    version: SELECT 1
    migration: { command: [migrate] }
    backup: { volume: { size: 1Gi } }
`;

describe("what a release does to the database", () => {
  let scene: ToolScene;
  let kept: () => void;
  let hasRecorded: (known: SchemaRecord) => void;
  before(async () => {
    scene = await ToolScene.open({ dev: "config:\n  baton:imageTag: build-1\n", qa: QA });
    const push = (tag: string, given: Readonly<Record<string, string>>) =>
      scene.registry.pushImage({ config: { Labels: { ...given, tag } } }, tag);
    const digest = push("dev-20", labels(6));
    push("dev-21", labels(7));
    push("dev-22", labels(7, "contract"));
    push("dev-23", { "baton.schema-head": "7" });
    hasRecorded = (known) => {
      const release = { imageTag: "dev-20", digest, earnedTag: "qa-20" };
      const outputs = { release, earnedTag: "qa-20", schema: known };
      scene.pulumi("qa.json", JSON.stringify(outputs));
    };
    hasRecorded(schema(6));
    kept = scene.keep();
  });
  afterEach(() => kept());
  after(async () => scene.remove());

  const ask = async (tag: string) => request(await scene.context(), "qa", { tag });
  const say = async (person: string) => {
    scene.as(person);
    await approveLatest(await scene.context(), "qa");
  };
  const go = async () => (await deploy(await scene.context(), "qa", { yes: true })).outcome;

  it("is on the card, in words and in nobody's routine", async () => {
    const { card } = await ask("dev-21");
    assert.equal(card.schema, "schema 6 → 7, expanded: dev-20 still runs on it");
    assert.equal(card.routine, false);
    assert.match(scene.printed.join("\n"), /database +schema 6 → 7, expanded/);
    const unchanged = await ask("dev-20");
    assert.equal(unchanged.card.schema, "unchanged");
  });

  it("needs the stronger approval where it crosses a point of no return", async () => {
    const { card } = await ask("dev-22");
    assert.match(card.schema ?? "", /contracted at 7: dev-20 does not run on it/);
    const [missing = ""] = card.missing;
    const because = "as it crosses a point of no return of the database";
    assert.ok(missing.includes(`the word of 2 people other than ann@example.com, ${because}`));
    await say("bob");
    assert.equal(await go(), "waiting");
    await say("carol");
    assert.equal(await go(), "done");
  });

  it("needs no more than the usual where what runs was deployed with a migration down", async () => {
    hasRecorded({ ...schema(6), allowDown: true });
    const { card } = await ask("dev-22");
    assert.equal(
      card.schema,
      "schema 6 → 7, contracted at 7: dev-20 runs again after the migration down",
    );
    await say("bob");
    assert.equal(await go(), "done");
  });

  it("needs the stronger approval where the migration down comes only with it", async () => {
    const down = "migration: { command: [migrate], down: [down] }\n    policy: { allowDown: true }";
    scene.write("Pulumi.qa.yaml", QA.replace("migration: { command: [migrate] }", down));
    scene.git("commit", "--quiet", "-am", "Allow a migration down");
    const { card } = await ask("dev-22");
    assert.match(card.schema ?? "", /contracted at 7: dev-20 does not run on it/);
    const report = await why(await scene.context(), "qa");
    assert.match(JSON.stringify(report["terms"]), /contracted at 7: dev-20 does not run on it/);
    await say("bob");
    assert.equal(await go(), "waiting");
  });

  it("needs no more than the usual where it does not", async () => {
    await ask("dev-21");
    await say("bob");
    assert.equal(await go(), "done");
  });

  it("is found out by asking a stack once, and anew only right before and after a change", async () => {
    await ask("dev-21");
    assert.deepEqual(scene.asked().sort(), ["dev", "qa"]);
    await say("bob");
    assert.deepEqual(scene.asked().sort(), ["dev", "qa"]);
    await go();
    assert.deepEqual(scene.asked(), ["qa", "qa", "qa"]);
  });

  it("is found out anew once the command has changed something", async () => {
    const { pulumi } = await scene.context();
    const tag = async () => (await pulumi.knownOutputs("qa")).release?.imageTag;
    assert.equal(await tag(), "dev-20");
    scene.hasDeployed("qa", "dev-21", "qa-21");
    assert.equal(await tag(), "dev-20");
    const file = scene
      .read("Pulumi.qa.yaml")
      .replace(
        "config:",
        `config:\n  baton:imageTag: dev-22\n  baton:imageDigest: ${digestOf("dev-22")}`,
      );
    await pulumi.up("qa", file, () => {});
    assert.equal(await tag(), "dev-22");
  });

  it("stops at labels that make no sense", async () => {
    const { gate } = await ask("dev-23");
    assert.equal(gate, "fails");
    const report = await why(await scene.context(), "qa");
    assert.match(JSON.stringify(report["terms"]), /label baton\.schema-kind of dev-23 is not set/);
  });

  it("is asked of a plain `pulumi up`, too", async () => {
    await ask("dev-22");
    await say("bob");
    const made = await new Ledger(await Project.open(scene.folder)).request("qa");
    const { config: projectConfig } = parse(scene.read("Pulumi.yaml")) as {
      config: { "baton:defaults": { value: unknown } };
    };
    const config = {
      ...scene.config("qa"),
      "baton:defaults": projectConfig["baton:defaults"].value,
    };
    const given = Object.fromEntries(
      Object.entries(config).map(([key, value]) => [
        key,
        typeof value === "string" ? value : JSON.stringify(value),
      ]),
    );
    const check = async (kind: string, recorded: { readonly allowDown?: true } = {}) =>
      formatProblems(
        await unapproved({
          folder: scene.folder,
          environment: "qa",
          given,
          digest: made?.digest ?? "",
          change: schemaChange({ ...schema(6), ...recorded }, schema(7, kind)),
          now: new Date(),
          running: async () => Promise.resolve(undefined),
        }),
      );
    assert.equal(await check("expand"), "");
    assert.match(
      await check("contract"),
      /approved by bob@example\.com only; expected the word of 2/,
    );
    assert.equal(await check("contract", { allowDown: true }), "");
  });

  it("is never weaker than the usual, and names other people where it does", () => {
    const usual = { required: 3, notOwnRequest: true, signed: false, from: ["a@example.com"] };
    const two = { ...usual, irreversible: { required: 2 } };
    assert.equal(policyFor(two, true).required, 3);
    assert.deepEqual(policyFor(two, true).from, usual.from);
    const others = { ...usual, irreversible: { required: 4, from: ["b@example.com"] } };
    assert.equal(policyFor(others, true).required, 4);
    assert.deepEqual(policyFor(others, true).from, ["b@example.com"]);
    assert.deepEqual(policyFor(others, false), others);
  });

  it("cannot be undone where the environment has no database of its own", async () => {
    const context = await scene.context();
    await assert.rejects(restore(context, "dev", {}), /baton:database is not set/);
  });
});
