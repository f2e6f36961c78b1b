import pRetry from "p-retry";
import { z } from "zod";
import type { Digest } from "../release/eligibility";
import { parseJson } from "../release/json";
import { findCredentials, type Credentials } from "./credentials";
import { RegistryError, TagConflictError } from "./errors";
import { checkDigest, digestOf, type Contents, type Descriptor, type Manifest } from "./contents";
import { labelsOf } from "./images";
import { splitRepository } from "./reference";
import type { Registry, RegistryLocation } from "./registry";

/** Every form a manifest may be stored in; a registry converts what is not asked for. */
export const MANIFEST_TYPES = [
  "application/vnd.oci.image.index.v1+json",
  "application/vnd.oci.image.manifest.v1+json",
  "application/vnd.docker.distribution.manifest.list.v2+json",
  "application/vnd.docker.distribution.manifest.v2+json",
].join(", ");

const INDEX_TYPE = "application/vnd.oci.image.index.v1+json";
/** What makes a manifest a referrer. */
const Referrer = z.object({
  subject: z.object({ digest: z.string() }).optional(),
  artifactType: z.string().optional(),
  annotations: z.record(z.string(), z.string()).optional(),
});
const Index = z.object({
  manifests: z.array(
    z.looseObject({
      mediaType: z.string(),
      digest: z.string(),
      size: z.number(),
      artifactType: z.string().optional(),
      annotations: z.record(z.string(), z.string()).optional(),
    }),
  ),
});

/** How many tags at once; registries may give fewer. */
const PAGE = 1000;
const RETRIES = 3;
/** Of one request, in milliseconds. */
const TIMEOUT = 15_000;

/** What goes to this very machine, no network carries. */
const LOOPBACK = /^(localhost|127(\.\d+){3}|\[::1\])(:\d+)?$/;

/**
 * A repository behind the OCI distribution API
 * (https://github.com/opencontainers/distribution-spec/blob/main/spec.md), with basic, bearer or no
 * authentication (https://distribution.github.io/distribution/spec/auth/token/).
 */
export class OciRegistry implements Registry, Contents {
  private readonly host: string;
  private readonly name: string;
  private readonly base: string;
  /** The header that opened the last request; a bearer token serves for its whole lifetime. */
  private authorization: string | undefined;

  constructor(private readonly location: RegistryLocation) {
    const { host, name } = splitRepository(location.repository);
    this.host = host;
    this.name = name;
    this.base = `${location.plainHttp === true ? "http" : "https"}://${host}`;
  }

  async resolve(tag: string): Promise<Digest | undefined> {
    const response = await this.request("HEAD", `manifests/${tag}`, {
      headers: { accept: MANIFEST_TYPES },
    });
    if (response.status === 404) return undefined;
    await this.expect(response, 200, `tag ${tag}`);
    const digest = response.headers.get("docker-content-digest");
    // Some registries leave the header out of HEAD answers; the digest is that of the bytes.
    return digest ?? digestOf((await this.stored(tag)).bytes);
  }

  async tag(digest: Digest, tag: string): Promise<void> {
    const current = await this.resolve(tag);
    if (current === digest) return;
    if (current !== undefined) {
      throw new TagConflictError(this.location.repository, tag, current, digest);
    }
    const manifest = await this.manifest(digest);
    await this.put(manifest, tag);
  }

  async labels(digest: Digest): Promise<Readonly<Record<string, string>>> {
    return labelsOf(this, digest);
  }

  /** Page by page, as the registry links them. */
  async tags(): Promise<string[]> {
    const tags: string[] = [];
    let page: string | undefined = `tags/list?n=${PAGE}`;
    while (page !== undefined) {
      const response: Response = await this.request("GET", page, { headers: {} });
      // A repository that nobody has pushed to is not there.
      if (response.status === 404) return tags;
      await this.expect(response, 200, "the list of tags");
      const body = (await response.json()) as { tags?: string[] | null };
      tags.push(...(body.tags ?? []));
      page = nextPage("tags/list", response.headers.get("link"));
    }
    return tags;
  }

  async manifest(digest: Digest): Promise<Manifest> {
    const manifest = await this.stored(digest);
    checkDigest(digest, manifest.bytes);
    return manifest;
  }

  async blob(digest: Digest): Promise<Uint8Array> {
    const response = await this.request("GET", `blobs/${digest}`, { headers: {} });
    await this.expect(response, 200, digest);
    const bytes = Buffer.from(await response.arrayBuffer());
    checkDigest(digest, bytes);
    return bytes;
  }

