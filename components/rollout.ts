import * as pulumi from "@pulumi/pulumi";

export interface RolloutArgs {
  /** The kubeconfig's context; its current one unless given. */
  readonly context: string | undefined;
  readonly namespace: string;
  readonly deployment: string;
  /** Changes with the Deployment's spec: another one is another rollout. */
  readonly spec: pulumi.Input<string>;
  /** Another Deployment, whose live number of pods this one must have as well. */
  readonly atLeast?: string;
  /** How many pods it must have at least, whatever its manifest says. */
  readonly pods?: number;
  /**
   * Of a Deployment whose releases take each other's place, the pods: one that fails makes way for the
   * one before.
   */
  readonly template?: pulumi.Input<string>;
  /** The Deployments, separated by commas, that make way together. */
  readonly inPlace?: string;
  /** Why one that fails stays all the same. */
  readonly irreversible?: string;
}

/**
 * The wait for a Deployment's rollout, as a resource: there once the new pods are available and
 * the old ones gone. A rollout without progress fails with the pods' own reasons, makes way for what
 * has passed before, and is awaited again by the next `up`. Served by `provider/`.
 */
export class Rollout extends pulumi.CustomResource {
  constructor(name: string, args: RolloutArgs, opts?: pulumi.CustomResourceOptions) {
    // What has made way since is not seen in a preview, which asks the cluster for nothing more.
    const asked =
      args.template === undefined || pulumi.runtime.isDryRun() ? {} : { isLookedFor: true };
    super("promotion:index:Rollout", name, { ...args, ...asked }, opts);
  }
}
