/** Kubernetes' suffixes, as factors (https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/). */
const FACTORS: Readonly<Record<string, number>> = {
  m: 1e-3,
  "": 1,
  k: 1e3,
  M: 1e6,
  G: 1e9,
  T: 1e12,
  Ki: 2 ** 10,
  Mi: 2 ** 20,
  Gi: 2 ** 30,
  Ti: 2 ** 40,
};

export const QUANTITY = /^(\d+(?:\.\d+)?)(m|k|M|G|T|Ki|Mi|Gi|Ti)?$/;

/** A quantity as a number of cores, bytes or pieces: `500m` is 0.5, `1Ki` is 1024. */
export function parseQuantity(text: string): number {
  const match = QUANTITY.exec(text);
  if (match === null) throw new RangeError(`${text} is not a Kubernetes quantity`);
  return Number(match[1]) * (FACTORS[match[2] ?? ""] ?? NaN);
}

/** A number of cores or bytes in the form people write: 0.5 cores as `500m`, 2 ** 30 bytes as `1Gi`. */
export function formatQuantity(amount: number, unit: "cpu" | "memory" | "count"): string {
  if (unit === "cpu" && !Number.isInteger(amount)) return `${Math.round(amount * 1000)}m`;
  if (unit !== "memory") return String(amount);
  for (const suffix of ["Ti", "Gi", "Mi", "Ki"]) {
    const factor = FACTORS[suffix] ?? 1;
    if (amount >= factor && Number.isInteger(amount / factor)) return `${amount / factor}${suffix}`;
  }
  return String(amount);
}
