import * as pulumi from "@pulumi/pulumi";

export interface BakeArgs {
  /** The kubeconfig's context; its current one unless given. */
  readonly context: string | undefined;
  readonly namespace: string;
  /** The release's Deployments, separated by commas. */
  readonly deployments: string;
  /** Changes with what was deployed: another one is another bake. */
  readonly spec: pulumi.Input<string>;
  readonly seconds: number;
  /** What Prometheus is asked, as JSON; empty where only the pods are watched. */
  readonly analysis: string;
  /** The Services that lead to the release, as JSON. */
  readonly traffic?: string;
  /** Why a release that fails keeps its traffic, where the former one must not have it back. */
  readonly irreversible?: string;
  /** The former release's Deployments, separated by commas, where they stand beside these. */
  readonly former?: string;
  /** Those of them, separated by commas, whose releases take each other's place. */
  readonly inPlace?: string;
  /** The Lease under which a canary is driven, where there may be one. */
  readonly lease?: string;
}

/**
 * The watch of a release in use, as a resource: there once the release has been good for long
 * enough. One that is not gives its traffic back, fails with what was wrong, and is watched again by
 * the next `up`. Served by `provider/`.
 */
export class Bake extends pulumi.CustomResource {
  constructor(name: string, args: BakeArgs, opts?: pulumi.CustomResourceOptions) {
    // Whoever else had a share of the traffic since may have kept it; a preview does not ask.
    const asked =
      args.traffic === undefined || pulumi.runtime.isDryRun() ? {} : { isLookedFor: true };
    super("promotion:index:Bake", name, { ...args, ...asked }, opts);
  }
}
