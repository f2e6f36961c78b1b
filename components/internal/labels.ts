import type { Release } from "../../release/eligibility";

/** Annotation of each object: the project and the stack that declare it, `PROJECT/STACK`. */
export const STACK = "baton/stack";

/** Marks the pods of verification Jobs, for network policies and people. */
export const VERIFICATION = { "app.kubernetes.io/component": "verification" };

/** Marks the pods of the database's Jobs. */
export const DATABASE = { "app.kubernetes.io/component": "database" };

/** Which workload a pod is a release of, where several of them stand side by side. */
export const COLOUR_OF = "baton/workload";

/** An annotation of a Deployment that no autoscaler has: how many pods it declares. */
export const REPLICAS = "baton/replicas";

/** What selects a workload's pods: never changes, as selectors cannot. */
export function selectorLabels(workload: string): Record<string, string> {
  return { "app.kubernetes.io/name": workload };
}

/** What every object of a release carries: whose it is, and both its tag and its version. */
export function releaseLabels(environment: string, release: Release): Record<string, string> {
  return {
    "app.kubernetes.io/instance": environment,
    "app.kubernetes.io/managed-by": "pulumi",
    "app.kubernetes.io/version": release.version ?? release.imageTag,
    "baton/image-tag": release.imageTag,
  };
}
