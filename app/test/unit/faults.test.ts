import fastify from "fastify";
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type Chance, injectFault, parseFault } from "../../src/faults.js";

/** A service with this fault, whose time and luck the test decides. */
function faulty(fault: string, chance: Partial<Chance> = {}) {
  const app = fastify();
  const parsed = parseFault(fault);
  assert.ok(parsed);
  injectFault(app, parsed, { uptime: () => 0, random: () => 0, ...chance });
  app.get("/", () => "fine");
  return async () => (await app.inject("/")).statusCode;
}

describe("a fault", () => {
  it("is none without FAULT", () => assert.equal(parseFault(""), undefined));

  for (const wrong of ["errors", "errors:", "errors:1.5", "errors:-1", "fire:1", "crash:1"]) {
    it(`is refused: ${wrong}`, () => assert.throws(() => parseFault(wrong), /env\/FAULT is/));
  }

  it("errors: fails that share of requests", async () => {
    let luck = 0;
    const call = faulty("errors:0.3", { random: () => luck });
    luck = 0.29;
    assert.equal(await call(), 500);
    luck = 0.3;
    assert.equal(await call(), 200);
  });

  it("errors-after: fails once the process has run that long", async () => {
    let now = 9999;
    const call = faulty("errors-after:10", { uptime: () => now });
    assert.equal(await call(), 200);
    now = 10_000;
    assert.equal(await call(), 500);
  });

  it("errors-under-load: fails while more requests come in", async () => {
    let now = 0;
    const call = faulty("errors-under-load:2", { uptime: () => now });
    assert.deepEqual([await call(), await call(), await call()], [200, 200, 500]);
    now = 1000;
    assert.equal(await call(), 200, "a second later");
  });

  it("latency: makes every request take longer", async () => {
    const began = performance.now();
    assert.equal(await faulty("latency:50")(), 200);
    assert.ok(performance.now() - began >= 49);
  });
});
