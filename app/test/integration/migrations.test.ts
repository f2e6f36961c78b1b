import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { migrate, readSchema } from "../../src/migrations.js";
import { SCHEMA_HEAD } from "../../src/operations.js";
import { createDatabase, query } from "../support/database.js";
import { start } from "../support/process.js";

const silent = () => undefined;

describe("the migrations", () => {
  let database: string;
  let drop: () => Promise<void>;
  before(async () => ({ url: database, drop } = await createDatabase()));
  after(() => drop());
  const up = (to?: number) =>
    migrate(database, { direction: "up", ...(to === undefined ? {} : { to }) }, silent);
  const down = (to: number) => migrate(database, { direction: "down", to }, silent);
  const version = async () => (await readSchema(database)).version;

  it("begin with an empty database", async () => {
    assert.deepEqual(await readSchema(database), { version: 0, head: SCHEMA_HEAD });
  });

  it("go up to any version, and then to the newest", async () => {
    await up(1);
    assert.equal(await version(), 1);
    await up();
    assert.equal(await version(), SCHEMA_HEAD);
    await up();
    assert.equal(await version(), SCHEMA_HEAD, "a second time");
  });

  it("leave the first version of the service working on the newest schema", async () => {
    await query(
      database,
      "INSERT INTO orders (customer, item, quantity, unit_price_cents) VALUES ('Ada', 'Tea', 2, 650)",
    );
    assert.deepEqual(await query(database, "SELECT customer, quantity FROM orders"), [
      { customer: "Ada", quantity: 2 },
    ]);
  });

  it("go back down, and keep what the lower version knows", async () => {
    await down(1);
    assert.equal(await version(), 1);
    assert.deepEqual(await query(database, "SELECT item FROM orders"), [{ item: "Tea" }]);
    await up();
    assert.equal(await version(), SCHEMA_HEAD);
  });

  it("run once when several start at the same time", async () => {
    await down(0);
    const variables = { DATABASE_URL: database };
    const runs = [1, 2, 3].map(() => start("migrate", [], variables).ended);
    for (const { code, output } of await Promise.all(runs)) assert.equal(code, 0, output);
    const rows = await query(database, "SELECT name FROM pgmigrations ORDER BY id");
    assert.equal(rows.length, SCHEMA_HEAD);
    assert.equal(await version(), SCHEMA_HEAD);
  });

  it("leave nothing half done when one fails, and are mended by the next run", async () => {
    await down(1);
    // What the second of its two columns runs into.
    await query(database, "ALTER TABLE orders ADD COLUMN paid_at text");
    const failed = await start("migrate", [], { DATABASE_URL: database }).ended;
    assert.equal(failed.code, 1);
    assert.match(failed.output, /column "paid_at" of relation "orders" already exists/);
    assert.equal(await version(), 1);
    const columns = await query(
      database,
      "SELECT column_name FROM information_schema.columns WHERE column_name = 'payment_id'",
    );
    assert.deepEqual(columns, []);
    await query(database, "ALTER TABLE orders DROP COLUMN paid_at");
    await up();
    assert.equal(await version(), SCHEMA_HEAD);
  });

  it("say where they stand, for programs", async () => {
    const { code, output } = await start("migrate", ["status"], { DATABASE_URL: database }).ended;
    assert.equal(code, 0);
    assert.deepEqual(JSON.parse(output), { version: SCHEMA_HEAD, head: SCHEMA_HEAD });
  });

  for (const [args, words] of [
    [["down"], /--to/],
    [["sideways"], /no command sideways/],
    [["up", "--to", "x"], /--to is x/],
  ] as const) {
    it(`refuse ${args.join(" ")}`, async () => {
      const { code, output } = await start("migrate", [...args], { DATABASE_URL: database }).ended;
      assert.equal(code, 1);
      assert.match(output, words);
    });
  }
});
