import type { ECRClient } from "@aws-sdk/client-ecr";
import type { Digest } from "../release/eligibility";
import { ecrError } from "./ecr-errors";
import { RegistryError, TagConflictError } from "./errors";
import { checkDigest, labelsOf } from "./labels";
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
export class EcrRegistry implements Registry {
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
    const { imageManifest, imageManifestMediaType } = await this.existing(digest);
    const { PutImageCommand } = await import("@aws-sdk/client-ecr");
    try {
      await (
        await this.connect()
      ).send(
        new PutImageCommand({
          ...this.repository,
          imageManifest,
          imageManifestMediaType,
          imageDigest: digest,
          imageTag: tag,
        }),
      );
    } catch (error) {
      // Somebody else was faster. Whether with this image or another, the registry itself knows.
      if (TAKEN.test((error as Error).name) && (await this.holds(digest, tag))) return;
      throw this.failed(error as Error);
    }
  }

  async labels(digest: Digest): Promise<Readonly<Record<string, string>>> {
    return labelsOf(digest, {
      manifest: async (one) => Buffer.from((await this.existing(one)).imageManifest),
      blob: async (one) => this.download(one),
    });
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

  /** An image's configuration is to ECR one of its layers. */
  private async download(digest: Digest): Promise<Uint8Array> {
    const { GetDownloadUrlForLayerCommand } = await import("@aws-sdk/client-ecr");
    try {
      const { downloadUrl = "" } = await (
        await this.connect()
      ).send(new GetDownloadUrlForLayerCommand({ ...this.repository, layerDigest: digest }));
      const response = await fetch(downloadUrl, { signal: AbortSignal.timeout(TIMEOUT) });
      if (!response.ok) throw new Error(`the download of ${digest} answered ${response.status}`);
      return Buffer.from(await response.arrayBuffer());
    } catch (error) {
      throw this.failed(error as Error);
    }
  }

  /** @throws RegistryError when there is no such image, or it is not what its digest says. */
  private async existing(digest: Digest) {
    const image = await this.image({ imageDigest: digest });
    const { imageManifest, imageManifestMediaType } = image ?? {};
    if (imageManifest === undefined) {
      throw new RegistryError(
        `${this.location.repository}: ${digest} does not exist in ${this.region}; expected the ` +
          "image that was deployed. Check the repository's lifecycle policy, and if the image was " +
          "pushed in another region, its replication: it takes minutes, and leaves out what was " +
          "pushed before it was set up.",
      );
    }
    checkDigest(digest, Buffer.from(imageManifest));
    return { imageManifest, imageManifestMediaType };
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
