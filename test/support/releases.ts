import type { ProgramHarness, Run, RunOptions } from "./program";

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

/** A quota for prod that three releases fit into. */
export const ROOM = {
  pods: 40,
  "requests.cpu": 20,
  "requests.memory": "20Gi",
  "limits.cpu": 40,
  "limits.memory": "40Gi",
};

/** Builds 45 and 46 in prod, each after what the stack's last outputs say. */
export class ProdReleases {
  /** @param config of all of them, such as how they take their traffic */
  constructor(
    private readonly harness: ProgramHarness,
    private readonly config: object,
  ) {}

  async deploy(lastOutputs?: Run["outputs"], config: object = {}): Promise<Run> {
    const given = { config: { ...this.config, ...config } };
    const options = lastOutputs === undefined ? given : { ...given, lastOutputs };
    return this.harness.run(release(this.harness, "prod", options));
  }

  async deployNext(lastOutputs: Run["outputs"], config: object = {}): Promise<Run> {
    this.harness.registry.push("build 46", "stage-46");
    return this.deploy(lastOutputs, { imageTag: "stage-46", version: "v1.5.0", ...config });
  }
}
