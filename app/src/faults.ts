import createError from "@fastify/error";
import type { FastifyInstance } from "fastify";
import { setTimeout } from "node:timers/promises";

/*
 * A release that is bad on purpose, so that people can rehearse what their delivery does about one.
 * FAULT is one of:
 *
 *   errors:SHARE             that share of requests, 0 to 1, is answered 500
 *   errors-after:SECONDS     every request is, once the process has run that long
 *   errors-under-load:RATE   every request is, while more than RATE a second come in
 *   latency:MILLISECONDS     every request takes that much longer
 *   crash                    the process ends with an error as soon as it has started
 *
 * Probes and metrics stay honest: a fault is for traffic to meet.
 */
export type Fault =
  | { readonly kind: "errors" | "errors-after" | "errors-under-load"; readonly amount: number }
  | { readonly kind: "latency"; readonly amount: number }
  | { readonly kind: "crash" };

const InjectedFault = createError("INJECTED_FAULT", "This answer is wrong on purpose: %s", 500);

/**
 * Reads `FAULT`; nothing when it is empty.
 * @throws Error when it is none of the faults above.
 */
export function parseFault(text: string): Fault | undefined {
  if (text === "") return undefined;
  if (text === "crash") return { kind: "crash" };
  const [, kind, digits] = /^([a-z-]+):(\d+(?:\.\d+)?)$/.exec(text) ?? [];
  const amount = Number(digits);
  switch (kind) {
    case "errors":
      if (amount <= 1) return { kind, amount };
      break;
    case "errors-after":
    case "errors-under-load":
    case "latency":
      return { kind, amount };
  }
  throw new Error(
    `env/FAULT is ${text}; expected errors:SHARE (0 to 1), errors-after:SECONDS, ` +
      "errors-under-load:RATE, latency:MILLISECONDS or crash",
  );
}

export interface Chance {
  /** Milliseconds since the process started. */
  readonly uptime: () => number;
  /** A number from 0 to 1, but not 1. */
  readonly random: () => number;
}

const REAL: Chance = { uptime: () => process.uptime() * 1000, random: Math.random };

/** Makes every route of this context suffer the fault. */
export function injectFault(app: FastifyInstance, fault: Fault, chance: Chance = REAL): void {
  const load = new RequestRate();
  if (fault.kind === "crash") {
    app.addHook("onListen", (done) => {
      setImmediate(() => {
        throw new Error("FAULT is crash");
      });
      done();
    });
  }
  app.addHook("onRequest", async () => {
    switch (fault.kind) {
      case "errors":
        if (chance.random() < fault.amount) throw new InjectedFault("errors");
        return;
      case "errors-after":
        if (chance.uptime() >= fault.amount * 1000) throw new InjectedFault("errors-after");
        return;
      case "errors-under-load":
        if (load.count(chance.uptime()) > fault.amount)
          throw new InjectedFault("errors-under-load");
        return;
      case "latency":
        await setTimeout(fault.amount);
        return;
      case "crash":
        return;
    }
  });
}

/** How many requests have come in over the last second. */
class RequestRate {
  private times: number[] = [];

  /** Counts one more, at this time in milliseconds. */
  count(now: number): number {
    this.times.push(now);
    this.times = this.times.filter((time) => time > now - 1000);
    return this.times.length;
  }
}
