/** What a query's value must be. */
export interface Limit {
  /** The query's name. */
  readonly name: string;
  /** Put behind values, such as `%` or `s`. */
  readonly unit?: string | undefined;
  readonly max?: number | undefined;
  readonly min?: number | undefined;
  /** The largest multiple of what the stable release's value is. */
  readonly maxTimesStable?: number | undefined;
}

/** What to do when nothing can be said of a release. */
export type Answer = "hold" | "goBack";

/** What a release must show before it passes. Durations in seconds. */
export interface Criteria {
  /** For how long it must have been good. */
  readonly bake: number;
  /** Between two samples. */
  readonly interval: number;
  /** What one sample looks back on. */
  readonly window: number;
  /** A query has failed once it was beyond its limit in so many samples, one after another. */
  readonly failuresInARow: number;
  /** The requests that a window must hold for its values to mean anything. */
  readonly minRequests: number;
  readonly limits: readonly Limit[];
  readonly whenUnavailable: Answer;
  readonly whenTooLittleTraffic: Answer;
}

/** A query's value at one time, where it has one, and the stable release's beside it. */
export interface Measured {
  readonly value?: number | undefined;
  readonly stable?: number | undefined;
}

/** What was measured at one time, in milliseconds; or why it could not be. */
export type Sample =
  | { readonly at: number; readonly unavailable: string }
  | {
      readonly at: number;
      /** Within the window; absent where nothing was counted. */
      readonly requests?: number | undefined;
      /** By the query's name. */
      readonly values: Readonly<Record<string, Measured>>;
    };

/** What follows from the samples so far. `good` is for how long the release was good, in seconds. */
export type Verdict =
  | { readonly kind: "baking"; readonly good: number }
  /** Nothing can be said: it goes on, and this time does not count. */
  | { readonly kind: "held"; readonly good: number; readonly reason: string }
  | { readonly kind: "passed"; readonly good: number }
  | { readonly kind: "failed"; readonly good: number; readonly reasons: readonly string[] };

/** The longest time for which nothing need be known of a release, in seconds. */
export const HELD_AT_MOST = 3600;
/**
 * An answer is given when a state has lasted for so many windows: the first is not full when the
 * bake begins.
 */
const WINDOWS_BEFORE_ANSWER = 2;
/** So many intervals without a sample, and the time between two does not count. */
const LONGEST_GAP = 3;

type State =
  | { readonly kind: "good" }
  | { readonly kind: "beyond"; readonly limits: readonly Limit[] }
  | { readonly kind: "tooLittleTraffic" | "unavailable"; readonly reason: string };

/**
 * Judges a release by what was measured of it, in the order of time. A sample without an answer, or
 * with too little traffic behind it, never counts for a release.
 *
 * @param already for how long it was good before the first of these samples, in seconds
 */
export function judge(criteria: Criteria, samples: readonly Sample[], already = 0): Verdict {
  const states = samples.map((sample) => stateOf(criteria, sample));
  const good = already + goodTime(criteria, samples, states);
  const last = states.at(-1);
  const lastSample = samples.at(-1);
  if (last === undefined || lastSample === undefined) return { kind: "baking", good };
  if (last.kind === "good") {
    return { kind: good >= criteria.bake ? "passed" : "baking", good };
  }
  if (last.kind === "beyond") {
    const reasons = last.limits.flatMap((limit) => {
      const beyond = (state: State) => state.kind === "beyond" && state.limits.includes(limit);
      const first = startOfRun(states, beyond);
      if (samples.length - first < criteria.failuresInARow) return [];
      return [beyondText(limit, lastSample, samples[first]?.at ?? lastSample.at)];
    });
    return reasons.length > 0 ? { kind: "failed", good, reasons } : { kind: "baking", good };
  }
  const first = startOfRun(states, ({ kind }) => kind === last.kind);
  const since = samples[first]?.at ?? lastSample.at;
  const lasted = (lastSample.at - since) / 1000;
  const reason = `${last.reason}, since ${timeOf(since)}`;
  const answer =
    last.kind === "unavailable" ? criteria.whenUnavailable : criteria.whenTooLittleTraffic;
  const key = last.kind === "unavailable" ? "whenUnavailable" : "whenTooLittleTraffic";
  if (answer === "goBack" && lasted >= WINDOWS_BEFORE_ANSWER * criteria.window) {
    const text = `${reason}; baton:rollout.analysis.${key} is goBack`;
    return { kind: "failed", good, reasons: [text] };
  }
  // Also where one kind of not knowing follows another.
  const blind = startOfRun(states, ({ kind }) => kind !== "good" && kind !== "beyond");
  const blindFor = (lastSample.at - (samples[blind]?.at ?? lastSample.at)) / 1000;
  if (blindFor >= HELD_AT_MOST) {
    const text = `${reason}; nothing could be said for ${durationOf(blindFor)}, and nobody has decided`;
    return { kind: "failed", good, reasons: [text] };
  }
  return { kind: "held", good, reason };
}

