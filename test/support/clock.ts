import { subscribe, unsubscribe } from "node:diagnostics_channel";

const timers = process.getBuiltinModule("node:timers/promises");

/** After so many turns of the event loop without a request on its way, all that is left is to wait. */
const QUIET_TURNS = 10;

interface Wait {
  readonly at: number;
  readonly end: () => void;
}

/** Time that stands still while anything is done, and then goes on to the end of the next wait. */
class Clock {
  private milliseconds = Date.now();
  private waits: Wait[] = [];
  private readonly requests = new Set<unknown>();
  private turns = 0;
  private isCounting = false;

  now(): number {
    return this.milliseconds;
  }

  /** As `setTimeout` of `node:timers/promises`. */
  wait<T>(
    delay = 0,
    value?: T,
    { signal }: { readonly signal?: AbortSignal | undefined } = {},
  ): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const wait = { at: this.milliseconds + delay, end: () => resolve(value as T) };
      const abort = () => {
        this.waits = this.waits.filter((one) => one !== wait);
        reject(signal?.reason as Error);
      };
      if (signal?.aborted === true) {
        abort();
        return;
      }
      signal?.addEventListener("abort", abort, { once: true });
      this.waits.push(wait);
      this.count();
    });
  }

  begin(request: unknown): void {
    this.requests.add(request);
  }

  end(request: unknown): void {
    this.requests.delete(request);
    this.count();
  }

  private count(): void {
    this.turns = 0;
    if (this.isCounting) return;
    this.isCounting = true;
    setImmediate(this.turn);
  }

  private readonly turn = (): void => {
    if (this.waits.length === 0 || this.requests.size > 0) {
      this.isCounting = false;
      return;
    }
    this.turns += 1;
    if (this.turns >= QUIET_TURNS) {
      this.turns = 0;
      const next = this.waits.reduce((first, wait) => (wait.at < first.at ? wait : first));
      this.waits = this.waits.filter((wait) => wait !== next);
      this.milliseconds = Math.max(this.milliseconds, next.at);
      next.end();
    }
    setImmediate(this.turn);
  };
}

/**
 * Lets time pass only by waiting, for all that waits by `node:timers/promises` and goes by `Date` and
 * `performance`: a test takes no longer for the seconds in it, and goes the same way on a busy machine.
 */
export function virtualClock(): void {
  const { setTimeout } = timers;
  const { Date, performance } = globalThis;
  const now = performance.now.bind(performance);
  let clock: Clock;
  const begun = (message: unknown) => clock.begin((message as { request: unknown }).request);
  const ended = (message: unknown) => clock.end((message as { request: unknown }).request);
  const httpBegun = (message: unknown) => {
    const { request } = message as { request: NodeJS.EventEmitter };
    clock.begin(request);
    request.once("close", () => clock.end(request));
  };
  const channels = {
    "http.client.request.start": httpBegun,
    "undici:request:create": begun,
    "undici:request:trailers": ended,
    "undici:request:error": ended,
  };
  before(() => {
    clock = new Clock();
    for (const [name, listen] of Object.entries(channels)) subscribe(name, listen);
    globalThis.Date = class extends Date {
      constructor(...given: unknown[]) {
        super(...((given.length === 0 ? [clock.now()] : given) as [number]));
      }
      static override now(): number {
        return clock.now();
      }
    } as DateConstructor;
    performance.now = () => clock.now();
    timers.setTimeout = (...given) => clock.wait(...given);
  });
  after(() => {
    globalThis.Date = Date;
    performance.now = now;
    timers.setTimeout = setTimeout;
    for (const [name, listen] of Object.entries(channels)) unsubscribe(name, listen);
  });
}
