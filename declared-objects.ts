import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { STACK } from "./components/internal/labels";
import { Refusal } from "./config";
import type { ObjectName } from "./provider/objects";
import { isTree, type Tree } from "./release/merge";
import { formatProblem, type Problem } from "./release/problem";
import type { RecordedResource } from "./stack-state";

/** The second connection to the cluster, whose creates change an object that exists. */
const LEFTOVERS = "leftovers";

/** Where a program's objects are. */
export interface ObjectPlace {
  readonly environment: string;
  /** The namespace of all objects but those of the whole cluster. */
  readonly namespace: string;
  /** The kubeconfig's context; its current one unless given. */
  readonly context: string | undefined;
  /** Whether the stack's last successful `up` was of this release. */
  readonly isSameRelease: boolean;
}

/** An object with a name of its own that is in no state: absent from the cluster, or to be looked at. */
interface NewObject {
  readonly name: ObjectName;
  readonly isLeftover: Promise<boolean>;
  readonly decide: (isLeftover: boolean) => void;
}

/**
 * The objects of the cluster that a program declares. Each waits until all are declared. Objects that
 * the state does not know are then looked for in the cluster: an object of this stack, which a killed
 * run has left, is carried on with; any other one is refused before the first object is touched.
 *
 * The provider refuses to create an object that exists. Its option to change it instead is for leftovers
 * alone: with it, a replacement under the same name would end in the deletion of the new object, and an
 * object of another owner would be overwritten.
 */
export class DeclaredObjects {
  /** The connection to the cluster. */
  readonly provider: k8s.Provider;
  private readonly stack = `${pulumi.getProject()}/${pulumi.getStack()}`;
  private readonly known: ReadonlySet<string>;
  private readonly objects: NewObject[] = [];
  private readonly checked: Promise<void>;
  private pass: () => void = () => undefined;
  private readonly afterCheck: pulumi.ProviderResource;
  private leftovers: k8s.Provider | undefined;

  /** @param recorded the stack's resources as they are recorded, by URN */
  constructor(
    private readonly place: ObjectPlace,
    private readonly recorded: Readonly<Record<string, RecordedResource>>,
  ) {
    this.known = new Set(
      Object.values(recorded).flatMap(({ type, outputs }) => {
        const name = type.startsWith("kubernetes:") ? nameOf(outputs) : undefined;
        return name === undefined ? [] : [keyOf(name)];
      }),
    );
    this.provider = new k8s.Provider("cluster", connectionTo(place));
    this.checked = new Promise((resolve) => (this.pass = resolve));
    this.afterCheck = new LateProvider(this.checked.then(() => this.provider));
  }

  /** The options of components whose children are objects of the cluster. */
  get options(): {
    readonly providers: { readonly kubernetes: pulumi.ProviderResource };
    readonly transformations: pulumi.ResourceTransformation[];
  } {
    return {
      providers: { kubernetes: this.provider },
      transformations: [(args) => this.declare(args)],
    };
  }

  /**
   * Lets the objects be made and changed, once all are declared.
   * @throws Refusal that names each object of another owner.
   */
  async check(): Promise<void> {
    const { environment, context, isSameRelease } = this.place;
    const found = await this.find().catch((error: unknown) => {
      // Behind a proxy that only the provider's own client knows, a preview says what it can.
      if (!pulumi.runtime.isDryRun()) throw error;
      void pulumi.log.warn(`${environment}: what is in the cluster is not known: ${String(error)}`);
      return [];
    });
    const strangers = found.filter(({ stack }) => stack !== this.stack);
    const problems = strangers.map((one) => formatProblem(this.problemOf(one)));
    if (problems.length > 0 && !pulumi.runtime.isDryRun()) throw new Refusal(problems.join("\n"));
    for (const problem of problems) void pulumi.log.warn(`${problem} \`up\` refuses it.`);

    const own = found.filter(({ stack }) => stack === this.stack);
    if (own.length > 0 && !pulumi.runtime.isDryRun()) {
      const names = own.map(({ object: { name } }) => describe(name)).join(", ");
      void pulumi.log.info(`${environment}: carries on with what a killed run has left: ${names}`);
    }
    // A preview shows neither its beginning nor its end: only objects are approved.
    const isKept = Object.keys(this.recorded).some((urn) =>
      urn.endsWith(`::pulumi:providers:kubernetes::${LEFTOVERS}`),
    );
    const isNeeded = pulumi.runtime.isDryRun()
      ? isKept
      : own.length > 0 || (isKept && isSameRelease);
    if (isNeeded) {
      this.leftovers = new k8s.Provider(LEFTOVERS, {
        ...connectionTo({ environment, context }),
        upsertExistingObjects: true,
      });
    }
    for (const object of this.objects) object.decide(own.some((one) => one.object === object));
    this.pass();
  }

