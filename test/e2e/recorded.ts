import type { KubeConfig } from "@kubernetes/client-node";
import { readFile } from "node:fs/promises";
import { request } from "node:https";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { gunzipSync } from "node:zlib";
import { openRegistry, type RegistryLocation } from "../../registry/registry";
import type { Digest } from "../../release/eligibility";
import { ROOT } from "../../sandbox/folder";

export const FIXTURE = join(ROOT, "test/fixtures/former-provider");

/** An object as the API server returned it, with the path of the collection it belongs to. */
export interface RecordedObject {
  readonly path: string;
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: {
    readonly name: string;
    readonly namespace?: string;
    readonly labels?: Readonly<Record<string, string>>;
    readonly annotations?: Readonly<Record<string, string>>;
    readonly managedFields?: readonly {
      readonly manager?: string;
      readonly subresource?: string;
    }[];
    readonly uid?: string;
    readonly [key: string]: unknown;
  };
  readonly spec?: Readonly<Record<string, unknown>>;
  readonly status?: unknown;
  readonly [key: string]: unknown;
}

/** The content of `recorded.json.gz`; see the README beside it. */
export interface Recorded {
  /** By environment: `pulumi stack export`, and all objects of its namespace. */
  readonly environments: Readonly<
    Record<string, { readonly state: unknown; readonly objects: readonly RecordedObject[] }>
  >;
  /** The digests that the repository's tags name. */
  readonly tags: Readonly<Record<string, Digest>>;
  /** Manifests, image configs and layers by digest, in base64. */
  readonly contents: Readonly<Record<string, string>>;
}

export async function readRecorded(): Promise<Recorded> {
  const bytes = gunzipSync(await readFile(join(FIXTURE, "recorded.json.gz")));
  return JSON.parse(bytes.toString()) as Recorded;
}

/** Pushes every recorded image under every tag that it had. */
export async function pushRecorded(
  { tags, contents }: Pick<Recorded, "tags" | "contents">,
  location: RegistryLocation,
): Promise<void> {
  const registry = openRegistry(location);
  const manifests = new Set<string>(Object.values(tags));
  const bytesOf = (digest: string) =>
    Uint8Array.from(Buffer.from(contents[digest] ?? "", "base64"));
  const others = Object.keys(contents).filter((digest) => !manifests.has(digest));
  await Promise.all(others.map((digest) => registry.putBlob(bytesOf(digest))));
  for (const digest of manifests) {
    const bytes = bytesOf(digest);
    const { mediaType } = JSON.parse(Buffer.from(bytes).toString()) as { mediaType: string };
    await registry.putManifest({ bytes, mediaType });
  }
  for (const [tag, digest] of Object.entries(tags)) await registry.tag(digest, tag);
}

/** The API server, spoken to without the client's models, which would change what was recorded. */
export class ApiServer {
  constructor(private readonly kubeconfig: KubeConfig) {}

  async ask<T>(method: string, path: string, body?: unknown, type = "json"): Promise<T> {
    const url = new URL(path, this.kubeconfig.getCurrentCluster()?.server);
    const headers = { accept: "application/json", "content-type": `application/${type}` };
    const options = { method, headers };
    await this.kubeconfig.applyToHTTPSOptions(options);
    const [status, answer] = await new Promise<[number, string]>((resolve, reject) => {
      const asked = request(url, options, (response) => {
        text(response).then((all) => resolve([response.statusCode ?? 0, all]), reject);
      });
      asked.on("error", reject).end(body === undefined ? undefined : JSON.stringify(body));
    });
    if (status >= 300) throw new Error(`${method} ${path} answers ${status}: ${answer}`);
    return JSON.parse(answer) as T;
  }

  /** Makes recorded objects again, in the order in which they need each other. */
  async load(objects: readonly RecordedObject[]): Promise<void> {
    const rankOf = ({ kind }: RecordedObject) => {
      const rank = RANKS.indexOf(kind);
      return rank < 0 ? RANKS.indexOf("") : rank;
    };
    for (const rank of RANKS.keys()) {
      const those = objects.filter((object) => rankOf(object) === rank);
      await Promise.all(those.map((object) => this.make(object)));
    }
  }

  /**
   * Makes one recorded object again: without fields that the API server itself sets, and with the
   * managers of its fields as recorded.
   */
  private async make(object: RecordedObject): Promise<void> {
    const { path, status, kind, metadata } = object;
    const at = `${path}/${metadata.name}`;
    const { spec } = object;
    await this.ask("POST", path, {
      ...object,
      path: undefined,
      status: undefined,
      metadata: {
        ...metadata,
        ...cleared(["uid", "resourceVersion", "creationTimestamp", "generation", "managedFields"]),
        // The owner has another uid now, and adopts what its selector finds.
        ownerReferences: undefined,
        labels: without(metadata.labels, SET_LABELS),
        annotations: without(metadata.annotations, SET_ANNOTATIONS),
      },
      ...(spec === undefined ? {} : { spec: specOf(kind, spec) }),
    });
    if (kind === "Job") {
      // A Job that has ended does not run again.
      await this.ask("PATCH", `${at}/status`, { status }, MERGE);
      await this.ask("PATCH", at, { spec: { suspend: false } }, MERGE);
    }
    const value = (metadata.managedFields ?? []).filter(({ subresource }) => !subresource);
    const managers = [{ op: "replace", path: "/metadata/managedFields", value }];
    await this.ask("PATCH", at, managers, "json-patch+json");
  }
}

const MERGE = "merge-patch+json";

/** Kinds that must be there before others; the empty name stands for all others. */
const RANKS = ["Namespace", "Secret", "ServiceAccount", "", "ReplicaSet", "Deployment"];

/** Labels and annotations that controllers set. */
const SET_LABELS = /controller-uid$/;
const SET_ANNOTATIONS = /^pv\.kubernetes\.io\/|^deployment\.kubernetes\.io\/revision-history/;

function specOf(kind: string, spec: Readonly<Record<string, unknown>>): object {
  switch (kind) {
    case "Service":
      return { ...spec, ...cleared(["clusterIP", "clusterIPs"]) };
    case "PersistentVolumeClaim":
      return { ...spec, volumeName: undefined };
    case "Job": {
      const { template, ...rest } = spec as { template: Pick<RecordedObject, "metadata" | "spec"> };
      const { metadata } = template;
      const labels = without(metadata.labels, SET_LABELS);
      return {
        ...rest,
        selector: undefined,
        suspend: true,
        template: { ...template, metadata: { ...metadata, labels } },
      };
    }
    default:
      return spec;
  }
}

function cleared(keys: readonly string[]): Record<string, undefined> {
  return Object.fromEntries(keys.map((key) => [key, undefined]));
}

function without(
  entries: Readonly<Record<string, string>> | undefined,
  pattern: RegExp,
): Record<string, string> | undefined {
  return (
    entries && Object.fromEntries(Object.entries(entries).filter(([key]) => !pattern.test(key)))
  );
}
