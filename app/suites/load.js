// A constant load, mostly of reads, with limits on errors and latency.
import http from "k6/http";
import { awaitTarget, target } from "./target.js";

export const options = {
  scenarios: {
    load: {
      executor: "constant-arrival-rate",
      rate: 50,
      timeUnit: "1s",
      duration: "10s",
      preAllocatedVUs: 10,
    },
  },
  thresholds: {
    "http_req_failed{scenario:load}": ["rate<0.01"],
    "http_req_duration{scenario:load}": ["p(95)<500"],
  },
};

const headers = { "content-type": "application/json" };

export const setup = awaitTarget;

export default function () {
  if (Math.random() < 0.9) {
    http.get(`${target}/orders`);
    return;
  }
  const order = { customer: "k6", item: "Cup", quantity: 4, unitPriceCents: 1150 };
  http.post(`${target}/orders`, JSON.stringify(order), { headers });
}
