import * as aws from "@pulumi/aws";
import * as pulumi from "@pulumi/pulumi";
import type { Config } from "../config-schema";
import { parseEcrHost } from "../registry/ecr";
import type { EcrSettings } from "../registry/ecr-settings";
import { splitRepository } from "../registry/reference";
import { lifecycleRules } from "./internal/ecr-lifecycle";
import { withEnhancedScanning, withReplication } from "./internal/ecr-settings";
import { pullFromAccounts } from "./internal/iam";

export interface ArtifactRepositoryArgs {
  readonly registry: Config["registry"];
  /**
   * What the registry is set to by now, by region. Needed where `registry` asks for replication (in
   * its own region) or enhanced scanning (in all).
   */
  readonly settings?: Readonly<Record<string, EcrSettings>>;
  /** Whether `pulumi destroy` is refused until the repositories' protection is lifted. */
  readonly protect: boolean;
}

/**
 * The ECR repository that holds the image for every environment, and one in each region it is
 * replicated to: immutable tags, scanned, encrypted, kept when the stack is destroyed, and with a
 * lifecycle that never removes what prod or dr has verified. Made once, in the stack that owns it.
 */
export class ArtifactRepository extends pulumi.ComponentResource {
  /** `host/name`, as AWS reports it. */
  readonly url: pulumi.Output<string>;

  constructor(name: string, args: ArtifactRepositoryArgs, opts?: pulumi.ComponentResourceOptions) {
    // What the registry is set to is none of its own inputs, and others may change it.
    super("baton:components:ArtifactRepository", name, { registry: args.registry }, opts);
    const { registry, settings = {}, protect } = args;
    const { host, name: repositoryName } = splitRepository(registry.repository);
    const { account, region: home } = parseEcrHost(host) ?? { account: "", region: "" };
    const kept = { parent: this, retainOnDelete: true };

    /** One region's repository, with all that goes with it. */
    const createIn = (prefix: string, region: string, kmsKey: string | undefined) => {
      const repository = new aws.ecr.Repository(
        `${prefix}-repository`,
        {
          region,
          name: repositoryName,
          imageTagMutability: "IMMUTABLE",
          imageScanningConfiguration: { scanOnPush: true },
          encryptionConfigurations: [
            kmsKey === undefined ? { encryptionType: "AES256" } : { encryptionType: "KMS", kmsKey },
          ],
        },
        { ...kept, protect },
      );
      const { lifecycle, pullAccounts } = registry;
      const named = { region, repository: repository.name };
      if (lifecycle !== undefined) {
        const rules = lifecycleRules(lifecycle.keepAll, lifecycle.keepNewest);
        const policy = JSON.stringify({ rules });
        new aws.ecr.LifecyclePolicy(`${prefix}-lifecycle`, { ...named, policy }, kept);
      }
      if (pullAccounts.length > 0) {
        const policy = JSON.stringify(pullFromAccounts(region, pullAccounts));
        new aws.ecr.RepositoryPolicy(`${prefix}-policy`, { ...named, policy }, kept);
      }
      const present = settings[region]?.scanning;
      if (registry.scanning === "enhanced" && present !== undefined) {
        const { type, rules } = withEnhancedScanning(present, repositoryName);
        new aws.ecr.RegistryScanningConfiguration(
          `${prefix}-scanning`,
          {
            region,
            scanType: type,
            rules: rules.map(({ scanFrequency = "MANUAL", repositoryFilters }) => ({
              scanFrequency,
              repositoryFilters: complete(repositoryFilters),
            })),
          },
          kept,
        );
      }
      return repository;
    };

    const repository = createIn(name, home, registry.kmsKey);
    const copies = registry.replication.map(({ region, kmsKey }) =>
      createIn(`${name}-${region}`, region, kmsKey),
    );
    const present = settings[home]?.replication;
    if (copies.length > 0 && present !== undefined) {
      const regions = registry.replication.map(({ region }) => region);
      const rules = withReplication(present, repositoryName, account, regions);
      new aws.ecr.ReplicationConfiguration(
        `${name}-replication`,
        {
          region: home,
          replicationConfiguration: {
            rules: rules.map(({ destinations, repositoryFilters }) => ({
              destinations: (destinations ?? []).map(({ region = "", registryId = "" }) => ({
                region,
                registryId,
              })),
              repositoryFilters: complete(repositoryFilters),
            })),
          },
        },
        // ECR would make what it replicates to by itself, with tags that move.
        { ...kept, dependsOn: copies },
      );
    }

    this.url = repository.repositoryUrl;
    this.registerOutputs({ url: this.url });
  }
}

/** The SDK leaves open what AWS always gives. */
function complete(
  filters: readonly { filter?: string | undefined; filterType?: string | undefined }[] = [],
): { filter: string; filterType: string }[] {
  return filters.map(({ filter = "", filterType = "" }) => ({ filter, filterType }));
}
