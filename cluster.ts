import { readFile } from "node:fs/promises";
import * as http from "node:http";
import * as https from "node:https";
import { homedir } from "node:os";
import { delimiter, join } from "node:path";
import type { Problem } from "./release/problem";

/** Of the one request, in milliseconds. */
const TIMEOUT = 5_000;

interface Kubeconfig {
  readonly "current-context"?: string;
  readonly contexts?: readonly {
    readonly name: string;
    readonly context: { readonly cluster: string };
  }[];
  readonly clusters?: readonly {
    readonly name: string;
    readonly cluster: { readonly server: string; readonly "proxy-url"?: string };
  }[];
}

/**
 * Finds the cluster as kubectl would and asks whether it answers. The Kubernetes provider says
 * neither during a preview; and a preview that cannot see the cluster is not worth approving.
 * Sends no credentials: any answer, a refusal too, means that it is there.
 *
 * @returns what is wrong, or nothing.
 */
export async function checkCluster(
  environment: string,
  wanted: string | undefined,
): Promise<Problem[]> {
  const paths = kubeconfigPaths();
  const problem = (value: string, expected: string, fix: string): Problem[] => [
    { where: environment, property: "baton:cluster.context", value, expected, fix },
  ];
  const files = await Promise.all(paths.map(readKubeconfig));
  const broken = files.flatMap((file) => ("error" in file ? [file.error] : []));
  if (broken.length > 0) {
    return problem(wanted ?? "not set", "a readable kubeconfig", `Correct ${broken.join(", ")}`);
  }
  // The first to say something counts: https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/
  const merged = files.flatMap((file) => ("config" in file ? [file.config] : []));
  if (merged.length === 0) {
    // In a pod, the provider uses the service account.
    if (wanted === undefined && process.env["KUBERNETES_SERVICE_HOST"] !== undefined) return [];
    const fix = "Log in to the cluster first, or set KUBECONFIG";
    return problem(wanted ?? "not set", `a kubeconfig at ${paths.join(" or ")}`, fix);
  }
  const name = wanted ?? merged.map((file) => file["current-context"]).find(Boolean);
  const contexts = merged.flatMap((file) => file.contexts ?? []);
  const context = contexts.find((candidate) => candidate.name === name)?.context;
  if (name === undefined || context === undefined) {
    const known = contexts.map((candidate) => candidate.name).join(", ") || "none there";
    const fix = `Correct it, or add the context to ${paths.join(" or ")}`;
    return problem(name ?? "not set", `a context of the kubeconfig: ${known}`, fix);
  }
  const cluster = merged
    .flatMap((file) => file.clusters ?? [])
    .find((candidate) => candidate.name === context.cluster)?.cluster;
  if (cluster === undefined) {
    return problem(name, "a context whose cluster is described", `Add cluster ${context.cluster}`);
  }
  // Behind a proxy only the provider's own client knows the way.
  if (cluster["proxy-url"] !== undefined || process.env["HTTPS_PROXY"] !== undefined) return [];
  const failure = await ping(cluster.server);
  if (failure === undefined) return [];
  const fix = "Check the network, the VPN and the cluster itself, and run the same command again";
  return problem(name, `a cluster that answers at ${cluster.server} (${failure})`, fix);
}

function kubeconfigPaths(): string[] {
  const listed = process.env["KUBECONFIG"]?.split(delimiter).filter((path) => path !== "");
  return listed?.length ? listed : [join(homedir(), ".kube", "config")];
}

async function readKubeconfig(
  path: string,
): Promise<{ config: Kubeconfig } | { error: string } | { missing: true }> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "ENOENT" ? { missing: true } : { error: path };
  }
  try {
    const { parse } = await import("yaml");
    return { config: (parse(text) ?? {}) as Kubeconfig };
  } catch {
    // The parser's own message would quote the file, which holds credentials.
    return { error: path };
  }
}

/** What keeps the server from being reached, or `undefined`. */
async function ping(server: string): Promise<string | undefined> {
  const url = new URL("version", server.endsWith("/") ? server : `${server}/`);
  return new Promise((resolve) => {
    const options = { timeout: TIMEOUT, rejectUnauthorized: false };
    const request = (url.protocol === "http:" ? http : https).get(url, options, (response) => {
      response.destroy();
      resolve(undefined);
    });
    request.on("timeout", () => request.destroy(new Error(`no answer in ${TIMEOUT / 1000} s`)));
    request.on("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
  });
}
