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
  /**
   * A query has failed once it was beyond its limit in so many samples, one after another; those
   * without an answer, or with too little traffic, say neither.
   */
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

/** The longest time in which a release need not have been good, in seconds. */
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
  | {
      readonly kind: "blind";
      readonly because: "whenTooLittleTraffic" | "whenUnavailable";
      readonly reason: string;
    };

/**
 * Judges a release by what was measured of it, in the order of time. A sample without an answer, or
 * with too little traffic behind it, never counts for a release.
 *
 * @param already for how long it was good before the first of these samples, in seconds
 */
export function judge(criteria: Criteria, samples: readonly Sample[], already = 0): Verdict {
  const states = samples.map((sample) => stateOf(criteria, sample));
  const gains = gainsOf(criteria, samples, states);
  const good = gains.reduce((sum, gain) => sum + gain, already);
  const last = states.at(-1);
  const lastSample = samples.at(-1);
  if (last === undefined || lastSample === undefined) return { kind: "baking", good };
  if (last.kind === "good" && good >= criteria.bake) return { kind: "passed", good };
  const failed = (reasons: readonly string[]): Verdict => ({ kind: "failed", good, reasons });
  const since = (first: number) => samples[first]?.at ?? lastSample.at;
  const secondsSince = (first: number) => (lastSample.at - since(first)) / 1000;
  const said: string[] = [];
  if (last.kind === "beyond") {
    const answered = states.flatMap((state, index) =>
      state.kind === "blind" ? [] : [{ state, index }],
    );
    const runs = last.limits.map((limit) => {
      const run = startOfRun(
        answered,
        ({ state }) => state.kind === "beyond" && state.limits.includes(limit),
      );
      const text = beyondText(limit, lastSample, since(answered[run]?.index ?? 0));
      return { text, length: answered.length - run };
    });
    const enough = runs.filter(({ length }) => length >= criteria.failuresInARow);
    if (enough.length > 0) return failed(enough.map(({ text }) => text));
    said.push(...runs.map(({ text }) => text));
  }
  if (last.kind === "blind") {
    const { because, reason } = last;
    const alike = (state: State) => state.kind === "blind" && state.because === because;
    said.push(`${reason}, since ${timeOf(since(startOfRun(states, alike)))}`);
    // Also where one kind of not knowing follows another.
    const isToGoBack = (state: State) =>
      state.kind === "blind" && criteria[state.because] === "goBack";
    const blindFor = secondsSince(startOfRun(states, isToGoBack));
    if (isToGoBack(last) && blindFor >= WINDOWS_BEFORE_ANSWER * criteria.window) {
      return failed([`${said.join()}; baton:rollout.analysis.${because} is goBack`]);
    }
  }
  // Where it is good again, the next sample says whether that lasts.
  const isGoodAgain = last.kind === "good" && states.at(-2)?.kind !== "good";
  const stalledFor = secondsSince(startOfRun(gains, (gain) => gain === 0));
  if (stalledFor >= HELD_AT_MOST && !isGoodAgain) {
    const text = `it was good for no time in ${durationOf(stalledFor)}, and nobody has decided`;
    return failed([...said, text]);
  }
  return last.kind === "blind"
    ? { kind: "held", good, reason: said.join() }
    : { kind: "baking", good };
}

function stateOf({ minRequests, limits }: Criteria, sample: Sample): State {
  if ("unavailable" in sample) {
    return { kind: "blind", because: "whenUnavailable", reason: sample.unavailable };
  }
  const { requests = 0, values } = sample;
  if (requests < minRequests) {
    const reason = `too little traffic: ${format(requests)} requests in the last window; expected at least ${minRequests}`;
    return { kind: "blind", because: "whenTooLittleTraffic", reason };
  }
  const beyond = limits.filter((limit) => isBeyond(limit, values[limit.name] ?? {}));
  if (beyond.length > 0) return { kind: "beyond", limits: beyond };
  const missing = limits.filter(({ name }) => values[name]?.value === undefined);
  if (missing.length > 0) {
    const names = missing.map(({ name }) => name).join(", ");
    return { kind: "blind", because: "whenTooLittleTraffic", reason: `no value of ${names}` };
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

/** The seconds that each sample adds: those between good ones that follow one another. */
function gainsOf(
  { interval }: Criteria,
  samples: readonly Sample[],
  states: readonly State[],
): number[] {
  return samples.map(({ at }, index) => {
    const before = samples[index - 1];
    if (before === undefined) return 0;
    if (states[index]?.kind !== "good" || states[index - 1]?.kind !== "good") return 0;
    const seconds = (at - before.at) / 1000;
    return seconds > LONGEST_GAP * interval ? 0 : Math.max(0, seconds);
  });
}

/** Where those that end the list and are all like this begin. */
function startOfRun<T>(list: readonly T[], like: (one: T) => boolean): number {
  return list.findLastIndex((one) => !like(one)) + 1;
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
