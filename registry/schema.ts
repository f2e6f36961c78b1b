import type { Release } from "../release/eligibility";
import type { Problem } from "../release/problem";
import { schemaOf, type Schema, type SchemaRecord } from "../release/schema";
import type { Registry } from "./registry";

type Read<T> = { readonly ok: T } | { readonly problems: readonly Problem[] };

/**
 * The schema that an image brings, by its labels.
 * @throws RegistryError when the registry cannot be asked.
 */
export async function readSchema(
  registry: Registry,
  where: string,
  image: { readonly imageTag: string; readonly digest: string },
): Promise<Read<Schema | undefined>> {
  return schemaOf(await registry.labels(image.digest), { where, image: image.imageTag });
}

/**
 * What is known of an environment's schema: what its stack has recorded, or where it has not yet,
 * what the image says that it runs.
 * @throws RegistryError when the registry cannot be asked.
 */
export async function knownSchema(
  registry: Registry,
  where: string,
  outputs: {
    readonly release?: Pick<Release, "imageTag" | "digest"> | undefined;
    readonly schema?: SchemaRecord | undefined;
  },
): Promise<SchemaRecord | undefined> {
  const { release, schema } = outputs;
  if (schema !== undefined || release === undefined) return schema;
  const read = await readSchema(registry, where, release);
  // It runs, whatever is wrong with its labels.
  return "ok" in read ? read.ok : undefined;
}
