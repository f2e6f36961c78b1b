import * as assert from "node:assert/strict";
import { execa } from "execa";
import { mkdirSync, utimesSync, writeFileSync } from "node:fs";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ROOT } from "../../sandbox/folder";
import { clientEnvironment, databaseUrl, runSql } from "../../sandbox/postgres";
import { onSandbox, startSandbox } from "./scene";

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
    await startSandbox();
    url = await databaseUrl("e2e_script");
  });
  beforeEach(async () => {
    backups = await mkdtemp(join(tmpdir(), "baton-backups-"));
    await rows("DROP SCHEMA IF EXISTS public, other CASCADE; CREATE SCHEMA public");
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
  const release = (head: number, points = "") => ({
    ...{ HEAD: String(head), NAME: `before-${head}`, REFUSE_FROM: "" },
    ...{ POINTS: points, RELEASE: `release-${head}` },
  });
  const migration = (head: number, job: string, restores: boolean, points = "") => ({
    ...release(head, points),
    ...{ JOB: job, BACKUP: `before-${head}`, RESTORE: restores ? "yes" : "" },
  });
  /** A PATH on which a program fails its first calls, as where the server has no connection left. */
  const once = async (program: string, times: number): Promise<string> => {
    const path = (await clientEnvironment())["PATH"] ?? "";
    const shim = join(backups, "bin", program);
    mkdirSync(join(backups, "bin"), { recursive: true });
    const count = `${shim}.count`;
    writeFileSync(count, "");
    writeFileSync(
      shim,
      `#!/bin/sh\nif [ "$(wc -l <'${count}')" -lt ${times} ]; then echo >>'${count}'; echo "too many connections" >&2; exit 1; fi\nPATH='${path}' exec ${program} "$@"\n`,
      { mode: 0o755 },
    );
    return `${join(backups, "bin")}:${path}`;
  };
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

  it("undoes a version that has only changed data", async () => {
    await passes("before", release(7));
    const job = migration(7, "a", true);
    await passes("guard", job);
    await rows("INSERT INTO migrations VALUES (6); UPDATE orders SET id = 0");
    assert.match(await fails("guard", job), /before-7 is restored/);
    assert.equal(await rows("SELECT sum(id) FROM orders"), "5050");
  });

  it("is done with a migration that was migrated down", async () => {
    await passes("before", release(7, "6=contract"));
    await passes("guard", migration(7, "a", true, "6=contract"));
    await rows(to(6));
    await rows(
      "DROP TABLE version_6; DELETE FROM migrations WHERE version = 6; CREATE INDEX ON orders (id)",
    );
    await passes("before", { ...release(0), RUNS_ON: "5", REFUSE_FROM: "6", UNDONE: "yes" });
    await passes("before", release(8));
    assert.equal(await passes("guard", migration(8, "b", true)), "");
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

  it("holds a migration to the version that its release says", async () => {
    for (const [says, leads] of [
      [7, 6],
      [7, 8],
    ] as const) {
      await passes("before", release(says));
      await passes("guard", migration(says, `to-${leads}`, true));
      await rows(to(leads));
      for (const attempt of ["first", "again"]) {
        const said = await fails("reached", release(says));
        assert.match(said, RegExp(`led to version ${leads} .* expected ${says}`), attempt);
      }
    }
    // Nor is it taken a second time.
    assert.match(await fails("before", release(7)), /led to version 8 .* expected 7/);
    // The same, built again: what the former one has done was not half of anything.
    await passes("before", release(8));
    await passes("before", release(9));
    assert.equal(await passes("guard", migration(9, "c", true)), "");
    await rows(to(9));
    await passes("reached", release(9));
    // A release of before, to which nothing was done.
    await passes("reached", release(8));
  });

  it("hears of a contraction by a release that never passed, and lets no other one forget it", async () => {
    await passes("before", release(6, "6=contract"));
    await passes("guard", migration(6, "a", false, "3=contract 6=contract"));
    const failed = { RELEASE: "release-5", HEAD: "0", RUNS_ON: "5" };
    await passes("points", failed);
    await rows(to(6));
    const forward = await fails("before", release(7));
    assert.match(
      forward,
      /at version 6: release-6, which has not passed, has gone over 6=contract/,
    );
    assert.match(forward, /expected its label baton.schema-points to name that/);
    await passes("before", release(7, "6=contract"));
    assert.match(await fails("before", release(5)), /or restore what was before$/);
    const unlabelled = { RELEASE: "release-7", HEAD: "0", POINTS: "3=contract" };
    assert.match(await fails("points", unlabelled), /or restore what was before$/);
    await passes("points", { ...unlabelled, POINTS: "3=contract 6=contract" });
    const back = await fails("points", failed);
    assert.match(
      back,
      /release-5 is made for version 5 and does not run on it, as release-6 has gone over/,
    );
    assert.match(back, /baton restore dev --backup before-6` and run this again\.$/);
    await passes("points", { ...failed, RUNS_ON: "6" });
    await passes("restore", { BACKUP: "before-6", OVERWRITE: "yes" });
    await passes("points", failed);
    await passes("before", release(7));
    await rows(to(6));
    await passes("points", failed);
  });

  it("asks for people where it cannot read what the last attempt was", async () => {
    writeFileSync(join(backups, ".attempt"), "");
    assert.match(await fails("before", release(6)), /\.attempt cannot be read: remove it once/);
  });

  it("takes no connection that fails for an answer", async () => {
    await passes("before", release(6));
    await rows("INSERT INTO orders VALUES (101)");
    const down = { PATH: await once("psql", 1) };
    const said = await fails("restore", { BACKUP: "before-6", OVERWRITE: "", ...down });
    assert.match(said, /what the database holds cannot be read/);
    await passes("guard", migration(6, "a", true));
    const schema = { ...migration(6, "a", true), PATH: await once("pg_dump", 1) };
    assert.match(await fails("guard", schema), /the schema cannot be read/);
    assert.equal(await orders(), "101");
    assert.match(await fails("guard", migration(6, "a", true)), /nothing of it remains/);
  });

  it("loses nothing that is written while a restore takes a copy of what is there", async () => {
    await rows("INSERT INTO orders SELECT generate_series(1, 100000)");
    await passes("before", release(6));
    await rows("CREATE TABLE written (id int)");
    let written = 0;
    const over = new AbortController();
    const writes = (async () => {
      while (!over.signal.aborted) {
        const done = await rows("INSERT INTO written VALUES (1)").catch(() => undefined);
        if (done === undefined) break;
        written += 1;
      }
    })();
    const said = await passes("restore", { BACKUP: "before-6", OVERWRITE: "yes" });
    over.abort();
    await writes;
    assert.equal(await rows("SELECT to_regclass('written') IS NULL"), "t");
    const [, copy = ""] = /what is replaced is in backup (\S+)/.exec(said) ?? [];
    await passes("restore", { BACKUP: copy, OVERWRITE: "yes" });
    assert.equal(await rows("SELECT count(*) FROM written"), String(written));
    assert.ok(written > 0);
  });

  it("removes no backup that is being restored, or that somebody was told to restore", async () => {
    const env = { OVERWRITE: "yes", KEEP: "2" };
    await passes("before", release(6));
    const copies: string[] = [];
    for (let count = 1; count <= 3; count += 1) {
      const said = await passes("restore", { BACKUP: "before-6", ...env, KEEP: "3" });
      copies.push(/what is replaced is in backup (\S+)/.exec(said)?.[1] ?? "");
    }
    await passes("restore", { BACKUP: copies[0] ?? "", ...env });
    await passes("guard", migration(6, "a", true));
    await rows(HALF);
    for (const attempt of ["b", "c", "d"]) {
      await passes("before", { ...release(7), KEEP: "2" });
      const job = { ...migration(7, attempt, true), KEEP: "2" };
      assert.match(await fails("guard", job), /backup before-6 holds/);
    }
    await passes("restore", { BACKUP: "before-6", ...env });
  });

  it("restores what was there when the migration began, and no backup that is older", async () => {
    await passes("before", release(6));
    const yesterday = new Date(Date.now() - 86_400_000);
    for (const kind of ["json", "dump", "sums", "schema"]) {
      utimesSync(join(backups, `before-6.${kind}`), yesterday, yesterday);
    }
    await rows("INSERT INTO orders VALUES (101)");
    const job = migration(6, "a", true);
    await passes("guard", job);
    await rows(HALF);
    assert.match(await fails("guard", job), /before-6-2 is restored/);
    assert.equal(await orders(), "101");
  });

  it("restores whatever a schema may hold over itself", async () => {
    await rows(`
      CREATE TABLE a (id int GENERATED ALWAYS AS IDENTITY, value text); ALTER TABLE a RENAME TO z;
      CREATE TYPE span AS RANGE (subtype = int); CREATE COLLATION german (provider = libc, locale = 'C');
      CREATE TEXT SEARCH CONFIGURATION words (COPY = simple);
      CREATE TABLE named (t int, class regclass, at span); INSERT INTO named VALUES (1, 'z', '[1,2)');
      CREATE TABLE parts (id int) PARTITION BY RANGE (id); CREATE TABLE part PARTITION OF parts DEFAULT;
      CREATE SCHEMA other; CREATE VIEW other.seen AS SELECT * FROM z; SELECT lo_from_bytea(0, 'x')`);
    await passes("before", release(6));
    await rows("UPDATE named SET class = 'named'");
    await passes("restore", { BACKUP: "before-6", OVERWRITE: "yes" });
    assert.equal(await rows("SELECT class FROM named"), "z");
    await rows("ALTER ROLE app SET idle_in_transaction_session_timeout = '1ms'");
    try {
      await passes("backup", { NAME: "slow" });
    } finally {
      await rows("ALTER ROLE app RESET idle_in_transaction_session_timeout");
    }
  });

  it("shows nothing of a URL, also where it is malformed", async () => {
    const malformed = [
      "postgresql://app:secret/word@host/app",
      "postgresql://app:secret@word@host/app",
      "app:secret@host/app",
      "postgresql://app:secretword@127.0.0.1:1/app",
      "postgresql://app@127.0.0.1:1/app?password=pre&secretword",
      "postgresql://app@127.0.0.1:1/app?sslmode=disable&sslpassword=100%secret",
    ];
    for (const wrong of malformed) {
      const said = await fails("list", { DATABASE_URL: wrong });
      assert.doesNotMatch(said, /secret/, wrong);
      assert.notEqual(said, "");
    }
  });
});
