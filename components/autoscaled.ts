import * as pulumi from "@pulumi/pulumi";

export interface AutoscaledArgs {
  /** The kubeconfig's context; its current one unless given. */
  readonly context: string | undefined;
  readonly namespace: string;
  readonly deployment: string;
}

/**
 * That a Deployment's number of pods is its autoscaler's. The autoscaler depends on it, so that it
 * ends after the autoscaler: then the Deployment gets the number that it declares. What Pulumi itself
 * has set before, the autoscaler has overruled, as deletions come last. Served by `provider/`.
 */
export class Autoscaled extends pulumi.CustomResource {
  constructor(name: string, args: AutoscaledArgs, opts?: pulumi.CustomResourceOptions) {
    super("promotion:index:Autoscaled", name, { ...args }, opts);
  }
}
