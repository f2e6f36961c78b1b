import type { NetworkPolicy, Peer } from "../../components/internal/network-policies";

/** One end of a connection: a pod, or an address outside the cluster. */
export interface Endpoint {
  readonly namespace?: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly ip: string;
}

/**
 * Whether a connection is let through, as Kubernetes defines it: a pod that any policy selects for a
 * direction may do there only what one of those policies names
 * (https://kubernetes.io/docs/concepts/services-networking/network-policies/).
 */
export function isAllowed(
  policies: readonly NetworkPolicy[],
  /** The namespace that the policies are in. */
  namespace: string,
  from: Endpoint,
  to: Endpoint,
  port: number,
  protocol: "TCP" | "UDP" = "TCP",
): boolean {
  const selecting = (endpoint: Endpoint, direction: "Ingress" | "Egress") =>
    endpoint.namespace === namespace
      ? policies.filter(
          ({ spec }) =>
            spec.policyTypes.includes(direction) &&
            matches(spec.podSelector.matchLabels, endpoint.labels),
        )
      : [];
  const portNamed = (ports: readonly { protocol: string; port: number }[] | undefined) =>
    ports === undefined || ports.some((one) => one.port === port && one.protocol === protocol);

  const leaving = selecting(from, "Egress");
  const left = leaving.some(({ spec }) =>
    spec.egress?.some((rule) => portNamed(rule.ports) && peerNamed(rule.to, to, namespace)),
  );
  const entering = selecting(to, "Ingress");
  const entered = entering.some(({ spec }) =>
    spec.ingress?.some((rule) => portNamed(rule.ports) && peerNamed(rule.from, from, namespace)),
  );
  return (leaving.length === 0 || left) && (entering.length === 0 || entered);
}

function peerNamed(
  peers: readonly Peer[] | undefined,
  endpoint: Endpoint,
  namespace: string,
): boolean {
  return (
    peers === undefined ||
    peers.some(({ podSelector, namespaceSelector, ipBlock }) => {
      if (ipBlock !== undefined) {
        return (
          contains(ipBlock.cidr, endpoint.ip) &&
          !ipBlock.except?.some((except) => contains(except, endpoint.ip))
        );
      }
      if (endpoint.namespace === undefined) return false;
      const inNamespace =
        namespaceSelector === undefined
          ? endpoint.namespace === namespace
          : namespaceSelector.matchLabels["kubernetes.io/metadata.name"] === endpoint.namespace;
      return inNamespace && matches(podSelector?.matchLabels, endpoint.labels);
    })
  );
}

function matches(
  selector: Readonly<Record<string, string>> | undefined,
  labels: Readonly<Record<string, string>> | undefined,
): boolean {
  return Object.entries(selector ?? {}).every(([key, value]) => labels?.[key] === value);
}

function contains(cidr: string, ip: string): boolean {
  const [base = "", bits = "32"] = cidr.split("/");
  const size = 2 ** (32 - Number(bits));
  return Math.floor(toNumber(ip) / size) === Math.floor(toNumber(base) / size);
}

function toNumber(ip: string): number {
  return ip.split(".").reduce((sum, part) => sum * 256 + Number(part), 0);
}
