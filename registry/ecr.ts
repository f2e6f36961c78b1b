import type { ECRClient } from "@aws-sdk/client-ecr";
import type { Digest } from "../release/eligibility";
import { RegistryError, TagConflictError } from "./errors";
import { labelsOf } from "./labels";
import { splitRepository } from "./reference";
import type { Registry, RegistryLocation } from "./registry";

/** `<account>.dkr.ecr.<region>.amazonaws.com`, also of the China and FIPS endpoints. */
const ECR_HOST = /^(\d{12})\.dkr\.ecr(?:-fips)?\.([a-z0-9-]+)\.amazonaws\.com(?:\.cn)?$/;

/** The parts of an ECR registry's host name; `undefined` when it is not one. */
export function parseEcrHost(host: string): { account: string; region: string } | undefined {
  const match = ECR_HOST.exec(host);
  return match?.[1] && match[2] ? { account: match[1], region: match[2] } : undefined;
}

/** Of one download, in milliseconds. */
const TIMEOUT = 15_000;

/**
 * A repository of Amazon ECR. Credentials come from the AWS SDK's default chain. Tagging is
 * BatchGetImage and PutImage with the same bytes
 * (https://docs.aws.amazon.com/AmazonECR/latest/userguide/image-retag.html).
 */
export class EcrRegistry implements Registry {
  private readonly account: string;
  private readonly region: string;
  private readonly name: string;
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
    this.account = parsed.account;
    this.region = parsed.region;
    this.name = name;
  }

  async resolve(tag: string): Promise<Digest | undefined> {
    return (await this.image({ imageTag: tag }))?.imageId?.imageDigest;
  }

  async tag(digest: Digest, tag: string): Promise<void> {
    const current = await this.resolve(tag);
    if (current === digest) return;
    if (current !== undefined) {
      throw new TagConflictError(this.location.repository, tag, current, digest);
    }
    const image = await this.existing(digest);
    const { PutImageCommand } = await import("@aws-sdk/client-ecr");
    try {
      await (
        await this.connect()
      ).send(
        new PutImageCommand({
          registryId: this.account,
          repositoryName: this.name,
          imageManifest: image.imageManifest,
          imageManifestMediaType: image.imageManifestMediaType,
          imageDigest: digest,
          imageTag: tag,
        }),
      );
    } catch (error) {
      const { name } = error as Error;
      // The same image under the same tag: somebody else has just earned it.
      if (name === "ImageAlreadyExistsException") return;
      if (name === "ImageTagAlreadyExistsException") {
        const other = (await this.resolve(tag)) ?? "another image";
        throw new TagConflictError(this.location.repository, tag, other, digest);
      }
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
          registryId: this.account,
          repositoryName: this.name,
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

  /** An image's configuration is to ECR one of its layers. */
  private async download(digest: Digest): Promise<Uint8Array> {
    const { GetDownloadUrlForLayerCommand } = await import("@aws-sdk/client-ecr");
    try {
      const { downloadUrl = "" } = await (
        await this.connect()
      ).send(
        new GetDownloadUrlForLayerCommand({
          registryId: this.account,
          repositoryName: this.name,
          layerDigest: digest,
        }),
      );
      const response = await fetch(downloadUrl, { signal: AbortSignal.timeout(TIMEOUT) });
      if (!response.ok) throw new Error(`the download of ${digest} answered ${response.status}`);
      return Buffer.from(await response.arrayBuffer());
    } catch (error) {
      throw this.failed(error as Error);
    }
  }

  /** @throws RegistryError when there is no such image. */
  private async existing(digest: Digest) {
    const image = await this.image({ imageDigest: digest });
    const { imageManifest, imageManifestMediaType } = image ?? {};
    if (imageManifest !== undefined) return { imageManifest, imageManifestMediaType };
    throw new RegistryError(
      `${this.location.repository}: ${digest} does not exist; expected the image that was ` +
        "deployed. Check the repository's lifecycle policy.",
    );
  }

  /** `acceptedMediaTypes` stays unset: its documented values leave indexes out. */
  private async image(imageId: { imageTag?: string; imageDigest?: string }) {
    const { BatchGetImageCommand } = await import("@aws-sdk/client-ecr");
    try {
      const answer = await (
        await this.connect()
      ).send(
        new BatchGetImageCommand({
          registryId: this.account,
          repositoryName: this.name,
          imageIds: [imageId],
        }),
      );
      const failure = answer.failures?.[0];
      if (failure !== undefined && failure.failureCode !== "ImageNotFound") {
        throw new Error(`${failure.failureCode}: ${failure.failureReason}`);
      }
      return answer.images?.[0];
    } catch (error) {
      if ((error as Error).name === "RepositoryNotFoundException") return undefined;
      throw this.failed(error as Error);
    }
  }

  /** The SDK is loaded here: a run against another registry never pays for it. */
  private async connect(): Promise<ECRClient> {
    const { ECRClient } = await import("@aws-sdk/client-ecr");
    this.client ??= new ECRClient({ region: this.region });
    return this.client;
  }

  private failed(error: Error): RegistryError {
    return new RegistryError(
      `${this.location.repository}: ECR in ${this.region} cannot be asked: ${error.name}: ` +
        `${error.message}. Check the AWS credentials and their rights to ecr:BatchGetImage, ` +
        "ecr:GetDownloadUrlForLayer, ecr:ListImages and ecr:PutImage, and run the same command again.",
    );
  }
}
