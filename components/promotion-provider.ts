import * as pulumi from "@pulumi/pulumi";

/** The provider of Baton's own resources, such as EarnedTag, Rollout and Bake: `provider/`. */
export class PromotionProvider extends pulumi.ProviderResource {
  constructor(name: string, opts?: pulumi.ResourceOptions) {
    super("promotion", name, {}, opts);
  }
}
