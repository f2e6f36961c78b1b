import type { StackConfig } from "../ledger/stack-config";
import { RegistryError } from "../registry/errors";
import { openRegistry } from "../registry/registry";
import { knownSchema, readSchema } from "../registry/schema";
import { fails, passes, type Term } from "../release/gate";
import { formatSchemaChange, schemaChange, type SchemaChange } from "../release/schema";
import type { Context } from "./context";

export interface SchemaFacts {
  readonly terms: readonly Term[];
  /** What the release does to the database; nothing where it leaves it as it is. */
  readonly change: SchemaChange | undefined;
  /** The same in words. */
  readonly says: string | undefined;
}

/** What a release does to its environment's database, by the labels of its image. */
export async function schemaFacts(
  { pulumi }: Pick<Context, "pulumi">,
  environment: string,
  { database, registry: location }: StackConfig,
  { tag, digest }: { readonly tag: string; readonly digest: string },
): Promise<SchemaFacts> {
  if (database === undefined || database.follower) {
    return { terms: [], change: undefined, says: undefined };
  }
  const registry = openRegistry(location);
  try {
    const outputs = await pulumi.knownOutputs(environment);
    const [next, known] = await Promise.all([
      readSchema(registry, environment, { imageTag: tag, digest }),
      knownSchema(registry, environment, outputs),
    ]);
    if ("problems" in next) {
      const terms = next.problems.map((problem) =>
        fails("schema", `${problem.property} is ${problem.value}`, problem),
      );
      return { terms, change: undefined, says: undefined };
    }
    const change = schemaChange(known, next.ok);
    const former = outputs.release?.imageTag;
    const says =
      change === undefined ? "unchanged" : formatSchemaChange(change, { former, environment });
    return { terms: [passes("schema", says)], change, says };
  } catch (error) {
    if (!(error instanceof RegistryError)) throw error;
    const term = fails("schema", "the image's labels cannot be read", {
      where: environment,
      property: "the registry",
      value: `out of reach (${error.message.replace(/\.$/, "")})`,
      expected: "the labels that say what becomes of the database",
      fix: "Run the same command again once it answers",
    });
    return { terms: [term], change: undefined, says: undefined };
  }
}
