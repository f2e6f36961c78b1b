/* The sandbox's Prometheus, Debian's own. */
import { join } from "node:path";
import { stringify } from "yaml";
import { NETWORK, NODE } from "./folder";

const ADDRESS = `${NETWORK.inside}:9090`;
/** Reached from pods and from the user's side. */
export const PROMETHEUS = `http://${ADDRESS}`;

/** What discovery.ts finds, as Prometheus reads it. */
export const TARGETS = join(NODE, "prometheus-targets.json");
export const PROMETHEUS_CONFIG = join(NODE, "prometheus.yml");

export const PROMETHEUS_ARGS = [
  `--config.file=${PROMETHEUS_CONFIG}`,
  `--storage.tsdb.path=${join(NODE, "prometheus")}`,
  "--storage.tsdb.retention.time=1d",
  `--web.listen-address=${ADDRESS}`,
];

/**
 * Pods that ask for it by annotation, once a second, under the labels that a Prometheus in a
 * cluster usually gives them: `namespace`, `pod`, and the pod's own.
 */
export function prometheusConfig(): string {
  const annotation = (name: string) => `__meta_kubernetes_pod_annotation_prometheus_io_${name}`;
  return stringify({
    global: { scrape_interval: "1s", scrape_timeout: "1s" },
    scrape_configs: [
      {
        job_name: "pods",
        // Debian's build has no Kubernetes discovery.
        file_sd_configs: [{ files: [TARGETS] }],
        relabel_configs: [
          { action: "keep", source_labels: [annotation("scrape")], regex: "true" },
          {
            source_labels: [annotation("path")],
            regex: "(.+)",
            target_label: "__metrics_path__",
          },
          {
            source_labels: ["__meta_kubernetes_pod_ip", annotation("port")],
            separator: ":",
            target_label: "__address__",
          },
          { action: "labelmap", regex: "__meta_kubernetes_pod_label_(.+)" },
          { source_labels: ["__meta_kubernetes_namespace"], target_label: "namespace" },
          { source_labels: ["__meta_kubernetes_pod_name"], target_label: "pod" },
          { source_labels: ["__meta_kubernetes_pod_name"], target_label: "instance" },
        ],
      },
    ],
  });
}

export async function prometheusReady(): Promise<boolean> {
  return fetch(`${PROMETHEUS}/-/ready`, { signal: AbortSignal.timeout(1_000) }).then(
    (answer) => answer.ok,
    () => false,
  );
}

/** One value of a query's answer, with its labels. */
export interface Sample {
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

/**
 * Asks for a query's value now (https://prometheus.io/docs/prometheus/latest/querying/api/).
 * @throws Error when Prometheus is away or refuses the query.
 */
export async function queryPrometheus(query: string): Promise<Sample[]> {
  const answer = await fetch(
    `${PROMETHEUS}/api/v1/query?${String(new URLSearchParams({ query }))}`,
  );
  const body = (await answer.json()) as {
    error?: string;
    data?: { result: { metric: Record<string, string>; value: [number, string] }[] };
  };
  if (body.data === undefined) throw new Error(`Prometheus refuses ${query}: ${body.error ?? ""}`);
  return body.data.result.map(({ metric, value }) => ({ labels: metric, value: Number(value[1]) }));
}
