import * as assert from "node:assert/strict";
import { RegistryError } from "../../registry/errors";
import { imagesOf, labelsOf, REVISION } from "../../registry/images";
import { OciRegistry } from "../../registry/oci";
import { findScan } from "../../registry/scans";
import { RegistryServer } from "../support/registry";

const LINUX = { os: "linux", architecture: "amd64" };
const UNKNOWN = { os: "unknown", architecture: "unknown" };
const ATTESTATION = { "vnd.docker.reference.type": "attestation-manifest" };

describe("an index that was made to pass the gate", () => {
  let server: RegistryServer;
  let registry: OciRegistry;
  before(async () => {
    server = await RegistryServer.start();
    registry = new OciRegistry(location());
  });
  after(() => server.stop());

  const location = () => ({
    kind: "oci" as const,
    repository: `${server.host}/team/podinfo`,
    plainHttp: true,
  });
  const image = (architecture: string, revision: string, os = "linux") =>
    server.pushImage({ os, architecture, config: { Labels: { [REVISION]: revision } } });
  const index = (...manifests: object[]) => server.push(JSON.stringify({ manifests }));
  const digestsOf = async (digest: string) =>
    (await imagesOf(registry, digest)).map((one) => one.digest);

  it("counts an image for a real platform that is marked as an attestation", async () => {
    const hostile = image("amd64", "hostile");
    const made = index({ digest: hostile, platform: LINUX, annotations: ATTESTATION });
    assert.deepEqual(await digestsOf(made), [hostile]);
    assert.equal((await labelsOf(registry, made))[REVISION], "hostile");
  });

  it("refuses a decoy beside it, for its scan and for its labels", async () => {
    const hostile = { digest: image("amd64", "hostile"), platform: LINUX };
    const decoy = { digest: image("amd64", "clean"), platform: LINUX };
    const made = index({ ...hostile, annotations: ATTESTATION }, decoy);
    const refused = /is an index with two images for linux\/amd64, .* and .*; expected one\. Build/;
    await assert.rejects(findScan(location(), made), refused);
    await assert.rejects(labelsOf(registry, made), refused);
  });

  it("refuses two images for one platform by any of its names, and in an inner index", async () => {
    const pairs = [
      [LINUX, { os: "linux", architecture: "x86_64" }],
      [LINUX, { os: "Linux", architecture: "amd64", variant: "v1" }],
      [
        { os: "linux", architecture: "arm64", variant: "v8" },
        { os: "linux", architecture: "aarch64" },
      ],
      [
        { os: "linux", architecture: "arm" },
        { os: "linux", architecture: "armhf", variant: "7" },
      ],
      [LINUX, undefined],
    ];
    for (const [one, other] of pairs) {
      const made = index(
        { digest: image("amd64", "one"), platform: one },
        { digest: image("amd64", "other"), platform: other },
      );
      await assert.rejects(imagesOf(registry, made), /two images for linux/);
    }
    const inner = index({ digest: image("amd64", "inner"), platform: LINUX });
    const outer = index({ digest: image("amd64", "outer"), platform: LINUX }, { digest: inner });
    await assert.rejects(imagesOf(registry, outer), /two images for linux\/amd64/);
  });

  it("leaves out an attestation for no platform, with BuildKit's annotation or without", async () => {
    const real = { digest: image("amd64", "0123abc"), platform: LINUX };
    const layers = [{ mediaType: "application/vnd.in-toto+json" }];
    const attestations = [
      { digest: image("unknown", "", "unknown"), annotations: ATTESTATION },
      { digest: server.push(JSON.stringify({ layers })) },
      { digest: server.push("{}"), artifactType: "application/vnd.example.sbom" },
    ];
    for (const attestation of attestations) {
      const made = index(real, { ...attestation, platform: UNKNOWN });
      assert.deepEqual(await digestsOf(made), [real.digest]);
    }
  });

  it("counts an image for no platform that is not an attestation", async () => {
    const real = { digest: image("amd64", "one"), platform: LINUX };
    const other = { digest: image("amd64", "other"), platform: UNKNOWN };
    assert.deepEqual(await digestsOf(index(real, other)), [real.digest, other.digest]);
  });

  it("refuses an index without images", async () => {
    const digest = image("unknown", "", "unknown");
    const only = index({ digest, platform: UNKNOWN, annotations: ATTESTATION });
    for (const made of [index(), only]) {
      await assert.rejects(findScan(location(), made), /is an index without images; expected one/);
    }
  });

  it("refuses labels that differ between platforms where Baton decides by them", async () => {
    const made = (one: string, other: string) =>
      index(
        { digest: image("amd64", one), platform: LINUX },
        { digest: image("arm64", other), platform: { os: "linux", architecture: "arm64" } },
      );
    await assert.rejects(
      labelsOf(registry, made("reviewed", "unreviewed")),
      /label org\.opencontainers\.image\.revision is reviewed for .* and unreviewed for .*; expected one value/,
    );
    assert.equal((await labelsOf(registry, made("same", "same")))[REVISION], "same");
  });

  it("refuses indexes without an end, and indexes of indexes of indexes", async () => {
    let deep = index({ digest: image("amd64", "deep"), platform: LINUX });
    for (let level = 0; level < 3; level += 1) deep = index({ digest: deep });
    await assert.rejects(imagesOf(registry, deep), /more than 3 levels deep/);
    const entries = Array.from({ length: 65 }, (_, variant) => ({
      digest: image("amd64", "wide"),
      platform: { ...LINUX, variant: `v${variant}` },
    }));
    const before = server.requests.length;
    await assert.rejects(imagesOf(registry, index(...entries)), (error: Error) => {
      assert.ok(error instanceof RegistryError);
      assert.match(error.message, /an index of more than 64 entries/);
      return true;
    });
    assert.equal(server.requests.length - before, 1, "no entry is fetched");
  });
});
