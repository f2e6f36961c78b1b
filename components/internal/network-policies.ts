import type * as k8s from "@pulumi/kubernetes";
import type { Config, EntranceConfig, WorkloadConfig } from "../../config-schema";
import { standsBeside } from "./beside";
import { COLOUR_OF, selectorLabels, VERIFICATION } from "./labels";

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

/** Where cloud providers hand out a node's own credentials. */
const INSTANCE_METADATA = "169.254.169.254/32";

const tcp = (port: number): Port => ({ protocol: "TCP", port });
const namespace = (name: string): Peer => ({
  namespaceSelector: { matchLabels: { "kubernetes.io/metadata.name": name } },
});

/**
 * Who may talk to whom; nothing else may. One policy for every pod of the namespace, and one for
 * each workload that something outside it calls.
 */
export function networkPolicies(
  config: Pick<
    Config,
    "network" | "workloads" | "entrances" | "monitoring" | "verification" | "rollout"
  >,
): NetworkPolicy[] {
  const { network, workloads, verification } = config;
  const policies: NetworkPolicy[] = [
    {
      name: "default",
      spec: asSpec({
        podSelector: {},
        policyTypes: ["Ingress", "Egress"],
        ingress: [{ from: [{ podSelector: {} }] }],
        egress: [
          { to: [{ podSelector: {} }] },
          // DNS, anywhere: it may be pods, a node-local cache or a node's own address.
          { ports: [{ protocol: "UDP", port: 53 }, tcp(53)] },
          ...network.egress.map(({ cidr, except, namespace: target, port }) => ({
            to: [
              ...(cidr === undefined ? [] : [addresses(cidr, except)]),
              ...(target === undefined ? [] : [namespace(target)]),
            ],
            ports: [tcp(port)],
          })),
        ],
      }),
    },
  ];
  for (const [name, workload] of Object.entries(workloads)) {
    const ingress = callersFromOutside(workload, config);
    if (ingress.length === 0) continue;
    const podSelector = { matchLabels: workload.selector ?? selectorLabels(name) };
    policies.push({ name, spec: asSpec({ podSelector, policyTypes: ["Ingress"], ingress }) });
    if (!standsBeside(config, workload)) continue;
    const colours = { matchLabels: { [COLOUR_OF]: name } };
    policies.push({
      name: `${name}-colours`,
      spec: asSpec({ podSelector: colours, policyTypes: ["Ingress"], ingress }),
    });
  }
  if (verification.run.some((name) => verification.suites[name]?.through === "exposure")) {
    policies.push(verificationPolicy(config.entrances));
  }
  return policies;
}

function callersFromOutside(
  { port, metrics, exposure }: WorkloadConfig,
  { network, monitoring, entrances }: Pick<Config, "network" | "monitoring" | "entrances">,
): { from: Peer[]; ports: Port[] }[] {
  const entrance = exposure && entrances?.[exposure.scope];
  const metricsPort = metrics?.port ?? port;
  const scraped = monitoring.level !== "none" && metrics !== undefined;
  const { prometheusNamespace } = network;
  return [
    ...(entrance === undefined || port === undefined
      ? []
      : [{ from: proxies(entrance), ports: [tcp(port)] }]),
    ...(!scraped || metricsPort === undefined || prometheusNamespace === undefined
      ? []
      : [{ from: [namespace(prometheusNamespace)], ports: [tcp(metricsPort)] }]),
  ];
}

/** Suites that call from outside: by the public address, or by the proxies' pods. */
function verificationPolicy(entrances: Config["entrances"]): NetworkPolicy {
  const pods = [entrances?.internal, entrances?.public].flatMap((entrance) =>
    entrance?.namespace === undefined ? [] : [namespace(entrance.namespace)],
  );
  return {
    name: "verification",
    spec: asSpec({
      podSelector: { matchLabels: VERIFICATION },
      policyTypes: ["Egress"],
      egress: [
        { to: [addresses("0.0.0.0/0", [INSTANCE_METADATA])], ports: [tcp(80), tcp(443)] },
        ...(pods.length === 0 ? [] : [{ to: pods }]),
      ],
    }),
  };
}

function proxies(entrance: EntranceConfig): Peer[] {
  return [
    ...(entrance.namespace === undefined ? [] : [namespace(entrance.namespace)]),
    ...(entrance.cidr === undefined ? [] : [addresses(entrance.cidr)]),
  ];
}

function addresses(cidr: string, except?: string[]): Peer {
  return { ipBlock: except === undefined ? { cidr } : { cidr, except } };
}
