import * as assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { labelSelectorOf } from "../../provider/cluster";
import { runningBake } from "../../provider/progress";
import { goBuild, IMAGES, type Part } from "../../sandbox/build";
import { until } from "../../sandbox/cluster";
import { BIN, NETWORK } from "../../sandbox/folder";
import { STRATEGIES } from "../../sandbox/delivery";
import { pushImage } from "../../sandbox/images";
import { databaseUrl, runSql } from "../../sandbox/postgres";
import { onSandbox, PATIENCE, Scene } from "./scene";

const ENVIRONMENT = "dev";
const DATABASE = "e2e_migrations";
/** Of a migration, in seconds. */
const DEADLINE = 25;

/**
 * A migration as an application would bring it: each version in a transaction of its own, with an
 * advisory lock and its own bookkeeping. FAULT makes it go wrong in the middle.
 */
const MIGRATE = String.raw`set -eu
[ "$FAULT" != half ] || psql -q "$DATABASE_URL" -c 'CREATE TABLE half_applied (id int)'
while :; do
  at=$(psql -qAt "$DATABASE_URL" -c "SELECT to_regclass('migrations')")
  [ -z "$at" ] || at=$(psql -qAt "$DATABASE_URL" -c 'SELECT max(version) FROM migrations')
  [ "$(($at + 0))" -lt "$TARGET" ] || exit 0
  next=$((at + 1))
  case $FAULT in
    fail | half) fault='SELECT 1 / 0;' ;;
    hang) fault='SELECT pg_sleep(3600);' ;;
    slow) fault='SELECT pg_sleep(12);' ;;
    *) fault= ;;
  esac
  psql -q -v ON_ERROR_STOP=1 "$DATABASE_URL" <<END
BEGIN;
SELECT pg_advisory_xact_lock(42) \g /dev/null
CREATE TABLE IF NOT EXISTS migrations (version int PRIMARY KEY);
CREATE TABLE IF NOT EXISTS applied (version int);
CREATE TABLE version_$next (id int);
INSERT INTO migrations VALUES ($next);
INSERT INTO applied VALUES ($next);
$fault
COMMIT;
END
done
`;

/** Back to SCHEMA_TARGET, as the release that is left would bring it. */
const DOWN = String.raw`set -eu
psql -q -v ON_ERROR_STOP=1 -v target="$SCHEMA_TARGET" "$DATABASE_URL" <<'END'
BEGIN;
SELECT pg_advisory_xact_lock(42) \g /dev/null
SELECT format('DROP TABLE version_%s', version) FROM migrations WHERE version > :target \gexec
DELETE FROM applied WHERE version > :target;
DELETE FROM migrations WHERE version > :target;
COMMIT;
END
`;

