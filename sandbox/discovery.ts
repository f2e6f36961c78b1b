/*
 * Tells Prometheus of the cluster's pods, under the names that its own discovery of pods gives them
 * (https://prometheus.io/docs/prometheus/latest/configuration/configuration/#pod): Debian's build
 * has none.
 */
import { CoreV1Api, makeInformer, type V1Pod } from "@kubernetes/client-node";
import { rename, writeFile } from "node:fs/promises";
import { setTimeout } from "node:timers/promises";
import { kubeconfigOf } from "./cluster";
import { TARGETS } from "./prometheus";

const RETRY_MILLISECONDS = 500;

const kubeconfig = kubeconfigOf({});
const core = kubeconfig.makeApiClient(CoreV1Api);
const pods = makeInformer(kubeconfig, "/api/v1/pods", () => core.listPodForAllNamespaces());

let written: string | undefined;
/** One write after the other; changes that come meanwhile go into the next. */
let writing = Promise.resolve();
let waiting = false;

function refresh(): void {
  if (waiting) return;
  waiting = true;
  writing = writing.then(write).catch((error: unknown) => {
    console.error(error);
  });
}

async function write(): Promise<void> {
  waiting = false;
  const text = JSON.stringify(pods.list().filter(runs).map(targetOf));
  if (text === written) return;
  await writeFile(`${TARGETS}.unfinished.json`, text);
  await rename(`${TARGETS}.unfinished.json`, TARGETS);
  written = text;
}

function runs({ status }: V1Pod): boolean {
  return status?.podIP !== undefined && !["Succeeded", "Failed"].includes(status.phase ?? "");
}

function targetOf({ metadata, status }: V1Pod) {
  const prefix = "__meta_kubernetes_pod";
  return {
    targets: [status?.podIP],
    labels: {
      __meta_kubernetes_namespace: metadata?.namespace,
      [`${prefix}_name`]: metadata?.name,
      [`${prefix}_ip`]: status?.podIP,
      ...labelled(`${prefix}_label_`, metadata?.labels),
      ...labelled(`${prefix}_annotation_`, metadata?.annotations),
    },
  };
}

function labelled(prefix: string, values: Readonly<Record<string, string>> = {}) {
  return Object.fromEntries(
    Object.entries(values).map(([name, value]) => [
      prefix + name.replaceAll(/[^a-zA-Z0-9_]/g, "_"),
      value,
    ]),
  );
}

for (const event of ["add", "update", "delete"] as const) pods.on(event, refresh);
pods.on("error", (error: unknown) => {
  console.error(error);
  void start();
});

/** A watch that breaks off begins anew, from a list. */
async function start(): Promise<void> {
  for (;;) {
    try {
      await pods.start();
      refresh();
      return;
    } catch (error) {
      console.error(error);
      await setTimeout(RETRY_MILLISECONDS);
    }
  }
}

void start();
