/** A map as YAML and JSON have it. */
export interface Tree {
  readonly [key: string]: unknown;
}

export function isTree(value: unknown): value is Tree {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Whether Pulumi decrypts it: a map with another key beside `secure` is a map like any other. */
export function isCiphertext(value: unknown): value is { readonly secure: string } {
  return isTree(value) && typeof value["secure"] === "string" && Object.keys(value).length === 1;
}

/** As a JSON merge patch (RFC 7386): maps are merged, all else replaced, null removes. */
export function mergeTrees(base: Tree, patch: Tree): Tree {
  const merged = new Map(Object.entries(base));
  for (const [key, value] of Object.entries(patch)) {
    const former = merged.get(key);
    if (value === null) merged.delete(key);
    else if (isTree(value)) merged.set(key, mergeTrees(isTree(former) ? former : {}, value));
    else merged.set(key, value);
  }
  return Object.fromEntries(merged);
}
