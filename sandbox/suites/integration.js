// The app with what is behind it: its own endpoints answer, and say what they should.
import { check } from "k6";
import http from "k6/http";
import { awaitTarget, target } from "./target.js";

export const options = { iterations: 5, thresholds: { checks: ["rate==1"] } };

export const setup = awaitTarget;

export default function () {
  check(http.get(`${target}/readyz`), { "is ready": ({ status }) => status === 200 });
  check(http.get(`${target}/version`), {
    "names its version": (answer) => answer.status === 200 && answer.json("version") !== "",
  });
  check(http.post(`${target}/echo`, "baton"), { echoes: ({ status }) => status === 202 });
}
