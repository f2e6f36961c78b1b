const timers = process.getBuiltinModule("node:timers/promises");

/** How many times as fast time passes. */
const PACE = 4;

/**
 * Lets time pass faster for all that waits by `node:timers/promises` and goes by `Date`: tests of
 * what takes seconds would do little but wait. What takes no time but work takes as much as ever.
 */
export function fastClock(): void {
  const { setTimeout } = timers;
  const { Date } = globalThis;
  before(() => {
    const begun = Date.now();
    globalThis.Date = class extends Date {
      constructor(...given: unknown[]) {
        super(...((given.length === 0 ? [globalThis.Date.now()] : given) as [number]));
      }
      static override now(): number {
        return Math.floor(begun + (Date.now() - begun) * PACE);
      }
    } as DateConstructor;
    timers.setTimeout = (delay = 0, ...others) => setTimeout(delay / PACE, ...others);
  });
  after(() => {
    globalThis.Date = Date;
    timers.setTimeout = setTimeout;
  });
}
