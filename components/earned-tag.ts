import * as pulumi from "@pulumi/pulumi";
import type { RegistryLocation } from "../registry/registry";

export interface EarnedTagArgs {
  readonly registry: RegistryLocation;
  readonly digest: string;
  readonly tag: string;
}

/**
 * A tag in the registry that says: this environment has verified this digest. Creating it adds the
 * tag; a tag that names the digest already is success, one that names another is an error.
 * Replacing or deleting it never touches the registry. Served by `provider/`.
 */
export class EarnedTag extends pulumi.CustomResource {
  /** The tag, known once the registry holds it. */
  declare readonly tag: pulumi.Output<string>;

  constructor(name: string, args: EarnedTagArgs, opts?: pulumi.CustomResourceOptions) {
    const { kind, repository, plainHttp = false } = args.registry;
    const { digest, tag } = args;
    super("promotion:index:EarnedTag", name, { kind, repository, plainHttp, digest, tag }, opts);
  }
}
