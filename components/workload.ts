import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { autoscaledBy } from "./autoscaled";
import { childOptions, type ChildOptions } from "./internal/child-options";
import type { Config, WorkloadConfig } from "../config-schema";
import { contentHash } from "./internal/hash";
import { REPLICAS, selectorLabels } from "./internal/labels";
import { workloadPod } from "./internal/pod";
import { Rollout } from "./rollout";
import type { ContainerSettings } from "./settings";

export interface WorkloadArgs {
  readonly namespace: string;
  /** The kubeconfig's context, for reading why a rollout failed. */
  readonly context: string | undefined;
  readonly serviceAccount: pulumi.Input<string>;
  readonly workload: WorkloadConfig;
  readonly rollout: Config["rollout"];
  /** The image by digest, `repository@sha256:…`. */
  readonly image: string;
  readonly settings: ContainerSettings;
  readonly labels: Readonly<Record<string, string>>;
  /** Put on the pods, e.g. what Prometheus looks for. */
  readonly podAnnotations: Readonly<Record<string, string>>;
  /** The Deployments of a release that make way for the one before, when one of them fails. */
  readonly inPlace: readonly string[];
  /** Why they do not. */
  readonly irreversible: string | undefined;
}

/**
 * On a Deployment: `Rollout` waits for pods, and knows why they are not ready, so that the provider
 * waits for the object only. Its `skipAwait` would not wait for the deletion either, and a release of
 * the same name would meet the Deployment that still goes away.
 */
const DEPLOYMENT_AWAIT = { "pulumi.com/waitFor": "jsonpath={.metadata.uid}" };
/** On a Service: `Rollout` waits for the pods that it leads to. The provider awaits its deletion. */
export const SERVICE_AWAIT = { "pulumi.com/skipAwait": "true" };
/** The number of pods is set by an autoscaler, or by the steps of a canary. */
export const REPLICAS_ELSEWHERE = { ignoreChanges: ["spec.replicas"] };

/**
 * One process of the image: a Deployment with its Service, disruption budget and autoscaler, or a
 * CronJob. The rollout is awaited; without progress for `progressDeadlineSeconds` it has failed.
 */
export class Workload extends pulumi.ComponentResource {
  private readonly child: ChildOptions;

  /** What the workload's objects are called. */
  readonly objectName: string;
  /** The pod as declared: changes with everything that a release may change. */
  readonly podTemplate: pulumi.Input<k8s.types.input.core.v1.PodTemplateSpec>;

  constructor(name: string, args: WorkloadArgs, opts?: pulumi.ComponentResourceOptions) {
    super("baton:components:Workload", name, {}, opts);
    this.child = childOptions(this, opts);
    const { workload, labels } = args;
    this.objectName = workload.name ?? name;
    const selector = workload.selector ?? selectorLabels(name);
    const allLabels = { ...labels, ...selectorLabels(name), ...selector };
    this.podTemplate = {
      metadata: { labels: allLabels, annotations: { ...args.podAnnotations } },
      spec: workloadPod({ ...args, name, selector }),
    };
    const metadata = { namespace: args.namespace, name: this.objectName, labels: allLabels };

    if (workload.kind === "CronJob") {
      this.createCronJob(name, metadata, workload);
    } else {
      this.createDeployment(name, metadata, selector, args);
    }
    this.registerOutputs({ objectName: this.objectName });
  }

  private createDeployment(
    name: string,
    metadata: k8s.types.input.meta.v1.ObjectMeta,
    selector: Record<string, string>,
    args: WorkloadArgs,
  ): void {
    const { namespace, context, workload, inPlace, irreversible } = args;
    const { autoscale, port } = workload;
    const spec = deploymentSpec(args, selector, this.podTemplate);
    const deployment = new k8s.apps.v1.Deployment(
      name,
      { metadata: { ...metadata, annotations: deploymentAnnotations(workload) }, spec },
      { ...this.child, ...leftToAutoscaler(workload) },
    );

    const rollout = new Rollout(
      `${name}-rollout`,
      {
        context,
        namespace,
        deployment: this.objectName,
        spec: contentHash(spec),
        template: contentHash(this.podTemplate),
        inPlace: inPlace.join(","),
        ...(irreversible === undefined ? {} : { irreversible }),
        ...autoscaledFrom(workload),
      },
      {
        ...this.child,
        dependsOn: [...this.child.dependsOn, deployment],
      },
    );

    if (port !== undefined) {
      new k8s.core.v1.Service(
        name,
        {
          metadata: { ...metadata, annotations: SERVICE_AWAIT },
          spec: serviceSpec(selector, port),
        },
        // Traffic that still goes to the colours of a former blueGreen waits for these pods.
        { ...this.child, dependsOn: [...this.child.dependsOn, rollout] },
      );
    }
    if (replicasOf(workload) > 1) {
      new k8s.policy.v1.PodDisruptionBudget(
        name,
        { metadata, spec: budgetSpec(selector) },
        this.child,
      );
    }
    if (autoscale !== undefined) {
      const scaled = { context, namespace, deployment: this.objectName };
      new k8s.autoscaling.v2.HorizontalPodAutoscaler(
        name,
        { metadata, spec: autoscalerSpec(autoscale, deployment.metadata.name) },
        autoscaledBy(name, scaled, this.child, [deployment]),
      );
    }
  }

