import type { ECRClient } from "@aws-sdk/client-ecr";
import type { Digest } from "../release/eligibility";
import type { ScanAnswer } from "../release/scan";
import { ecrError } from "./ecr-errors";
import { RegistryError, TagConflictError } from "./errors";
import { checkDigest, digestOf, type Contents, type Descriptor, type Manifest } from "./contents";
import { labelsOf } from "./images";
import { readEcrScan } from "./ecr-scan";
import { splitRepository } from "./reference";
import type { Registry, RegistryLocation } from "./registry";

/** `<account>.dkr.ecr.<region>.amazonaws.com`, also of the China and FIPS endpoints. */
const ECR_HOST = /^(\d{12})\.dkr\.ecr(?:-fips)?\.([a-z0-9-]+)\.amazonaws\.com(?:\.cn)?$/;

/** The parts of an ECR registry's host name; `undefined` when it is not one. */
export function parseEcrHost(host: string): { account: string; region: string } | undefined {
  const match = ECR_HOST.exec(host);
  return match?.[1] && match[2] ? { account: match[1], region: match[2] } : undefined;
}

/** Of one request, in milliseconds. */
const TIMEOUT = 15_000;
/** The tag is there by now. The two differ in whose image it names. */
const TAKEN = /^Image(Tag)?AlreadyExistsException$/;

/**
 * A repository of Amazon ECR. Credentials come from the AWS SDK's default chain. Tagging is
 * BatchGetImage and PutImage with the same bytes
 * (https://docs.aws.amazon.com/AmazonECR/latest/userguide/image-retag.html).
 */
export class EcrRegistry implements Registry, Contents {
  private readonly region: string;
  private readonly repository: { readonly registryId: string; readonly repositoryName: string };
  private client: ECRClient | undefined;

  constructor(private readonly location: RegistryLocation) {
    const { host, name } = splitRepository(location.repository);
    const parsed = parseEcrHost(host);
    if (parsed === undefined) {
      throw new RegistryError(
        `${location.repository}: is not an ECR repository; expected ` +
          "ACCOUNT.dkr.ecr.REGION.amazonaws.com/NAME. Correct baton:registry, or set its kind to oci.",
      );
    }
    this.region = parsed.region;
    this.repository = { registryId: parsed.account, repositoryName: name };
  }

  async resolve(tag: string): Promise<Digest | undefined> {
    return (await this.image({ imageTag: tag }))?.imageId?.imageDigest;
  }

  async tag(digest: Digest, tag: string): Promise<void> {
    if (await this.holds(digest, tag)) return;
    const manifest = await this.manifest(digest);
    try {
      await this.put(manifest, tag);
    } catch (error) {
      // Somebody else was faster. Whether with this image or another, the registry itself knows.
      if (TAKEN.test((error as Error).name) && (await this.holds(digest, tag))) return;
      throw this.failed(error as Error);
    }
  }

  async labels(digest: Digest): Promise<Readonly<Record<string, string>>> {
    return labelsOf(this, digest);
  }

  async tags(): Promise<string[]> {
    const { paginateListImages } = await import("@aws-sdk/client-ecr");
    const tags: string[] = [];
    try {
      const pages = paginateListImages(
        { client: await this.connect() },
        {
          ...this.repository,
          filter: { tagStatus: "TAGGED" },
        },
      );
      for await (const { imageIds = [] } of pages) {
        tags.push(...imageIds.flatMap(({ imageTag }) => imageTag ?? []));
      }
      return tags;
    } catch (error) {
      if ((error as Error).name === "RepositoryNotFoundException") return [];
      throw this.failed(error as Error);
    }
  }

  /**
   * Whether a tag names a digest; not when nobody has given it.
   * @throws TagConflictError when it names another.
   */
  private async holds(digest: Digest, tag: string): Promise<boolean> {
    const current = await this.resolve(tag);
    if (current === undefined || current === digest) return current === digest;
    throw new TagConflictError(this.location.repository, tag, current, digest);
  }

  async manifest(digest: Digest): Promise<Manifest> {
    const image = await this.image({ imageDigest: digest });
    const { imageManifest, imageManifestMediaType = "" } = image ?? {};
    if (imageManifest === undefined) throw this.missing(digest);
    const bytes = new TextEncoder().encode(imageManifest);
    checkDigest(digest, bytes);
    return { bytes, mediaType: imageManifestMediaType };
  }

  async putManifest(manifest: Manifest): Promise<void> {
    if ((await this.image({ imageDigest: digestOf(manifest.bytes) })) !== undefined) return;
    await this.put(manifest).catch((error: unknown) => {
      if (!TAKEN.test((error as Error).name)) throw this.failed(error as Error);
    });
  }

  /** An image's configuration is to ECR one of its layers, and so is any other blob. */
  async blob(digest: Digest): Promise<Uint8Array> {
    const { GetDownloadUrlForLayerCommand } = await import("@aws-sdk/client-ecr");
    try {
      const { downloadUrl = "" } = await (
        await this.connect()
      ).send(new GetDownloadUrlForLayerCommand({ ...this.repository, layerDigest: digest }));
      const response = await fetch(downloadUrl, { signal: AbortSignal.timeout(TIMEOUT) });
      if (!response.ok) throw new Error(`the download of ${digest} answered ${response.status}`);
      const bytes = Buffer.from(await response.arrayBuffer());
      checkDigest(digest, bytes);
      return bytes;
    } catch (error) {
      throw this.failed(error as Error);
    }
  }

