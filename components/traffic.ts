import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { childOptions } from "./internal/child-options";
import { selectorLabels } from "./internal/labels";
import { SERVICE_AWAIT, serviceSpec } from "./workload";

export interface TrafficArgs {
  readonly namespace: string;
  /** The Service that callers use. */
  readonly service: string;
  readonly port: number;
  /** The colour that serves. */
  readonly colour: string;
  readonly labels: Readonly<Record<string, string>>;
}

/** The Service of a workload whose releases stand side by side: it leads to one of them. */
export class Traffic extends pulumi.ComponentResource {
  readonly service: pulumi.Resource;

  constructor(name: string, args: TrafficArgs, opts?: pulumi.ComponentResourceOptions) {
    // With another strategy, the Service is a Workload's: it stays the same one.
    super("baton:components:Workload", name, {}, opts);
    const { namespace, service, port, colour, labels } = args;
    this.service = new k8s.core.v1.Service(
      name,
      {
        metadata: {
          namespace,
          name: service,
          labels: { ...labels, ...selectorLabels(name) },
          annotations: SERVICE_AWAIT,
        },
        spec: serviceSpec(selectorLabels(colour), port),
      },
      childOptions(this, opts),
    );
    this.registerOutputs({});
  }
}
