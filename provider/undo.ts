import {
  AppsV1Api,
  CustomObjectsApi,
  PatchStrategy,
  setHeaderOptions,
  type KubeConfig,
  type V1Deployment,
} from "@kubernetes/client-node";
import { setTimeout } from "node:timers/promises";
import { isDeepStrictEqual } from "node:util";
import { z } from "zod";
import { isTree, type Tree } from "../release/merge";
import {
  ABORT,
  answerOf,
  MERGE,
  PATIENCE,
  patiently,
  ResourceFailed,
  rolloutStatus,
} from "./cluster";
import { BAKE } from "./progress";

/** An annotation of a Deployment whose releases take each other's place: what became of them. */
export const ROLLOUT = "baton/rollout";

const Known = z.object({
  /** The Deployment and its pods as they were declared last; see `RolloutInputs`. */
  spec: z.string().optional(),
  template: z.string().optional(),
  /** From when its rollout begins until it has ended: the abort that was there before. */
  abort: z.string().optional(),
  /** The ReplicaSet of the release that has passed here last. */
  verified: z.string().optional(),
  /** Why that one must not run again by itself. */
  irreversible: z.string().optional(),
  /** The ReplicaSet of the release that made way for it since. */
  undone: z.string().optional(),
});
type Known = z.infer<typeof Known>;

/** What is declared of a Deployment. */
export interface Declared {
  readonly spec: string;
  /** Where releases take each other's place. */
  readonly template?: string | undefined;
  /** Why the release before must not run again by itself. */
  readonly irreversible?: string | undefined;
}

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

  constructor(
    kubeconfig: KubeConfig,
    private readonly namespace: string,
    private readonly name: string,
  ) {
    this.apps = kubeconfig.makeApiClient(AppsV1Api);
    this.objects = kubeconfig.makeApiClient(CustomObjectsApi);
  }

  /** Whether this is what is declared, and whether what is declared has made way. */
  async state(
    spec?: string,
  ): Promise<{ readonly isDeclared: boolean; readonly isUndone: boolean }> {
    const known = knownOf(await this.read());
    return { isDeclared: known.spec === spec, isUndone: known.undone !== undefined };
  }

  /**
   * A release is declared, and runs from here on: one that had made way comes back, and who still
   * watches another one hears that it is over.
   * @returns the abort that was there when its rollout began; another one is for whoever carries it on.
   */
  async begin(declared: Declared): Promise<string> {
    const deployment = await this.read();
    const { spec, undone, template, abort: before } = knownOf(deployment);
    const present = abortIn(deployment);
    const abort = spec === declared.spec ? (before ?? present) : present;
    // With another template, Pulumi has changed the Deployment since.
    const isAgain = undone !== undefined && template === declared.template;
    if (isAgain) await this.run(undone);
    const kept = isAgain ? undone : undefined;
    const others = template === declared.template ? {} : { [BAKE]: null };
    await this.write(({ verified }) => ({ ...declared, abort, verified, undone: kept }), others);
    return abort;
  }

  /**
   * The pods are there.
   * @param formerAbort the abort that was there when the rollout began
   * @returns whether it is over: not where it was aborted after all.
   * @throws ResourceFailed where they are the former ones, as others have failed.
   */
  async complete(formerAbort: string): Promise<boolean> {
    const { undone } = knownOf(await this.read());
    if (undone !== undefined && (await this.present()) !== undone) {
      await this.end();
      throw this.failed("it has made way with others");
    }
    let isOver = true;
    await this.write((known, abort) => {
      isOver = abort === formerAbort;
      return isOver ? { ...known, abort: undefined, undone: undefined } : known;
    });
    return isOver;
  }

  /** The rollout has failed: whoever tries it again heeds no abort that is there already. */
  async end(): Promise<void> {
    await this.write((known) => ({ ...known, abort: undefined }));
  }

  /**
   * The release that runs has passed.
   * @throws ResourceFailed where it is not the one that is declared.
   */
  async pass(): Promise<void> {
    if ((await this.state()).isUndone) throw this.failed("it runs the former release");
    const verified = await this.present();
    await this.write(({ spec, template }) => ({ spec, template, verified }));
  }

  /**
   * Lets the release run again that has passed before, unless it may not, or there is none.
   * @param because why it may not, where that is not known there yet
   * @returns whether it does, and what was done, for people.
   */
  async undo(because?: string): Promise<{ readonly isUndone: boolean; readonly said: string[] }> {
    const not = (...said: string[]) => ({ isUndone: false, said });
    try {
      const known = knownOf(await this.read());
      const { verified, irreversible = because } = known;
      if (verified === undefined) return not();
      const present = await this.present();
      if (present === verified) return not();
      if (irreversible !== undefined) return not(`${this.name} stays as it is: ${irreversible}`);
      await this.write((then) => ({ ...then, undone: then.undone ?? present }));
      await this.run(verified);
      return { isUndone: true, said: [`${this.name} runs the former release again`] };
    } catch (error) {
      const reason = error instanceof ResourceFailed ? error.reasons.join("; ") : answerOf(error);
      return not(`${this.name} could not be led back to the former release: ${reason}`);
    }
  }

  /** Waits until all pods are what they are to be. @returns whether they are. */
  async settled(): Promise<boolean> {
    for (;;) {
      const status = rolloutStatus(await this.read());
      if (status !== "progressing") return status === "complete";
      await setTimeout(POLL_MILLISECONDS);
    }
  }

  private async read(): Promise<V1Deployment> {
    const { namespace, name } = this;
    return patiently(() => this.apps.readNamespacedDeployment({ namespace, name }));
  }

  /** Writes what is known, on top of what is known by then. */
  private async write(
    change: (known: Known, abort: string) => Known,
    others: Readonly<Record<string, string | null>> = {},
  ): Promise<void> {
    const { namespace, name } = this;
    await patiently(async () => {
      const deployment = await this.apps.readNamespacedDeployment({ namespace, name });
      const { resourceVersion } = deployment.metadata ?? {};
      const known = JSON.stringify(change(knownOf(deployment), abortIn(deployment)));
      const annotations = { ...others, [ROLLOUT]: known } as Record<string, string>;
      const body = { metadata: { annotations, resourceVersion } };
      await this.apps.patchNamespacedDeployment({ namespace, name, body }, MERGE);
    });
  }

  /** The ReplicaSet of the pods that the Deployment is to have; its controller may be late. */
  private async present(): Promise<string> {
    const wait = Date.now() + PATIENCE;
    for (;;) {
      const [deployment, sets] = await patiently(() => this.readRaw());
      const template = templateOf(deployment);
      const found = sets.find((set) => isDeepStrictEqual(templateOf(set), template));
      if (found !== undefined) return nameOf(found);
      if (Date.now() > wait) throw this.failed("no ReplicaSet has its pods");
      await setTimeout(POLL_MILLISECONDS);
    }
  }

  /** Gives the Deployment the pods of one of its ReplicaSets, and waits until it has noticed. */
  private async run(replicaSet: string): Promise<void> {
    await patiently(async () => {
      const [deployment, sets] = await this.readRaw();
      const set = sets.find((one) => nameOf(one) === replicaSet);
      if (set === undefined) throw this.failed(`its ReplicaSet ${replicaSet} is gone`);
      const template = templateOf(set);
      if (isDeepStrictEqual(template, templateOf(deployment))) return;
      const { namespace, name } = this;
      const which = { ...APPS, namespace, plural: "deployments", name };
      const { object: body, fieldManager } = withTemplate(deployment, template);
      if (fieldManager === undefined) {
        await this.objects.replaceNamespacedCustomObject({ ...which, body });
      } else {
        const options = { ...which, body, fieldManager, force: true };
        await this.objects.patchNamespacedCustomObject(options, APPLY);
      }
    });
    for (;;) {
      const { metadata, status } = await this.read();
      if ((status?.observedGeneration ?? 0) >= (metadata?.generation ?? 0)) return;
      await setTimeout(POLL_MILLISECONDS);
    }
  }

  private failed(reason: string): ResourceFailed {
    const id = `${this.namespace}/${this.name}`;
    return new ResourceFailed(id, [`${id}: ${reason}`]);
  }

  /**
   * The Deployment and its ReplicaSets, as the cluster has them: the client's own types know only the
   * fields of their version.
   */
  private async readRaw(): Promise<readonly [Tree, readonly Tree[]]> {
    const which = { ...APPS, namespace: this.namespace };
    const [deployment, list] = (await Promise.all([
      this.objects.getNamespacedCustomObject({ ...which, plural: "deployments", name: this.name }),
      this.objects.listNamespacedCustomObject({ ...which, plural: "replicasets" }),
    ])) as [Tree, { readonly items: readonly Tree[] }];
    const { uid } = treeAt(deployment, "metadata");
    const sets = list.items.filter((set) => {
      const owners = treeAt(set, "metadata")["ownerReferences"] as readonly Tree[] | undefined;
      return owners?.some((owner) => owner["uid"] === uid);
    });
    return [deployment, sets];
  }
}

