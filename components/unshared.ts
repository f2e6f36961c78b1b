import * as pulumi from "@pulumi/pulumi";
import type { CanaryArgs } from "./canary";

/** As the release's own canary has them, which is told from others by them. */
export type UnsharedArgs = Omit<CanaryArgs, "inPlace">;

/**
 * That nobody has a share of the former release's traffic, unless by the release's own canary: a
 * Service that two releases share leads to the pods of a third one, too, as soon as they are there.
 * Served by `provider/`.
 */
export class Unshared extends pulumi.CustomResource {
  constructor(name: string, args: UnsharedArgs, opts?: pulumi.CustomResourceOptions) {
    // A preview does not ask: with blueGreen, nobody has a share but by a canary of long ago.
    const asked = pulumi.runtime.isDryRun() ? {} : { isLookedFor: true };
    super("promotion:index:Unshared", name, { ...args, ...asked }, opts);
  }
}
