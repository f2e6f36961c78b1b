import * as assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { openRegistry } from "../../registry/registry";

const digestOf = (text: string) => `sha256:${createHash("sha256").update(text).digest("hex")}`;

/** Labels and tags only: what else ECR does is the same calls that AWS documents. */
describe("Amazon ECR", () => {
  let server: Server;
  let url: string;
  /** What it holds, by digest. */
  let contents: Map<string, string>;
  const environment = { ...process.env };
  const repository = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/podinfo";

  beforeEach(async () => {
    contents = new Map();
    server = createServer((request, response) => {
      let body = "";
      request.on("data", (chunk: Buffer) => (body += chunk.toString()));
      request.on("end", () => {
        const action = String(request.headers["x-amz-target"]).split(".")[1];
        if (request.method === "GET") {
          const blob = contents.get(request.url?.slice(1) ?? "");
          response.writeHead(blob === undefined ? 403 : 200).end(blob);
          return;
        }
        response.setHeader("content-type", "application/x-amz-json-1.1");
        response.end(JSON.stringify(answer(action, JSON.parse(body) as Question)));
      });
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    process.env["AWS_ENDPOINT_URL_ECR"] = url;
    process.env["AWS_ACCESS_KEY_ID"] = "key";
    process.env["AWS_SECRET_ACCESS_KEY"] = "secret";
  });
  afterEach(async () => {
    process.env = { ...environment };
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });

  interface Question {
    readonly imageIds?: { imageDigest: string }[];
    readonly layerDigest?: string;
    readonly nextToken?: string;
  }

  function answer(action: string | undefined, question: Question): object {
    const { imageIds, layerDigest, nextToken } = question;
    if (action === "ListImages") {
      const imageIdsOf = (...tags: string[]) => tags.map((imageTag) => ({ imageTag }));
      return nextToken === undefined
        ? { imageIds: imageIdsOf("build-1", "dev-1"), nextToken: "more" }
        : { imageIds: imageIdsOf("qa-1") };
    }
    if (action === "GetDownloadUrlForLayer") return { downloadUrl: `${url}/${layerDigest ?? ""}` };
    assert.equal(action, "BatchGetImage");
    const imageManifest = contents.get(imageIds?.[0]?.imageDigest ?? "");
    const failures = [{ failureCode: "ImageNotFound", failureReason: "not found" }];
    return imageManifest === undefined ? { failures } : { images: [{ imageManifest }] };
  }

  const push = (value: unknown): string => {
    const text = JSON.stringify(value);
    contents.set(digestOf(text), text);
    return digestOf(text);
  };
  const labels = async (digest: string) => openRegistry({ kind: "ecr", repository }).labels(digest);

  it("gives an image's labels, and those of an index's first platform", async () => {
    const Labels = { "org.opencontainers.image.revision": "0123abc" };
    const image = push({ config: { digest: push({ config: { Labels } }) } });
    assert.deepEqual(await labels(image), Labels);
    assert.deepEqual(await labels(push({ manifests: [{ digest: image }] })), Labels);
  });

  it("lists all tags, page by page", async () => {
    const tags = await openRegistry({ kind: "ecr", repository }).tags();
    assert.deepEqual(tags, ["build-1", "dev-1", "qa-1"]);
  });

  it("says so where there is no such image, or it cannot be read", async () => {
    await assert.rejects(
      labels(digestOf("missing")),
      /does not exist in eu-west-1; expected the image/,
    );
    const image = push({ config: { digest: digestOf("missing") } });
    await assert.rejects(labels(image), /download of sha256:\w+ answered 403\. Settle that/);
  });
});
