import {
  AppsV1Api,
  CustomObjectsApi,
  PatchStrategy,
  setHeaderOptions,
  type KubeConfig,
  type V1Deployment,
  type V1ReplicaSet,
} from "@kubernetes/client-node";
import { setTimeout } from "node:timers/promises";
import { isDeepStrictEqual } from "node:util";
import { z } from "zod";
import { isTree, type Tree } from "../release/merge";
import {
  absent,
  answerOf,
  MERGE,
  newestFirst,
  patiently,
  ResourceFailed,
  revisionOf,
  rolloutStatus,
} from "./cluster";

/** An annotation of a Deployment whose releases take each other's place: what became of them. */
export const ROLLOUT = "baton/rollout";

const Known = z.object({
  /** The Deployment's spec that was last waited for; see `RolloutInputs`. */
  spec: z.string().optional(),
  /** The ReplicaSet of the release that has passed here last. */
  verified: z.string().optional(),
  /** Why that one must not run again by itself. */
  irreversible: z.string().optional(),
  /** What made way for it since. */
  undone: z
    .object({
      replicaSet: z.string(),
      /** Whether its suites had met it, and not the one that runs again. */
      hasPassedSuites: z.boolean(),
    })
    .optional(),
});
type Known = z.infer<typeof Known>;

const APPS = { group: "apps", version: "v1" };
const APPLY = setHeaderOptions("Content-Type", PatchStrategy.ServerSideApply);
/** How the Kubernetes provider's managers of fields are called. */
const PROVIDER = /^pulumi-kubernetes/;
const POLL_MILLISECONDS = 500;

/**
 * The releases of a Deployment that take each other's place. One that fails makes way for the one
 * that has passed before, as by `kubectl rollout undo`; Pulumi does not know of it, so whoever runs
 * the same release again must bring it back.
 */
export class Undo {
  private readonly apps: AppsV1Api;
  private readonly objects: CustomObjectsApi;
  /** Where it is, for people. */
  private readonly id: string;

  constructor(
    kubeconfig: KubeConfig,
    private readonly namespace: string,
    private readonly name: string,
  ) {
    this.apps = kubeconfig.makeApiClient(AppsV1Api);
    this.objects = kubeconfig.makeApiClient(CustomObjectsApi);
    this.id = `${namespace}/${name}`;
  }

  /**
   * A release has been declared, and is waited for.
   * @param irreversible why the one before must not run again
   */
  async begin(spec: string, irreversible: string | undefined): Promise<void> {
    const { undone, ...known } = knownOf(await this.read());
    // With another spec, Pulumi has changed the Deployment since.
    if (undone !== undefined && known.spec === spec) await this.run(undone.replicaSet);
    await this.write(({ verified }) => ({ spec, verified, irreversible }));
  }

  /**
   * Lets the release that was declared run again, where it had made way.
   * @returns whether it had.
   * @throws ResourceFailed where its suites have met another one.
   */
  async redo(): Promise<boolean> {
    const { undone } = knownOf(await this.read());
    if (undone === undefined) return false;
    const isBack = await this.runs(undone.replicaSet);
    if (!isBack && !undone.hasPassedSuites) {
      throw new ResourceFailed(this.id, [
        `${this.id} runs the former release, as this one was aborted before it had passed its ` +
          "suites. Go back to the former release first, with `baton rollback` or, by hand, with " +
          "baton:imageTag and baton:rollbackOf; then deploy this one again.",
      ]);
    }
    await this.run(undone.replicaSet);
    await this.write((known) => ({ ...known, undone: undefined }));
    return true;
  }

  /** The release that runs has passed. */
  async pass(): Promise<void> {
    const verified = await patiently(async () => {
      const deployment = await this.read();
      const sets = await this.replicaSets(deployment);
      return sets.find((set) => revisionOf(set) === revisionOf(deployment))?.metadata?.name;
    });
    await this.write(({ spec }) => ({ spec, verified }));
  }

