// What has been refused before still is, and what is measured still has its names.
import { check } from "k6";
import http from "k6/http";
import { awaitTarget, target } from "./target.js";

export const options = { iterations: 10, thresholds: { checks: ["rate==1"] } };

const headers = { "content-type": "application/json" };
const NOBODY = "00000000-0000-4000-8000-00000000000f";

export const setup = awaitTarget;

export default function () {
  http.setResponseCallback(http.expectedStatuses(400, 404));
  const order = { customer: "k6", item: "Tea", quantity: 0, unitPriceCents: 650 };
  check(http.post(`${target}/orders`, JSON.stringify(order), { headers }), {
    "refuses an order of nothing": ({ status }) => status === 400,
  });
  check(http.get(`${target}/orders/1`), {
    "refuses what is no id": ({ status }) => status === 400,
  });
  check(http.get(`${target}/orders/${NOBODY}`), {
    "knows what is not there": ({ status }) => status === 404,
  });
  check(http.get(`${target}/metrics`, { responseCallback: http.expectedStatuses(200) }), {
    "has metrics": ({ body }) =>
      body.includes("http_requests_total{") && body.includes("http_request_duration_seconds"),
  });
}
