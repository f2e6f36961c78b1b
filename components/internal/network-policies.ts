import type * as k8s from "@pulumi/kubernetes";
import type { Config } from "../../config-schema";
import { selectorLabels, VERIFICATION } from "./labels";

/** A policy without anything that Pulumi computes, so that a test can evaluate it. */
export interface NetworkPolicy {
  readonly name: string;
  readonly spec: {
    readonly podSelector: { readonly matchLabels?: Record<string, string> };
    readonly policyTypes: ("Ingress" | "Egress")[];
    readonly ingress?: { readonly from: Peer[]; readonly ports?: Port[] }[];
    readonly egress?: { readonly to?: Peer[]; readonly ports?: Port[] }[];
  };
}

export interface Peer {
  readonly podSelector?: { readonly matchLabels?: Record<string, string> };
  readonly namespaceSelector?: { readonly matchLabels: Record<string, string> };
  readonly ipBlock?: { readonly cidr: string; readonly except?: string[] };
}

export interface Port {
  readonly protocol: "TCP" | "UDP";
  readonly port: number;
}

// A policy that the Kubernetes types would refuse must not compile.
type Spec = k8s.types.input.networking.v1.NetworkPolicySpec;
const asSpec = <T extends Spec>(spec: T): T => spec;

const tcp = (port: number): Port => ({ protocol: "TCP", port });
const namespace = (name: string): Peer => ({
  namespaceSelector: { matchLabels: { "kubernetes.io/metadata.name": name } },
});

/** Nothing may talk to anything but for what these name. */
export function networkPolicies(
  config: Pick<Config, "network" | "workloads" | "entrances" | "monitoring" | "verification">,
): NetworkPolicy[] {
  const policies: NetworkPolicy[] = [
    {
      name: "default-deny",
      spec: asSpec({ podSelector: {}, policyTypes: ["Ingress", "Egress"] }),
    },
    {
      // Anywhere: cluster DNS may be pods, a node-local cache or a node's own address.
      name: "allow-dns",
      spec: asSpec({
        podSelector: {},
        policyTypes: ["Egress"],
        egress: [{ ports: [{ protocol: "UDP", port: 53 }, tcp(53)] }],
      }),
    },
    {
      name: "allow-same-namespace",
      spec: asSpec({
        podSelector: {},
        policyTypes: ["Ingress", "Egress"],
        ingress: [{ from: [{ podSelector: {} }] }],
        egress: [{ to: [{ podSelector: {} }] }],
      }),
    },
  ];

  for (const { name, cidr, except, namespace: target, port } of config.network.egress) {
    const peers: Peer[] = [
      ...(cidr === undefined
        ? []
        : [{ ipBlock: except === undefined ? { cidr } : { cidr, except } }]),
      ...(target === undefined ? [] : [namespace(target)]),
    ];
    policies.push({
      name: `allow-egress-${name}`,
      spec: asSpec({
        podSelector: {},
        policyTypes: ["Egress"],
        egress: [{ to: peers, ports: [tcp(port)] }],
      }),
    });
  }

  const { prometheusNamespace } = config.network;
  for (const [workload, { port, metrics, exposure, selector }] of Object.entries(
    config.workloads,
  )) {
    const podSelector = { matchLabels: selector ?? selectorLabels(workload) };
    const metricsPort = metrics?.port ?? port;
    const scraped = config.monitoring.level !== "none" && metrics !== undefined;
    if (scraped && metricsPort !== undefined && prometheusNamespace !== undefined) {
      policies.push({
        name: `allow-prometheus-to-${workload}`,
        spec: asSpec({
          podSelector,
          policyTypes: ["Ingress"],
          ingress: [{ from: [namespace(prometheusNamespace)], ports: [tcp(metricsPort)] }],
        }),
      });
    }
    const entrance = exposure && config.entrances?.[exposure.scope];
    if (entrance !== undefined && port !== undefined) {
      const proxies: Peer[] = [
        ...(entrance.namespace === undefined ? [] : [namespace(entrance.namespace)]),
        ...(entrance.cidr === undefined ? [] : [{ ipBlock: { cidr: entrance.cidr } }]),
      ];
      policies.push({
        name: `allow-entrance-to-${workload}`,
        spec: asSpec({
          podSelector,
          policyTypes: ["Ingress"],
          ingress: [{ from: proxies, ports: [tcp(port)] }],
        }),
      });
    }
  }

  const throughExposure = config.verification.run.some(
    (name) => config.verification.suites[name]?.through === "exposure",
  );
  if (throughExposure) {
    const proxies = [config.entrances?.internal, config.entrances?.public].flatMap((entrance) =>
      entrance?.namespace === undefined ? [] : [namespace(entrance.namespace)],
    );
    policies.push({
      // By its public address, or by the proxies' pods where the cluster short-cuts to them.
      name: "allow-verification-to-entrance",
      spec: asSpec({
        podSelector: { matchLabels: VERIFICATION },
        policyTypes: ["Egress"],
        egress: [
          { to: [{ ipBlock: { cidr: "0.0.0.0/0" } }], ports: [tcp(80), tcp(443)] },
          ...(proxies.length === 0 ? [] : [{ to: proxies }]),
        ],
      }),
    });
  }
  return policies;
}
