import { sleep } from "k6";
import http from "k6/http";

/** The URL of the app. */
export const target = __ENV.TARGET_URL;

/** Waits for an answer: a network plugin lets a new pod in once it has learnt its address. */
export function awaitTarget() {
  for (let tries = 0; tries < 60; tries++) {
    if (http.get(`${target}/readyz`).status !== 0) return;
    sleep(0.5);
  }
}
