import * as pulumi from "@pulumi/pulumi";

export interface CanaryArgs {
  /** The kubeconfig's context; its current one unless given. */
  readonly context: string | undefined;
  readonly namespace: string;
  /** The release's Deployments, separated by commas. */
  readonly deployments: string;
  /** Changes with what was deployed: another one is another canary. */
  readonly spec: pulumi.Input<string>;
  /** Weights and durations, as JSON. */
  readonly steps: string;
  /** What Prometheus is asked, as JSON; empty where only the pods are watched. */
  readonly analysis: string;
  /** What leads to the release, and to how many pods of it, as JSON. */
  readonly traffic: string;
  /** Those of them, separated by commas, whose releases take each other's place. */
  readonly inPlace?: string;
  /** The Lease that whoever drives must hold. */
  readonly lease: string;
}

/**
 * The steps by which a release takes its traffic, as a resource: there while it has all of it. A
 * release that fails in one of them loses all traffic, and goes through them again in the next `up`.
 * Served by `provider/`.
 */
export class Canary extends pulumi.CustomResource {
  constructor(name: string, args: CanaryArgs, opts?: pulumi.CustomResourceOptions) {
    super("promotion:index:Canary", name, { ...args }, opts);
  }
}
