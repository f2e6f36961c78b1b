import * as aws from "@pulumi/aws";
import * as pulumi from "@pulumi/pulumi";
import type { Config } from "../config-schema";
import { parseEcrHost } from "../registry/ecr";
import { splitRepository } from "../registry/reference";
import { lifecycleRules } from "./internal/ecr-lifecycle";

export interface ArtifactRepositoryArgs {
  readonly registry: Config["registry"];
}

/**
 * The ECR repository that holds the image for every environment: immutable tags, scan on push,
 * encrypted, kept when the stack is destroyed, and with a lifecycle that never removes what prod
 * or dr has verified. Made once, in the stack that owns it.
 */
export class ArtifactRepository extends pulumi.ComponentResource {
  /** `host/name`, as AWS reports it. */
  readonly url: pulumi.Output<string>;

  constructor(name: string, args: ArtifactRepositoryArgs, opts?: pulumi.ComponentResourceOptions) {
    super("baton:components:ArtifactRepository", name, args, opts);
    const { host, name: repositoryName } = splitRepository(args.registry.repository);
    const region = parseEcrHost(host)?.region;
    const placed = region === undefined ? {} : { region };

    const repository = new aws.ecr.Repository(
      `${name}-repository`,
      {
        ...placed,
        name: repositoryName,
        imageTagMutability: "IMMUTABLE",
        imageScanningConfiguration: { scanOnPush: true },
        encryptionConfigurations: [{ encryptionType: "AES256" }],
      },
      { parent: this, retainOnDelete: true },
    );

    const { lifecycle } = args.registry;
    if (lifecycle !== undefined) {
      new aws.ecr.LifecyclePolicy(
        `${name}-lifecycle`,
        {
          ...placed,
          repository: repository.name,
          policy: JSON.stringify({
            rules: lifecycleRules(lifecycle.keepAll, lifecycle.keepNewest),
          }),
        },
        { parent: this, retainOnDelete: true },
      );
    }

    this.url = repository.repositoryUrl;
    this.registerOutputs({ url: this.url });
  }
}
