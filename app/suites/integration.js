// The service with its database: what it is told it keeps.
import { check } from "k6";
import http from "k6/http";
import { awaitTarget, target } from "./target.js";

export const options = { iterations: 5, thresholds: { checks: ["rate==1"] } };

const headers = { "content-type": "application/json" };

export const setup = awaitTarget;

export default function () {
  const order = { customer: "k6", item: "Tea", quantity: 2, unitPriceCents: 650 };
  const made = http.post(`${target}/orders`, JSON.stringify(order), { headers });
  check(made, {
    "takes an order": ({ status }) => status === 201,
    "adds it up": (answer) => answer.json("totalCents") === 1300,
  });
  check(http.get(`${target}${made.headers["Location"]}`), {
    "finds it again": (answer) => answer.status === 200 && answer.body === made.body,
  });
  check(http.get(`${target}/readyz`), { "is ready": ({ status }) => status === 200 });
}
