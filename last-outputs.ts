import * as pulumi from "@pulumi/pulumi";

/**
 * What the stack's last successful `up` has left. Asked for where somebody needs it, and by one
 * reference, as the engine refuses a second one of the same name.
 */
export class LastOutputs {
  private reference: pulumi.StackReference | undefined;

  constructor(private readonly environment: string) {}

  /** An output as plain data; nothing where there is none. */
  async get(name: string): Promise<unknown> {
    const path = [pulumi.getOrganization(), pulumi.getProject(), this.environment];
    this.reference ??= new pulumi.StackReference(path.join("/"));
    return (await this.reference.getOutputDetails(name)).value as unknown;
  }
}
