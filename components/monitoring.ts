import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { childOptions, type ChildOptions } from "./internal/child-options";
import type { Config, WorkloadConfig } from "../config-schema";
import { standsBeside } from "./internal/beside";
import { COLOUR_OF, selectorLabels } from "./internal/labels";

export interface MonitoringArgs {
  readonly namespace: string;
  readonly monitoring: Config["monitoring"];
  readonly workloads: Config["workloads"];
  readonly rollout: Config["rollout"];
  readonly labels: Readonly<Record<string, string>>;
}

/** What a Prometheus without its operator looks for on pods. */
export function scrapeAnnotations(
  { level, prometheusOperator }: Config["monitoring"],
  { metrics, port }: WorkloadConfig,
): Record<string, string> {
  const scrapePort = metrics?.port ?? port;
  if (level === "none" || prometheusOperator || metrics === undefined || scrapePort === undefined) {
    return {};
  }
  return {
    "prometheus.io/scrape": "true",
    "prometheus.io/path": metrics.path,
    "prometheus.io/port": String(scrapePort),
  };
}

/**
 * A ServiceMonitor for each workload with metrics, and alert rules at level `alerts`, for the
 * Prometheus operator (https://prometheus-operator.dev/docs/api-reference/api/).
 */
export class Monitoring extends pulumi.ComponentResource {
  private readonly child: ChildOptions;

  constructor(name: string, args: MonitoringArgs, opts?: pulumi.ComponentResourceOptions) {
    super("baton:components:Monitoring", name, {}, opts);
    this.child = childOptions(this, opts);
    const { namespace, labels, workloads } = args;
    for (const [workload, declared] of Object.entries(workloads)) {
      const { metrics, port, selector } = declared;
      if (metrics === undefined || port === undefined) continue;
      // Each release by its own Service; the one that callers use leads to some of the same pods.
      const beside = standsBeside(args, declared);
      const matchLabels = beside
        ? { [COLOUR_OF]: workload }
        : (selector ?? selectorLabels(workload));
      new k8s.apiextensions.CustomResource(
        `${name}-${workload}`,
        {
          apiVersion: "monitoring.coreos.com/v1",
          kind: "ServiceMonitor",
          metadata: { namespace, name: workload, labels },
          spec: {
            selector: { matchLabels },
            // Not the Service's name, which is another one for each release.
            ...(beside ? { jobLabel: COLOUR_OF } : {}),
            endpoints: [
              {
                path: metrics.path,
                // The Service has only the port that is called.
                ...(metrics.port === undefined ? { port: "http" } : { targetPort: metrics.port }),
              },
            ],
          },
        },
        this.child,
      );
    }
    if (args.monitoring.level === "alerts") {
      new k8s.apiextensions.CustomResource(
        `${name}-alerts`,
        {
          apiVersion: "monitoring.coreos.com/v1",
          kind: "PrometheusRule",
          metadata: { namespace, name: "alerts", labels },
          spec: { groups: [{ name: "baton", rules: alertRules(namespace) }] },
        },
        this.child,
      );
    }
    this.registerOutputs({});
  }
}

function alertRules(namespace: string) {
  const rule = (alert: string, expr: string, duration: string, summary: string) => ({
    alert,
    expr,
    for: duration,
    labels: { severity: "page" },
    annotations: { summary },
  });
  const within = `namespace="${namespace}"`;
  return [
    rule("TargetDown", `up{${within}} == 0`, "5m", "{{ $labels.pod }} cannot be scraped"),
    rule(
      "PodRestarting",
      `increase(kube_pod_container_status_restarts_total{${within}}[15m]) > 3`,
      "5m",
      "{{ $labels.pod }} keeps restarting",
    ),
    rule(
      "DeploymentUnavailable",
      `kube_deployment_status_replicas_unavailable{${within}} > 0`,
      "15m",
      "{{ $labels.deployment }} has had too few ready pods for 15 minutes",
    ),
  ];
}
