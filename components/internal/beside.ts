import type { Config, WorkloadConfig } from "../../config-schema";

/** A workload that others call. */
export type Called = WorkloadConfig & { readonly port: number };

/** Whether a release of a workload comes up beside the one before, and takes its traffic at once. */
export function standsBeside(
  { rollout }: Pick<Config, "rollout">,
  workload: WorkloadConfig,
): workload is Called {
  const { kind, port } = workload;
  return rollout.strategy === "blueGreen" && kind === "Deployment" && port !== undefined;
}
