import { randomUUID } from "node:crypto";
import type { Behind } from "../../src/app.js";
import type { NewOrder, Order } from "../../src/store.js";

/** What is behind the service, in memory: orders that are kept, and payments that succeed. */
export function inMemory(changes: Partial<Behind["store"] & Behind["payments"]> = {}): Behind & {
  readonly orders: Map<string, Order>;
} {
  const orders = new Map<string, Order>();
  const store = {
    create: (order: NewOrder) => {
      const made: Order = {
        ...order,
        id: randomUUID(),
        totalCents: order.quantity * order.unitPriceCents,
        status: "open",
        createdAt: new Date(0).toISOString(),
        paidAt: null,
      };
      orders.set(made.id, made);
      return Promise.resolve(made);
    },
    find: (id: string) => Promise.resolve(orders.get(id)),
    list: (limit: number) => Promise.resolve([...orders.values()].slice(0, limit)),
    markPaid: (id: string) => {
      const paid: Order = {
        ...(orders.get(id) as Order),
        status: "paid",
        paidAt: new Date(0).toISOString(),
      };
      orders.set(id, paid);
      return Promise.resolve(paid);
    },
    schemaVersion: () => Promise.resolve(3),
    close: () => Promise.resolve(),
    ...changes,
  };
  return { orders, store, payments: { charge: () => Promise.resolve("paid-1"), ...changes } };
}

export const SETTINGS = {
  LOG_LEVEL: "silent",
  APP_VERSION: "45",
  APP_REVISION: "0f1e2d3",
  FAULT: "",
} as const;

export const TEA = { customer: "Ada", item: "Tea", quantity: 2, unitPriceCents: 650 };