  async putBlob(bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    const digest = digestOf(bytes);
    const there = await this.request("HEAD", `blobs/${digest}`, { headers: {} });
    if (there.status === 200) return;
    const begun = await this.request("POST", "blobs/uploads/", { headers: {} });
    await this.expect(begun, 202, `the upload of ${digest}`);
    const upload = new URL(begun.headers.get("location") ?? "", begun.url);
    upload.searchParams.set("digest", digest);
    const headers = { "content-type": "application/octet-stream" };
    const stored = await this.send(upload.href, { method: "PUT", headers, body: bytes });
    await this.expect(stored, 201, digest);
  }

  /**
   * A registry that does not know of subjects finds this one under a tag that the specification
   * gives it (https://github.com/opencontainers/distribution-spec/blob/main/spec.md#referrers-tag-schema).
   */
  async putManifest(manifest: Manifest): Promise<void> {
    const digest = digestOf(manifest.bytes);
    const response = await this.put(manifest, digest);
    const { subject, artifactType, annotations } = Referrer.parse(parseJson(manifest.bytes));
    if (subject === undefined || response.headers.has("oci-subject")) return;
    const former = await this.tagged(subject.digest);
    if (former.some((one) => one.digest === digest)) return;
    const { mediaType, bytes } = manifest;
    const own = { mediaType, digest, size: bytes.length, artifactType, annotations };
    const index = { schemaVersion: 2, mediaType: INDEX_TYPE, manifests: [...former, own] };
    const encoded = new TextEncoder().encode(JSON.stringify(index));
    await this.put({ bytes: encoded, mediaType: INDEX_TYPE }, referrersTag(subject.digest));
  }

  async referrers(subject: Digest, artifactType: string): Promise<readonly Descriptor[]> {
    const found: Descriptor[] = [];
    const path = `referrers/${subject}`;
    let page: string | undefined = `${path}?artifactType=${encodeURIComponent(artifactType)}`;
    while (page !== undefined) {
      const headers = { accept: INDEX_TYPE };
      const response: Response = await this.request("GET", page, { headers });
      if (response.status === 404) {
        found.push(...(await this.tagged(subject)));
        break;
      }
      await this.expect(response, 200, `what refers to ${subject}`);
      found.push(...this.listed(await response.json(), subject));
      page = nextPage(path, response.headers.get("link"));
    }
    // Whether a registry filters is up to it.
    return found.filter((one) => one.artifactType === artifactType);
  }

  /** What the tag for referrers lists. */
  private async tagged(subject: Digest): Promise<readonly Descriptor[]> {
    const tag = referrersTag(subject);
    if ((await this.resolve(tag)) === undefined) return [];
    return this.listed(parseJson((await this.stored(tag)).bytes), subject);
  }

  private listed(index: unknown, subject: Digest): readonly Descriptor[] {
    const parsed = Index.safeParse(index);
    if (parsed.success) return parsed.data.manifests;
    throw new RegistryError(
      `${this.location.repository}: the list of what refers to ${subject} is no OCI index; ` +
        "expected one. Find out who wrote it.",
    );
  }

  /** By a tag or a digest. */
  private async stored(reference: string): Promise<Manifest> {
    const response = await this.request("GET", `manifests/${reference}`, {
      headers: { accept: MANIFEST_TYPES },
    });
    if (response.status === 404) {
      throw new RegistryError(
        `${this.location.repository}: ${reference} does not exist; expected the image that was ` +
          "deployed. Check what the registry cleans up.",
      );
    }
    await this.expect(response, 200, reference);
    const bytes = new Uint8Array(await response.arrayBuffer());
    return { bytes, mediaType: response.headers.get("content-type") ?? "application/json" };
  }

  private async put({ bytes, mediaType }: Manifest, reference: string): Promise<Response> {
    const headers = { "content-type": mediaType };
    const response = await this.request("PUT", `manifests/${reference}`, { headers, body: bytes });
    await this.expect(response, 201, reference);
    return response;
  }

  /**
   * One request to the repository, logging in when asked to and trying again what may pass.
   * @param path in the repository, or from `/` in the registry
   */
  async request(
    method: string,
    path: string,
    init: { headers: Record<string, string>; body?: Uint8Array<ArrayBuffer> },
  ): Promise<Response> {
    const url = path.startsWith("/")
      ? `${this.base}${path}`
      : `${this.base}/v2/${this.name}/${path}`;
    const send = () => this.send(url, { method, ...init });
    const response = await send();
    if (response.status !== 401) return response;
    await this.authenticate(response.headers.get("www-authenticate") ?? "");
    return send();
  }