function stateOf({ minRequests, limits }: Criteria, sample: Sample): State {
  if ("unavailable" in sample) return { kind: "unavailable", reason: sample.unavailable };
  const { requests = 0, values } = sample;
  if (requests < minRequests) {
    const reason = `too little traffic: ${format(requests)} requests in the last window; expected at least ${minRequests}`;
    return { kind: "tooLittleTraffic", reason };
  }
  const beyond = limits.filter((limit) => isBeyond(limit, values[limit.name] ?? {}));
  if (beyond.length > 0) return { kind: "beyond", limits: beyond };
  const missing = limits.filter(({ name }) => values[name]?.value === undefined);
  if (missing.length > 0) {
    const names = missing.map(({ name }) => name).join(", ");
    return { kind: "tooLittleTraffic", reason: `no value of ${names}` };
  }
  return { kind: "good" };
}

function isBeyond(limit: Limit, measured: Measured): boolean {
  const { value } = measured;
  if (value === undefined) return false;
  const { max, min } = boundsOf(limit, measured);
  return (max !== undefined && value > max) || (min !== undefined && value < min);
}

/** Without a stable release there is nothing to compare with, and the fixed limits hold alone. */
function boundsOf({ max, min, maxTimesStable }: Limit, { stable }: Measured) {
  const relative =
    maxTimesStable === undefined || stable === undefined ? Infinity : stable * maxTimesStable;
  const smaller = Math.min(max ?? Infinity, relative);
  return { max: smaller === Infinity ? undefined : smaller, min };
}

function beyondText(limit: Limit, sample: Sample, since: number): string {
  const measured = ("values" in sample ? sample.values[limit.name] : undefined) ?? {};
  const { value = NaN, stable } = measured;
  const unit = limit.unit === undefined ? "" : ` ${limit.unit}`;
  const { max, min } = boundsOf(limit, measured);
  const high = max !== undefined && value > max;
  const bound = high ? `at most ${format(max)}` : `at least ${format(min ?? NaN)}`;
  const relative =
    high && max !== limit.max && stable !== undefined
      ? ` (${limit.maxTimesStable} times the stable release's ${format(stable)}${unit})`
      : "";
  return `${limit.name} is ${format(value)}${unit}; expected ${bound}${unit}${relative}; so since ${timeOf(since)}`;
}

/** The seconds between good samples that follow one another. */
function goodTime(
  { interval }: Criteria,
  samples: readonly Sample[],
  states: readonly State[],
): number {
  return samples.reduce((sum, { at }, index) => {
    const before = samples[index - 1];
    if (before === undefined) return sum;
    if (states[index]?.kind !== "good" || states[index - 1]?.kind !== "good") return sum;
    const seconds = (at - before.at) / 1000;
    return seconds > LONGEST_GAP * interval ? sum : sum + Math.max(0, seconds);
  }, 0);
}

/** Where the states that end the list and are all like this begin. */
function startOfRun(states: readonly State[], like: (state: State) => boolean): number {
  let first = states.length;
  for (const state of [...states].reverse()) {
    if (!like(state)) break;
    first -= 1;
  }
  return first;
}

/** Three digits are as exact as a sample is. */
function format(value: number): string {
  return Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(3)));
}

function timeOf(milliseconds: number): string {
  return new Date(milliseconds).toISOString().replace(/\.\d+Z$/, "Z");
}

/** `42 s`, `15 min`, `1 h`. */
export function durationOf(seconds: number): string {
  if (seconds < 120) return `${Math.floor(seconds)} s`;
  return seconds < 7200 ? `${Math.floor(seconds / 60)} min` : `${Math.floor(seconds / 3600)} h`;
}