  async putBlob(bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    const {
      BatchCheckLayerAvailabilityCommand,
      InitiateLayerUploadCommand,
      UploadLayerPartCommand,
      CompleteLayerUploadCommand,
    } = await import("@aws-sdk/client-ecr");
    const layerDigests = [digestOf(bytes)];
    try {
      const client = await this.connect();
      const check = new BatchCheckLayerAvailabilityCommand({ ...this.repository, layerDigests });
      const { layers = [] } = await client.send(check);
      if (layers.some(({ layerAvailability }) => layerAvailability === "AVAILABLE")) return;
      const initiate = new InitiateLayerUploadCommand(this.repository);
      const { uploadId, partSize = bytes.length } = await client.send(initiate);
      for (let first = 0; first < bytes.length; first += partSize) {
        const layerPartBlob = bytes.subarray(first, first + partSize);
        const partLastByte = first + layerPartBlob.length - 1;
        const part = { uploadId, partFirstByte: first, partLastByte, layerPartBlob };
        await client.send(new UploadLayerPartCommand({ ...this.repository, ...part }));
      }
      const whole = { ...this.repository, uploadId, layerDigests };
      await client.send(new CompleteLayerUploadCommand(whole)).catch((error: unknown) => {
        // Somebody else was faster, with the same bytes.
        if ((error as Error).name !== "LayerAlreadyExistsException") throw error;
      });
    } catch (error) {
      throw this.failed(error as Error);
    }
  }

  async referrers(subject: Digest, artifactType: string): Promise<readonly Descriptor[]> {
    const { ListImageReferrersCommand } = await import("@aws-sdk/client-ecr");
    const subjectId = { imageDigest: subject };
    const filter = { artifactTypes: [artifactType] };
    const found: Descriptor[] = [];
    let nextToken: string | undefined;
    try {
      do {
        const asked = { ...this.repository, subjectId, filter, nextToken };
        const answer = await (await this.connect()).send(new ListImageReferrersCommand(asked));
        for (const { digest = "", mediaType = "", size = 0, ...rest } of answer.referrers ?? []) {
          found.push({ digest, mediaType, size, ...rest });
        }
        nextToken = answer.nextToken;
      } while (nextToken !== undefined);
      return found;
    } catch (error) {
      throw this.failed(error as Error);
    }
  }

  /**
   * What ECR's own scan has found in an image; an index has none, but its platforms have.
   * @throws RegistryError when ECR cannot be asked, or has no such image.
   */
  async scan(digest: Digest): Promise<ScanAnswer> {
    const { paginateDescribeImageScanFindings } = await import("@aws-sdk/client-ecr");
    const pages = [];
    try {
      const asked = { ...this.repository, imageId: { imageDigest: digest } };
      const client = await this.connect();
      for await (const page of paginateDescribeImageScanFindings({ client }, asked)) {
        pages.push(page);
      }
      return readEcrScan(pages);
    } catch (error) {
      const { name } = error as Error;
      if (name === "ImageNotFoundException") throw this.missing(digest);
      if (name !== "ScanNotFoundException") throw this.failed(error as Error);
      return {
        state: "missing",
        says: `missing: ECR in ${this.region} has not scanned the image`,
        fix: "Turn on scanning for the repository, and start it with `aws ecr start-image-scan`",
      };
    }
  }

  private async put({ bytes, mediaType }: Manifest, tag?: string): Promise<void> {
    const { PutImageCommand } = await import("@aws-sdk/client-ecr");
    await (
      await this.connect()
    ).send(
      new PutImageCommand({
        ...this.repository,
        imageManifest: Buffer.from(bytes).toString("utf8"),
        imageManifestMediaType: mediaType,
        imageDigest: digestOf(bytes),
        imageTag: tag,
      }),
    );
  }

  private missing(digest: Digest): RegistryError {
    return new RegistryError(
      `${this.location.repository}: ${digest} does not exist in ${this.region}; expected the ` +
        "image that was deployed. Check the repository's lifecycle policy, and if the image was " +
        "pushed in another region, its replication: it takes minutes, and leaves out what was " +
        "pushed before it was set up.",
    );
  }

  /** `acceptedMediaTypes` stays unset: its documented values leave indexes out. */
  private async image(imageId: { imageTag?: string; imageDigest?: string }) {
    const { BatchGetImageCommand } = await import("@aws-sdk/client-ecr");
    try {
      const answer = await (
        await this.connect()
      ).send(new BatchGetImageCommand({ ...this.repository, imageIds: [imageId] }));
      const failure = answer.failures?.[0];
      if (failure !== undefined && failure.failureCode !== "ImageNotFound") {
        throw new Error(`${failure.failureCode}: ${failure.failureReason}`);
      }
      return answer.images?.[0];
    } catch (error) {
      // Before the first build, and in another region before the first image has reached it.
      if ((error as Error).name === "RepositoryNotFoundException") return undefined;
      throw this.failed(error as Error);
    }
  }

  /**
   * The SDK is loaded here: a run against another registry never pays for it. It tries again by
   * itself what may pass, as often as `AWS_MAX_ATTEMPTS` says.
   */
  private async connect(): Promise<ECRClient> {
    const { ECRClient } = await import("@aws-sdk/client-ecr");
    this.client ??= new ECRClient({
      region: this.region,
      // Its own limits are none at all.
      requestHandler: { connectionTimeout: 5_000, requestTimeout: TIMEOUT },
    });
    return this.client;
  }

  private failed(error: Error): RegistryError {
    return ecrError(error, this.location.repository, this.region);
  }
}
