/*
 * node dist/healthcheck.js [URL [ATTEMPTS]]
 *
 * Ends with 0 if the URL answers 200, this container's own health unless given: images have no curl.
 * Tries once unless told to try more often, a second apart: a Service that was just made may refuse.
 */
import { setTimeout } from "node:timers/promises";

const url = process.argv[2] ?? `http://127.0.0.1:${process.env["PORT"] ?? "8080"}/healthz`;
const attempts = Number(process.argv[3] ?? 1);

for (let attempt = 1; !(await isHealthy()); attempt += 1) {
  if (attempt >= attempts) {
    process.exitCode = 1;
    break;
  }
  await setTimeout(1000);
}

async function isHealthy(): Promise<boolean> {
  try {
    const answer = await fetch(url, { signal: AbortSignal.timeout(3000) });
    console.log(`${url} answered ${answer.status}: ${await answer.text()}`);
    return answer.status === 200;
  } catch (error) {
    const { message, cause } = error as Error;
    console.error(`${url}: ${cause instanceof Error ? cause.message : message}`);
    return false;
  }
}
