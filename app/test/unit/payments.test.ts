import assert from "node:assert/strict";
import { createServer, type RequestListener } from "node:http";
import type { AddressInfo } from "node:net";
import { describe, it, type TestContext } from "node:test";
import { createPaymentsMock } from "../../mocks/payments.js";
import { Payments } from "../../src/payments.js";
import type { Order } from "../../src/store.js";

const ORDER: Order = {
  id: "00000000-0000-4000-8000-000000000001",
  customer: "Ada",
  item: "Tea",
  quantity: 2,
  unitPriceCents: 650,
  currency: "EUR",
  totalCents: 1300,
  status: "open",
  createdAt: new Date(0).toISOString(),
  paidAt: null,
};

/** A payments service that answers so. */
async function answering(test: TestContext, answer: RequestListener): Promise<Payments> {
  const server = createServer(answer);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  test.after(() => server.close());
  return new Payments(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
}

describe("payments", () => {
  it("are asked for the order's total, once by its id", async (test) => {
    const asked: unknown[] = [];
    const payments = await answering(test, (request, response) => {
      request.setEncoding("utf8").on("data", (body: string) => {
        asked.push(request.url, request.headers["idempotency-key"], JSON.parse(body));
        response.end('{"id":"p-1"}');
      });
    });
    assert.equal(await payments.charge(ORDER), "p-1");
    assert.deepEqual(asked, ["/charges", ORDER.id, { amountCents: 1300, currency: "EUR" }]);
  });

  it("may be declined", async (test) => {
    const payments = await answering(test, (_, response) => response.writeHead(402).end());
    await assert.rejects(payments.charge(ORDER), { statusCode: 402, code: "PAYMENT_DECLINED" });
  });

  it("may answer wrongly, which is not our fault", async (test) => {
    const broken = await answering(test, (_, response) => response.writeHead(500).end());
    await assert.rejects(broken.charge(ORDER), { statusCode: 502, message: /status 500/ });
    const empty = await answering(test, (_, response) => response.end("{}"));
    await assert.rejects(empty.charge(ORDER), { statusCode: 502, message: /without an id/ });
  });

  it("may be away", async () => {
    const payments = new Payments("http://127.0.0.1:1");
    await assert.rejects(payments.charge(ORDER), { statusCode: 502, code: "PAYMENTS_AWAY" });
  });

  it("are mocked for working alone", async (test) => {
    const mock = createPaymentsMock();
    test.after(() => mock.close());
    const payments = new Payments(await mock.listen({ host: "127.0.0.1", port: 0 }));
    assert.equal(await payments.charge(ORDER), `mock-${ORDER.id}`);
    await assert.rejects(payments.charge({ ...ORDER, totalCents: 1313 }), { statusCode: 402 });
  });
});
