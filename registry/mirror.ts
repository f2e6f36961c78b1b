import { createHash } from "node:crypto";
import { z } from "zod";
import type { Digest } from "../release/eligibility";
import { parseJson } from "../release/json";
import { digestOf } from "./contents";
import { RegistryError } from "./errors";
import { MANIFEST_TYPES, OciRegistry } from "./oci";
import { splitRepository } from "./reference";
import type { RegistryLocation } from "./registry";

/** So much of a blob is held at once, read in one request and written in one. */
const CHUNK = 8 * 1024 * 1024;

const Descriptor = z.object({
  digest: z.string().regex(/^sha256:[0-9a-f]{64}$/),
  size: z.number().int().nonnegative(),
  /** Where a layer is to be fetched that no registry keeps. */
  urls: z.array(z.string()).optional(),
});
type Descriptor = z.infer<typeof Descriptor>;

/** What a manifest of either kind, image or index, refers to. */
const Manifest = z.object({
  config: Descriptor.optional(),
  layers: z.array(Descriptor).default([]),
  /** The platforms of an index. */
  manifests: z.array(Descriptor).default([]),
});

/**
 * Copies an image, with all the platforms of an index and whatever refers to it (signatures, SBOMs,
 * https://github.com/opencontainers/distribution-spec/blob/main/spec.md#listing-referrers), byte for
 * byte. What is there already is not copied again, so that a copy that was cut off goes on with the
 * blob it had come to; a manifest follows what it refers to, so that none is ever there in part.
 * @throws RegistryError when a registry cannot be asked, refuses, or holds other bytes than it says.
 */
export async function mirror(
  from: RegistryLocation,
  to: RegistryLocation,
  digest: Digest,
  show: (text: string) => void = () => {},
): Promise<void> {
  await new Mirror(from, to, show).image(digest);
}

class Mirror {
  private readonly source: OciRegistry;
  private readonly target: OciRegistry;
  private readonly seen = new Set<Digest>();

  constructor(
    private readonly from: RegistryLocation,
    private readonly to: RegistryLocation,
    private readonly show: (text: string) => void,
  ) {
    this.source = new OciRegistry(from);
    this.target = new OciRegistry(to);
  }

  async image(digest: Digest): Promise<void> {
    if (this.seen.has(digest)) return;
    this.seen.add(digest);
    if (!(await this.has(`manifests/${digest}`))) await this.manifest(digest);
    // Given later than the image, perhaps.
    for (const { digest: referrer } of await this.referrers(digest)) await this.image(referrer);
  }

  private async manifest(digest: Digest): Promise<void> {
    const answer = await this.ask(this.source, "GET", `manifests/${digest}`, [200], {
      headers: { accept: MANIFEST_TYPES },
    });
    const bytes = Buffer.from(await answer.arrayBuffer());
    this.verify(digest, digestOf(bytes));
    const { config, layers, manifests } = this.parse(digest, bytes);
    for (const platform of manifests) await this.image(platform.digest);
    for (const blob of [...(config === undefined ? [] : [config]), ...layers]) {
      if (blob.urls === undefined) await this.blob(blob);
    }
    const type = answer.headers.get("content-type") ?? "application/json";
    await this.ask(this.target, "PUT", `manifests/${digest}`, [201], {
      headers: { "content-type": type },
      body: bytes,
    });
    this.show(`copied ${digest}`);
  }

  private async blob({ digest, size }: Descriptor): Promise<void> {
    if (await this.has(`blobs/${digest}`)) return;
    this.show(`copies ${digest}, ${(size / 1024 / 1024).toFixed(1)} MiB`);
    const begun = await this.ask(this.target, "POST", this.uploads(digest), [201, 202], {});
    // Where both repositories are the registry's own, it needs no copy.
    if (begun.status === 201) return;
    let location = this.locationOf(begun);
    const hash = createHash("sha256");
    for (let start = 0; start < size;) {
      const piece = await this.read(digest, start, Math.min(start + CHUNK, size) - 1);
      hash.update(piece);
      const end = start + piece.length;
      const answer = await this.ask(this.target, "PATCH", location, [202], {
        headers: {
          "content-type": "application/octet-stream",
          "content-range": `${start}-${end - 1}`,
        },
        body: piece,
      });
      location = this.locationOf(answer);
      start = end;
    }
    this.verify(digest, `sha256:${hash.digest("hex")}`);
    const separator = location.includes("?") ? "&" : "?";
    const ended = `${location}${separator}digest=${encodeURIComponent(digest)}`;
    await this.ask(this.target, "PUT", ended, [201], {});
  }

