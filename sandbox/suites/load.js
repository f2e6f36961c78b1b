// A constant load, with limits on errors and latency.
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

export const setup = awaitTarget;

export default function () {
  http.get(target);
}
