import type { KubeConfig } from "@kubernetes/client-node";
import { readFile, writeFile } from "node:fs/promises";
import { createServer, type IncomingMessage, type Server } from "node:http";
import { Agent, request as ask, type RequestOptions } from "node:https";
import type { AddressInfo } from "node:net";
import { parse, stringify } from "yaml";

/** What changes an object of the cluster. */
const CHANGES = ["POST", "PUT", "PATCH"];
/** What only asks, though by POST. */
const QUESTIONS = /\/apis\/(authentication|authorization)\.k8s\.io\//;

interface Kubeconfig {
  readonly clusters: { cluster: Record<string, unknown> }[];
  readonly users: { user: Record<string, unknown> }[];
}

/** Stands before the API server, and counts the changes that it has answered. */
export class KillProxy {
  private readonly agent = new Agent({ keepAlive: true });
  private readonly server: Server;
  private changes: string[] = [];
  private at = 0;
  private kill: () => void = () => undefined;

  private constructor(private readonly cluster: KubeConfig) {
    this.server = createServer((request, response) => {
      void this.options(request).then((options) => {
        const onward = ask(options, (answer) => {
          if (this.isAt(request, answer)) {
            // Once the answer is here, the change is made; nobody else hears of it.
            answer.resume().on("end", () => {
              this.kill();
              request.socket.destroy();
            });
            return;
          }
          response.writeHead(answer.statusCode ?? 502, answer.headers);
          answer.pipe(response);
          response.on("close", () => answer.destroy());
        });
        onward.on("error", () => response.destroy());
        request.pipe(onward);
      });
    });
  }

  /** Starts one, and writes the kubeconfig that leads to it. */
  static async start(cluster: KubeConfig, from: string, kubeconfig: string): Promise<KillProxy> {
    const proxy = new KillProxy(cluster);
    await new Promise<void>((resolve) => proxy.server.listen(0, "127.0.0.1", resolve));
    const { port } = proxy.server.address() as AddressInfo;
    const config = parse(await readFile(from, "utf8")) as Kubeconfig;
    for (const one of config.clusters) {
      one.cluster = { server: `http://127.0.0.1:${port}`, "insecure-skip-tls-verify": true };
    }
    for (const one of config.users) one.user = {};
    await writeFile(kubeconfig, stringify(config));
    return proxy;
  }

  stop(): void {
    this.server.closeAllConnections();
    this.server.close();
    this.agent.destroy();
  }

  /** Counts from the beginning, and kills when this change has been made: the first is 1. */
  arm(at: number, kill: () => void): void {
    this.changes = [];
    this.at = at;
    this.kill = kill;
  }

  /** The changes since then, such as `POST /api/v1/namespaces`. */
  get seen(): readonly string[] {
    return this.changes;
  }

  private async options({ method, url, headers }: IncomingMessage): Promise<RequestOptions> {
    const options: RequestOptions = { agent: this.agent };
    await this.cluster.applyToHTTPSOptions(options);
    const { hostname, port } = new URL(this.cluster.getCurrentCluster()?.server ?? "");
    const target = { hostname, port, path: url, method };
    return { ...options, agent: this.agent, ...target, headers: { ...headers, host: hostname } };
  }

  private isAt({ method = "", url = "" }: IncomingMessage, { statusCode = 0 }: IncomingMessage) {
    const { pathname, searchParams } = new URL(url, "http://localhost");
    const isChange =
      CHANGES.includes(method) &&
      !searchParams.has("dryRun") &&
      !QUESTIONS.test(pathname) &&
      statusCode < 300;
    if (!isChange) return false;
    this.changes.push(`${method} ${pathname}`);
    return this.changes.length === this.at;
  }
}
