import * as pulumi from "@pulumi/pulumi";
import pRetry from "p-retry";

/** A resource as the stack's state has it, also after a run that failed. */
export interface RecordedResource {
  readonly type: string;
  readonly outputs: Readonly<Record<string, unknown>>;
}

/**
 * What is recorded of the stack itself, read where somebody needs it, and once. By the functions behind
 * StackReference, as the resource cannot be tried again: the engine may be writing the very file, which
 * a backend without a server then reads in part.
 * https://www.pulumi.com/docs/iac/concepts/state-and-backends/
 */
export class StackState {
  private outputs: Promise<Record<string, unknown>> | undefined;

  constructor(private readonly environment: string) {}

  /** An output of the last successful `up` as plain data; nothing where there is none. */
  async output(name: string): Promise<unknown> {
    this.outputs ??= this.read("readStackOutputs", "name");
    return (await this.outputs)[name];
  }

  /** What there is by now, by URN. */
  async resources(): Promise<Readonly<Record<string, RecordedResource>>> {
    const resources = await this.read("readStackResourceOutputs", "stackName");
    return resources as Record<string, RecordedResource>;
  }

  private read(of: string, parameter: string): Promise<Record<string, unknown>> {
    const stack = [pulumi.getOrganization(), pulumi.getProject(), this.environment].join("/");
    const ask = async () => {
      const args = { [parameter]: stack };
      const found: unknown = await pulumi.runtime.invoke(`pulumi:pulumi:${of}`, args, {
        async: true,
      });
      return (found as { outputs: Record<string, unknown> }).outputs;
    };
    return pRetry(ask, { retries: 4, minTimeout: 100 });
  }
}
