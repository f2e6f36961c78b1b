import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { createPaymentsMock } from "../../mocks/payments.js";
import { migrate } from "../../src/migrations.js";
import type { Order } from "../../src/store.js";
import { createDatabase } from "../support/database.js";
import { TEA } from "../support/memory.js";
import { start } from "../support/process.js";

describe("the service", () => {
  let variables: Record<string, string>;
  let service: ReturnType<typeof start>;
  let url: string;
  let drop: () => Promise<void>;
  const payments = createPaymentsMock();

  before(async () => {
    const database = await createDatabase();
    drop = database.drop;
    variables = {
      DATABASE_URL: database.url,
      PAYMENTS_URL: await payments.listen({ host: "127.0.0.1", port: 0 }),
      PORT: "0",
      DRAIN_SECONDS: "1",
    };
    service = start("main", [], variables);
    url = await service.listening();
  });
  after(async () => {
    service.kill("SIGKILL");
    await payments.close();
    await drop();
  });

  const post = (path: string, body?: unknown) =>
    fetch(`${url}${path}`, {
      method: "POST",
      ...(body === undefined
        ? {}
        : { body: JSON.stringify(body), headers: { "content-type": "application/json" } }),
    });
  const order = async (answer: Response) => (await answer.json()) as Order;

  it("lives but is not ready before the migrations have run", async () => {
    assert.equal((await fetch(`${url}/healthz`)).status, 200);
    const answer = await fetch(`${url}/readyz`);
    assert.equal(answer.status, 503);
    assert.match(await answer.text(), /the schema is at 0; expected 3 or later/);
    await migrate(variables["DATABASE_URL"] ?? "", { direction: "up" }, () => undefined);
    assert.equal((await fetch(`${url}/readyz`)).status, 200);
  });

  it("keeps orders in PostgreSQL", async () => {
    const made = await order(await post("/orders", { ...TEA, currency: "CHF" }));
    assert.equal(made.totalCents, 1300);
    assert.deepEqual(await order(await fetch(`${url}/orders/${made.id}`)), made);
    const newest = await fetch(`${url}/orders?limit=1`);
    assert.deepEqual(await newest.json(), { orders: [made] });
  });

  it("has an order paid", async () => {
    const { id } = await order(await post("/orders", TEA));
    const paid = await order(await post(`/orders/${id}/payment`));
    assert.equal(paid.status, "paid");
    assert.deepEqual(await order(await post(`/orders/${id}/payment`)), paid, "once only");
  });

  it("leaves an order open whose payment is declined", async () => {
    const { id } = await order(await post("/orders", { ...TEA, quantity: 1, unitPriceCents: 113 }));
    assert.equal((await post(`/orders/${id}/payment`)).status, 402);
    assert.equal((await order(await fetch(`${url}/orders/${id}`))).status, "open");
  });

  it("is seeded for working alone, as often as one likes", async () => {
    for (const time of ["first", "second"]) {
      const { code, output } = await start("seed", [], variables).ended;
      assert.equal(code, 0, `${time}: ${output}`);
    }
    const answer = await fetch(`${url}/orders/00000000-0000-4000-8000-000000000002`);
    assert.equal((await order(answer)).item, "Teapot");
  });

  it("never logs the password of its database", async () => {
    const wrong = new URL(variables["DATABASE_URL"] ?? "");
    wrong.password = "hunter2";
    wrong.port = "1";
    const away = start("main", [], { ...variables, DATABASE_URL: wrong.href, DRAIN_SECONDS: "0" });
    const address = await away.listening();
    assert.equal((await fetch(`${address}/readyz`)).status, 503);
    assert.equal((await fetch(`${address}/orders`)).status, 500);
    away.kill("SIGTERM");
    const { output } = await away.ended;
    assert.match(output, /ECONNREFUSED/);
    assert.doesNotMatch(output, /hunter2/);
  });

  it("ends on SIGTERM only when what has begun is answered, and sends clients elsewhere", async () => {
    const slow = start("main", [], { ...variables, FAULT: "latency:3000" });
    const address = await slow.listening();
    const begun = fetch(`${address}/orders`);
    // So that it has arrived.
    await fetch(`${address}/healthz`);
    slow.kill("SIGTERM");
    await until(async () => (await fetch(`${address}/readyz`)).status === 503);
    const late = await fetch(`${address}/healthz`);
    assert.equal(late.status, 200, "a client that has not heard yet");
    assert.equal(late.headers.get("connection"), "close");
    assert.equal((await begun).status, 200, "longer than the service takes new ones");
    assert.equal((await slow.ended).code, 0);
  });

  it("ends with an error that is told when it is wrongly set", async () => {
    const { code, output } = await start("main", [], { ...variables, FAULT: "fire" }).ended;
    assert.equal(code, 1);
    assert.match(output, /env\/FAULT is fire; expected/);
  });

  it("ends at once with FAULT=crash", async () => {
    const { code, output } = await start("main", [], { ...variables, FAULT: "crash" }).ended;
    assert.equal(code, 1);
    assert.match(output, /FAULT is crash/);
  });
});

async function until(holds: () => Promise<boolean>): Promise<void> {
  while (!(await holds())) await new Promise((resolve) => setTimeout(resolve, 20));
}
