import { writeFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";

type Tree = Record<string, unknown>;
interface Stored extends Tree {
  metadata: Tree & { name: string; resourceVersion: string };
}

/**
 * A Kubernetes API with the few verbs that a provider needs: get, list, create, and replacements and
 * merge patches that are refused for another resourceVersion. KUBECONFIG leads to it until it is stopped.
 */
export class KubernetesServer {
  private readonly objects = new Map<string, Stored>();
  private version = 0;
  /** Set to answer everything so instead. */
  failure: number | undefined;
  /** What a controller makes of an object that has changed. */
  controller: (path: string, object: Tree) => Tree = (_, object) => object;

  /** What was patched whatever had changed. */
  readonly unconditional: string[] = [];
  /** Called when an object has been read. */
  afterRead: (path: string) => void = () => undefined;
  /** Called when several have been. */
  afterList: (path: string) => void = () => undefined;

  private constructor(
    private readonly server: Server,
    private readonly folder: string,
    private readonly former: string | undefined,
  ) {}

  static async start(): Promise<KubernetesServer> {
    const folder = await mkdtemp(join(tmpdir(), "baton-kubernetes-"));
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const port = (server.address() as AddressInfo).port;
    const kubernetes = new KubernetesServer(server, folder, process.env["KUBECONFIG"]);
    server.on("request", (request, response) => {
      void text(request).then((body) => {
        const { pathname, searchParams } = new URL(request.url ?? "/", "http://localhost");
        const labels = searchParams.get("labelSelector") ?? "";
        const [status, answer] = kubernetes.answer(request.method ?? "GET", pathname, body, labels);
        response.writeHead(status, { "content-type": "application/json" });
        response.end(JSON.stringify(answer));
      });
    });
    const kubeconfig = join(folder, "kubeconfig");
    writeFileSync(
      kubeconfig,
      JSON.stringify({
        "current-context": "test",
        contexts: [{ name: "test", context: { cluster: "test", user: "test" } }],
        clusters: [
          {
            name: "test",
            // The client speaks plain HTTP only to where it need not know whom it speaks to.
            cluster: { server: `http://127.0.0.1:${port}`, "insecure-skip-tls-verify": true },
          },
        ],
        users: [{ name: "test", user: {} }],
      }),
    );
    process.env["KUBECONFIG"] = kubeconfig;
    return kubernetes;
  }

  async stop(): Promise<void> {
    this.server.closeAllConnections();
    this.server.close();
    if (this.former === undefined) delete process.env["KUBECONFIG"];
    else process.env["KUBECONFIG"] = this.former;
    await rm(this.folder, { recursive: true });
  }

  /** Stores an object at a collection such as `/apis/apps/v1/namespaces/qa/deployments`. */
  put(collection: string, name: string, object: Tree): void {
    const metadata = { ...(object["metadata"] as Tree | undefined), name };
    this.store(`${collection}/${name}`, { ...object, metadata });
  }

  get(path: string): Stored | undefined {
    return this.objects.get(path);
  }

  /** Changes an object, as others may. */
  patch(path: string, change: Tree): void {
    this.store(path, merge(this.objects.get(path) ?? {}, change) as Tree);
  }

  private store(path: string, object: Tree): void {
    this.version += 1;
    const resourceVersion = String(this.version);
    const made = this.controller(path, object);
    const metadata = made["metadata"] as Stored["metadata"];
    this.objects.set(path, { ...made, metadata: { ...metadata, resourceVersion } });
  }

  private answer(method: string, path: string, body: string, labels: string): [number, unknown] {
    if (this.failure !== undefined) return [this.failure, { message: "out of order" }];
    const object = this.objects.get(path);
    if (
      method === "GET" &&
      object === undefined &&
      /\/(pods|replicasets|deployments|jobs)$/.test(path)
    ) {
      const items = [...this.objects]
        .filter(([key]) => key.startsWith(`${path}/`))
        .map(([, one]) => one)
        // The tests' pods have no labels.
        .filter((one) => path.endsWith("/pods") || isSelected(one, labels));
      this.afterList(path);
      return [200, { items }];
    }
    if (method === "POST") {
      const created = JSON.parse(body) as Stored;
      const own = `${path}/${created.metadata.name}`;
      if (this.objects.has(own)) return [409, { message: `${own} already exists` }];
      this.store(own, created);
      return [201, this.objects.get(own)];
    }
    if (object === undefined) return [404, { message: `${path} not found` }];
    if (method === "PATCH" || method === "PUT") {
      const change = JSON.parse(body) as Tree;
      const { resourceVersion } = (change["metadata"] ?? {}) as { resourceVersion?: string };
      if (resourceVersion === undefined) this.unconditional.push(path);
      else if (resourceVersion !== object.metadata.resourceVersion) {
        return [409, { message: "the object has been modified" }];
      }
      this.store(path, method === "PUT" ? change : (merge(object, change) as Tree));
    }
    const answer = this.objects.get(path);
    if (method === "GET") this.afterRead(path);
    return [200, answer];
  }
}

function isSelected({ metadata }: Stored, selector: string): boolean {
  const labels = (metadata["labels"] ?? {}) as Record<string, string>;
  const wanted = selector === "" ? [] : selector.split(",").map((one) => one.split("="));
  return wanted.every(([key = "", value]) => labels[key] === value);
}

/** https://www.rfc-editor.org/rfc/rfc7396 */
function merge(base: unknown, change: unknown): unknown {
  if (typeof change !== "object" || change === null || Array.isArray(change)) return change;
  const merged: Tree = { ...(typeof base === "object" ? (base as Tree) : {}) };
  for (const [key, value] of Object.entries(change)) {
    if (value === null) Reflect.deleteProperty(merged, key);
    else merged[key] = merge(merged[key], value);
  }
  return merged;
}
