import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { autoscaledBy, type AutoscaledArgs } from "./autoscaled";
import { childOptions, type ChildOptions } from "./internal/child-options";
import type { Called } from "./internal/beside";
import { contentHash } from "./internal/hash";
import { COLOUR_OF, selectorLabels } from "./internal/labels";
import { workloadPod } from "./internal/pod";
import { Rollout } from "./rollout";
import {
  REPLICAS_ELSEWHERE,
  autoscalerSpec,
  budgetSpec,
  deploymentAnnotations,
  deploymentSpec,
  leftToAutoscaler,
  replicasOf,
  SERVICE_AWAIT,
  serviceSpec,
  type WorkloadArgs,
} from "./workload";

export interface ColourArgs extends Omit<WorkloadArgs, "workload" | "inPlace" | "irreversible"> {
  readonly workload: Called;
  /** The workload that this is a release of. */
  readonly of: string;
  /** Another Deployment, whose live number of pods this one must have as well. */
  readonly atLeast: string | undefined;
  /** Whether it begins with one pod, and is given the others together with its traffic. */
  readonly inSteps: boolean;
}

interface Manifests {
  readonly deployment: k8s.apps.v1.DeploymentArgs;
  readonly service: k8s.core.v1.ServiceArgs;
  readonly budget?: k8s.policy.v1.PodDisruptionBudgetArgs | undefined;
  readonly autoscaler?: Scaler | undefined;
}
interface Scaler {
  readonly metadata: object;
  readonly spec: ReturnType<typeof autoscalerSpec>;
}

/** What keeps a colour as it is after another one has taken its place; no secret is in it. */
export interface ColourRecord {
  readonly objectName: string;
  readonly manifests: Manifests;
}

/**
 * One release of a workload beside others of it: a Deployment with a Service of its own, on which it
 * is verified before it meets users, its disruption budget and its autoscaler.
 */
export class Colour extends pulumi.ComponentResource {
  private readonly child: ChildOptions;
  private readonly deployment: k8s.apps.v1.Deployment;
  private manifests: Manifests;

  readonly objectName: string;
  /** The pod as declared: changes with everything that a release may change. */
  readonly podTemplate: pulumi.Input<k8s.types.input.core.v1.PodTemplateSpec>;
  /** There once its pods can take traffic. */
  readonly ready: readonly pulumi.Resource[];

  constructor(
    private readonly name: string,
    private readonly args: ColourArgs,
    opts?: pulumi.ComponentResourceOptions,
  ) {
    super("baton:components:Colour", name, {}, opts);
    this.child = childOptions(this, opts);
    const { workload, namespace, context, atLeast, inSteps } = args;
    this.objectName = name;
    const selector = selectorLabels(name);
    const labels = { ...args.labels, ...selector, [COLOUR_OF]: args.of };
    const metadata = { namespace, name, labels };
    this.podTemplate = {
      metadata: { labels, annotations: { ...args.podAnnotations } },
      spec: workloadPod({ ...args, name: args.of, selector }),
    };

    const spec = deploymentSpec(args, selector, this.podTemplate);
    const deployment = {
      metadata: { ...metadata, annotations: deploymentAnnotations(workload) },
      spec,
    };
    const { replicas, ...uncounted } = spec;
    const begins =
      inSteps || replicas === undefined ? { ...deployment, spec: uncounted } : deployment;
    this.deployment = new k8s.apps.v1.Deployment(name, begins, {
      ...this.child,
      ...(inSteps ? REPLICAS_ELSEWHERE : leftToAutoscaler(workload)),
    });
    const rollout = new Rollout(
      `${name}-rollout`,
      {
        context,
        namespace,
        deployment: name,
        spec: contentHash(begins.spec),
        ...(atLeast === undefined ? {} : { atLeast }),
        // Those that it had before, an earlier canary may have taken.
        pods: inSteps ? 1 : replicasOf(workload),
      },
      {
        ...this.child,
        dependsOn: [...this.child.dependsOn, this.deployment],
      },
    );
    const service = {
      metadata: { ...metadata, annotations: SERVICE_AWAIT },
      spec: serviceSpec(selector, workload.port),
    };
    this.ready = [rollout, new k8s.core.v1.Service(name, service, this.child)];
    const budget = replicasOf(workload) > 1 ? { metadata, spec: budgetSpec(selector) } : undefined;
    if (budget !== undefined) new k8s.policy.v1.PodDisruptionBudget(name, budget, this.child);
    this.manifests = { deployment, service, ...(budget === undefined ? {} : { budget }) };
    this.registerOutputs({ objectName: name });
  }

  /** Lets the autoscaler have it: only when it has traffic, as idle pods would be taken away. */
  autoscale(after: readonly pulumi.Resource[]): pulumi.Resource[] {
    const { autoscale } = this.args.workload;
    if (autoscale === undefined) return [];
    const { namespace, context, labels } = this.args;
    const scaler = {
      metadata: { namespace, labels: { ...labels, ...selectorLabels(this.name) } },
      spec: autoscalerSpec(autoscale, this.name),
    };
    this.manifests = { ...this.manifests, autoscaler: scaler };
    const scaled = { context, namespace, deployment: this.name };
    return [autoscaler(scaler, scaled, this.child, [this.deployment, ...after])];
  }

  get record(): pulumi.Output<ColourRecord> {
    const { objectName, manifests } = this;
    return pulumi.output({ objectName, manifests });
  }
}

export interface KeptColourArgs {
  readonly record: ColourRecord;
  /** The kubeconfig's context; its current one unless given. */
  readonly context: string | undefined;
  readonly namespace: string;
}

/** A colour as it was recorded, which serves no more: with as many pods as it had when it did. */
export class KeptColour extends pulumi.ComponentResource {
  constructor(
    name: string,
    { record, context, namespace }: KeptColourArgs,
    opts?: pulumi.ComponentResourceOptions,
  ) {
    super("baton:components:Colour", name, {}, opts);
    const child = childOptions(this, opts);
    const { manifests } = record;
    const deployment = new k8s.apps.v1.Deployment(name, manifests.deployment, {
      ...child,
      ...REPLICAS_ELSEWHERE,
    });
    new k8s.core.v1.Service(name, manifests.service, child);
    if (manifests.budget !== undefined) {
      new k8s.policy.v1.PodDisruptionBudget(name, manifests.budget, child);
    }
    if (manifests.autoscaler !== undefined) {
      const { metadata, spec } = manifests.autoscaler;
      const behavior = { scaleDown: { selectPolicy: "Disabled" } };
      const scaled = { context, namespace, deployment: name };
      autoscaler({ metadata, spec: { ...spec, behavior } }, scaled, child, [deployment]);
    }
    this.registerOutputs({});
  }
}

/**
 * Under another name each time: to the autoscaler's controller, one that begins to count again is
 * new, and leaves the number as it is for its first minutes.
 */
function autoscaler(
  manifest: k8s.autoscaling.v2.HorizontalPodAutoscalerArgs,
  scaled: AutoscaledArgs,
  child: ChildOptions,
  after: readonly pulumi.Resource[],
): pulumi.Resource {
  const { deployment: name } = scaled;
  return new k8s.autoscaling.v2.HorizontalPodAutoscaler(name, manifest, {
    ...autoscaledBy(name, scaled, child, after),
    // Present on a kept release only: one that serves again gets a new autoscaler.
    replaceOnChanges: ["spec.behavior"],
    // Two for the same pods would both stand still.
    deleteBeforeReplace: true,
  });
}