  /**
   * Lets the release run again that has passed before, unless it may not, or there is none.
   * @returns what was done, for people.
   */
  async undo(hasPassedSuites: boolean): Promise<string[]> {
    try {
      const { verified, irreversible } = knownOf(await this.read());
      if (verified === undefined || (await this.runs(verified))) return [];
      if (irreversible !== undefined) return [`${this.name} stays as it is: ${irreversible}`];
      const [present] = await patiently(async () => this.replicaSets(await this.read()));
      const replicaSet = present?.metadata?.name ?? "";
      await this.write((known) => ({ ...known, undone: { replicaSet, hasPassedSuites } }));
      await this.run(verified);
      return [`${this.name} runs the former release again`];
    } catch (error) {
      const reason = error instanceof ResourceFailed ? error.reasons.join("; ") : answerOf(error);
      return [`${this.name} could not be led back to the former release: ${reason}`];
    }
  }

  /** Waits until all pods are what they are to be, or until there is no progress. */
  async settled(): Promise<void> {
    while ((await patiently(() => this.status())) === "progressing") {
      await setTimeout(POLL_MILLISECONDS);
    }
  }

  private async status() {
    return rolloutStatus(await this.read());
  }

  private async read(): Promise<V1Deployment> {
    const { namespace, name } = this;
    return patiently(() => this.apps.readNamespacedDeployment({ namespace, name }));
  }

  /** Its own, the newest first. */
  private async replicaSets(deployment: V1Deployment): Promise<V1ReplicaSet[]> {
    const { namespace } = this;
    const { items } = await this.apps.listNamespacedReplicaSet({ namespace });
    return newestFirst(items, deployment);
  }

  /** Writes what is known, on top of what is known by then. */
  private async write(change: (known: Known) => Known): Promise<void> {
    const { namespace, name } = this;
    await patiently(async () => {
      const deployment = await this.read();
      const { resourceVersion } = deployment.metadata ?? {};
      const annotations = { [ROLLOUT]: JSON.stringify(change(knownOf(deployment))) };
      const body = { metadata: { annotations, resourceVersion } };
      await this.apps.patchNamespacedDeployment({ namespace, name, body }, MERGE);
    });
  }

  private async runs(replicaSet: string): Promise<boolean> {
    const [deployment, set] = await patiently(() => this.readRaw(replicaSet));
    return set !== undefined && isDeepStrictEqual(templateOf(set), templateOf(deployment));
  }

  /** Gives the Deployment the pods of one of its ReplicaSets, and waits until it has noticed. */
  private async run(replicaSet: string): Promise<void> {
    const isThere = await patiently(async () => {
      const [deployment, set] = await this.readRaw(replicaSet);
      if (set === undefined) return false;
      const template = templateOf(set);
      if (isDeepStrictEqual(template, templateOf(deployment))) return true;
      const { namespace, name } = this;
      const which = { ...APPS, namespace, plural: "deployments", name };
      const body = withTemplate(deployment, template);
      if (body.fieldManager === undefined) {
        await this.objects.replaceNamespacedCustomObject({ ...which, body: body.object });
      } else {
        const { object, fieldManager } = body;
        await this.objects.patchNamespacedCustomObject(
          { ...which, body: object, fieldManager, force: true },
          APPLY,
        );
      }
      return true;
    });
    if (!isThere)
      throw new ResourceFailed(this.id, [`${this.id}: ReplicaSet ${replicaSet} is gone`]);
    for (;;) {
      const { metadata, status } = await this.read();
      if ((status?.observedGeneration ?? 0) >= (metadata?.generation ?? 0)) return;
      await setTimeout(POLL_MILLISECONDS);
    }
  }

