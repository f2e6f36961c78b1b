import * as pulumi from "@pulumi/pulumi";
import { Refusal, type StackConfig } from "./config";
import type { StackState } from "./stack-state";
import { openRegistry } from "./registry/registry";
import { RegistryError } from "./registry/errors";
import { knownSchema, readSchema } from "./registry/schema";
import type { Release } from "./release/eligibility";
import { formatProblems } from "./release/problem";
import {
  formatSchemaChange,
  planBack,
  planForward,
  type DatabasePlan,
  type SchemaRecord,
} from "./release/schema";

/**
 * What a release means for the environment's database, by its image's labels and what the stack has
 * recorded last; says so. Nothing for an environment without a database of its own.
 * @throws Refusal for labels that do not make sense.
 */
export async function planDatabase(
  config: StackConfig,
  release: Release,
  state: StackState,
): Promise<DatabasePlan | undefined> {
  const { environment, database } = config;
  if (database === undefined || database.follower) return undefined;
  const registry = openRegistry(config.registry);
  const former = (await state.output("release")) as Release | undefined;
  const recorded = (await state.output("schema")) as SchemaRecord | undefined;
  const goesBack = release.rollbackOf !== undefined;
  try {
    const schemaOfImage = async (imageTag: string, digest: string) => {
      const schema = await readSchema(registry, environment, { imageTag, digest });
      if ("ok" in schema) return schema.ok;
      // What is wrong with an image's labels does not stand in the way back.
      if (goesBack) return undefined;
      throw new Refusal(formatProblems(schema.problems));
    };
    const outputs = { release: former, schema: recorded };
    const known = await knownSchema(registry, environment, outputs);
    // The last one that has passed runs on what was recorded with it, whatever its labels say.
    const passed = goesBack && release.digest === former?.digest ? known : undefined;
    const schema = (await schemaOfImage(release.imageTag, release.digest)) ?? passed;
    const deployed = { environment, tag: release.imageTag, schema, known };
    if (release.rollbackOf === undefined) {
      const plan = planForward(deployed);
      if (plan.kind === "forward" && plan.change !== undefined) {
        const text = formatSchemaChange(plan.change, { environment, former: former?.imageTag });
        void pulumi.log.info(`${environment}: ${text}`);
      }
      return plan;
    }
    const digest = await registry.resolve(release.rollbackOf);
    const left = digest && (await schemaOfImage(release.rollbackOf, digest));
    return planBack(deployed, { schema: left || undefined, digest }, database.policy.allowDown);
  } catch (error) {
    if (!(error instanceof RegistryError)) throw error;
    throw new Refusal(`${environment}: ${error.message}`);
  }
}
