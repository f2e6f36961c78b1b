import { createHash } from "node:crypto";
import { isTree } from "./merge";

/** What an approval is bound to, part by part, so that a difference can be named. */
export const PLAN_PARTS = [
  "tag",
  "digest",
  "version",
  "settings",
  "secrets",
  "policy",
  "lockfile",
  "program",
] as const;
export type PlanPart = (typeof PLAN_PARTS)[number];

/**
 * What is to be deployed. No commit id and nothing of another stack is in it, so that the ledger's
 * own commits do not void an approval.
 */
export type PlanContents = Readonly<Record<PlanPart, unknown>>;

export interface Plan {
  /** SHA-256 of all parts, in hexadecimal digits. */
  readonly hash: string;
  /** SHA-256 of each part. Entries of former versions have its first digits, which equal no part. */
  readonly parts: Readonly<Record<PlanPart, string>>;
}

/** How many digits of a hash people see, and the names of refs hold. Only whole hashes decide. */
const SHOWN = 12;
const WHOLE = /^[0-9a-f]{64}$/;

export function planOf(contents: PlanContents): Plan {
  const hashes = PLAN_PARTS.map((part) => [part, sha256(canonical(contents[part]))] as const);
  const parts = Object.fromEntries(hashes) as Plan["parts"];
  return { hash: sha256(canonical(hashes)), parts };
}

export function shortHash(hash: string): string {
  return hash.slice(0, SHOWN);
}

/** `sha256:` and as many digits as tell an image from another. */
export function shortDigest(digest: string): string {
  return digest.slice(0, "sha256:".length + SHOWN);
}

/** The parts in which two plans differ, in their order; a shortened hash differs from all. */
export function movedParts(one: Plan["parts"], other: Plan["parts"]): PlanPart[] {
  return PLAN_PARTS.filter((part) => !isSamePart(one, other, part));
}

/** Whether two plans agree in a part. */
export function isSamePart(one: Plan["parts"], other: Plan["parts"], part: PlanPart): boolean {
  return WHOLE.test(one[part]) && one[part] === other[part];
}

/** Whether an entry keeps the first digits of its plan's parts only, as former versions wrote it. */
export function isShortened(parts: Plan["parts"]): boolean {
  return PLAN_PARTS.some((part) => parts[part] !== "" && !WHOLE.test(parts[part]));
}

/** One line with whole hashes: `tag=0123… digest=4567… …`. */
export function formatParts(parts: Plan["parts"]): string {
  return PLAN_PARTS.map((part) => `${part}=${parts[part]}`).join(" ");
}

/** Reads what `formatParts` has written; a part that is missing there is empty. */
export function parseParts(line: string): Plan["parts"] {
  const found = new Map(line.split(" ").map((word) => [word.split("=")[0], word.split("=")[1]]));
  const parts = PLAN_PARTS.map((part) => [part, found.get(part) ?? ""]);
  return Object.fromEntries(parts) as Plan["parts"];
}

/** JSON that does not depend on the order in which a file has its keys. */
export function canonical(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (!isTree(value)) return JSON.stringify(value ?? null);
  const keys = Object.keys(value).filter((key) => value[key] !== undefined);
  const entries = keys.sort().map((key) => `${JSON.stringify(key)}:${canonical(value[key])}`);
  return `{${entries.join(",")}}`;
}

function sha256(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}
