import type { KubernetesObject } from "@kubernetes/client-node";
import { z } from "zod";
import type { Tree } from "../release/merge";

const Resource = z.looseObject({
  urn: z.string(),
  type: z.string(),
  inputs: z.record(z.string(), z.unknown()).default({}),
});

const Recorded = z.looseObject({
  urn: z.string(),
  delete: z.boolean().optional(),
  pendingReplacement: z.boolean().optional(),
});

/** A stack's state, as `pulumi stack export` prints it. */
const State = z.looseObject({
  deployment: z.looseObject({
    resources: z.array(Recorded).default([]),
    pending_operations: z
      .array(z.looseObject({ type: z.string(), resource: Resource }))
      .default([]),
  }),
});
export type State = z.infer<typeof State>;
type Recorded = z.infer<typeof Recorded>;

/** @throws Error where it is not a state. */
export function parseState(text: string): State {
  return State.parse(JSON.parse(text));
}

/**
 * Records what a killed run had begun to create and the cluster has, as if the run had lived to do
 * so, and forgets the rest of what it had begun. Pulumi's own `refresh --import-pending-creates`
 * marks such resources as being imported, and then drops them.
 *
 * @param find an object of the cluster by its inputs; `undefined` where there is none
 * @returns nothing where there is nothing to record
 */
export async function recordCreated(
  { deployment, ...rest }: State,
  find: (inputs: Tree) => Promise<KubernetesObject | undefined>,
): Promise<State | undefined> {
  const created: Recorded[] = [];
  for (const { type, resource } of deployment.pending_operations) {
    if (type !== "creating" || !resource.type.startsWith("kubernetes:")) continue;
    const live = await find(resource.inputs);
    if (live !== undefined) created.push(recordOf(resource, live));
  }
  if (created.length === 0) return undefined;
  const urns = new Set(created.map(({ urn }) => urn));
  const resources = deployment.resources
    .filter(({ urn, pendingReplacement }) => !(urns.has(urn) && pendingReplacement === true))
    // What it was to replace is deleted by the next `up`.
    .map((former) => (urns.has(former.urn) ? { ...former, delete: true } : former));
  return {
    ...rest,
    deployment: { ...deployment, resources: [...resources, ...created], pending_operations: [] },
  };
}

/**
 * A resource as Pulumi's Kubernetes provider records it: what was asked for, what there is, and in
 * whose name it was applied, or the next change would conflict with it
 * (https://github.com/pulumi/pulumi-kubernetes/blob/master/provider/pkg/provider/provider.go,
 * `checkpointObject`). The refresh that follows fills in the rest.
 */
function recordOf(resource: z.infer<typeof Resource>, live: KubernetesObject): Recorded {
  const { namespace, name = "", managedFields = [] } = live.metadata ?? {};
  const manager = managedFields.find(({ operation }) => operation === "Apply")?.manager;
  const { inputs } = resource;
  return {
    ...resource,
    id: namespace === undefined ? name : `${namespace}/${name}`,
    outputs: {
      ...inputs,
      __inputs: inputs,
      __initialApiVersion: inputs["apiVersion"],
      ...(manager === undefined ? {} : { __fieldManager: manager }),
    },
  };
}
