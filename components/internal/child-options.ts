import type * as pulumi from "@pulumi/pulumi";

export interface ChildOptions {
  readonly parent: pulumi.Resource;
  readonly dependsOn: pulumi.Input<pulumi.Resource>[];
  readonly hooks?: pulumi.ResourceHookBinding;
}

/**
 * Options for a component's children: the component as their parent, what the component itself waits
 * for, and its hooks but for those of failures, which only Jobs have. The SDK hands neither down:
 * children would wait in effect, as their parent does, but the state would not know, and a destroy
 * would not keep the order.
 */
export function childOptions(
  parent: pulumi.Resource,
  opts: pulumi.ComponentResourceOptions | undefined,
): ChildOptions {
  const { dependsOn = [], hooks: { beforeUpdate } = {} } = opts ?? {};
  return {
    parent,
    dependsOn: [dependsOn].flat() as pulumi.Input<pulumi.Resource>[],
    ...(beforeUpdate === undefined ? {} : { hooks: { beforeUpdate } }),
  };
}
