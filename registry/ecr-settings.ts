import type { ReplicationRule, RegistryScanningRule } from "@aws-sdk/client-ecr";
import { ecrError } from "./ecr-errors";

/** What an account's registry is set to in one region, for all of its repositories. */
export interface EcrSettings {
  readonly replication: readonly ReplicationRule[];
  readonly scanning: {
    readonly type: "BASIC" | "ENHANCED";
    readonly rules: readonly RegistryScanningRule[];
  };
  /** Whether it has other repositories than the one named. */
  readonly hasOthers: boolean;
}

/**
 * Each of these settings is one for the whole registry: who writes it has to know what is there.
 * @param name the repository that does not count as another
 * @throws RegistryError when ECR cannot be asked.
 */
export async function readEcrSettings(region: string, name: string): Promise<EcrSettings> {
  const ecr = await import("@aws-sdk/client-ecr");
  const client = new ecr.ECRClient({
    region,
    requestHandler: { connectionTimeout: 5_000, requestTimeout: 15_000 },
  });
  try {
    const [registry, scanning, repositories] = await Promise.all([
      client.send(new ecr.DescribeRegistryCommand({})),
      client.send(new ecr.GetRegistryScanningConfigurationCommand({})),
      client.send(new ecr.DescribeRepositoriesCommand({ maxResults: 2 })),
    ]);
    const { scanType = "BASIC", rules = [] } = scanning.scanningConfiguration ?? {};
    const names = (repositories.repositories ?? []).map(({ repositoryName }) => repositoryName);
    return {
      replication: registry.replicationConfiguration?.rules ?? [],
      scanning: { type: scanType, rules },
      hasOthers: names.some((other) => other !== name),
    };
  } catch (error) {
    throw ecrError(error as Error, `the registry in ${region}`, region);
  }
}