  private declare({
    type,
    props,
    opts,
  }: pulumi.ResourceTransformationArgs): pulumi.ResourceTransformationResult | undefined {
    if (!type.startsWith("kubernetes:")) return undefined;
    const declared: Tree = props;
    const annotated = { ...declared, metadata: this.annotate(declared["metadata"]) };
    const name = nameOf(annotated, this.place.namespace);
    const isNew = name !== undefined && !this.known.has(keyOf(name));
    const provider = isNew ? this.providerOf(name, annotated) : this.afterCheck;
    return { props: annotated, opts: { ...opts, provider } };
  }

  /** An object's metadata with the annotation. */
  private annotate(metadata: unknown): pulumi.Input<Tree> {
    if (!isPlain(metadata)) {
      const later = pulumi.output(metadata) as pulumi.Output<unknown>;
      return later.apply((plain) => this.annotate(plain)) as pulumi.Output<Tree>;
    }
    const own = isTree(metadata) ? metadata : {};
    const given = own["annotations"];
    const annotations = isPlain(given)
      ? { ...(isTree(given) ? given : {}), [STACK]: this.stack }
      : pulumi
          .all([given as pulumi.Input<Tree>])
          .apply(([all]) => ({ ...all, [STACK]: this.stack }));
    return { ...own, annotations };
  }

  /** The connection that makes a new object: known once the cluster was asked for the object. */
  private providerOf(name: ObjectName, declared: Tree): pulumi.ProviderResource {
    let decide: (isLeftover: boolean) => void = () => undefined;
    const isLeftover = new Promise<boolean>((resolve) => (decide = resolve));
    this.objects.push({ name, isLeftover, decide });
    const choose = async (): Promise<pulumi.ProviderResource> => {
      await this.checked;
      const { leftovers } = this;
      if (!(await isLeftover) || leftovers === undefined || pulumi.runtime.isDryRun()) {
        return this.provider;
      }
      const plain = await new Promise<Tree>((resolve) => {
        void pulumi.output(declared).apply(resolve);
      });
      const [{ takeOver }, { kubeconfigOf }] = await clusterModules();
      await takeOver(kubeconfigOf(this.place.context), name, plain);
      return leftovers;
    };
    return new LateProvider(choose());
  }

  /** The new objects that the cluster has, and whose they are. */
  private async find(): Promise<{ readonly object: NewObject; readonly stack: string }[]> {
    if (this.objects.length === 0) return [];
    const [{ readObject, waitUntilGone }, { kubeconfigOf }] = await clusterModules();
    const kubeconfig = kubeconfigOf(this.place.context);
    const look = async (object: NewObject) => {
      const { name } = object;
      const { metadata } = (await readObject(kubeconfig, name)) ?? {};
      if (metadata === undefined) return [];
      if (metadata.deletionTimestamp !== undefined) {
        if (!pulumi.runtime.isDryRun()) await waitUntilGone(kubeconfig, name);
        return [];
      }
      return [{ object, stack: metadata.annotations?.[STACK] ?? "" }];
    };
    const ofCluster = this.objects.filter(({ name }) => name.namespace === undefined);
    const isIn = ({ kind, name }: ObjectName) =>
      kind === "Namespace" && name === this.place.namespace;
    const found = (await Promise.all(ofCluster.map(look))).flat();
    // In a namespace that is yet to be made, there is nothing.
    const isEmpty =
      ofCluster.some(({ name }) => isIn(name)) && !found.some(({ object }) => isIn(object.name));
    if (isEmpty) return found;
    const others = this.objects.filter(({ name }) => name.namespace !== undefined);
    return [...found, ...(await Promise.all(others.map(look))).flat()];
  }

