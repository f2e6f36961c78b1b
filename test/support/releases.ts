import type { ProgramHarness, RunOptions } from "./program";

/** What each committed stack takes when build 45 has come that far. */
const TAKEN: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {
  dev: { imageTag: "build-45" },
  qa: { imageTag: "dev-45" },
  stage: { imageTag: "qa-45" },
  // Nobody has scanned it.
  prod: { imageTag: "stage-45", version: "v1.4.0", scan: null },
  dr: { imageTag: "prod-v1.4.0", version: "v1.4.0" },
};

/** A run of a committed stack with the release it takes, which its upstream has earned. */
export function release(
  harness: ProgramHarness,
  stack: string,
  options: Omit<RunOptions, "stack"> = {},
): RunOptions {
  const taken = TAKEN[stack];
  if (taken === undefined) throw new Error(`no release is known for ${stack}: add it here`);
  harness.registry.push("build 45", String(taken["imageTag"]));
  return { stack, ...options, config: { ...taken, ...options.config } };
}
