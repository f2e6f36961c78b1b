import { z } from "zod";
import type { Tree } from "../release/merge";

const Resource = z.looseObject({
  urn: z.string(),
  type: z.string(),
  id: z.string().default(""),
  inputs: z.record(z.string(), z.unknown()).default({}),
  pendingReplacement: z.boolean().default(false),
});

/** A stack's state, as `pulumi stack export` prints it. */
const State = z.object({
  deployment: z.object({
    resources: z.array(Resource).default([]),
    pending_operations: z.array(z.object({ type: z.string(), resource: Resource })).default([]),
  }),
});
export type State = z.infer<typeof State>;

const Named = z.object({
  apiVersion: z.string(),
  kind: z.string(),
  metadata: z.object({
    name: z.string(),
    namespace: z.string().optional(),
    annotations: z.record(z.string(), z.unknown()).optional(),
  }),
});

/** The provider's mark of a name that is its own. */
const AUTONAMED = "pulumi.com/autonamed";

/** @throws Error where it is not a state. */
export function parseState(text: string): State {
  return State.parse(JSON.parse(text));
}

/** The URNs of what a run had begun to create, and has not recorded: `up` itself keeps them for good. */
export function pendingCreates({ deployment }: State): string[] {
  return deployment.pending_operations
    .filter(({ type }) => type === "creating")
    .map(({ resource }) => resource.urn);
}

/** The URN of the stack itself, which a refresh may always be limited to. */
export function rootOf({ deployment }: State): string | undefined {
  return deployment.resources.find(({ type }) => type === "pulumi:pulumi:Stack")?.urn;
}

/**
 * The objects that no later run will find again: of those that a killed run may have created, the ones
 * under a name that only this run knew, and the ones in place of an object that it had deleted before.
 * A create that is pending in only one of the states may belong to another run, which is at work.
 * @param before the state before it was seen that no run is at work
 * @param after the state since then
 */
export function abandonedObjects(before: State, after: State): Tree[] {
  const pending = new Set(candidatesOf(before).map(({ key }) => key));
  const recorded = new Set(
    after.deployment.resources
      .filter(({ pendingReplacement }) => !pendingReplacement)
      .map(({ type, id }) => `${type} ${id}`),
  );
  return candidatesOf(after)
    .filter(({ key, id }) => pending.has(key) && !recorded.has(id))
    .map(({ inputs }) => inputs);
}

function candidatesOf({ deployment }: State) {
  const replaced = new Set(
    deployment.resources.flatMap(({ urn, pendingReplacement }) =>
      pendingReplacement ? [urn] : [],
    ),
  );
  return deployment.pending_operations.flatMap(({ type, resource: { urn, type: of, inputs } }) => {
    const named = Named.safeParse(inputs);
    if (type !== "creating" || !of.startsWith("kubernetes:") || !named.success) return [];
    const { name, namespace, annotations } = named.data.metadata;
    if (annotations?.[AUTONAMED] !== "true" && !replaced.has(urn)) return [];
    const id = `${of} ${namespace === undefined ? "" : `${namespace}/`}${name}`;
    return [{ key: `${urn} ${id}`, id, inputs }];
  });
}
