/*
 * Two registries as they really are, each on a port of this machine's own: Debian's docker-registry,
 * and moto's ECR (https://docs.getmoto.org/en/latest/docs/server_mode.html). No sandbox is needed.
 */
import { ECRClient, type ECRClientConfig } from "@aws-sdk/client-ecr";
import * as ecr from "@aws-sdk/client-ecr";
import { execa } from "execa";
import { createHash } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { createServer as createListener, type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { stringify } from "yaml";
import type { RegistryLocation } from "../../registry/registry";
import { DEBIAN, exists, SANDBOX } from "../../sandbox/folder";
import { installPackages } from "../../sandbox/host";

const PATIENCE_MILLISECONDS = 60_000;

export interface Manifest {
  readonly bytes: Buffer;
  readonly mediaType: string;
}

/** A registry to try the product on, written to and read without it. */
export interface RealRegistry {
  readonly location: RegistryLocation;
  putBlob(bytes: Buffer): Promise<void>;
  putManifest(manifest: Manifest, tag: string): Promise<void>;
  /** What a tag names. */
  manifest(tag: string): Promise<Manifest>;
  stop(): Promise<void>;
}

export const digestOf = (bytes: Buffer): string =>
  `sha256:${createHash("sha256").update(bytes).digest("hex")}`;

/** It hides what one does not name. */
const ANY_TYPE = ["docker.distribution.manifest", "docker.distribution.manifest.list"]
  .map((type) => `application/vnd.${type}.v2+json`)
  .concat(["manifest", "index"].map((type) => `application/vnd.oci.image.${type}.v1+json`))
  .join(", ");

/** Debian's docker-registry, with nothing in it. */
export async function startDockerRegistry(): Promise<RealRegistry> {
  const program = join(DEBIAN, "usr/bin/docker-registry");
  if (!(await exists(program))) await installPackages((text) => console.log(text));
  const folder = await mkdtemp(join(tmpdir(), "baton-registry-"));
  const host = `127.0.0.1:${await freePort()}`;
  const config = {
    version: "0.1",
    log: { level: "error" },
    storage: { filesystem: { rootdirectory: folder } },
    http: { addr: host },
  };
  await writeFile(join(folder, "config.yml"), stringify(config));
  const base = `http://${host}/v2/podinfo`;
  const stop = await startProcess(program, ["serve", join(folder, "config.yml")], base);

  async function put(url: string, type: string, body: Buffer): Promise<void> {
    const headers = { "content-type": type };
    const answer = await fetch(url, { method: "PUT", headers, body: Uint8Array.from(body) });
    if (!answer.ok) throw new Error(`${url} answered ${answer.status}: ${await answer.text()}`);
  }
  return {
    location: { kind: "oci", repository: `${host}/podinfo`, plainHttp: true },
    async putBlob(bytes) {
      const begun = await fetch(`${base}/blobs/uploads/`, { method: "POST" });
      const upload = new URL(begun.headers.get("location") ?? "", base);
      upload.searchParams.set("digest", digestOf(bytes));
      await put(upload.href, "application/octet-stream", bytes);
    },
    putManifest: ({ bytes, mediaType }, tag) => put(`${base}/manifests/${tag}`, mediaType, bytes),
    async manifest(tag) {
      const answer = await fetch(`${base}/manifests/${tag}`, { headers: { accept: ANY_TYPE } });
      const mediaType = answer.headers.get("content-type") ?? "";
      return { bytes: Buffer.from(await answer.arrayBuffer()), mediaType };
    },
    async stop() {
      await stop();
      await rm(folder, { recursive: true });
    },
  };
}

/** moto has no account of its own; this is the one its resources are in. */
const ACCOUNT = "123456789012";
export const REGION = "eu-west-1";
const NAME = "podinfo";

interface Body {
  readonly repositoryName?: string;
  readonly imageDigest?: string;
  readonly imageTag?: string;
  readonly imageManifest?: string;
  readonly uploadId?: string;
  readonly layerPartBlob?: string;
  readonly layerDigest?: string;
  readonly subjectId?: { readonly imageDigest: string };
  readonly filter?: { readonly artifactTypes?: readonly string[] };
  readonly nextToken?: string;
}

/**
 * Amazon ECR as moto has it, with immutable tags, and in front of it what moto 5.2 lacks or does
 * otherwise than AWS:
 * - GetDownloadUrlForLayer and ListImageReferrers are not implemented (`moto/ecr/responses.py`).
 * - A tag that names another image gives ImageAlreadyExistsException
 *   (`moto/ecr/models.py`, `_resolve_image_tag_mutability`); AWS answers
 *   ImageTagAlreadyExistsException
 *   (https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_PutImage.html#API_PutImage_Errors).
 */
export class EcrServer implements RealRegistry {
  readonly location: RegistryLocation;
  /** What the product's SDK is to be told by the environment. */
  readonly environment: Readonly<Record<string, string>>;
  /** Answers to give before any other: the exceptions' names. */
  failures: string[] = [];
  /** Every action, in order. */
  readonly actions: string[] = [];
  /** How many referrers ECR gives at once. */
  referrerPage = 20;
  /** Runs once, before the next PutImage is passed on. */
  beforePut: (() => Promise<void>) | undefined;
  private readonly client: ECRClient;
  private readonly uploads = new Map<string, Buffer>();
  private readonly layers = new Map<string, Buffer>();
  private readonly subjects: { subject: string; manifest: Manifest; type: string }[] = [];

  private constructor(
    private readonly moto: string,
    private readonly url: string,
    readonly stop: () => Promise<void>,
    region: string,
  ) {
    this.location = locationIn(region);
    this.environment = {
      AWS_ENDPOINT_URL_ECR: url,
      AWS_ACCESS_KEY_ID: "key",
      AWS_SECRET_ACCESS_KEY: "secret",
    };
    this.client = new ECRClient(this.clientConfig(region));
  }

  static async start(): Promise<EcrServer> {
    const program = join(await installMoto(), "bin/moto_server");
    const port = await freePort();
    const moto = `http://127.0.0.1:${port}`;
    const args = ["--host", "127.0.0.1", "--port", String(port)];
    const stop = await startProcess(program, args, `${moto}/moto-api/data.json`);
    const front = createServer((request, response) => {
      server.pass(request, response).catch((error: unknown) => {
        response.writeHead(599).end(String(error));
      });
    });
    await new Promise<void>((resolve) => front.listen(0, "127.0.0.1", resolve));
    const url = `http://127.0.0.1:${(front.address() as AddressInfo).port}`;
    const stopBoth = async () => {
      front.closeAllConnections();
      await new Promise((resolve) => front.close(resolve));
      await stop();
    };
    const server = new EcrServer(moto, url, stopBoth, REGION);
    await server.client.send(
      new ecr.CreateRepositoryCommand({ repositoryName: NAME, imageTagMutability: "IMMUTABLE" }),
    );
    return server;
  }

  /** A client of the tests' own. */
  clientConfig(region = REGION): ECRClientConfig {
    const credentials = { accessKeyId: "key", secretAccessKey: "secret" };
    return { endpoint: this.url, region, credentials };
  }

  async putBlob(bytes: Buffer): Promise<void> {
    const repositoryName = NAME;
    const { uploadId } = await this.client.send(
      new ecr.InitiateLayerUploadCommand({ repositoryName }),
    );
    const part = { partFirstByte: 0, partLastByte: bytes.length - 1, layerPartBlob: bytes };
    await this.client.send(new ecr.UploadLayerPartCommand({ repositoryName, uploadId, ...part }));
    const layerDigests = [digestOf(bytes)];
    await this.client.send(
      new ecr.CompleteLayerUploadCommand({ repositoryName, uploadId, layerDigests }),
    );
  }

  async putManifest({ bytes, mediaType }: Manifest, tag: string): Promise<void> {
    await this.client.send(
      new ecr.PutImageCommand({
        repositoryName: NAME,
        imageManifest: bytes.toString(),
        imageManifestMediaType: mediaType,
        imageDigest: digestOf(bytes),
        imageTag: tag,
      }),
    );
  }

  async manifest(tag: string): Promise<Manifest> {
    const { images } = await this.client.send(
      new ecr.BatchGetImageCommand({ repositoryName: NAME, imageIds: [{ imageTag: tag }] }),
    );
    const { imageManifest = "", imageManifestMediaType = "" } = images?.[0] ?? {};
    return { bytes: Buffer.from(imageManifest), mediaType: imageManifestMediaType };
  }

  /** Lets a scan of an image have ended so; by its tag or digest. */
  async scanned(
    image: string,
    status: string,
    findings: readonly { readonly name: string; readonly severity: string }[] = [],
  ): Promise<void> {
    const imageDigest = image.startsWith("sha256:")
      ? image
      : digestOf((await this.manifest(image)).bytes);
    const named = { repositoryName: NAME, imageId: { imageDigest } };
    await this.client.send(new ecr.StartImageScanCommand(named));
    const result = {
      ...named,
      registryId: ACCOUNT,
      imageScanStatus: { status },
      imageScanFindings: { findings },
    };
    const body = JSON.stringify({ results: [result], region: REGION });
    const url = `${this.moto}/moto-api/static/ecr/scan-finding-results`;
    const headers = { "content-type": "application/json" };
    const answer = await fetch(url, { method: "POST", headers, body });
    if (!answer.ok) throw new Error(`${url} answered ${answer.status}`);
  }

  private async pass(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    if (request.method === "GET") {
      const layer = this.layers.get(request.url?.slice(1) ?? "");
      response.writeHead(layer === undefined ? 403 : 200).end(layer);
      return;
    }
    const text = Buffer.concat(chunks);
    const action = String(request.headers["x-amz-target"]).split(".")[1] ?? "";
    const body = JSON.parse(text.toString()) as Body;
    this.actions.push(action);
    const answer = (status: number, content: object) => {
      response.writeHead(status, { "content-type": "application/x-amz-json-1.1" });
      response.end(JSON.stringify(content));
    };
    const failure = this.failures.shift();
    if (failure !== undefined) {
      answer(400, { __type: failure, message: `${failure} as AWS says it` });
    } else if (action === "GetDownloadUrlForLayer") {
      answer(200, { downloadUrl: `${this.url}/${body.layerDigest ?? ""}` });
    } else if (action === "ListImageReferrers") {
      answer(200, this.referrers(body));
    } else {
      const hook = action === "PutImage" ? this.beforePut : undefined;
      if (hook !== undefined) {
        this.beforePut = undefined;
        await hook();
      }
      const { status, content } = await this.ask(request, text);
      const isOther =
        content["__type"] === "ImageAlreadyExistsException" &&
        !String(content["message"]).includes(body.imageDigest ?? "");
      if (status === 200) this.remember(action, body, content);
      answer(status, isOther ? { ...content, __type: "ImageTagAlreadyExistsException" } : content);
    }
  }

  private async ask(request: IncomingMessage, text: Buffer) {
    const names = ["x-amz-target", "authorization", "content-type"] as const;
    const headers = Object.fromEntries(names.map((name) => [name, String(request.headers[name])]));
    const body = Uint8Array.from(text);
    const answer = await fetch(this.moto, { method: "POST", headers, body });
    const content = (await answer.json()) as Record<string, unknown>;
    return { status: answer.status, content };
  }

  /** Of what moto takes, what it does not give back. */
  private remember(action: string, body: Body, content: Readonly<Record<string, unknown>>): void {
    const { uploadId = "" } = body;
    if (action === "UploadLayerPart") {
      const part = Buffer.from(body.layerPartBlob ?? "", "base64");
      this.uploads.set(uploadId, Buffer.concat([this.uploads.get(uploadId) ?? Buffer.of(), part]));
    } else if (action === "CompleteLayerUpload") {
      this.layers.set(String(content["layerDigest"]), this.uploads.get(uploadId) ?? Buffer.of());
    } else if (action === "PutImage") {
      const bytes = Buffer.from(body.imageManifest ?? "");
      const { subject, artifactType, mediaType } = JSON.parse(bytes.toString()) as {
        readonly subject?: { readonly digest: string };
        readonly artifactType?: string;
        readonly mediaType?: string;
      };
      if (subject === undefined) return;
      const manifest = { bytes, mediaType: mediaType ?? "" };
      this.subjects.push({ subject: subject.digest, manifest, type: artifactType ?? "" });
    }
  }

  private referrers({ subjectId, filter, nextToken = "0" }: Body): object {
    const found = this.subjects.filter(
      ({ subject, type }) =>
        subject === subjectId?.imageDigest && (filter?.artifactTypes ?? [type]).includes(type),
    );
    const from = Number(nextToken);
    const to = from + this.referrerPage;
    const referrers = found.slice(from, to).map(({ manifest: { bytes, mediaType }, type }) => {
      const { annotations } = JSON.parse(bytes.toString()) as { annotations?: object };
      const digest = digestOf(bytes);
      return { digest, mediaType, artifactType: type, size: bytes.length, annotations };
    });
    return { referrers, ...(to < found.length ? { nextToken: String(to) } : {}) };
  }
}

export function locationIn(region: string): RegistryLocation {
  return { kind: "ecr", repository: `${ACCOUNT}.dkr.ecr.${region}.amazonaws.com/${NAME}` };
}

/** moto in a folder of its own, once for each set of pins; gives the folder. */
async function installMoto(): Promise<string> {
  const pins = join(__dirname, "ecr-server/requirements.txt");
  const hash = createHash("sha256")
    .update(await readFile(pins))
    .digest("hex");
  const folder = join(SANDBOX, "moto", hash.slice(0, 12));
  if (await exists(join(folder, "complete"))) return folder;
  const ready = await execa("python3", ["-c", "import ensurepip, venv"], { reject: false });
  if (ready.failed) {
    const environment = { env: { DEBIAN_FRONTEND: "noninteractive" } };
    await execa("apt-get", ["update", "--quiet"], environment);
    const wanted = ["python3", "python3-venv"];
    await execa("apt-get", ["install", "--yes", "--no-install-recommends", ...wanted], environment);
  }
  await rm(folder, { recursive: true, force: true });
  await execa("python3", ["-m", "venv", folder]);
  const pip = ["-m", "pip", "install", "--quiet", "--require-hashes", "--requirement", pins];
  await execa(join(folder, "bin/python"), pip);
  await writeFile(join(folder, "complete"), "");
  return folder;
}

/** Starts a server and waits for its answer; gives what ends it. */
async function startProcess(program: string, args: readonly string[], url: string) {
  const child = execa(program, args, { reject: false, stdin: "ignore", all: true });
  const deadline = Date.now() + PATIENCE_MILLISECONDS;
  while (
    !(await fetch(url).then(
      () => true,
      () => false,
    ))
  ) {
    if (child.exitCode !== null || Date.now() > deadline) {
      child.kill("SIGKILL");
      throw new Error(`${program} gives no answer at ${url}: ${(await child).all}`);
    }
    await setTimeout(100);
  }
  return async () => {
    child.kill("SIGTERM");
    await child;
  };
}

async function freePort(): Promise<number> {
  const listener = createListener();
  await new Promise<void>((resolve) => listener.listen(0, "127.0.0.1", resolve));
  const { port } = listener.address() as AddressInfo;
  await new Promise((resolve) => listener.close(resolve));
  return port;
}
