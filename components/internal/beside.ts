import type { Config, WorkloadConfig } from "../../config-schema";

/** A workload that others call. */
export type Called = WorkloadConfig & { readonly port: number };

/** Whether a release of a workload comes up beside the one before, and then takes its traffic. */
export function standsBeside(
  { rollout }: Pick<Config, "rollout">,
  workload: WorkloadConfig,
): workload is Called {
  const { kind, port } = workload;
  return rollout.strategy !== "rolling" && kind === "Deployment" && port !== undefined;
}

/** Whether callers from outside come to a workload by an HTTPRoute, whose weights can divide them. */
export function isRouted(
  { entrances }: Pick<Config, "entrances">,
  { exposure }: WorkloadConfig,
): boolean {
  return exposure !== undefined && entrances?.kind === "HTTPRoute";
}