  /** Some bytes of a blob, or all of what follows where a registry gives no parts. */
  private async read(digest: Digest, start: number, end: number): Promise<Buffer<ArrayBuffer>> {
    const answer = await this.ask(this.source, "GET", `blobs/${digest}`, [200, 206], {
      headers: { range: `bytes=${start}-${end}` },
    });
    const bytes = Buffer.from(await answer.arrayBuffer());
    const piece = answer.status === 206 ? bytes : bytes.subarray(start);
    if (piece.length > 0) return piece;
    throw new RegistryError(
      `${this.from.repository}: blob ${digest} ends at byte ${start}, before its end. ` +
        "Find out what happened to it in that registry.",
    );
  }

  private async referrers(digest: Digest): Promise<readonly Descriptor[]> {
    const answer = await this.source.request("GET", `referrers/${digest}`, { headers: {} });
    // Registries that know none of them say so in one way or another.
    if (answer.status !== 200) return [];
    const bytes = Buffer.from(await answer.arrayBuffer());
    return this.parse(digest, bytes).manifests;
  }

  private uploads(digest: Digest): string {
    const [from, to] = [splitRepository(this.from.repository), splitRepository(this.to.repository)];
    const mount = `?mount=${encodeURIComponent(digest)}&from=${encodeURIComponent(from.name)}`;
    return `blobs/uploads/${from.host === to.host ? mount : ""}`;
  }

  private async has(path: string): Promise<boolean> {
    const headers = { accept: MANIFEST_TYPES };
    const answer = await this.ask(this.target, "HEAD", path, [200, 404], { headers });
    return answer.status === 200;
  }

  /** Where an upload goes on: only the path, as a registry behind a proxy may not know its name. */
  private locationOf(answer: Response): string {
    const location = answer.headers.get("location");
    if (location === null) {
      throw new RegistryError(
        `${this.to.repository}: the registry does not say where an upload goes on; expected a Location. ` +
          "Look into its log.",
      );
    }
    const { pathname, search } = new URL(location, "http://registry");
    return pathname + search;
  }

  private async ask(
    registry: OciRegistry,
    method: string,
    path: string,
    statuses: readonly number[],
    init: { headers?: Record<string, string>; body?: Uint8Array<ArrayBuffer> },
  ): Promise<Response> {
    const answer = await registry.request(method, path, { headers: {}, ...init });
    if (statuses.includes(answer.status)) return answer;
    const { repository } = registry === this.source ? this.from : this.to;
    const what = path.split("?")[0] ?? path;
    throw new RegistryError(
      `${repository}: the registry answered ${answer.status} for ${method} ${what}; ` +
        `expected ${statuses.join(" or ")}. ${(await answer.text()).slice(0, 300)}`.trimEnd(),
    );
  }

  private parse(digest: Digest, bytes: Buffer): z.infer<typeof Manifest> {
    const parsed = Manifest.safeParse(parseJson(bytes));
    if (parsed.success) return parsed.data;
    throw new RegistryError(
      `${this.from.repository}: ${digest} is no image and no index; expected a manifest. ` +
        "Push it again.",
    );
  }

  private verify(wanted: Digest, found: Digest): void {
    if (wanted === found) return;
    throw new RegistryError(
      `${this.from.repository}: ${wanted} has the content of ${found}; ` +
        "expected the bytes it is named by. Do not use this registry until that is explained.",
    );
  }
}
