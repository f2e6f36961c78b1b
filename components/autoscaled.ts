import * as pulumi from "@pulumi/pulumi";
import type { ChildOptions } from "./internal/child-options";

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

/** Declares that of a Deployment. @returns the options of its autoscaler, which depends on it. */
export function autoscaledBy(
  name: string,
  args: AutoscaledArgs,
  child: ChildOptions,
  after: readonly pulumi.Resource[],
): ChildOptions {
  const dependsOn = [...child.dependsOn, ...after];
  const autoscaled = new Autoscaled(`${name}-autoscaled`, args, { ...child, dependsOn });
  return { ...child, dependsOn: [...dependsOn, autoscaled] };
}
