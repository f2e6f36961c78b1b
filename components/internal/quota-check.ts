import type { Config, ResourcesConfig } from "../../config-schema";
import type { Problem } from "../../release/problem";
import { standsBeside } from "./beside";
import { formatQuantity, parseQuantity } from "./quantity";

/** What a namespace must hold at the height of a rollout, by ResourceQuota's keys. */
export type Demand = Record<
  "pods" | "requests.cpu" | "requests.memory" | "limits.cpu" | "limits.memory",
  number
>;

/** How many pods `maxSurge` allows beside the desired ones: a number, or a percentage rounded up. */
export function surgePods(maxSurge: string, replicas: number): number {
  return maxSurge.endsWith("%")
    ? Math.ceil((replicas * Number(maxSurge.slice(0, -1))) / 100)
    : Number(maxSurge);
}

/**
 * How many former releases stand beside a new one. With blueGreen the one before the former is
 * removed as the last of all; a canary takes its pods away first, but a release whose migration
 * crosses a point of no return is none.
 */
function formerBeside({ rollout, database }: Pick<Config, "rollout" | "database">): 0 | 1 | 2 {
  if (rollout.strategy === "rolling") return 0;
  const isCanary = rollout.strategy === "canary" && (database === undefined || database.follower);
  return isCanary ? 1 : 2;
}

/**
 * The most that can run at once: every workload at its largest, its surge, one run of each CronJob
 * and the largest suite or step of the database's (they run one after another).
 */
export function peakDemand(config: Config): Demand {
  const total: Demand = {
    pods: 0,
    "requests.cpu": 0,
    "requests.memory": 0,
    "limits.cpu": 0,
    "limits.memory": 0,
  };
  const add = (pods: number, { requests, limits }: ResourcesConfig) => {
    total.pods += pods;
    total["requests.cpu"] += pods * parseQuantity(requests.cpu);
    total["requests.memory"] += pods * parseQuantity(requests.memory);
    total["limits.cpu"] += pods * parseQuantity(limits.cpu);
    total["limits.memory"] += pods * parseQuantity(limits.memory);
  };
  for (const workload of Object.values(config.workloads)) {
    const replicas = workload.autoscale?.maxReplicas ?? workload.replicas ?? 1;
    const surge = workload.kind === "CronJob" ? 0 : surgePods(config.rollout.maxSurge, replicas);
    const beside = standsBeside(config, workload) ? formerBeside(config) : 0;
    // A canary has one pod before it takes those of the one before the former release.
    const first = beside === 1 ? 1 : 0;
    add(replicas * (1 + beside) + Math.max(surge, first), workload.resources);
  }
  const { database } = config;
  // Ahead of the rollout, one after another; a scheduled backup may come at any time.
  const steps = [database?.migration, database?.integrity, database?.backup].flatMap(
    (step) => step ?? [],
  );
  const suites = [
    ...config.verification.run.flatMap((name) => config.verification.suites[name] ?? []),
    ...(database?.follower === true ? [] : steps),
  ];
  if (database?.backup.schedule !== undefined) add(1, database.backup.resources);
  const largest = (amount: (resources: ResourcesConfig) => string): string =>
    suites
      .map((suite) => amount(suite.resources))
      .reduce((a, b) => (parseQuantity(a) >= parseQuantity(b) ? a : b), "0");
  add(suites.length > 0 ? 1 : 0, {
    requests: { cpu: largest((r) => r.requests.cpu), memory: largest((r) => r.requests.memory) },
    limits: { cpu: largest((r) => r.limits.cpu), memory: largest((r) => r.limits.memory) },
  });
  return total;
}

/** A quota that is smaller than the rollout's peak stops it half-way; say so before it starts. */
export function quotaProblems(where: string, config: Config): Problem[] {
  const beside = Object.values(config.workloads).some((one) => standsBeside(config, one))
    ? `${formerBeside(config) === 1 ? "the former release" : "two former releases"} beside it, `
    : "";
  return Object.entries(peakDemand(config)).flatMap(([key, amount]) => {
    const hard = config.quota[key];
    // Sums of decimal fractions are not exact: a demand that equals the quota must pass.
    const rounded = Number(amount.toFixed(6));
    if (hard === undefined || parseQuantity(hard) >= rounded) return [];
    const unit = key === "pods" ? "count" : key.endsWith("cpu") ? "cpu" : "memory";
    return [
      {
        where,
        property: `baton:quota["${key}"]`,
        value: hard,
        expected: `at least ${formatQuantity(rounded, unit)}: every workload at its largest, ${beside}the rollout's surge and a suite`,
        fix: "Raise the quota, or lower replicas, resources or baton:rollout.maxSurge",
      },
    ];
  });
}
