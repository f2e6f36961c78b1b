// A user's way through the app.
import { check } from "k6";
import http from "k6/http";
import { awaitTarget, target } from "./target.js";

export const options = { iterations: 5, thresholds: { checks: ["rate==1"] } };

export const setup = awaitTarget;

export default function () {
  check(http.get(target, { headers: { accept: "text/html" } }), {
    "shows its page": ({ status, body }) => status === 200 && body.includes("podinfo"),
  });
  const token = http.post(`${target}/token`, "user");
  check(token, { "logs in": ({ status }) => status === 200 });
  check(
    http.get(`${target}/token/validate`, {
      headers: { authorization: `Bearer ${token.json("token")}` },
    }),
    { "is known": ({ status }) => status === 200 },
  );
}