  private problemOf({
    object,
    stack,
  }: {
    readonly object: NewObject;
    readonly stack: string;
  }): Problem {
    const { name } = object;
    const inNamespace = name.namespace === undefined ? "" : ` -n ${name.namespace}`;
    return {
      where: this.place.environment,
      property: describe(name),
      value: stack === "" ? "in the cluster already, and no stack's" : `stack ${stack}'s already`,
      expected: `none of that name, or one that this stack, ${this.stack}, has made`,
      fix:
        "Give yours another name; or where this stack is to have that one, say so: " +
        `\`kubectl annotate ${name.kind.toLowerCase()} ${name.name}${inNamespace} ` +
        `--overwrite ${STACK}=${this.stack}\``,
    };
  }
}

/** Stands for a provider that is known later: what it makes waits until then. */
class LateProvider extends pulumi.ProviderResource {
  constructor(provider: Promise<pulumi.ProviderResource>) {
    // As the SDK's own stand-ins, it is not registered.
    super("kubernetes", "", {}, {}, true);
    const found = pulumi.output(provider.then((one) => [one.urn, one.id] as const));
    Object.assign(this, { urn: found.apply(([urn]) => urn), id: found.apply(([, id]) => id) });
  }
}

function connectionTo({
  environment,
  context,
}: Pick<ObjectPlace, "environment" | "context">): k8s.ProviderArgs {
  return {
    ...(context === undefined ? {} : { context }),
    // The SDK would record $KUBECONFIG, a path of this machine; the provider finds it by itself.
    kubeconfig: pulumi.output(undefined as unknown as string),
    // Its default, 5 requests a second, makes a whole environment wait for its own client.
    kubeClientSettings: { qps: 50, burst: 100 },
    // A declared value counts where another program has set it since, as `kubectl edit` has, or a gate
    // that led a Service back: a conflict would stop previews, and the way back. No field that others
    // are to set is declared. What is not declared is no conflict, see `objectHooks`.
    enablePatchForce: true,
    // The stack is the cluster's identity: a renamed context must not replace what runs there.
    clusterIdentifier: environment,
  };
}

/** The cluster's client takes a third of a second to load, which few runs need. */
function clusterModules() {
  return Promise.all([import("./provider/objects"), import("./provider/cluster")]);
}

function isPlain(value: unknown): boolean {
  return !pulumi.Output.isInstance<unknown>(value) && !(value instanceof Promise);
}

/**
 * How the cluster names an object; nothing where Pulumi gives it a name.
 * @param within the namespace where it is known only later
 */
function nameOf(object: Tree, within?: string): ObjectName | undefined {
  const { apiVersion, kind, metadata } = object;
  if (!isTree(metadata) || typeof apiVersion !== "string" || typeof kind !== "string") {
    return undefined;
  }
  const { name, namespace } = metadata;
  if (typeof name !== "string") return undefined;
  const where = typeof namespace === "string" ? namespace : namespace && within;
  return {
    apiVersion,
    kind,
    name,
    ...(where === undefined ? {} : { namespace: where }),
  } as ObjectName;
}

/** A key of an object, equal in all versions of its API. */
function keyOf({ apiVersion, kind, namespace = "", name }: ObjectName): string {
  const group = apiVersion.includes("/") ? apiVersion.split("/")[0] : "";
  return [group, kind, namespace, name].join(" ");
}

function describe({ kind, namespace, name }: ObjectName): string {
  return `${kind} ${namespace === undefined ? "" : `${namespace}/`}${name}`;
}