  /**
   * The Deployment and one of its ReplicaSets, as the cluster has them: the client's own types know
   * only the fields of their version.
   */
  private async readRaw(replicaSet: string): Promise<readonly [Tree, Tree | undefined]> {
    const which = { ...APPS, namespace: this.namespace };
    return (await Promise.all([
      this.objects.getNamespacedCustomObject({ ...which, plural: "deployments", name: this.name }),
      this.objects
        .getNamespacedCustomObject({ ...which, plural: "replicasets", name: replicaSet })
        .catch(absent),
    ])) as [Tree, Tree | undefined];
  }
}

/** Of a list with commas; none where there is no list. */
export function namesOf(list = ""): string[] {
  return list.split(",").filter((name) => name !== "");
}

/**
 * Lets releases of several Deployments make way, and waits until the former ones serve.
 * @returns what was done, for people.
 */
export async function undoAll(
  kubeconfig: KubeConfig,
  namespace: string,
  names: readonly string[],
  hasPassedSuites: boolean,
): Promise<string[]> {
  const undoOne = async (name: string): Promise<string[]> => {
    const undo = new Undo(kubeconfig, namespace, name);
    const said = await undo.undo(hasPassedSuites);
    if (said.length > 0) await undo.settled().catch(() => undefined);
    return said;
  };
  return (await Promise.all(names.map(undoOne))).flat();
}

function knownOf({ metadata }: V1Deployment): Known {
  try {
    return Known.parse(JSON.parse(metadata?.annotations?.[ROLLOUT] ?? "{}"));
  } catch {
    return {};
  }
}

/** The pods that a Deployment or a ReplicaSet makes, without what the cluster adds by itself. */
function templateOf(object: Tree): Tree {
  const template = treeAt(treeAt(object, "spec"), "template");
  const metadata = without(treeAt(template, "metadata"), "creationTimestamp");
  const labels = without(treeAt(metadata, "labels"), "pod-template-hash");
  return { ...template, metadata: { ...metadata, labels } };
}

/**
 * A Deployment with other pods, and as whom to apply it: where Pulumi declares it by server-side
 * apply, its fields must stay Pulumi's, or the next release keeps what it does not declare
 * (https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management). It declares
 * what it has declared, but for the pods.
 */
export function withTemplate(
  deployment: Tree,
  template: Tree,
): { readonly object: Tree; readonly fieldManager?: string } {
  const metadata = treeAt(deployment, "metadata");
  const spec = treeAt(deployment, "spec");
  const managers = (metadata["managedFields"] ?? []) as readonly Tree[];
  const manager = managers.find(
    ({ manager: name, operation, subresource }) =>
      operation === "Apply" && !subresource && PROVIDER.test(String(name)),
  );
  if (manager === undefined) return { object: { ...deployment, spec: { ...spec, template } } };
  const own = declared(deployment, treeAt(manager, "fieldsV1"));
  const { apiVersion, kind } = deployment;
  const { name, namespace, resourceVersion } = metadata;
  return {
    object: {
      apiVersion,
      kind,
      metadata: { ...treeAt(own, "metadata"), name, namespace, resourceVersion },
      spec: { ...treeAt(own, "spec"), template },
    },
    fieldManager: String(manager["manager"]),
  };
}

/** What of an object a manager has declared; lists as a whole. */
function declared(object: Tree, fields: Tree): Tree {
  const own = Object.entries(fields).flatMap(([field, below]) => {
    const key = field.startsWith("f:") ? field.slice(2) : undefined;
    if (key === undefined || !(key in object)) return [];
    const value = object[key];
    const isWhole = !isTree(value) || !isTree(below) || Object.keys(below).length === 0;
    return [[key, isWhole ? value : declared(value, below)] as const];
  });
  return Object.fromEntries(own);
}

function without(tree: Tree, key: string): Tree {
  return Object.fromEntries(Object.entries(tree).filter(([name]) => name !== key));
}

function treeAt(tree: Tree, key: string): Tree {
  const value = tree[key];
  return isTree(value) ? value : {};
}
