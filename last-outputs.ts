import * as pulumi from "@pulumi/pulumi";
import pRetry from "p-retry";

/**
 * What the stack's last successful `up` has left, read where somebody needs it, and once. By the
 * function behind StackReference, as the resource cannot be tried again: the engine may be writing
 * the very file, which a backend without a server then reads in part.
 * https://www.pulumi.com/docs/iac/concepts/state-and-backends/
 */
export class LastOutputs {
  private outputs: Promise<Record<string, unknown>> | undefined;

  constructor(private readonly environment: string) {}

  /** An output as plain data; nothing where there is none. */
  async get(name: string): Promise<unknown> {
    this.outputs ??= pRetry(() => this.read(), { retries: 4, minTimeout: 100 });
    return (await this.outputs)[name];
  }

  private async read(): Promise<Record<string, unknown>> {
    const name = [pulumi.getOrganization(), pulumi.getProject(), this.environment].join("/");
    const found = (await pulumi.runtime.invoke(
      "pulumi:pulumi:readStackOutputs",
      { name },
      { async: true },
    )) as { outputs: Record<string, unknown> };
    return found.outputs;
  }
}