  private async send(url: string, init: RequestInit): Promise<Response> {
    const headers = new Headers(init.headers);
    // An upload may go elsewhere, which is not to know it; a token's service is.
    const own = url.startsWith(`${this.base}/`) || init.method === "GET";
    if (this.authorization !== undefined && own) headers.set("authorization", this.authorization);
    try {
      return await pRetry(
        async () => {
          const signal = AbortSignal.timeout(TIMEOUT);
          const response = await fetch(url, { ...init, headers, signal });
          if (response.status === 429 || response.status >= 500) {
            throw new Error(`it answered ${response.status} ${response.statusText}`);
          }
          return response;
        },
        { retries: RETRIES, minTimeout: 200, factor: 3 },
      );
    } catch (error) {
      const { message, cause } = error as Error & { cause?: Error & { code?: string } };
      throw new RegistryError(
        `${this.location.repository}: the registry at ${this.base} cannot be reached: ` +
          `${cause?.code ?? cause?.message ?? message}. ` +
          "Check baton:registry, the network and the registry itself, and run the same command again.",
      );
    }
  }

  private async authenticate(challenge: string): Promise<void> {
    const credentials = await findCredentials(this.host);
    if (credentials !== undefined && this.base.startsWith("http:") && !LOOPBACK.test(this.host)) {
      throw this.refused("baton:registry.plainHttp is set, and credentials go over HTTPS only");
    }
    const [scheme = "", ...rest] = challenge.split(" ");
    const parameters = Object.fromEntries(
      [...rest.join(" ").matchAll(/([a-z]+)="([^"]*)"/g)].map(([, key, value]) => [key, value]),
    ) as Record<string, string>;
    if (scheme.toLowerCase() === "bearer" && parameters["realm"] !== undefined) {
      this.authorization = `Bearer ${await this.fetchToken(parameters, credentials)}`;
    } else if (credentials !== undefined) {
      this.authorization = basic(credentials);
    } else {
      throw this.refused("it asks for credentials and none are configured");
    }
  }

  private async fetchToken(
    parameters: Record<string, string>,
    credentials: Credentials | undefined,
  ): Promise<string> {
    const url = new URL(parameters["realm"] ?? "");
    if (this.location.plainHttp !== true && url.protocol !== "https:") {
      throw this.refused(`its token service is ${url.origin}, and credentials go over HTTPS only`);
    }
    if (parameters["service"] !== undefined) url.searchParams.set("service", parameters["service"]);
    url.searchParams.set("scope", `repository:${this.name}:pull,push`);
    this.authorization = credentials === undefined ? undefined : basic(credentials);
    const response = await this.send(url.href, { method: "GET" });
    if (!response.ok) throw this.refused(`its token service answered ${response.status}`);
    const body = (await response.json()) as { token?: string; access_token?: string };
    const token = body.token ?? body.access_token;
    if (token === undefined) throw this.refused("its token service gave no token");
    return token;
  }

  private async expect(response: Response, status: number, what: string): Promise<void> {
    if (response.status === status) return;
    if (response.status === 401 || response.status === 403) {
      throw this.refused(`it answered ${response.status} for ${what}`);
    }
    throw new RegistryError(
      `${this.location.repository}: the registry answered ${response.status} for ${what}; ` +
        `expected ${status}. ${(await response.text()).slice(0, 500)}`.trimEnd(),
    );
  }

  private refused(reason: string): RegistryError {
    return new RegistryError(
      `${this.location.repository}: the registry at ${this.base} refuses access: ${reason}. ` +
        `Log in (\`docker login ${this.host}\`), or set BATON_REGISTRY_HOST to ${this.host}, and ` +
        "BATON_REGISTRY_USERNAME and BATON_REGISTRY_PASSWORD to an account that may read and tag.",
    );
  }
}

/**
 * What follows a page of a list, by its `Link` header (RFC 5988). Only its question is taken: that
 * one goes to this repository, whatever address the registry knows itself by.
 */
function nextPage(path: string, link: string | null): string | undefined {
  const question = /<[^>]*?(\?[^>]*)>\s*;[^,]*\brel="?next\b/i.exec(link ?? "")?.[1];
  return question === undefined ? undefined : `${path}${question}`;
}

function referrersTag(subject: Digest): string {
  return subject.replace(":", "-");
}

function basic({ username, password }: Credentials): string {
  return `Basic ${Buffer.from(`${username}:${password}`).toString("base64")}`;
}
