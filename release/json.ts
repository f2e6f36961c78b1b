/** What a JSON text says; nothing where it is none. */
export function parseJson(text: string | Uint8Array): unknown {
  try {
    return JSON.parse(typeof text === "string" ? text : Buffer.from(text).toString("utf8"));
  } catch {
    return undefined;
  }
}

/** Pulumi hands structured values over as JSON; what is not JSON was a plain text. */
export function jsonOrText(text: string): unknown {
  const value = parseJson(text);
  // Not `??`: null is a value, too.
  return value === undefined ? text : value;
}
