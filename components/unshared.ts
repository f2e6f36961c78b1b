import * as pulumi from "@pulumi/pulumi";

export interface UnsharedArgs {
  /** The kubeconfig's context; its current one unless given. */
  readonly context: string | undefined;
  readonly namespace: string;
  /** The release's Deployments, separated by commas. */
  readonly deployments: string;
  /** What tells the release's own canary from others; as the canary has it. */
  readonly spec: pulumi.Input<string>;
  readonly steps: string;
  readonly analysis: string;
  /** The Services that two releases may share, as JSON. */
  readonly traffic: string;
  /** The Lease that whoever drives a canary must hold. */
  readonly lease: string;
}

/**
 * That nobody has a share of the former release's traffic, unless by the release's own canary: a
 * Service that two releases share leads to the pods of a third one, too, as soon as they are there.
 * Served by `provider/`.
 */
export class Unshared extends pulumi.CustomResource {
  constructor(name: string, args: UnsharedArgs, opts?: pulumi.CustomResourceOptions) {
    super("promotion:index:Unshared", name, { ...args }, opts);
  }
}
