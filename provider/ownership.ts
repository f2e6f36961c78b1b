import {
  KubernetesObjectApi,
  PatchStrategy,
  type KubeConfig,
  type KubernetesObject,
  type V1ManagedFieldsEntry,
} from "@kubernetes/client-node";
import { isTree, type Tree } from "../release/merge";
import { absent, patiently } from "./cluster";

/** An object of the cluster, by its manifest or by its name only. */
export interface ObjectReference {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly namespace?: string };
}

/**
 * The name under which the Kubernetes provider looks for fields that were set before it applied for
 * the first time: its next update makes them its own, and removes those that it does not declare.
 * Each former manager keeps a name of its own behind it, as entries of one name would be taken for one.
 */
const FORMER = "before-first-apply";

/** Parts of Kubernetes itself, which fill in fields such as a claim's volume and need them. */
const CONTROL_PLANE = /^(kube-|cloud-controller-manager)/;
/** Parts of an object's metadata that controllers write beside any manifest. */
const CONTROLLERS_METADATA = ["f:annotations", "f:finalizers", "f:ownerReferences"];

/**
 * Makes an object adoptable: what other managers have set, and would otherwise stay beside what is
 * declared, such as a container, an env variable or a port of another name, goes with the next update.
 * An object to which this manager has applied before is left as it is.
 *
 * @param manager the Kubernetes provider's manager of the object's fields
 * @returns whether anything was changed; false where the object does not exist.
 */
export async function release(
  kubeconfig: KubeConfig,
  { apiVersion, kind, metadata: { name, namespace } }: ObjectReference,
  manager: string,
): Promise<boolean> {
  const api = KubernetesObjectApi.makeApiClient(kubeconfig);
  const reference = { apiVersion, kind, metadata: { name, ...(namespace && { namespace }) } };
  return patiently(async () => {
    const live = await api.read(reference).catch(absent);
    if (live === undefined) return false;
    const entries = live.metadata?.managedFields ?? [];
    if (entries.length === 0) {
      // Kubernetes itself records what was there as set by FORMER, as soon as something is applied.
      await api.patch(
        reference,
        undefined,
        undefined,
        manager,
        true,
        PatchStrategy.ServerSideApply,
      );
      return true;
    }
    const released = releasedFrom(entries, manager);
    if (released === undefined) return false;
    // The version makes the cluster answer with a conflict where the object has changed since.
    const { resourceVersion } = live.metadata ?? {};
    const metadata = { ...reference.metadata, resourceVersion, managedFields: released };
    const body = { apiVersion, kind, metadata } as KubernetesObject;
    await api.patch(body, undefined, undefined, undefined, undefined, PatchStrategy.MergePatch);
    return true;
  });
}

/** An entry of an object's `managedFields`, as plain data. */
type FieldsEntry = Pick<V1ManagedFieldsEntry, keyof V1ManagedFieldsEntry>;

/**
 * The entries with former managers' fields set to be taken over.
 * @returns undefined where there are none, or where this manager has applied before.
 */
export function releasedFrom(
  entries: readonly FieldsEntry[],
  manager: string,
): FieldsEntry[] | undefined {
  const isManaged = entries.some(
    (entry) => entry.manager === manager && entry.operation === "Apply" && !entry.subresource,
  );
  if (isManaged) return undefined;
  const released = entries.flatMap((entry, index): FieldsEntry[] => {
    // A subresource is what a controller writes: an autoscaler the scale, others the status.
    if (entry.subresource || CONTROL_PLANE.test(entry.manager ?? "")) return [entry];
    const [taken, left] = split(entry.fieldsV1 as Tree | undefined);
    if (taken === undefined) return [entry];
    const former = { ...entry, manager: `${FORMER}-${index}`, operation: "Update" };
    return [
      { ...former, fieldsV1: taken },
      ...(left === undefined ? [] : [{ ...entry, fieldsV1: left }]),
    ];
  });
  return released.every((entry) => entries.includes(entry)) ? undefined : released;
}

/** Divides a set of fields: those of a manifest, and those of controllers in the metadata. */
function split(fields: Tree = {}): readonly [Tree | undefined, Tree | undefined] {
  const { "f:metadata": metadata, ...taken } = fields;
  if (!isTree(metadata)) return [some(taken), undefined];
  const entries = Object.entries(metadata);
  const isLeft = ([key]: readonly [string, unknown]) => CONTROLLERS_METADATA.includes(key);
  const own = some(Object.fromEntries(entries.filter((entry) => !isLeft(entry))));
  const left = some(Object.fromEntries(entries.filter(isLeft)));
  return [some({ ...taken, ...(own && { "f:metadata": own }) }), left && { "f:metadata": left }];
}

function some(tree: Tree): Tree | undefined {
  return Object.keys(tree).length === 0 ? undefined : tree;
}
