/** One step of a canary: its share of the requests in percent, and for how long, in seconds. */
export interface Step {
  readonly weight: number;
  readonly duration: number;
}

/**
 * What divides the requests: the numbers of pods behind one Service, which all get the same share,
 * or an HTTPRoute's weights.
 */
export type By = "pods" | "route";

/** The largest share by pods: beyond it, the canary would need more of them than the stable release. */
export const MOST_BY_PODS = 50;

/**
 * How many pods a canary needs beside a stable release that keeps all of its own: as few as have the
 * share, or, where a route divides, as can carry it.
 */
export function podsFor(weight: number, stable: number, by: By): number {
  const of = by === "pods" ? 100 - weight : 100;
  return Math.max(1, Math.ceil((stable * weight) / of));
}

/** The share in percent that so many pods really have beside so many. */
export function shareOf(canary: number, stable: number): number {
  return canary + stable === 0 ? 0 : (100 * canary) / (canary + stable);
}
