import * as pulumi from "@pulumi/pulumi";

export interface SchemaVersionArgs {
  /** The kubeconfig's context; its current one unless given. */
  readonly context: string | undefined;
  readonly namespace: string;
  /** The Job that has read the version: another one reads it anew. */
  readonly job: pulumi.Input<string>;
}

/**
 * What a Job has found out about the database, as its pod's last message says: the outputs of a Job
 * itself do not have it. Served by `provider/`.
 */
export class SchemaVersion extends pulumi.CustomResource {
  /** Of the schema; -1 where the pod is gone, and nobody knows any more. */
  declare readonly version: pulumi.Output<number>;
  /** The backup that was made, by its name; empty where none was needed. */
  declare readonly backup: pulumi.Output<string>;

  constructor(name: string, args: SchemaVersionArgs, opts?: pulumi.CustomResourceOptions) {
    super(
      "promotion:index:SchemaVersion",
      name,
      { ...args, version: undefined, backup: undefined },
      opts,
    );
  }
}
