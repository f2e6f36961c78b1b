import type * as pulumi from "@pulumi/pulumi";

export interface ChildOptions {
  readonly parent: pulumi.Resource;
  readonly dependsOn: pulumi.Input<pulumi.Resource>[];
}

/**
 * Options for a component's children: the component as their parent, and what the component itself
 * waits for. The SDK does not hand that down: children would wait in effect, as their parent does,
 * but the state would not know, and a destroy would not keep the order.
 */
export function childOptions(
  parent: pulumi.Resource,
  opts: pulumi.ComponentResourceOptions | undefined,
): ChildOptions {
  const { dependsOn = [] } = opts ?? {};
  return { parent, dependsOn: [dependsOn].flat() as pulumi.Input<pulumi.Resource>[] };
}
