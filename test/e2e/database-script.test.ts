import * as assert from "node:assert/strict";
import { execa } from "execa";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ROOT } from "../../sandbox/folder";
import { clientEnvironment, databaseUrl, runSql } from "../../sandbox/postgres";
import { onSandbox } from "./scene";

const SCRIPT = join(ROOT, "components", "internal", "database.sh");
/** Where a container leaves its message. */
const MESSAGE = "/dev/termination-log";
/** A migration that is in its middle: its own version is not there yet. */
const HALF = "CREATE TABLE half_applied (id int)";
const to = (version: number) =>
  `CREATE TABLE version_${version} (id int); INSERT INTO migrations VALUES (${version})`;

/* What the database's Jobs run, as their pods run it: one word, and an environment. */
describe("the script of the database's Jobs, on a PostgreSQL", () => {
  let url: string;
  let backups: string;
  const rows = (sql: string) => runSql(url, sql);

  before(async function () {
    if (!onSandbox) this.skip();
    url = await databaseUrl("e2e_script");
  });
  beforeEach(async () => {
    backups = await mkdtemp(join(tmpdir(), "baton-backups-"));
    await rows("DROP SCHEMA public CASCADE; CREATE SCHEMA public");
    await rows("CREATE TABLE migrations (version int); CREATE TABLE orders (id int)");
    await rows(to(5));
    await rows("INSERT INTO orders SELECT generate_series(1, 100)");
  });
  afterEach(() => rm(backups, { recursive: true, force: true }));
  after(() => rm(MESSAGE, { force: true }));

  async function run(
    word: string,
    env: Readonly<Record<string, string>>,
  ): Promise<{ readonly failed: boolean; readonly said: string }> {
    const { exitCode, all } = await execa("/bin/sh", [SCRIPT, word], {
      all: true,
      reject: false,
      extendEnv: false,
      env: {
        ...(await clientEnvironment()),
        ...{ DATABASE_URL: url, URL_KEY: "DATABASE_URL", BACKUPS: backups, KEEP: "10" },
        ...{ VERSION_QUERY: "SELECT max(version) FROM migrations", ENVIRONMENT: "dev" },
        ...env,
      },
    });
    return { failed: exitCode !== 0, said: all };
  }
  const passes = async (word: string, env: Readonly<Record<string, string>>) => {
    const { failed, said } = await run(word, env);
    assert.ok(!failed, said);
    return said;
  };
  const fails = async (word: string, env: Readonly<Record<string, string>>) => {
    const { failed, said } = await run(word, env);
    assert.ok(failed, said);
    return said;
  };
  /** What a release brings, as the Jobs ahead of its rollout see it. */
  const release = (head: number, points = "", former = 5) => ({
    ...{ HEAD: String(head), NAME: `before-${head}`, REFUSE_FROM: "" },
    ...{ POINTS: points, FORMER: String(former) },
  });
  const migration = (head: number, job: string, restores: boolean) => ({
    ...{ ...release(head), JOB: job, BACKUP: `before-${head}`, RESTORE: restores ? "yes" : "" },
  });
  const orders = () => rows("SELECT count(*) FROM orders");

  it("undoes what a Job's first attempt has applied in part, where it is to", async () => {
    await passes("before", release(6));
    const job = migration(6, "a", true);
    await passes("guard", job);
    await rows(HALF);
    assert.match(await fails("guard", job), /before-6 is restored, 101 rows in 3 tables/);
    assert.equal(await rows("SELECT to_regclass('half_applied') IS NULL"), "t");
    assert.ok((await readdir(backups)).some((name) => /^replaced-.*\.dump$/.test(name)));
  });

  it("never undoes a migration that has succeeded, whatever comes next", async () => {
    for (const [head, restores] of [
      [6, true],
      [7, true],
      [8, false],
      [9, true],
    ] as const) {
      await passes("before", release(head));
      const said = await passes("guard", migration(head, `job-${head}`, restores));
      assert.equal(said, "", `${head}: there is no former attempt to speak of`);
      await rows(to(head));
      await rows("INSERT INTO orders SELECT generate_series(1, 100)");
    }
    assert.equal(await orders(), "500");
  });

  it("does not restore over what has been used since, but says how to", async () => {
    await passes("before", release(6));
    await passes("guard", migration(6, "a", true));
    await rows(HALF);
    await rows("INSERT INTO orders SELECT generate_series(1, 100)");
    await passes("before", release(7));
    const said = await fails("guard", migration(7, "b", true));
    assert.match(said, /applied in part, up to version 5; backup before-6 holds/);
    assert.match(said, /`baton restore dev --backup before-6`/);
    assert.equal(await orders(), "200");
    // Either of both ways that it names.
    const left = await passes("guard", migration(7, "b", false));
    assert.match(left, /of a former attempt, it was applied in part/);
    await rows(HALF.replace("half_applied", "again"));
    assert.match(await fails("guard", migration(7, "c", true)), /backup before-7 holds/);
    await passes("restore", { BACKUP: "before-6", OVERWRITE: "yes" });
    assert.equal(await orders(), "100");
    assert.equal(await passes("guard", migration(7, "d", true)), "");
  });

  it("migrates once, whoever tries again", async () => {
    await passes("before", release(6));
    const job = migration(6, "a", false);
    await passes("guard", job);
    assert.match(await fails("guard", job), /failed or was killed, and nothing of it remains/);
    assert.match(await fails("guard", job), /started again by another Job/);
    await passes("guard", { ...job, JOB: "b" });
    await rows(to(6));
    await passes("guard", { ...job, JOB: "b" });
  });

  it("hears of a contraction by a release that never passed, and lets no other one forget it", async () => {
    await passes("before", release(6, "6=contract"));
    await passes("guard", { ...migration(6, "a", false), POINTS: "3=contract 6=contract" });
    await rows(to(6));
    const said = await fails("before", release(7));
    assert.match(said, /at version 6, and 6, which has not passed, has gone over 6=contract/);
    assert.match(said, /label baton.schema-points to name it/);
    await passes("before", release(7, "6=contract"));
    // Where it has passed, the record knows; and where it was restored, it is undone.
    await passes("before", release(7, "", 6));
    await passes("restore", { BACKUP: "before-6", OVERWRITE: "yes" });
    await passes("before", release(7));
  });

  it("shows nothing of a URL, also where it is malformed", async () => {
    const malformed = [
      "postgresql://app:secret/word@host/app",
      "postgresql://app:secret@word@host/app",
      "app:secret@host/app",
      "postgresql://app:secretword@127.0.0.1:1/app",
    ];
    for (const wrong of malformed) {
      const said = await fails("list", { DATABASE_URL: wrong });
      assert.doesNotMatch(said, /secret/, wrong);
      assert.notEqual(said, "");
    }
  });
});