/**
 * Lets the releases of several Deployments make way, and waits until the former ones serve.
 * @returns what was done, for people.
 */
export async function undoAll(
  kubeconfig: KubeConfig,
  namespace: string,
  names: readonly string[],
  irreversible: string | undefined,
): Promise<string[]> {
  const undoOne = async (name: string): Promise<string[]> => {
    const undo = new Undo(kubeconfig, namespace, name);
    const { isUndone, said } = await undo.undo(irreversible);
    if (!isUndone || (await undo.settled().catch(() => false))) return said;
    return [`${name} is led back to the former release, whose pods do not come up`];
  };
  return (await Promise.all(names.map(undoOne))).flat();
}

/** Of a list with commas; none where there is no list. */
export function namesOf(list = ""): string[] {
  return list.split(",").filter((name) => name !== "");
}

/** Whether a rollout has begun that neither has ended nor has heard of an abort. */
export function isRolledOut(deployment: V1Deployment): boolean {
  return knownOf(deployment).abort !== undefined;
}

/** Whether it makes way, or has. */
export function isUndone(deployment: V1Deployment): boolean {
  return knownOf(deployment).undone !== undefined;
}

function abortIn({ metadata }: V1Deployment): string {
  return metadata?.annotations?.[ABORT] ?? "";
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

function nameOf(object: Tree): string {
  return String(treeAt(object, "metadata")["name"]);
}

function without(tree: Tree, key: string): Tree {
  return Object.fromEntries(Object.entries(tree).filter(([name]) => name !== key));
}

function treeAt(tree: Tree, key: string): Tree {
  const value = tree[key];
  return isTree(value) ? value : {};
}
