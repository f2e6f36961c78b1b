import * as assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mirror } from "../../registry/mirror";
import { arrive } from "../../registry/replica";
import { virtualClock } from "../support/clock";
import { RegistryServer } from "../support/registry";

describe("a mirror", () => {
  let from: RegistryServer;
  let to: RegistryServer;
  beforeEach(async () => {
    [from, to] = await Promise.all([RegistryServer.start(), RegistryServer.start()]);
  });
  afterEach(async () => {
    await Promise.all([from.stop(), to.stop()]);
  });

  const at = (registry: RegistryServer) =>
    ({ kind: "oci", repository: `${registry.host}/podinfo`, plainHttp: true }) as const;
  const described = (registry: RegistryServer, bytes: Buffer) => ({
    digest: registry.pushBlob(bytes),
    size: bytes.length,
  });
  /** An image for a platform, and what it consists of. */
  const image = (platform: string, layer: Buffer) => {
    const config = described(from, Buffer.from(JSON.stringify({ architecture: platform })));
    const layers = [described(from, layer), described(from, Buffer.alloc(0))];
    const text = JSON.stringify({ config, layers });
    const digest = from.push(text);
    return { digest, size: text.length, blobs: [config, ...layers].map((each) => each.digest) };
  };
  const large = randomBytes(9 * 1024 * 1024);
  const index = (...tags: string[]) => {
    const platforms = [image("amd64", large), image("arm64", randomBytes(100))];
    const manifests = platforms.map(({ digest, size }) => ({ digest, size }));
    return { digest: from.push(JSON.stringify({ manifests }), ...tags), platforms };
  };
  const isWhole = ({ digest, platforms }: ReturnType<typeof index>) => {
    assert.deepEqual(to.manifest(digest), from.manifest(digest));
    for (const platform of platforms) {
      assert.deepEqual(to.manifest(platform.digest), from.manifest(platform.digest));
      for (const blob of platform.blobs) assert.ok(to.blob(blob)?.equals(from.blob(blob) ?? large));
    }
  };

  it("copies all platforms of an index, byte for byte, in pieces", async () => {
    const made = index();
    await mirror(at(from), at(to), made.digest);
    isWhole(made);
    const pieces = to.requests.filter((request) => request.startsWith("PATCH"));
    assert.equal(pieces.length, 2 + 1 + 2, "two of the large layer, none of an empty one");
    const before = to.requests.length;
    await mirror(at(from), at(to), made.digest);
    assert.deepEqual(
      to.requests.slice(before).filter((request) => !request.startsWith("HEAD")),
      [],
      "nothing is copied twice",
    );
  });

  it("goes on where it was cut off, and never leaves a manifest without its blobs", async () => {
    const made = index();
    const [first] = made.platforms;
    // Its index, both its first blobs, and then no more: as where the way between them breaks.
    const asked = from.requests.length;
    from.onRequest = () => {
      if (from.requests.length > asked + 4) from.failures = [404];
    };
    await assert.rejects(mirror(at(from), at(to), made.digest), /answered 404/);
    from.onRequest = () => undefined;
    assert.equal(to.manifest(made.digest), undefined);
    assert.equal(to.manifest(first?.digest ?? ""), undefined);
    from.failures = [];
    await mirror(at(from), at(to), made.digest);
    isWhole(made);
  });

  it("takes what refers to an image along", async () => {
    const made = image("amd64", randomBytes(10));
    const signature = image("signature", randomBytes(20));
    from.referrers.set(made.digest, [{ digest: signature.digest, size: signature.size }]);
    await mirror(at(from), at(to), made.digest);
    assert.deepEqual(to.manifest(signature.digest), from.manifest(signature.digest));
  });

  it("passes nothing on that is not what it is named by", async () => {
    const made = image("amd64", randomBytes(10));
    const bytes = Buffer.from(JSON.stringify({ layers: [] }));
    from.forge(made.digest, { bytes, mediaType: "application/json" });
    await assert.rejects(mirror(at(from), at(to), made.digest), /has the content of sha256:/);
    assert.equal(to.manifest(made.digest), undefined);
  });

  describe("of a registry that has its own", () => {
    virtualClock();
    const replica = (timeout = 1) => ({
      ...at(to),
      replica: { timeout, mirrorOf: { repository: at(from).repository, plainHttp: true } },
    });

    it("brings what is asked for, under its tag, and needs the other no more", async () => {
      const made = index("prod-v1.4.0");
      assert.equal(await arrive(replica(), "prod-v1.4.0", made.digest), made.digest);
      assert.equal(to.tags.get("prod-v1.4.0"), made.digest);
      isWhole(made);
      const asked = from.requests.length;
      assert.equal(await arrive(replica(), "prod-v1.4.0", made.digest), made.digest);
      assert.equal(from.requests.length, asked);
    });

    it("brings nothing else than was approved, and nothing that was not earned", async () => {
      const made = index("prod-v1.4.0");
      const other = `sha256:${"0".repeat(64)}`;
      await assert.rejects(
        arrive(replica(), "prod-v1.4.0", other),
        /tag prod-v1\.4\.0 is sha256:\w+; expected sha256:0/,
      );
      assert.equal(to.manifest(made.digest), undefined);
      assert.equal(await arrive(replica(), "prod-v1.5.0", made.digest), undefined);
    });

    it("waits for what registries replicate by themselves, but not for ever", async () => {
      const waits = { ...at(to), replica: { timeout: 3 } };
      const said: string[] = [];
      const arrival = arrive(waits, "prod-v1.4.0", undefined, (text) => said.push(text));
      const digest = to.push("{}", "prod-v1.4.0");
      assert.equal(await arrival, digest);
      await assert.rejects(
        arrive({ ...at(to), replica: { timeout: 1 } }, "prod-v9.0.0", digest),
        /without prod-v9\.0\.0 in .*\/podinfo after 1s\. Look after the replication/,
      );
      assert.equal(await arrive(at(to), "prod-v9.0.0", digest), undefined, "not asked to wait");
    });
  });
});
