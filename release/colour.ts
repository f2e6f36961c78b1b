import { createHash } from "node:crypto";

/** Short enough for a workload's longest name and what Kubernetes puts behind it. */
const LONGEST = 20;

/**
 * A tag as part of an object's name, which may hold neither dots nor capitals: `stage-45` as it is,
 * others with a hash that keeps them apart.
 * @param longest of the slug, in characters
 */
export function slugOf(tag: string, longest = LONGEST): string {
  const plain = tag.toLowerCase().replace(/[^a-z0-9-]/g, "-");
  if (plain === tag && tag.length <= longest) return tag;
  const hash = createHash("sha256").update(tag).digest("hex").slice(0, 6);
  return `${plain.slice(0, longest - hash.length - 1).replace(/-+$/, "")}-${hash}`;
}
