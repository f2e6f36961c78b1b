import { schemaOf, type SchemaRecord } from "../../release/schema";
import type { ProgramHarness, RunOptions } from "./program";

/** How a stack declares its database in these tests. */
export const DATABASE = {
  url: "DATABASE_URL",
  client: "postgres-client:15",
  version: "SELECT max(version) FROM migrations",
  migration: { command: ["node", "migrate.js"] },
  integrity: { command: ["node", "check.js"] },
  backup: { volume: { size: "1Gi" } },
};

/** The database's password: in no output, manifest or message. */
export const PASSWORD = "correct-horse";

export const SECRETS = { DATABASE_URL: `postgresql://app:${PASSWORD}@db/app` };

/** Labels of an image, as its Dockerfile gives them. */
export function labels(
  head: number,
  kind = "expand",
  points = "",
): Readonly<Record<string, string>> {
  return {
    "baton.schema-head": String(head),
    "baton.schema-kind": kind,
    ...(points === "" ? {} : { "baton.schema-points": points }),
  };
}

/** What an image with such labels brings. */
export function schema(...args: Parameters<typeof labels>): SchemaRecord {
  const read = schemaOf(labels(...args), { where: "test", image: "image" });
  if ("problems" in read || read.ok === undefined) throw new Error("no schema");
  return read.ok;
}

/** Pushes an image with labels under tags; gives its digest. */
export function pushImage(
  harness: ProgramHarness,
  given: Readonly<Record<string, string>>,
  ...tags: string[]
): string {
  return harness.registry.pushImage({ config: { Labels: { ...given, for: tags[0] } } }, ...tags);
}

/** A run of the qa stack with a database, and a release with a schema. */
export function withDatabase(
  imageTag: string,
  { config = {}, ...options }: Omit<RunOptions, "stack"> & { readonly database?: unknown } = {},
  database: Readonly<Record<string, unknown>> = {},
): RunOptions {
  const settings = { secrets: { DATABASE_URL: { source: "config" } } };
  return {
    stack: "qa",
    ...options,
    secrets: { ...SECRETS, ...options.secrets },
    config: { imageTag, settings, database: { ...DATABASE, ...database }, ...config },
  };
}
