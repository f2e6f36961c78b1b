/*
 * node dist/healthcheck.js [URL]
 *
 * Ends with 0 if the URL answers 200, this container's own health unless given: images have no curl.
 */
const url = process.argv[2] ?? `http://127.0.0.1:${process.env["PORT"] ?? "8080"}/healthz`;

try {
  const answer = await fetch(url, { signal: AbortSignal.timeout(3000) });
  console.log(`${url} answered ${answer.status}: ${await answer.text()}`);
  if (answer.status !== 200) process.exitCode = 1;
} catch (error) {
  const { message, cause } = error as Error;
  console.error(`${url}: ${cause instanceof Error ? cause.message : message}`);
  process.exitCode = 1;
}
