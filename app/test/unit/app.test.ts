import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { createApp } from "../../src/app.js";
import { PaymentDeclined } from "../../src/payments.js";
import type { Order } from "../../src/store.js";
import { inMemory, SETTINGS, TEA } from "../support/memory.js";

describe("orders", () => {
  it("are taken, found and listed", async () => {
    const { server } = await createApp(SETTINGS, inMemory());
    const made = await server.inject({ method: "POST", url: "/orders", body: TEA });
    assert.equal(made.statusCode, 201);
    const order = made.json<Order>();
    assert.equal(made.headers.location, `/orders/${order.id}`);
    assert.equal(order.totalCents, 1300);
    assert.equal(order.currency, "EUR");
    const found = await server.inject(`/orders/${order.id}`);
    assert.deepEqual(found.json(), order);
    const listed = await server.inject("/orders");
    assert.deepEqual(listed.json(), { orders: [order] });
  });

  it("are paid once", async () => {
    let charges = 0;
    const charge = () => Promise.resolve(`payment-${++charges}`);
    const behind = inMemory({ charge });
    const { server } = await createApp(SETTINGS, behind);
    const { id } = await behind.store.create({ ...TEA, currency: "EUR" });
    for (const time of ["first", "second"]) {
      const paid = await server.inject({ method: "POST", url: `/orders/${id}/payment` });
      assert.equal(paid.statusCode, 200, time);
      assert.equal(paid.json<Order>().status, "paid", time);
    }
    assert.equal(charges, 1);
  });

  it("stay open when the payment is declined", async () => {
    const behind = inMemory({ charge: () => Promise.reject(new PaymentDeclined()) });
    const { server } = await createApp(SETTINGS, behind);
    const { id } = await behind.store.create({ ...TEA, currency: "EUR" });
    const answer = await server.inject({ method: "POST", url: `/orders/${id}/payment` });
    assert.equal(answer.statusCode, 402);
    assert.equal(answer.json<{ code: string }>().code, "PAYMENT_DECLINED");
    assert.equal(behind.orders.get(id)?.status, "open");
  });

  for (const [what, change] of Object.entries({
    "no customer": { customer: undefined },
    "no quantity": { quantity: 0 },
    "a price below nothing": { unitPriceCents: -1 },
    "no currency": { currency: "euro" },
  })) {
    it(`are refused with ${what}`, async () => {
      const { server } = await createApp(SETTINGS, inMemory());
      const body = { ...TEA, ...change };
      const answer = await server.inject({ method: "POST", url: "/orders", body });
      assert.equal(answer.statusCode, 400);
      assert.match(
        answer.json<{ message: string }>().message,
        new RegExp(Object.keys(change).join()),
      );
    });
  }

  it("are not found by an id that nobody has, or that is none", async () => {
    const { server } = await createApp(SETTINGS, inMemory());
    const unknown = "/orders/00000000-0000-4000-8000-00000000000f";
    assert.equal((await server.inject(unknown)).statusCode, 404);
    assert.equal(
      (await server.inject({ method: "POST", url: `${unknown}/payment` })).statusCode,
      404,
    );
    assert.equal((await server.inject("/orders/1")).statusCode, 400);
  });

  it("tell clients nothing of what broke inside", async () => {
    const list = () => Promise.reject(new Error("password of db.internal"));
    const { server } = await createApp(SETTINGS, inMemory({ list }));
    const answer = await server.inject("/orders");
    assert.equal(answer.statusCode, 500);
    assert.doesNotMatch(answer.body, /db\.internal/);
  });
});

describe("the platform", () => {
  it("is told which release this is", async () => {
    const { server } = await createApp(SETTINGS, inMemory());
    const { body } = await server.inject("/version");
    assert.deepEqual(JSON.parse(body), { version: "45", revision: "0f1e2d3", schemaHead: 3 });
    assert.match(
      (await server.inject("/metrics")).body,
      /app_info\{version="45",revision="0f1e2d3"\} 1/,
    );
  });

  for (const [what, schemaVersion, status] of [
    ["reached, at its schema", () => Promise.resolve(3), 200],
    ["reached, at a later schema", () => Promise.resolve(4), 200],
    ["at an earlier schema", () => Promise.resolve(2), 503],
    ["away", () => Promise.reject(new Error("ECONNREFUSED 10.0.0.1")), 503],
    ["hanging", () => new Promise<number>(() => undefined), 503],
  ] as const) {
    it(`hears that the service is ${status === 200 ? "ready" : "not ready"}: the database is ${what}`, async () => {
      const { server } = await createApp(SETTINGS, inMemory({ schemaVersion }));
      const answer = await server.inject("/readyz");
      assert.equal(answer.statusCode, status);
      assert.doesNotMatch(answer.body, /10\.0\.0\.1/);
      assert.equal((await server.inject("/healthz")).statusCode, 200, "alive all the same");
    });
  }

  it("hears that a service that shuts down is not ready, though it answers", async () => {
    const { server, drain } = await createApp(SETTINGS, inMemory());
    drain();
    assert.equal((await server.inject("/readyz")).statusCode, 503);
    const answer = await server.inject("/orders");
    assert.equal(answer.statusCode, 200);
    assert.equal(answer.headers.connection, "close");
  });

  it("counts and times what users call, and nothing else", async () => {
    const { server } = await createApp(SETTINGS, inMemory());
    for (const url of ["/orders", "/orders", "/orders/1", "/nothing", "/healthz", "/readyz"]) {
      await server.inject(url);
    }
    const { body } = await server.inject("/metrics");
    const counted = body.split("\n").filter((line) => line.startsWith("http_requests_total{"));
    assert.deepEqual(counted.sort(), [
      'http_requests_total{method="GET",route="/orders",status="200"} 2',
      'http_requests_total{method="GET",route="/orders/:id",status="400"} 1',
      'http_requests_total{method="GET",route="unknown",status="404"} 1',
    ]);
    assert.match(body, /http_request_duration_seconds_bucket\{le="0.1",.*route="\/orders"/);
  });

  it("meets a fault in what users call, and in its metrics, but not in probes", async () => {
    const { server } = await createApp({ ...SETTINGS, FAULT: "errors:1" }, inMemory());
    assert.equal((await server.inject("/orders")).statusCode, 500);
    assert.equal((await server.inject("/readyz")).statusCode, 200);
    assert.match(
      (await server.inject("/metrics")).body,
      /http_requests_total\{method="GET",route="\/orders",status="500"\} 1/,
    );
  });
});
