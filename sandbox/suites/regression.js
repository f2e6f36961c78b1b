// What has worked before still does.
import { check } from "k6";
import http from "k6/http";
import { awaitTarget, target } from "./target.js";

export const options = { iterations: 10, thresholds: { checks: ["rate==1"] } };

export const setup = awaitTarget;

export default function () {
  for (const status of [200, 204, 404, 500]) {
    http.setResponseCallback(http.expectedStatuses(status));
    check(http.get(`${target}/status/${status}`), {
      [`answers ${status}`]: (answer) => answer.status === status,
    });
  }
  check(http.get(`${target}/metrics`), {
    "has metrics": ({ body }) => body.includes("http_request_duration_seconds"),
  });
}
