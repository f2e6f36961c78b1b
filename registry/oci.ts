import { createHash } from "node:crypto";
import pRetry from "p-retry";
import type { Digest } from "../release/eligibility";
import { findCredentials, type Credentials } from "./credentials";
import { RegistryError, TagConflictError } from "./errors";
import { labelsOf } from "./labels";
import { splitRepository } from "./reference";
import type { Registry, RegistryLocation } from "./registry";

/** Every form a manifest may be stored in; a registry converts what is not asked for. */
const MANIFEST_TYPES = [
  "application/vnd.oci.image.index.v1+json",
  "application/vnd.oci.image.manifest.v1+json",
  "application/vnd.docker.distribution.manifest.list.v2+json",
  "application/vnd.docker.distribution.manifest.v2+json",
].join(", ");

/** How many tags at once; registries may give fewer. */
const PAGE = 1000;
const RETRIES = 3;
/** Of one request, in milliseconds. */
const TIMEOUT = 15_000;

/**
 * A repository behind the OCI distribution API
 * (https://github.com/opencontainers/distribution-spec/blob/main/spec.md), with basic, bearer or no
 * authentication (https://distribution.github.io/distribution/spec/auth/token/).
 */
export class OciRegistry implements Registry {
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
    return digest ?? (await this.manifest(tag)).digest;
  }

  async tag(digest: Digest, tag: string): Promise<void> {
    const current = await this.resolve(tag);
    if (current === digest) return;
    if (current !== undefined) {
      throw new TagConflictError(this.location.repository, tag, current, digest);
    }
    const manifest = await this.manifest(digest);
    if (manifest.digest !== digest) {
      throw new RegistryError(
        `${this.location.repository}: manifest ${digest} has the content of ${manifest.digest}; ` +
          "expected the bytes it is named by. Do not use this registry until that is explained.",
      );
    }
    const response = await this.request("PUT", `manifests/${tag}`, {
      headers: { "content-type": manifest.mediaType },
      body: manifest.bytes,
    });
    await this.expect(response, 201, `tag ${tag}`);
  }

  async labels(digest: Digest): Promise<Readonly<Record<string, string>>> {
    return labelsOf(digest, {
      manifest: async (one) => (await this.manifest(one)).bytes,
      blob: async (one) => {
        const response = await this.request("GET", `blobs/${one}`, { headers: {} });
        await this.expect(response, 200, one);
        return Buffer.from(await response.arrayBuffer());
      },
    });
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
      page = nextPage(response.headers.get("link"));
    }
    return tags;
  }

  private async manifest(reference: string) {
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
    const bytes = Buffer.from(await response.arrayBuffer());
    const mediaType = response.headers.get("content-type") ?? "application/json";
    const digest = `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
    return { bytes, mediaType, digest };
  }

  /** One request to the repository, logging in when asked to and trying again what may pass. */
  private async request(
    method: string,
    path: string,
    init: { headers: Record<string, string>; body?: Uint8Array<ArrayBuffer> },
  ): Promise<Response> {
    const url = `${this.base}/v2/${this.name}/${path}`;
    const send = () => this.send(url, { method, ...init });
    const response = await send();
    if (response.status !== 401) return response;
    await this.authenticate(response.headers.get("www-authenticate") ?? "");
    return send();
  }

  private async send(url: string, init: RequestInit): Promise<Response> {
    const headers = new Headers(init.headers);
    if (this.authorization !== undefined) headers.set("authorization", this.authorization);
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
        `Log in (\`docker login ${this.host}\`) or set BATON_REGISTRY_USERNAME and ` +
        "BATON_REGISTRY_PASSWORD to an account that may read and tag.",
    );
  }
}

/**
 * What follows a page of tags, by its `Link` header (RFC 5988). Only its question is taken: that
 * one goes to this repository, whatever address the registry knows itself by.
 */
function nextPage(link: string | null): string | undefined {
  const question = /<[^>]*?(\?[^>]*)>\s*;[^,]*\brel="?next\b/i.exec(link ?? "")?.[1];
  return question === undefined ? undefined : `tags/list${question}`;
}

function basic({ username, password }: Credentials): string {
  return `Basic ${Buffer.from(`${username}:${password}`).toString("base64")}`;
}
