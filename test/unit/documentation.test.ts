import * as assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { Config } from "../../config-schema";

const PAGE = join(__dirname, "..", "..", "docs", "configuration.md");

/** Every key the schema accepts, as a path: `*` for a name of the user's own, `[]` for an entry. */
function keys(schema: unknown, path = ""): string[] {
  if (
    schema instanceof z.ZodOptional ||
    schema instanceof z.ZodDefault ||
    schema instanceof z.ZodPrefault
  ) {
    return keys(schema.unwrap(), path);
  }
  if (schema instanceof z.ZodArray) return keys(schema.element, `${path}[]`);
  if (schema instanceof z.ZodRecord) return keys(schema.valueType, `${path}.*`);
  if (schema instanceof z.ZodUnion) return schema.options.flatMap((option) => keys(option, path));
  if (!(schema instanceof z.ZodObject)) return [];
  return Object.entries(schema.shape).flatMap(([key, value]) => {
    const child = path === "" ? key : `${path}.${key}`;
    return [child, ...keys(value, child)];
  });
}

/** What the first cells of the page's tables name, in backticks. */
function documentedKeys(): string[] {
  const cells = readFileSync(PAGE, "utf8").matchAll(/^\| (`[^|]*)\|/gm);
  return [...cells].flatMap(([, cell = ""]) =>
    [...cell.matchAll(/`([^`]+)`/g)].map(([, key = ""]) => key),
  );
}

/** The maps on the way to a key: `registry.kind` names `registry` too. */
function withParents(key: string): string[] {
  const words = key.split(".");
  const paths = words.map((_, index) => words.slice(0, index + 1).join("."));
  return paths.map((path) => path.replace(/\[\]$/, "")).filter((path) => !path.endsWith("*"));
}

/** A `*` on the page also stands for each of the schema's own keys in its place. */
function covers(documented: string, key: string): boolean {
  const pattern = documented.split(".");
  const words = key.split(".");
  return (
    pattern.length === words.length &&
    pattern.every((word, index) => word === words[index] || word === "*")
  );
}

describe("docs/configuration.md", () => {
  const known = [...new Set(keys(Config))];
  const documented = documentedKeys();

  it("names every key of the schema", () => {
    const named = documented.flatMap(withParents);
    const missing = known.filter((key) => !named.some((name) => covers(name, key)));
    assert.deepEqual(missing, []);
  });

  it("names no key that the schema does not have", () => {
    const stale = documented.filter((name) => !known.some((key) => covers(name, key)));
    assert.deepEqual(stale, []);
  });
});
