// As a customer: orders, sees the order among the newest, and looks at it.
import { check } from "k6";
import http from "k6/http";
import { awaitTarget, target } from "./target.js";

export const options = { iterations: 5, thresholds: { checks: ["rate==1"] } };

const headers = { "content-type": "application/json" };

export const setup = awaitTarget;

export default function () {
  const order = { customer: `k6-${__ITER}`, item: "Teapot", quantity: 1, unitPriceCents: 4200 };
  const { id } = http.post(`${target}/orders`, JSON.stringify(order), { headers }).json();
  check(http.get(`${target}/orders?limit=100`), {
    "is listed": (answer) => answer.json("orders").some((other) => other.id === id),
  });
  check(http.get(`${target}/orders/${id}`), {
    "is still to be paid": (answer) => answer.json("status") === "open",
  });
}
