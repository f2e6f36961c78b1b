import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

interface Manifest {
  readonly bytes: Buffer;
  readonly mediaType: string;
}

/** How a registry asks who is there. */
export type Authentication = "none" | "basic" | "bearer";

/** The part of the OCI distribution API that the program uses, over real HTTP, in memory. */
export class RegistryServer {
  readonly tags = new Map<string, string>();
  /** Method and path of every request, in order. */
  readonly requests: string[] = [];
  /** The Authorization header of every request, in order. */
  readonly authorizations: (string | undefined)[] = [];
  /** Called with each request, before it is answered. */
  onRequest: () => void = () => undefined;
  authentication: Authentication = "none";
  /** Answers to give before any other, e.g. `[503, 503]`. */
  failures: number[] = [];
  /** Leaves the digest out of its headers, as some registries do. */
  hidesDigest = false;
  /** Has nothing where the address is like this. */
  hides: RegExp | undefined;
  /** How many tags it gives at once. */
  pageLength = 2;
  private readonly manifests = new Map<string, Manifest>();
  private readonly blobs = new Map<string, Buffer>();
  private readonly begun = new Map<string, Buffer>();
  /** What refers to a manifest, by its digest. */
  readonly referrers = new Map<string, { digest: string; size: number }[]>();
  private readonly server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => this.answer(request, response, Buffer.concat(chunks)));
  });

  static async start(): Promise<RegistryServer> {
    const registry = new RegistryServer();
    await new Promise<void>((resolve) => registry.server.listen(0, "127.0.0.1", resolve));
    return registry;
  }

  async stop(): Promise<void> {
    this.server.closeAllConnections();
    await new Promise((resolve) => this.server.close(resolve));
  }

  get host(): string {
    return `127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  /** Stores a manifest under tags; gives its digest. */
  push(content: string, ...tags: string[]): string {
    const bytes = Buffer.from(content);
    const digest = digestOf(bytes);
    const mediaType = "application/vnd.oci.image.index.v1+json";
    this.manifests.set(digest, { bytes, mediaType });
    for (const tag of tags) this.tags.set(tag, digest);
    return digest;
  }

  /** Stores an image with a configuration like this; gives its digest. */
  pushImage(config: unknown, ...tags: string[]): string {
    const blob = Buffer.from(JSON.stringify(config));
    const digest = digestOf(blob);
    this.blobs.set(digest, blob);
    return this.push(JSON.stringify({ config: { digest } }), ...tags);
  }

  /** Stores a blob; gives its digest. */
  pushBlob(bytes: Buffer): string {
    const digest = digestOf(bytes);
    this.blobs.set(digest, bytes);
    return digest;
  }

  blob(digest: string): Buffer | undefined {
    return this.blobs.get(digest);
  }

  /** Stores a manifest under a digest that is not its own. */
  forge(digest: string, manifest: Manifest): void {
    this.manifests.set(digest, manifest);
  }

  manifest(digest: string): Manifest | undefined {
    return this.manifests.get(digest);
  }

  private answer(request: IncomingMessage, response: ServerResponse, body: Buffer): void {
    const { method = "", url = "" } = request;
    this.requests.push(`${method} ${url}`);
    this.authorizations.push(request.headers.authorization);
    this.onRequest();
    const failure = this.failures.shift();
    if (failure !== undefined) {
      response.writeHead(failure).end();
      return;
    }
    if (url.startsWith("/token")) {
      const known = request.headers.authorization === basic("robot", "hunter2");
      response.writeHead(known ? 200 : 401).end(JSON.stringify({ token: "opaque" }));
      return;
    }
    if (!this.authorized(request)) {
      const challenge =
        this.authentication === "basic"
          ? 'Basic realm="registry"'
          : `Bearer realm="http://${this.host}/token",service="registry"`;
      response.writeHead(401, { "www-authenticate": challenge }).end();
      return;
    }
    if (url.includes("/tags/list")) {
      this.listTags(new URL(url, "http://registry"), response);
      return;
    }
    if (this.hides?.test(url) === true) {
      response.writeHead(404).end();
      return;
    }
    if (url.includes("/blobs/uploads/")) {
      this.upload(request, response, body);
      return;
    }
    if (url.includes("/referrers/")) {
      const manifests = this.referrers.get(url.split("/referrers/")[1] ?? "");
      response.writeHead(manifests === undefined ? 404 : 200);
      response.end(JSON.stringify({ manifests }));
      return;
    }
    if (url.includes("/blobs/")) {
      const blob = this.blobs.get(url.split("/blobs/")[1] ?? "");
      const [, start, end] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "") ?? [];
      if (blob === undefined) response.writeHead(404).end();
      else if (start === undefined) response.writeHead(200).end(blob);
      else response.writeHead(206).end(blob.subarray(Number(start), Number(end) + 1));
      return;
    }
    const reference = decodeURIComponent(url.split("/manifests/")[1] ?? "");
    if (method === "PUT") {
      const isTag = !reference.startsWith("sha256:");
      const digest = this.push(body.toString(), ...(isTag ? [reference] : []));
      const manifest = { bytes: body, mediaType: String(request.headers["content-type"]) };
      this.manifests.set(digest, manifest);
      response.writeHead(201, { "docker-content-digest": digest }).end();
      return;
    }
    const digest = reference.startsWith("sha256:") ? reference : this.tags.get(reference);
    const manifest = digest === undefined ? undefined : this.manifests.get(digest);
    if (digest === undefined || manifest === undefined) {
      response.writeHead(404).end();
      return;
    }
    response.writeHead(200, {
      "content-type": manifest.mediaType,
      ...(this.hidesDigest ? {} : { "docker-content-digest": digest }),
    });
    response.end(method === "HEAD" ? undefined : manifest.bytes);
  }

  /** In pieces that follow each other, at the address that each answer names. */
  private upload(request: IncomingMessage, response: ServerResponse, body: Buffer): void {
    const { method, url = "", headers } = request;
    const { pathname, searchParams } = new URL(url, "http://registry");
    const name = pathname.split("/uploads/")[1] ?? "";
    const former = this.begun.get(name) ?? Buffer.alloc(0);
    const here = (id: string) => `/v2/podinfo/blobs/uploads/${id}?state=${former.length}`;
    if (method === "POST") {
      const id = String(this.begun.size + 1);
      this.begun.set(id, former);
      response.writeHead(202, { location: here(id) }).end();
    } else if (method === "PATCH") {
      const start = Number(headers["content-range"]?.split("-")[0]);
      if (start !== former.length) response.writeHead(416).end();
      else {
        this.begun.set(name, Buffer.concat([former, body]));
        response.writeHead(202, { location: here(name) }).end();
      }
    } else {
      const digest = searchParams.get("digest") ?? "";
      const whole = Buffer.concat([former, body]);
      const right = digestOf(whole) === digest;
      if (right) this.blobs.set(digest, whole);
      response.writeHead(right ? 201 : 400).end();
    }
  }

  /** Pages by the last tag of the one before, whatever length is asked for. */
  private listTags({ pathname, searchParams }: URL, response: ServerResponse): void {
    const all = [...this.tags.keys()].sort();
    if (all.length === 0) {
      response.writeHead(404).end(JSON.stringify({ errors: [{ code: "NAME_UNKNOWN" }] }));
      return;
    }
    const rest = all.filter((tag) => tag > (searchParams.get("last") ?? ""));
    const page = rest.slice(0, this.pageLength);
    const next = `<${pathname}?last=${page.at(-1) ?? ""}&n=${this.pageLength}>; rel="next"`;
    response.writeHead(200, page.length < rest.length ? { link: next } : {});
    response.end(JSON.stringify({ tags: page }));
  }

  private authorized({ headers }: IncomingMessage): boolean {
    const wanted = { none: undefined, basic: basic("robot", "hunter2"), bearer: "Bearer opaque" };
    const authorization = wanted[this.authentication];
    return authorization === undefined || headers.authorization === authorization;
  }
}

function digestOf(bytes: Buffer): string {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
}

function basic(username: string, password: string): string {
  return `Basic ${Buffer.from(`${username}:${password}`).toString("base64")}`;
}
