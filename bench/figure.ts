/** Baton beside something else, measured in the same run. */
export interface Figure {
  /** What is measured, for people. */
  readonly measure: string;
  readonly unit: "s" | "KiB" | "%" | "requests";
  /** Baton's own, in `unit`. */
  readonly baton: number;
  /** What Baton is compared with, for people. */
  readonly comparedWith: string;
  /** The other's, in `unit`; no number where it could not be measured. */
  readonly compared: number;
  /** `baton / compared`; no number where both are 0, or one is none. */
  readonly ratio: number;
  readonly limit?: Limit;
  /** How the limit is kept; absent where there is none, or it cannot be judged. */
  readonly verdict?: Verdict;
}

export interface Limit {
  readonly of: "ratio" | "baton";
  /** What is hoped for, where that is less than what is allowed. */
  readonly aim?: number;
  readonly most: number;
}

export type Verdict = "aim met" | "limit kept" | "limit exceeded";

export function compare(measured: Omit<Figure, "ratio" | "verdict">): Figure {
  const { baton, compared, limit } = measured;
  const ratio = baton / compared;
  const value = limit?.of === "ratio" ? ratio : baton;
  if (limit === undefined || Number.isNaN(value)) return { ...measured, ratio };
  return { ...measured, ratio, verdict: judge(value, limit) };
}

function judge(value: number, { aim, most }: Limit): Verdict {
  if (value > most) return "limit exceeded";
  return aim !== undefined && value <= aim ? "aim met" : "limit kept";
}
