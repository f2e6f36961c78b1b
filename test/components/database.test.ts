import * as assert from "node:assert/strict";
import { isDeepStrictEqual } from "node:util";
import type { SchemaRecord } from "../../release/schema";
import type { RecordedResource } from "../../stack-state";
import { ProgramHarness, type Registered, type Run } from "../support/program";
import { labels, PASSWORD, pushImage, schema, withDatabase } from "../support/database";
import { ROOM } from "../support/releases";

interface Container {
  name: string;
  image: string;
  command?: string[];
  args?: string[];
  env: { name: string; value?: string; valueFrom?: { secretKeyRef?: { key: string } } }[];
}
interface JobSpec {
  completions?: number;
  backoffLimit: number;
  activeDeadlineSeconds: number;
  ttlSecondsAfterFinished?: number;
  template: { spec: { initContainers?: Container[]; containers: Container[]; volumes: unknown[] } };
}

/** What allows a migration down. */
const DOWN = {
  migration: { command: ["node", "migrate.js"], down: ["node", "down.js"] },
  policy: { allowDown: true },
};

describe("Database", () => {
  let harness: ProgramHarness;
  let digest: string;
  before(async () => {
    harness = await ProgramHarness.start();
    digest = pushImage(harness, labels(7), "dev-7");
    pushImage(harness, labels(6), "dev-6", "qa-6");
    pushImage(harness, labels(8, "contract"), "dev-8", "qa-8");
  });
  after(() => harness.stop());

  const jobs = ({ resources }: Run): Map<string, Registered> =>
    new Map(
      resources
        .filter(({ type, name }) => type.endsWith(":Job") && name.startsWith("database-"))
        .map((job) => [job.name, job]),
    );
  const specOf = (job: Registered | undefined): JobSpec => {
    assert.ok(job);
    return (job.inputs as { spec: JobSpec }).spec;
  };
  const find = ({ resources }: Run, type: string, name: string) =>
    resources.find((one) => one.type.endsWith(type) && one.name === name);
  const variable = (container: Container | undefined, name: string) =>
    container?.env.find((one) => one.name === name)?.value;

  it("backs up, migrates and checks ahead of the rollout, in that order", async () => {
    const run = await harness.run(
      withDatabase("dev-7", { database: { version: 6, backup: "before-dev-7" } }),
    );
    const all = jobs(run);
    assert.deepEqual(
      [...all.keys()],
      ["before", "migrate", "reached", "integrity"].map((step) => `database-${step}-dev-7`),
    );
    const waitsFor = (name: string) => all.get(name)?.dependsOn ?? [];
    assert.ok(waitsFor("database-migrate-dev-7").includes("database-version-before-dev-7"));
    assert.ok(waitsFor("database-reached-dev-7").includes("database-migrate-dev-7"));
    assert.ok(waitsFor("database-integrity-dev-7").includes("database-reached-dev-7"));
    const deployment = find(run, ":Deployment", "web");
    for (const name of all.keys()) assert.ok(deployment?.dependsOn.includes(name), name);

    const migrate = specOf(all.get("database-migrate-dev-7"));
    assert.equal(migrate.completions, 1);
    const [guard] = migrate.template.spec.initContainers ?? [];
    assert.deepEqual(guard?.args, ["guard"]);
    assert.equal(variable(guard, "BACKUP"), "before-dev-7");
    const [container] = migrate.template.spec.containers;
    assert.deepEqual(container?.command, ["node", "migrate.js"]);
    assert.equal(container.image, `${harness.registry.host}/podinfo@${digest}`);
    assert.equal(guard.image, `${harness.registry.host}/postgres-client:15`);
    const reached = specOf(all.get("database-reached-dev-7"));
    assert.equal(reached.completions, 1);
    assert.equal(variable(reached.template.spec.containers[0], "HEAD"), "7");
    assert.deepEqual(run.outputs["schema"], { version: 7, points: [], backup: "before-dev-7" });
  });

  it("migrates nothing that is at the release's version, or past it", async () => {
    for (const version of [7, 9]) {
      const run = await harness.run(withDatabase("dev-7", { database: { version, backup: "" } }));
      for (const step of ["migrate", "reached"]) {
        const job = specOf(jobs(run).get(`database-${step}-dev-7`));
        assert.equal(job.completions, 0, `${step} at ${version}`);
      }
      assert.equal((run.outputs["schema"] as { version: number }).version, version);
    }
  });

  it("lets the migration find out where the version is not known any more", async () => {
    const run = await harness.run(withDatabase("dev-7", { database: { version: -1, backup: "" } }));
    assert.equal(specOf(jobs(run).get("database-migrate-dev-7")).completions, 1);
  });

  it("runs no Job for a release that says nothing of a schema, a follower, or no database", async () => {
    pushImage(harness, {}, "dev-1");
    assert.deepEqual([...jobs(await harness.run(withDatabase("dev-1"))).keys()], []);
    const follower = await harness.run(withDatabase("dev-7", {}, { follower: true }));
    const names = follower.resources.map(({ name }) => name);
    assert.deepEqual(
      names.filter((name) => name.startsWith("database")),
      [],
    );
    const none = await harness.run(withDatabase("dev-7", { config: { database: null } }));
    assert.equal(none.outputs["schema"], undefined);
  });

  it("never migrates on the way back, and only looks for what no record knows", async () => {
    const lastOutputs = { release: { imageTag: "dev-7", digest }, schema: schema(7) };
    const run = await harness.run(
      withDatabase("dev-6", { config: { rollbackOf: "dev-7" }, lastOutputs }),
    );
    const all = jobs(run);
    assert.deepEqual([...all.keys()], ["database-points-dev-6-from-dev-7"]);
    const [look] = specOf(all.get("database-points-dev-6-from-dev-7")).template.spec.containers;
    assert.deepEqual(look?.args, ["points"]);
    assert.equal(variable(look, "RUNS_ON"), "6");
    assert.ok(
      find(run, ":Deployment", "web")?.dependsOn.includes("database-points-dev-6-from-dev-7"),
    );
    assert.deepEqual(run.outputs["schema"], { version: 7, points: [] });
  });

  it("looks for what no record knows ahead of a release that says nothing of a schema, too", async () => {
    pushImage(harness, {}, "dev-1");
    const lastOutputs = { release: { imageTag: "dev-8", digest }, schema: schema(8, "contract") };
    const run = await harness.run(withDatabase("dev-1", { lastOutputs }));
    const all = jobs(run);
    assert.deepEqual([...all.keys()], ["database-points-dev-1"]);
    const [look] = specOf(all.get("database-points-dev-1")).template.spec.containers;
    assert.equal(variable(look, "POINTS"), "8=contract");
    assert.equal(variable(look, "RUNS_ON"), undefined);
  });

  it("goes back to a release without labels that has passed on the schema as it is", async () => {
    const plain = pushImage(harness, {}, "dev-2", "qa-2");
    const lastOutputs = {
      release: { imageTag: "dev-2", digest: plain },
      schema: schema(8, "contract"),
    };
    pushImage(harness, {}, "dev-3");
    const fromPlain = { config: { rollbackOf: "dev-3" }, lastOutputs };
    const run = await harness.run(withDatabase("dev-2", fromPlain));
    const [look] = specOf(jobs(run).get("database-points-dev-2-from-dev-3")).template.spec
      .containers;
    assert.equal(variable(look, "RUNS_ON"), "8");
    pushImage(harness, labels(9, "contract"), "dev-9");
    const contracted = { config: { rollbackOf: "dev-9" }, lastOutputs };
    const refused = await harness.run(withDatabase("dev-2", contracted));
    const [asks] = specOf(jobs(refused).get("database-schema-dev-2-from-dev-9")).template.spec
      .containers;
    assert.equal(variable(asks, "REFUSE_FROM"), "9");
  });

  it("asks the database before it leaves a point of no return", async () => {
    const lastOutputs = { release: { imageTag: "dev-8", digest }, schema: schema(8, "contract") };
    const run = await harness.run(
      withDatabase("dev-6", {
        config: { rollbackOf: "dev-8" },
        lastOutputs,
        database: { version: 7, backup: "" },
      }),
    );
    assert.deepEqual([...jobs(run).keys()], ["database-schema-dev-6-from-dev-8"]);
    const spec = specOf(jobs(run).get("database-schema-dev-6-from-dev-8"));
    const [container] = spec.template.spec.containers;
    assert.equal(variable(container, "REFUSE_FROM"), "8");
    assert.match(variable(container, "REASON") ?? "", /dev-6 is made for version 6/);
    assert.equal(variable(container, "HEAD"), "0", "it makes no backup");
    assert.ok(
      find(run, ":Deployment", "web")?.dependsOn.includes("database-schema-dev-6-from-dev-8"),
    );
    assert.deepEqual(run.outputs["schema"], {
      version: 7,
      points: [{ version: 8, kind: "contract" }],
    });
  });

  it("asks it, too, where the release that is left has never succeeded", async () => {
    const lastOutputs = { release: { imageTag: "dev-6", digest }, schema: schema(6) };
    const run = await harness.run(
      withDatabase("dev-6", { config: { rollbackOf: "dev-8" }, lastOutputs }),
    );
    assert.deepEqual([...jobs(run).keys()], ["database-schema-dev-6-from-dev-8"]);
  });

  it("asks it before it takes an older release forward over a point of no return", async () => {
    const lastOutputs = { release: { imageTag: "dev-8", digest }, schema: schema(8, "contract") };
    const run = await harness.run(withDatabase("dev-7", { lastOutputs }));
    const [container] = specOf(jobs(run).get("database-before-dev-7")).template.spec.containers;
    assert.equal(variable(container, "REFUSE_FROM"), "8");
  });

  it("migrates down with the image that is left, where the policy says so", async () => {
    const lastOutputs = { release: { imageTag: "dev-8", digest }, schema: schema(8, "contract") };
    const options = {
      config: { rollbackOf: "dev-8" },
      lastOutputs,
      database: { version: 8, backup: "before-down-to-dev-6" },
    };
    const migration = { command: ["node", "migrate.js"], down: ["node", "down.js"] };
    const policy = { allowDown: true };
    const run = await harness.run(withDatabase("dev-6", options, { migration, policy }));
    const all = jobs(run);
    assert.deepEqual(
      [...all.keys()],
      [
        "database-before-down-dev-6-from-dev-8",
        "database-down-dev-6-from-dev-8",
        "database-schema-dev-6-from-dev-8",
      ],
    );
    const down = specOf(all.get("database-down-dev-6-from-dev-8"));
    assert.equal(down.completions, 1);
    const [container] = down.template.spec.containers;
    const left = harness.registry.tags.get("dev-8") ?? "";
    assert.equal(container?.image, `${harness.registry.host}/podinfo@${left}`);
    assert.deepEqual(container.command, ["node", "down.js"]);
    assert.equal(variable(container, "SCHEMA_TARGET"), "6");

    const without = await harness.run(withDatabase("dev-6", options, { migration }));
    assert.deepEqual([...jobs(without).keys()], ["database-schema-dev-6-from-dev-8"]);
  });

  describe("after deployments that have not passed", () => {
    /** The Jobs of a state, as the engine makes and keeps them. */
    class Recorded {
      private seconds = 0;
      readonly all = new Map<string, RecordedResource & { readonly inputs: unknown }>();

      /** @returns which Jobs are made, as they are new or not the same any more */
      follow(run: Run): string[] {
        return [...jobs(run)].flatMap(([name, { inputs }]) => {
          const urn = `urn:pulumi:qa::baton::baton:components:Database$kubernetes:batch/v1:Job::${name}`;
          if (isDeepStrictEqual(this.all.get(urn)?.inputs, inputs)) return [];
          const { metadata, spec } = inputs as { metadata: object; spec: object };
          const creationTimestamp = new Date(1000 * ++this.seconds).toISOString();
          const made = { name: `${name}-${this.seconds}`, creationTimestamp };
          const outputs = { metadata: { ...metadata, ...made }, spec };
          this.all.set(urn, { type: "kubernetes:batch/v1:Job", inputs, outputs });
          return [name.replace(/^database-/, "")];
        });
      }

      /** A release that passes takes away what others have left. */
      passed(release: string): void {
        for (const urn of this.all.keys()) {
          if (!/::database-[a-z]+(-down)?-(.*)$/.exec(urn)?.[2]?.startsWith(release)) {
            this.all.delete(urn);
          }
        }
      }
    }
    const deploy = async (
      recorded: Recorded,
      tag: string,
      { config = {}, last = schema(6), at = 6, database = {} },
    ) => {
      const lastOutputs = { release: { imageTag: "dev-6", digest }, schema: last };
      const options = {
        config,
        lastOutputs,
        recorded: Object.fromEntries(recorded.all),
        database: { version: at, backup: "" },
      };
      return recorded.follow(await harness.run(withDatabase(tag, options, database)));
    };
    const forward = ["before", "migrate", "reached", "integrity"].map((step) => `${step}-dev-8`);
    const back = { config: { rollbackOf: "dev-8" } };

    it("asks the database on each way back, though it was asked before", async () => {
      const recorded = new Recorded();
      assert.deepEqual(await deploy(recorded, "dev-8", {}), forward);
      assert.deepEqual(await deploy(recorded, "dev-8", {}), [], "nothing is left to do");
      assert.deepEqual(await deploy(recorded, "dev-6", back), ["schema-dev-6-from-dev-8"]);
      assert.deepEqual(await deploy(recorded, "dev-6", back), []);
      recorded.passed("dev-6-from-dev-8");
      assert.deepEqual(await deploy(recorded, "dev-6", back), []);
      assert.deepEqual(await deploy(recorded, "dev-8", {}), forward);
      for (const times of [1, 0]) {
        const made = await deploy(recorded, "dev-6", back);
        assert.deepEqual(made, times === 1 ? ["schema-dev-6-from-dev-8"] : []);
      }
      recorded.passed("dev-6-from-dev-8");
      assert.deepEqual(await deploy(recorded, "dev-6", back), [], "nor once that has passed");
    });

    it("migrates again what was migrated down, though it was migrated before", async () => {
      const recorded = new Recorded();
      const known = { last: schema(8, "contract"), at: 8 };
      assert.deepEqual(await deploy(recorded, "dev-8", {}), forward);
      recorded.passed("dev-8");
      const down = ["before-down", "down", "schema"].map((step) => `${step}-dev-6-from-dev-8`);
      const goesDown = { ...back, ...known, database: DOWN };
      assert.deepEqual(await deploy(recorded, "dev-6", goesDown), down);
      // It has failed after that, and people go forward again.
      assert.deepEqual(await deploy(recorded, "dev-8", known), forward);
      assert.deepEqual(await deploy(recorded, "dev-8", known), []);
      assert.deepEqual(await deploy(recorded, "dev-6", goesDown), down);
    });

    it("tells long tags apart", async () => {
      const [to = "", ...left] = [20, 21, 22].map((build) => `dev-1795282980${build}`);
      pushImage(harness, labels(6), to, to.replace("dev", "qa"));
      const names = [];
      for (const rollbackOf of left) {
        pushImage(harness, labels(8, "contract"), rollbackOf);
        names.push(...(await deploy(new Recorded(), to, { config: { rollbackOf } })));
      }
      assert.equal(new Set(names).size, 2, names.join(" "));
      assert.ok(names.every((name) => name.length < 45));
    });
  });

  it("is beside releases that stand side by side, which ask for the same last outputs", async () => {
    const lastOutputs = { release: { imageTag: "dev-6", digest }, schema: schema(6) };
    const config = { rollout: { strategy: "blueGreen" }, quota: ROOM };
    const run = await harness.run(withDatabase("dev-7", { config, lastOutputs }));
    assert.ok(run.resources.some(({ name }) => name === "web-dev-7"));
    assert.ok(jobs(run).size > 0);
  });

  it("records whether the configuration of this `up` allows a migration down", async () => {
    pushImage(harness, {}, "dev-2", "qa-2");
    const back = { rollbackOf: "dev-8" };
    for (const [tag, known, config] of [
      ["dev-7", schema(6), {}],
      ["dev-7", schema(7), {}],
      ["dev-6", schema(7), back],
      ["dev-6", schema(8, "contract"), back],
      ["dev-2", schema(6), {}],
    ] as const) {
      const recorded = async (database: typeof DOWN | undefined, former: SchemaRecord) => {
        const lastOutputs = { release: { imageTag: "dev-6", digest }, schema: former };
        const run = await harness.run(withDatabase(tag, { config, lastOutputs }, database));
        return run.outputs["schema"] as SchemaRecord;
      };
      const plain = await recorded(undefined, known);
      assert.ok(!("allowDown" in plain), tag);
      const allowed = { ...plain, allowDown: true as const };
      assert.deepEqual(await recorded(DOWN, known), allowed, tag);
      assert.deepEqual(await recorded(undefined, allowed), plain, tag);
      assert.deepEqual(await recorded(DOWN, allowed), allowed, tag);
    }
    const follower = await harness.run(withDatabase("dev-7", {}, { ...DOWN, follower: true }));
    assert.equal(follower.outputs["schema"], undefined);
    const none = await harness.run(withDatabase("dev-2", {}, DOWN));
    assert.equal(none.outputs["schema"], undefined, "nothing is known");
  });

  it("promises the migration down that the former release was deployed with", async () => {
    const rollout = {
      strategy: "blueGreen",
      bake: "15m",
      analysis: { prometheus: "http://prometheus.monitoring:9090" },
    };
    const config = { rollout, quota: ROOM };
    const says = async (former?: typeof DOWN, present?: typeof DOWN) => {
      const { outputs } = await harness.run(withDatabase("dev-7", { config }, former));
      const options = { config, lastOutputs: outputs };
      const run = await harness.run(withDatabase("dev-8", options, present));
      return String(find(run, "promotion:index:Bake", "verification-bake")?.inputs["irreversible"]);
    };
    assert.match(await says(DOWN), /`baton rollback qa` migrates down and goes back/);
    assert.match(await says(undefined, DOWN), /the way back is `baton restore qa --backup NAME`/);
  });

  it("gives all traffic, for good, to a release that the one before does not run beside", async () => {
    const rollout = {
      strategy: "canary",
      steps: [{ weight: 50, duration: "1m" }],
      bake: "15m",
      analysis: { prometheus: "http://prometheus.monitoring:9090" },
    };
    const config = { rollout, quota: ROOM };
    const first = await harness.run(withDatabase("dev-7", { config }));
    const options = { config, lastOutputs: first.outputs };
    const contracted = await harness.run(withDatabase("dev-8", options));
    pushImage(harness, labels(9), "dev-9");
    const expanded = await harness.run(withDatabase("dev-9", options));
    const [bake, open] = [contracted, expanded].map(
      (run) => find(run, "promotion:index:Bake", "verification-bake")?.inputs,
    );
    assert.match(String(bake?.["irreversible"]), /contracted at 8; .*--backup/);
    assert.ok(open !== undefined && !("irreversible" in open));
    // Half of the callers would meet what does not run.
    assert.equal(find(contracted, "promotion:index:Canary", "verification-canary"), undefined);
    assert.ok(find(expanded, "promotion:index:Canary", "verification-canary"));
    // Whatever fails there leaves what serves as it is, its autoscaler included.
    const kept = find(expanded, ":Deployment", "web-dev-7");
    assert.ok(kept?.dependsOn.includes("database-migrate-dev-9"), kept?.dependsOn.join(" "));
  });

  it("tells what becomes of the schema to whoever comes next, should the release not pass", async () => {
    const lastOutputs = { release: { imageTag: "dev-7", digest }, schema: schema(7) };
    const run = await harness.run(withDatabase("dev-8", { lastOutputs }));
    const [reader] = specOf(jobs(run).get("database-before-dev-8")).template.spec.containers;
    assert.equal(variable(reader, "POINTS"), "8=contract");
    // It is the same once it has passed, and nothing runs again.
    const passed = await harness.run(withDatabase("dev-8", { lastOutputs: run.outputs }));
    for (const [name, job] of jobs(run))
      assert.deepEqual(jobs(passed).get(name)?.inputs, job.inputs);
    const migrate = specOf(jobs(run).get("database-migrate-dev-8"));
    const [guard] = migrate.template.spec.initContainers ?? [];
    assert.equal(variable(guard, "POINTS"), "8=contract");
    assert.equal(variable(guard, "ENVIRONMENT"), "qa");
  });

  it("keeps its Jobs, retries what failed, and fails before the await does", async () => {
    const run = await harness.run(withDatabase("dev-7"));
    for (const [name, job] of jobs(run)) {
      const spec = specOf(job);
      assert.equal(spec.ttlSecondsAfterFinished, undefined, name);
      assert.ok(spec.backoffLimit <= 2, name);
      assert.ok(spec.activeDeadlineSeconds < Number.parseInt(job.options.createTimeout), name);
      assert.deepEqual(job.options.replaceOnChanges, ["#initerror"], name);
      assert.equal(job.options.deleteBeforeReplace, true, name);
    }
  });

  it("keeps the backups whatever becomes of the stack", async () => {
    const run = await harness.run(withDatabase("dev-7"));
    const claim = find(run, ":PersistentVolumeClaim", "database-backups");
    assert.equal(claim?.options.retainOnDelete, true);
    const existing = await harness.run(
      withDatabase("dev-7", {}, { backup: { volume: { existing: "mine" } } }),
    );
    assert.equal(find(existing, ":PersistentVolumeClaim", "database-backups"), undefined);
    const { volumes } = specOf(jobs(existing).get("database-before-dev-7")).template.spec;
    assert.ok(JSON.stringify(volumes).includes('"claimName":"mine"'));
  });

  it("backs up by schedule where there is one; what restores waits to be asked", async () => {
    const suspended = (run: Run, name: string) =>
      (find(run, ":CronJob", name)?.inputs as { spec: { suspend: boolean } }).spec.suspend;
    const plain = await harness.run(withDatabase("dev-7"));
    assert.equal(suspended(plain, "database-backup"), true);
    assert.equal(suspended(plain, "database-restore"), true);
    assert.equal(find(plain, ":CronJob", "database-refresh"), undefined);
    const backup = { volume: { size: "1Gi" }, schedule: "0 3 * * *" };
    const refresh = { seed: ["node", "seed.js"] };
    const scheduled = await harness.run(withDatabase("dev-7", {}, { backup, refresh }));
    assert.equal(suspended(scheduled, "database-backup"), false);
    assert.equal(suspended(scheduled, "database-restore"), true);
    assert.equal(suspended(scheduled, "database-refresh"), true);
  });

  it("says the database's URL to its containers only, by reference", async () => {
    const run = await harness.run(withDatabase("dev-7"));
    const holders = run.resources.filter(({ inputs }) => JSON.stringify(inputs).includes(PASSWORD));
    assert.deepEqual(
      holders.map(({ type, name, secrets }) => [type, name, secrets]),
      [["kubernetes:core/v1:Secret", "settings-dev-7", ["stringData"]]],
    );
    const [container] = specOf(jobs(run).get("database-before-dev-7")).template.spec.containers;
    const url = container?.env.find(({ name }) => name === "DATABASE_URL");
    assert.equal(url?.valueFrom?.secretKeyRef?.key, "DATABASE_URL");
    assert.ok(!JSON.stringify(run.outputs).includes(PASSWORD));
  });

  it("refuses labels that make no sense, forward; they do not stand in the way back", async () => {
    pushImage(harness, { "baton.schema-head": "seven" }, "dev-70", "qa-70");
    const lines = (await harness.refusal(withDatabase("dev-70"))).split("\n");
    assert.deepEqual(lines, [
      "qa: label baton.schema-head of dev-70 is seven; expected the version its migrations lead to, such as 7. Build the image again with it.",
      "qa: label baton.schema-kind of dev-70 is not set; expected expand, contract or irreversible. Build the image again with it.",
    ]);
    await harness.run(withDatabase("dev-70", { config: { rollbackOf: "dev-7" } }));
  });

  it("is previewed where nothing is known yet", async () => {
    const run = await harness.run(withDatabase("dev-7", { preview: true }));
    assert.equal(jobs(run).size, 4);
  });
});
