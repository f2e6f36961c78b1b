import type { EcrSettings } from "../../registry/ecr-settings";
import type { Problem } from "../../release/problem";

type ReplicationRules = EcrSettings["replication"];
type Scanning = EcrSettings["scanning"];

/** https://docs.aws.amazon.com/AmazonECR/latest/userguide/replication.html */
const MOST_RULES = 10;

/**
 * The registry's replication with a rule for one repository in it; all that others have set up
 * stays as it is. A rule for nothing but this repository is the one that was made here before.
 */
export function withReplication(
  present: ReplicationRules,
  name: string,
  account: string,
  regions: readonly string[],
): ReplicationRules {
  const others = present.filter(
    ({ repositoryFilters = [] }) =>
      repositoryFilters.length !== 1 || repositoryFilters[0]?.filter !== name,
  );
  const destinations = regions.map((region) => ({ region, registryId: account }));
  const repositoryFilters = [{ filter: name, filterType: "PREFIX_MATCH" as const }];
  return [...others, { destinations, repositoryFilters }];
}

/** Why the registry's replication cannot take a rule more. */
export function replicationProblem(where: string, rules: ReplicationRules): Problem | undefined {
  if (rules.length <= MOST_RULES) return undefined;
  return {
    where,
    property: "baton:registry.replication",
    value: `one rule more than the registry's ${MOST_RULES}`,
    expected: `at most ${MOST_RULES} rules, with those that others have set up`,
    fix: "Join some of them by a common prefix, or remove one",
  };
}

/** The registry's scanning, enhanced, with a rule for one repository in it. */
export function withEnhancedScanning({ rules }: Scanning, name: string): Scanning {
  const others = rules.filter(
    ({ repositoryFilters = [] }) =>
      repositoryFilters.length !== 1 || repositoryFilters[0]?.filter !== name,
  );
  const repositoryFilters = [{ filter: name, filterType: "WILDCARD" as const }];
  return {
    type: "ENHANCED",
    rules: [...others, { scanFrequency: "CONTINUOUS_SCAN", repositoryFilters }],
  };
}

/**
 * Why the registry must not be switched to enhanced scanning: what the other repositories say
 * themselves of scanning counts no more then, and each image costs.
 */
export function scanningProblem(
  where: string,
  region: string,
  { scanning, hasOthers }: EcrSettings,
): Problem | undefined {
  const isOthers = scanning.rules.length > 0 || hasOthers;
  if (scanning.type === "ENHANCED" || !isOthers) return undefined;
  return {
    where,
    property: "baton:registry.scanning",
    value: `enhanced, while the registry in ${region} scans its other repositories as basic`,
    expected: "a registry with enhanced scanning, or one without other repositories",
    fix:
      "Switch it first, with rules for all of them: `aws ecr put-registry-scanning-configuration " +
      "--scan-type ENHANCED`; or use basic",
  };
}
