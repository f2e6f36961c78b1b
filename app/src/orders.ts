import createError from "@fastify/error";
import type { FastifyPluginCallbackTypebox } from "@fastify/type-provider-typebox";
import Type from "typebox";
import type { Payments } from "./payments.js";
import type { OrderStore } from "./store.js";

const NewOrder = Type.Object(
  {
    customer: Type.String({ minLength: 1, maxLength: 200 }),
    item: Type.String({ minLength: 1, maxLength: 200 }),
    quantity: Type.Integer({ minimum: 1, maximum: 10_000 }),
    unitPriceCents: Type.Integer({ minimum: 0, maximum: 100_000_000 }),
    currency: Type.String({ pattern: "^[A-Z]{3}$", default: "EUR" }),
  },
  { additionalProperties: false },
);
const ById = Type.Object({ id: Type.String({ format: "uuid" }) });
const Page = Type.Object({ limit: Type.Integer({ minimum: 1, maximum: 100, default: 20 }) });

const OrderNotFound = createError("ORDER_NOT_FOUND", "There is no order %s", 404);

export interface OrdersOptions {
  readonly store: Pick<OrderStore, "create" | "find" | "list" | "markPaid">;
  readonly payments: Pick<Payments, "charge">;
}

/** What users call. */
export const orders: FastifyPluginCallbackTypebox<OrdersOptions> = (
  app,
  { store, payments },
  done,
) => {
  app.get("/orders", { schema: { querystring: Page } }, async ({ query }) => ({
    orders: await store.list(query.limit),
  }));

  app.post("/orders", { schema: { body: NewOrder } }, async ({ body }, reply) => {
    const order = await store.create(body);
    return reply.code(201).header("location", `/orders/${order.id}`).send(order);
  });

  app.get("/orders/:id", { schema: { params: ById } }, async ({ params }) => {
    const order = await store.find(params.id);
    if (order === undefined) throw new OrderNotFound(params.id);
    return order;
  });

  app.post("/orders/:id/payment", { schema: { params: ById } }, async ({ params }) => {
    const order = await store.find(params.id);
    if (order === undefined) throw new OrderNotFound(params.id);
    if (order.status === "paid") return order;
    return store.markPaid(order.id, await payments.charge(order));
  });
  done();
};