describe("a database", () => {
  let scene: Scene;
  let url: string;
  let program: string;
  let volume: string;
  let first: number;

  before(async function () {
    if (!onSandbox) this.skip();
    scene = await Scene.anew();
    [first] = scene.builds;
    first += 1000;
    const { project } = scene;
    url = await databaseUrl(DATABASE);
    await runSql(url, "DROP SCHEMA public CASCADE; CREATE SCHEMA public");

    const podinfo = IMAGES.find(({ module }) => module === "podinfo") as Part;
    program = join(project.folder, "podinfo-of-database-test");
    await goBuild(podinfo, podinfo.programs["podinfo"] ?? "", program, []);

    volume = await scene.makeVolume(ENVIRONMENT, "database-backups");
    await project.setSecret(ENVIRONMENT, "baton:DATABASE_URL", url);
    await configure({});
  });
  after(async () => {
    if (!onSandbox) return;
    await scene.removeVolume();
  });

  /** Writes into the stack file how the next migration behaves, and what the policy says. */
  async function configure({
    target = 1,
    fault = "none",
    policy = {},
    refresh,
    down,
    rollout = {},
  }: {
    target?: number;
    fault?: string;
    policy?: object;
    refresh?: object;
    down?: readonly string[];
    rollout?: object;
  }): Promise<void> {
    const check = `test "$(psql -At "$DATABASE_URL" -c 'SELECT count(*) = count(DISTINCT version) FROM applied')" = t`;
    const image = "postgres-client:15";
    await scene.project.edit(ENVIRONMENT, {
      "baton:verification": { run: ["smoke"] },
      "baton:rollout": { progressDeadlineSeconds: 30, ...rollout },
      "baton:network": { egress: [{ name: "database", cidr: `${NETWORK.inside}/32`, port: 5432 }] },
      // Where releases stand side by side.
      "baton:quota": { pods: 40 },
      "baton:settings": {
        config: { TARGET: target, FAULT: fault, LOG_LEVEL: "debug" },
        secrets: { DATABASE_URL: { source: "config" } },
      },
      "baton:database": {
        url: "DATABASE_URL",
        client: image,
        version: "SELECT max(version) FROM migrations",
        migration: {
          image,
          command: ["/bin/sh", "-c", MIGRATE],
          timeoutSeconds: DEADLINE,
          ...(down === undefined ? {} : { down }),
        },
        integrity: { image, command: ["/bin/sh", "-c", check] },
        backup: { volume: { size: "1Gi", storageClass: "sandbox" }, timeoutSeconds: 120 },
        policy,
        ...(refresh === undefined ? {} : { refresh }),
      },
    });
    await scene.project.commit("Configure");
  }

  /** Pushes a build that brings a schema. */
  async function push(number: number, head: number, kind: string): Promise<string> {
    const tag = `build-${first + number}`;
    await pushImage(tag, scene.target, {
      files: { "bin/podinfo": program, "bin/podcli": join(BIN, "podcli") },
      entrypoint: ["/bin/podinfo"],
      labels: {
        "baton.schema-head": String(head),
        "baton.schema-kind": kind,
        "org.opencontainers.image.version": tag,
      },
    });
    return tag;
  }

  const start = (...args: string[]) => scene.tool("ann", args);
  /** All that was printed: nothing of it may be secret. */
  const printed: string[] = [];
  const ends = async (exitCode: number, ...args: string[]): Promise<string> => {
    const ran = await start(...args);
    printed.push(ran.all);
    console.log(`      $ baton ${args.join(" ")}\n${ran.all.replace(/^/gm, "      ")}`);
    assert.equal(ran.exitCode, exitCode, ran.all);
    return ran.all;
  };
  const deploy = async (exitCode: number, tag: string): Promise<string> => {
    await ends(0, "request", ENVIRONMENT, "--tag", tag);
    return ends(exitCode, "deploy", ENVIRONMENT, "--yes");
  };
  const rows = (sql: string) => runSql(url, sql);
  const applied = () => rows("SELECT string_agg(version::text, ',' ORDER BY version) FROM applied");
  /** A card is as wide as a terminal. */
  const asLine = (card: string) => card.replace(/\s+/g, " ");
  /** The versions that were applied up to one, as `applied` gives them. */
  const upTo = (version: number) =>
    Array.from({ length: version }, (_, index) => index + 1).join(",");
  /** What runs and has not misbehaved, and the version of its schema. */
  let stable: string;
  let schema = 0;
  /** How many sessions migrate this database. */
  const migrations = () =>
    rows(`SELECT count(*) FROM pg_stat_activity
      WHERE application_name = 'baton-migration' AND datname = current_database()`);
  const generation = async () => {
    const namespace = scene.namespaceOf(ENVIRONMENT);
    const { metadata } = await scene.apps.readNamespacedDeployment({ namespace, name: "web" });
    return metadata?.generation;
  };
  const runs = async () =>
    ((await scene.project.outputs(ENVIRONMENT))["release"] as { imageTag: string }).imageTag;
  /** Runs of the migration so far, by the attempts that its guard has let through. */
  const attempts = async () => {
    const log = await readFile(join(volume, "migrations.log"), "utf8");
    return log.trim().split("\n").length;
  };
  const password = () => new URL(url).password;
  const bakes = async () => {
    const namespace = scene.namespaceOf(ENVIRONMENT);
    const { items } = await scene.apps.listNamespacedDeployment({ namespace });
    return items.map(runningBake).find((bake) => bake !== undefined);
  };
  /** The tags of the releases that callers reach. */
  const called = async () => {
    const namespace = scene.namespaceOf(ENVIRONMENT);
    const { spec } = await scene.core.readNamespacedService({ namespace, name: "web" });
    const pods = await scene.pods(ENVIRONMENT, labelSelectorOf(spec?.selector ?? {}));
    return [...new Set(pods.map(({ metadata }) => metadata?.labels?.["baton/image-tag"]))];
  };

  it("is backed up and migrated once, ahead of the rollout", async () => {
    const tag = await push(1, 1, "expand");
    const text = await deploy(0, tag);
    assert.match(text, new RegExp(`${tag} is deployed and verified`));
    assert.equal(await applied(), "1");
    await rows("INSERT INTO version_1 SELECT generate_series(1, 1000)");
    const listed = await ends(0, "restore", ENVIRONMENT);
    assert.match(listed, new RegExp(`before-${tag} .*schema 0, 0 tables`));
  });

  it("is left as it is on the way back over an expansion, and migrated no second time", async () => {
    await configure({ target: 2 });
    const tag = await push(2, 2, "expand");
    const card = await ends(0, "request", ENVIRONMENT, "--tag", tag);
    assert.match(card, /database +schema 1 → 2, expanded: build-\d+ still runs on it/);
    await ends(0, "deploy", ENVIRONMENT, "--yes");
    assert.equal(await applied(), "1,2");
    const before = await attempts();
    await ends(0, "rollback", ENVIRONMENT);
    assert.equal(await applied(), "1,2");
    assert.equal(await attempts(), before, "nothing migrates on the way back");
    await ends(0, "unhold", tag, "--reason", "again");
    await deploy(0, tag);
    assert.equal(await applied(), "1,2");
    assert.equal(await attempts(), before, "nor where the database is there already");
    [stable, schema] = [tag, 2];
  });

  it("stops the rollout when its migration fails, with the former version serving", async () => {
    await configure({ target: 3, fault: "fail" });
    const tag = await push(3, 3, "expand");
    const served = await generation();
    const text = await deploy(4, tag);
    assert.match(text, /division by zero/);
    assert.equal(await applied(), "1,2");
    assert.equal(await runs(), stable);
    assert.equal(await generation(), served, "the Deployment is as it was");
    await ends(0, "unhold", tag, "--reason", "mended");
  });

  it("is restored where a migration was applied in part, and the policy says so (long)", async () => {
    await configure({ target: 3, fault: "half", policy: { restoreHalfApplied: true } });
    const text = await deploy(4, `build-${first + 3}`);
    assert.match(text, /division by zero/);
    assert.match(await ends(0, "restore", ENVIRONMENT), /replaced-\d{8}T\d{6}Z .*schema 2/);
    assert.equal(await rows("SELECT to_regclass('half_applied') IS NULL"), "t");
    assert.equal(await rows("SELECT count(*), sum(id) FROM version_1"), "1000|500500");
    await ends(0, "unhold", `build-${first + 3}`, "--reason", "mended");
  });

  it("loses a migration that hangs at its deadline (long)", async () => {
    await configure({ target: 3, fault: "hang" });
    const text = await deploy(4, `build-${first + 3}`);
    assert.match(text, /database-migrate-build-\d+.*BackoffLimitExceeded/s);
    assert.equal(await migrations(), "0");
    await ends(0, "unhold", `build-${first + 3}`, "--reason", "mended");
  });

  it("is migrated once when the tool is killed in the middle and run again (long)", async () => {
    await configure({ target: 3, fault: "slow" });
    await ends(0, "request", ENVIRONMENT, "--tag", `build-${first + 3}`);
    const run = start("deploy", ENVIRONMENT, "--yes");
    await until("the migration to run", async () => (await migrations()) === "1", PATIENCE);
    const pulumi = await scene.pulumiOf(ENVIRONMENT);
    run.kill("SIGKILL");
    process.kill(pulumi, "SIGKILL");
    await run;
    await ends(0, "deploy", ENVIRONMENT, "--yes");
    assert.equal(await applied(), "1,2,3");
  });

  it("is migrated once when the pod is killed in the middle and it is run again (long)", async () => {
    await configure({ target: 4, fault: "slow" });
    const tag = await push(4, 4, "expand");
    await ends(0, "request", ENVIRONMENT, "--tag", tag);
    const run = start("deploy", ENVIRONMENT, "--yes");
    await until("the migration to run", async () => (await migrations()) === "1", PATIENCE);
    const namespace = scene.namespaceOf(ENVIRONMENT);
    const { items } = await scene.core.listNamespacedPod({
      namespace,
      labelSelector: "app.kubernetes.io/component=database",
    });
    // The kubelet may not have told yet that it runs.
    const killed = items.filter(({ status }) => !/Succeeded|Failed/.test(status?.phase ?? ""));
    assert.equal(killed.length, 1);
    for (const { metadata } of killed) {
      await scene.core.deleteNamespacedPod({
        namespace,
        name: metadata?.name ?? "",
        gracePeriodSeconds: 0,
      });
    }
    assert.equal((await run).exitCode, 4, (await run).all);
    printed.push((await run).all);
    assert.equal(await applied(), "1,2,3");
    await ends(0, "unhold", tag, "--reason", "its pod was killed");
    await configure({ target: 4 });
    await deploy(0, tag);
    assert.equal(await applied(), "1,2,3,4");
    [stable, schema] = [tag, 4];
  });

  it("refuses the way back over a contraction, before anything is changed", async () => {
    const next = schema + 1;
    await configure({ target: next });
    const tag = await push(5, next, "contract");
    const card = await ends(0, "request", ENVIRONMENT, "--tag", tag);
    const crossing = `schema ${schema} → ${next}, contracted at ${next}`;
    assert.ok(asLine(card).includes(`${crossing}: ${stable} does not run on it`), card);
    await ends(0, "deploy", ENVIRONMENT, "--yes");
    await rows(`INSERT INTO version_${next} VALUES (7)`);
    const served = await generation();
    const text = await ends(5, "rollback", ENVIRONMENT);
    assert.ok(text.includes(`does not run on it, as it was contracted at ${next}`), text);
    assert.match(text, new RegExp(`baton restore ${ENVIRONMENT} --backup before-${tag}`));
    assert.equal(await generation(), served, "the Deployment is as it was");
    assert.equal(await runs(), tag);
  });

  it("is restored in place of what lives there, asked twice; then the way back is open", async () => {
    const backup = `before-build-${first + 5}`;
    const refused = await ends(1, "restore", ENVIRONMENT, "--backup", backup, "--yes");
    assert.match(refused, /--overwrite-live is not given/);
    assert.equal(await applied(), upTo(schema + 1));
    const text = await ends(
      0,
      ...["restore", ENVIRONMENT, "--backup", backup, "--yes", "--overwrite-live"],
    );
    assert.ok(text.includes(`the same as in the backup; schema version ${schema}`), text);
    assert.equal(await applied(), upTo(schema));
    assert.equal(await rows("SELECT count(*), sum(id) FROM version_1"), "1000|500500");
    assert.equal(await rows(`SELECT to_regclass('version_${schema + 1}') IS NULL`), "t");
    await ends(0, "rollback", ENVIRONMENT);
    assert.equal(await runs(), stable);
  });

  it("refuses the way back anew, though the one before was open", async () => {
    const next = schema + 1;
    const tag = `build-${first + 5}`;
    await ends(0, "unhold", tag, "--reason", "again");
    await configure({ target: next });
    // What the integrity suite does not let through.
    await rows("INSERT INTO applied VALUES (1)");
    const text = asLine(await deploy(5, tag));
    assert.match(text, new RegExp(`does not run on it, as it was contracted at ${next}`));
    assert.match(text, new RegExp(`there is no way back to ${stable}`));
    assert.equal(await runs(), stable);
    const [, backup = ""] = /--backup (before-\S+?)`/.exec(text) ?? [];
    const live = ["--yes", "--overwrite-live"];
    await ends(0, "restore", ENVIRONMENT, "--backup", backup, ...live);
    await rows("DELETE FROM applied WHERE version = 1; INSERT INTO applied VALUES (1)");
    assert.equal(await applied(), upTo(schema));
    await configure({ target: schema });
    await deploy(0, stable);
    assert.equal(await runs(), stable);
  });

  it("is restored into an empty database (long)", async () => {
    const sums = () => rows("SELECT count(*), sum(id) FROM version_1");
    const before = await sums();
    await rows("DROP SCHEMA public CASCADE; CREATE SCHEMA public");
    const backup = `before-build-${first + 5}`;
    await ends(0, "restore", ENVIRONMENT, "--backup", backup, "--yes");
    assert.equal(await sums(), before);
    assert.equal(await applied(), upTo(schema));
  });

  it("is backed up without a release, too (long)", async () => {
    const namespace = scene.namespaceOf(ENVIRONMENT);
    const { spec } = await scene.batch.readNamespacedCronJob({
      namespace,
      name: "database-backup",
    });
    const template = spec?.jobTemplate.spec;
    assert.ok(template !== undefined);
    // As `kubectl create job --from=cronjob/database-backup by-hand`.
    const body = { metadata: { name: "by-hand" }, spec: template };
    await scene.batch.createNamespacedJob({ namespace, body });
    const job = { namespace, name: "by-hand" };
    const done = async () => (await scene.batch.readNamespacedJob(job)).status?.succeeded === 1;
    await until("the backup", done, PATIENCE);
    assert.match(
      await ends(0, "restore", ENVIRONMENT),
      new RegExp(`scheduled-\\d{8}T\\d{6}Z .*schema ${schema}`),
    );
  });

  it("takes fresh data from a dump, migrated, where nobody needs what it holds (long)", async () => {
    await rows("INSERT INTO version_1 VALUES (0)");
    // Of schema 1, with the first release's data.
    const refresh = { dump: `before-build-${first + 2}` };
    await configure({ target: schema, refresh });
    await deploy(0, stable);
    await ends(0, "refresh", ENVIRONMENT, "--yes");
    assert.equal(await rows("SELECT count(*), sum(id) FROM version_1"), "1000|500500");
    assert.equal(await applied(), upTo(schema));
  });

  it("is migrated down on the way back over a contraction, where the policy says so (long)", async () => {
    // Going back takes the stack file of the release that is returned to: it must know the way.
    const way = { down: ["/bin/sh", "-c", DOWN], policy: { allowDown: true } };
    const next = schema + 1;
    const tag = await push(6, next, "contract");
    const crossing = `schema ${schema} → ${next}, contracted at ${next}`;
    await configure({ target: next, ...way });
    const early = await ends(0, "request", ENVIRONMENT, "--tag", tag);
    assert.ok(asLine(early).includes(`${crossing}: ${stable} does not run on it`), early);
    await configure({ target: schema, ...way });
    await deploy(0, stable);
    await configure({ target: next, ...way });
    const card = await ends(0, "request", ENVIRONMENT, "--tag", tag);
    const down = `${crossing}: ${stable} runs again after the migration down`;
    assert.ok(asLine(card).includes(down), card);
    await ends(0, "deploy", ENVIRONMENT, "--yes");
    assert.equal(await applied(), upTo(schema + 1));
    await ends(0, "rollback", ENVIRONMENT);
    assert.equal(await runs(), stable);
    assert.equal(await applied(), upTo(schema));
    assert.equal(await rows(`SELECT to_regclass('version_${schema + 1}') IS NULL`), "t");
    const listed = await ends(0, "restore", ENVIRONMENT);
    assert.match(listed, new RegExp(`before-down-to-${stable} .*schema ${next}`));
  });

  for (const [index, strategy] of STRATEGIES.entries()) {
    it(`keeps its callers with a release that has contracted it, by ${strategy} (long)`, async () => {
      const next = schema + 1;
      await configure({ target: schema, rollout: { strategy } });
      await ends(0, "request", ENVIRONMENT, "--tag", stable);
      await ends(0, "deploy", ENVIRONMENT, "--yes");
      const tag = await push(10 + index, next, "contract");
      await configure({ target: next, rollout: { strategy, bake: "10m" } });
      await ends(0, "request", ENVIRONMENT, "--tag", tag);
      const run = start("deploy", ENVIRONMENT, "--yes");
      await until("the bake", async () => (await bakes()) !== undefined, PATIENCE);
      await ends(0, "abort", ENVIRONMENT, "--reason", "not today");
      const { exitCode, all } = await run;
      printed.push(all);
      console.log(all.replace(/^/gm, "      "));
      assert.equal(exitCode, 5, all);
      const text = asLine(all);
      const reason = `the former release does not run on the schema, contracted at ${next}`;
      assert.match(text, new RegExp(`web stays (as|where) it is: ${reason}`));
      assert.match(text, new RegExp(`baton restore ${ENVIRONMENT} --backup`));
      assert.match(text, new RegExp(`there is no way back to ${stable}`));
      assert.equal(await applied(), upTo(next));
      assert.deepEqual(await called(), [tag]);
      // It had nothing to be blamed for.
      await configure({ target: next, rollout: { strategy } });
      await ends(0, "request", ENVIRONMENT, "--tag", tag);
      await ends(0, "deploy", ENVIRONMENT, "--yes");
      assert.deepEqual(await called(), [tag]);
      [stable, schema] = [tag, next];
    });
  }

  it("keeps its password out of everything but the Secret", async () => {
    assert.ok(!printed.join("\n").includes(password()));
    const namespace = scene.namespaceOf(ENVIRONMENT);
    const { batch, core } = scene;
    const objects = await Promise.all([
      batch.listNamespacedJob({ namespace }),
      batch.listNamespacedCronJob({ namespace }),
      core.listNamespacedPod({ namespace }),
      core.listNamespacedEvent({ namespace }),
      core.listNamespacedConfigMap({ namespace }),
    ]);
    assert.ok(!JSON.stringify(objects).includes(password()));
    assert.ok(!(await scene.state(ENVIRONMENT)).includes(password()));
    for (const { metadata, spec } of objects[2].items) {
      for (const { name } of [...(spec?.initContainers ?? []), ...(spec?.containers ?? [])]) {
        const pod = { namespace, name: metadata?.name ?? "", container: name };
        const log = await core.readNamespacedPodLog(pod).catch(() => "");
        assert.ok(!log.includes(password()), name);
      }
    }
  });
});
