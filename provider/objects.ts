import {
  ApiException,
  KubernetesObjectApi,
  PatchStrategy,
  type KubeConfig,
  type KubernetesObject,
} from "@kubernetes/client-node";
import { setTimeout } from "node:timers/promises";
import { isTree, type Tree } from "../release/merge";
import { absent, patiently, ResourceFailed } from "./cluster";

/** The name of an object in a cluster, as a path of its API is made of it. */
export interface ObjectName {
  readonly apiVersion: string;
  readonly kind: string;
  /** Absent for an object of the whole cluster. */
  readonly namespace?: string | undefined;
  readonly name: string;
}

/**
 * Field managers of those who declare an object: Pulumi's provider, with one name for its creates and
 * one for each object, and the tools that had declared the object before the stack did.
 */
const DECLARERS = /^(pulumi-(resource-)?kubernetes|kubectl|helm|before-first-apply)(\W|$)/i;
/** The manager that the provider creates objects as; its next update of an object takes over from it. */
const CREATOR = { manager: "pulumi-kubernetes", operation: "Update" };
/** The manager under which the fields of a killed run are brought together. */
const TAKE_OVER = "pulumi-kubernetes-take-over";
/** The longest that an object may take to go away, in milliseconds. */
const DELETION = 300_000;
const POLL_MILLISECONDS = 500;

/** Any object of a cluster, in the API's own JSON: the client's types drop what they do not know. */
class ObjectApi extends KubernetesObjectApi {
  async patchRaw(
    object: KubernetesObject & Tree,
    strategy: (typeof PatchStrategy)[keyof typeof PatchStrategy],
    query: Readonly<Record<string, string>> = {},
  ): Promise<void> {
    const path = await this.specUriPath(object, "patch");
    const server = this.configuration.baseServer;
    // The client does not export its enum of methods.
    const request = server.makeRequestContext(path, "PATCH" as never);
    request.setHeaderParam("Accept", "application/json");
    request.setHeaderParam("Content-Type", strategy);
    for (const [key, value] of Object.entries(query)) request.setQueryParam(key, value);
    request.setBody(JSON.stringify(object));
    await this.requestPromise(request);
  }
}

function apiOf(kubeconfig: KubeConfig): ObjectApi {
  return kubeconfig.makeApiClient(ObjectApi);
}

function headerOf({ apiVersion, kind, namespace, name }: ObjectName) {
  return { apiVersion, kind, metadata: { name, namespace: namespace ?? "" } };
}

/**
 * An object as it is now; nothing where there is none, where the cluster has no such kind, or where it
 * may not be read: who may not, may not change it either.
 */
export async function readObject(
  kubeconfig: KubeConfig,
  name: ObjectName,
): Promise<KubernetesObject | undefined> {
  const read = async () => {
    try {
      return await apiOf(kubeconfig).read(headerOf(name));
    } catch (error) {
      const isForbidden = error instanceof ApiException && error.code === 403;
      const isUnknown = error instanceof Error && error.message.startsWith("Unrecognized API");
      if (isForbidden || isUnknown) return undefined;
      absent(error);
      return undefined;
    }
  };
  return patiently(read);
}

/**
 * Waits until an object that is being deleted is gone.
 * @throws ResourceFailed where it is not.
 */
export async function waitUntilGone(kubeconfig: KubeConfig, name: ObjectName): Promise<void> {
  const began = Date.now();
  while ((await readObject(kubeconfig, name))?.metadata?.deletionTimestamp !== undefined) {
    if (Date.now() - began > DELETION) {
      const id = [name.namespace, name.name].filter((part) => part !== undefined).join("/");
      throw new ResourceFailed(id, [`${name.kind} ${id} is still being deleted`]);
    }
    await setTimeout(POLL_MILLISECONDS);
  }
}

/**
 * Makes an object that a killed run has left be what is declared now: fields that only the killed run
 * has declared go. The object is then as the provider's own create would have left it, so that the
 * provider can apply it, and takes the fields over with its next update of it
 * (https://kubernetes.io/docs/reference/using-api/server-side-apply/#transferring-ownership).
 */
export async function takeOver(
  kubeconfig: KubeConfig,
  name: ObjectName,
  declared: Tree,
): Promise<void> {
  const api = apiOf(kubeconfig);
  const hand = async (from: (one: FieldManager) => boolean, to: FieldManager) => {
    const live = await api.read(headerOf(name));
    const { resourceVersion, managedFields = [] } = live.metadata ?? {};
    const managers = handOver(managedFields, from, to);
    const metadata = { ...headerOf(name).metadata, resourceVersion, managedFields: managers };
    await api.patchRaw({ ...headerOf(name), metadata } as KubernetesObject & Tree, MERGE);
  };
  const { apiVersion } = name;
  const taken = { manager: TAKE_OVER, operation: "Apply", apiVersion };
  await patiently(() => hand(({ manager = "" }) => DECLARERS.test(manager), taken));
  const options = { fieldManager: TAKE_OVER, force: "true" };
  await patiently(() => api.patchRaw(declared as KubernetesObject & Tree, APPLY, options));
  await patiently(() => hand(({ manager }) => manager === TAKE_OVER, { ...CREATOR, apiVersion }));
}

const MERGE = PatchStrategy.MergePatch;
const APPLY = PatchStrategy.ServerSideApply;

/** An entry of an object's `managedFields`. */
export interface FieldManager {
  readonly manager?: string;
  readonly operation?: string;
  readonly apiVersion?: string;
  readonly subresource?: string;
  readonly fieldsType?: string;
  readonly fieldsV1?: object;
}

/** The managers of an object's fields, with all fields of some of them in the hands of one. */
export function handOver(
  managers: readonly FieldManager[],
  from: (manager: FieldManager) => boolean,
  to: FieldManager,
): FieldManager[] {
  const isGiver = (one: FieldManager) =>
    !one.subresource && one.apiVersion === to.apiVersion && from(one);
  const givers = managers.filter(isGiver);
  if (givers.length === 0) return [...managers];
  const fieldsV1 = givers.reduce<Tree>((all, one) => union(all, (one.fieldsV1 ?? {}) as Tree), {});
  return [...managers.filter((one) => !isGiver(one)), { ...to, fieldsType: "FieldsV1", fieldsV1 }];
}

function union(one: Tree, other: Tree): Tree {
  const entries = Object.entries(other).map(([key, below]) => {
    const own = one[key];
    return [key, isTree(own) && isTree(below) ? union(own, below) : below] as const;
  });
  return { ...one, ...Object.fromEntries(entries) };
}