  private createCronJob(
    name: string,
    metadata: k8s.types.input.meta.v1.ObjectMeta,
    { schedule }: WorkloadConfig,
  ): void {
    new k8s.batch.v1.CronJob(
      name,
      {
        metadata,
        spec: {
          schedule: schedule ?? "",
          concurrencyPolicy: "Forbid",
          jobTemplate: { spec: { backoffLimit: 1, template: this.podTemplate } },
        },
      },
      this.child,
    );
  }
}

/** The number of pods may have been an autoscaler's before, which ends after the Deployment's update. */
export function deploymentAnnotations({
  autoscale,
  replicas = 1,
}: WorkloadConfig): Record<string, string> {
  const own = autoscale === undefined ? { [REPLICAS]: String(replicas) } : {};
  return { ...DEPLOYMENT_AWAIT, ...own };
}

/** How many pods a Deployment begins with. */
export function replicasOf({ autoscale, replicas }: WorkloadConfig): number {
  return autoscale?.minReplicas ?? replicas ?? 1;
}

export function deploymentSpec(
  { workload: { autoscale, replicas = 1 }, rollout }: Pick<WorkloadArgs, "workload" | "rollout">,
  selector: Record<string, string>,
  template: pulumi.Input<k8s.types.input.core.v1.PodTemplateSpec>,
) {
  return {
    // An autoscaler's number would be taken back by each update that says another one.
    ...(autoscale === undefined ? { replicas } : {}),
    selector: { matchLabels: selector },
    strategy: {
      type: "RollingUpdate",
      rollingUpdate: {
        maxSurge: amount(rollout.maxSurge),
        maxUnavailable: amount(rollout.maxUnavailable),
      },
    },
    progressDeadlineSeconds: rollout.progressDeadlineSeconds,
    template,
  };
}

/** Its number is the autoscaler's, also where it was not one day. */
export function leftToAutoscaler({ autoscale }: WorkloadConfig): pulumi.CustomResourceOptions {
  return autoscale === undefined ? {} : REPLICAS_ELSEWHERE;
}

/** What a rollout waits for before there is traffic that an autoscaler could count by. */
function autoscaledFrom({ autoscale }: WorkloadConfig): { pods?: number } {
  return autoscale === undefined ? {} : { pods: autoscale.minReplicas };
}

export function serviceSpec(selector: Record<string, string>, port: number) {
  return { selector, ports: [{ name: "http", port: 80, targetPort: port }] };
}

export function budgetSpec(selector: Record<string, string>) {
  return {
    selector: { matchLabels: selector },
    maxUnavailable: 1,
    // Broken pods must not block the drain of their node.
    unhealthyPodEvictionPolicy: "AlwaysAllow",
  };
}

export function autoscalerSpec(
  autoscale: NonNullable<WorkloadConfig["autoscale"]>,
  deployment: pulumi.Input<string>,
) {
  return {
    scaleTargetRef: { apiVersion: "apps/v1", kind: "Deployment", name: deployment },
    minReplicas: autoscale.minReplicas,
    maxReplicas: autoscale.maxReplicas,
    metrics: [
      {
        type: "Resource",
        resource: {
          name: "cpu",
          target: { type: "Utilization", averageUtilization: autoscale.cpuUtilization },
        },
      },
    ],
  };
}

/** Kubernetes takes a number of pods as a number and a percentage as text. */
function amount(text: string): number | string {
  return text.endsWith("%") ? text : Number(text);
}
