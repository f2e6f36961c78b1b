import * as assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { RegistryError, TagConflictError } from "../../registry/errors";
import { openRegistry, type Registry } from "../../registry/registry";
import { RegistryServer } from "../support/registry";

describe("an OCI registry", () => {
  let server: RegistryServer;
  let folder: string;
  const environment = { ...process.env };

  beforeEach(async () => {
    server = await RegistryServer.start();
    folder = await mkdtemp(join(tmpdir(), "baton-docker-"));
    process.env["DOCKER_CONFIG"] = folder;
  });
  afterEach(async () => {
    await server.stop();
    await rm(folder, { recursive: true });
    process.env = { ...environment };
  });

  function open(): Registry {
    const repository = `${server.host}/team/podinfo`;
    return openRegistry({ kind: "oci", repository, plainHttp: true });
  }

  it("resolves a tag to its digest with one request", async () => {
    const digest = server.push("image", "build-1");
    assert.equal(await open().resolve("build-1"), digest);
    assert.deepEqual(server.requests, ["HEAD /v2/team/podinfo/manifests/build-1"]);
  });

  it("resolves a missing tag to nothing", async () => {
    assert.equal(await open().resolve("build-2"), undefined);
  });

  it("computes the digest where the registry does not say it", async () => {
    const digest = server.push("image", "build-1");
    server.hidesDigest = true;
    assert.equal(await open().resolve("build-1"), digest);
  });

  it("lists all tags, page by page", async () => {
    const tags = ["build-1", "build-2", "dev-1", "dev-2", "qa-1"];
    server.push("image", ...tags);
    assert.deepEqual(await open().tags(), tags);
    assert.deepEqual(server.requests, [
      "GET /v2/team/podinfo/tags/list?n=1000",
      "GET /v2/team/podinfo/tags/list?last=build-2&n=2",
      "GET /v2/team/podinfo/tags/list?last=dev-2&n=2",
    ]);
  });

  it("has no tags before the first push", async () => {
    assert.deepEqual(await open().tags(), []);
  });

  it("adds a tag with the very bytes and media type", async () => {
    const digest = server.push('{ "manifests": [ ] }\n', "build-1");
    const before = server.manifest(digest);
    await open().tag(digest, "dev-1");
    assert.equal(server.tags.get("dev-1"), digest);
    assert.deepEqual(server.manifest(digest), before);
  });

  it("takes a tag that names the image already for success, and writes nothing", async () => {
    const digest = server.push("image", "build-1", "dev-1");
    await open().tag(digest, "dev-1");
    assert.deepEqual(
      server.requests.filter((request) => request.startsWith("PUT")),
      [],
    );
  });

  it("never moves a tag", async () => {
    const digest = server.push("image", "build-2");
    const other = server.push("other", "dev-2");
    await assert.rejects(open().tag(digest, "dev-2"), (error: Error) => {
      assert.ok(error instanceof TagConflictError);
      assert.match(error.message, new RegExp(`dev-2 is ${other}; expected ${digest}`));
      return true;
    });
    assert.equal(server.tags.get("dev-2"), other);
  });

  it("refuses a manifest that is not what its digest says", async () => {
    const digest = server.push("image", "build-1");
    const impostor = `sha256:${"0".repeat(64)}`;
    server.tags.set("x", digest);
    const manifest = server.manifest(digest);
    assert.ok(manifest);
    server.forge(impostor, manifest);
    await assert.rejects(open().tag(impostor, "dev-1"), /has the content of sha256:/);
    assert.equal(server.tags.has("dev-1"), false);
  });

  it("tries again what may pass", async () => {
    const digest = server.push("image", "build-1");
    server.failures = [503, 429];
    assert.equal(await open().resolve("build-1"), digest);
    assert.equal(server.requests.length, 3);
  });

  it("says where it looked when the registry is down", async () => {
    const registry = open();
    await server.stop();
    await assert.rejects(registry.resolve("build-1"), (error: Error) => {
      assert.ok(error instanceof RegistryError);
      assert.match(
        error.message,
        /registry at http:\/\/127\.0\.0\.1:\d+ cannot be reached: ECONNREFUSED/,
      );
      return true;
    });
    server = await RegistryServer.start();
  });

  describe("with labels", () => {
    const Labels = { "org.opencontainers.image.revision": "0123abc" };

    it("gives those of an image", async () => {
      const digest = server.pushImage({ config: { Labels } });
      assert.deepEqual(await open().labels(digest), Labels);
    });

    it("gives those of an index's first platform, and of no attestation", async () => {
      const attestation = server.pushImage({ config: { Labels: { revision: "wrong" } } });
      const manifests = [
        {
          digest: attestation,
          platform: { os: "unknown", architecture: "unknown" },
          annotations: { "vnd.docker.reference.type": "attestation-manifest" },
        },
        { digest: server.pushImage({ os: "linux", architecture: "amd64", config: { Labels } }) },
        { digest: server.pushImage({ os: "linux", architecture: "arm64", config: { Labels } }) },
      ];
      assert.deepEqual(await open().labels(server.push(JSON.stringify({ manifests }))), Labels);
    });

    it("gives none where there are none, and where it is no image", async () => {
      const without = [{ config: {} }, { config: { Labels: null } }, {}, "text"];
      for (const config of without) {
        assert.deepEqual(await open().labels(server.pushImage(config)), {});
      }
      for (const manifest of ["no JSON", "{}"]) {
        assert.deepEqual(await open().labels(server.push(manifest)), {});
      }
    });

    it("says so where there is no such image, or it is another one", async () => {
      const missing = `sha256:${"0".repeat(64)}`;
      await assert.rejects(
        open().labels(missing),
        /sha256:0000\d+ does not exist; expected the image/,
      );
      const manifest = server.manifest(server.pushImage({ config: { Labels } }));
      assert.ok(manifest);
      server.forge(missing, manifest);
      await assert.rejects(open().labels(missing), RegistryError);
    });

    it("logs in for them", async () => {
      const digest = server.pushImage({ config: { Labels } });
      server.authentication = "bearer";
      process.env["BATON_REGISTRY_HOST"] = server.host;
      process.env["BATON_REGISTRY_USERNAME"] = "robot";
      process.env["BATON_REGISTRY_PASSWORD"] = "hunter2";
      assert.deepEqual(await open().labels(digest), Labels);
    });
  });

  describe("that asks for credentials", () => {
    for (const authentication of ["basic", "bearer"] as const) {
      it(`gets them from the environment (${authentication})`, async () => {
        const digest = server.push("image", "build-1");
        server.authentication = authentication;
        process.env["BATON_REGISTRY_HOST"] = server.host;
        process.env["BATON_REGISTRY_USERNAME"] = "robot";
        process.env["BATON_REGISTRY_PASSWORD"] = "hunter2";
        assert.equal(await open().resolve("build-1"), digest);
      });

      it(`gets them from Docker's configuration (${authentication})`, async () => {
        const digest = server.push("image", "build-1");
        server.authentication = authentication;
        const auth = Buffer.from("robot:hunter2").toString("base64");
        const config = { auths: { [server.host]: { auth } } };
        await writeFile(join(folder, "config.json"), JSON.stringify(config));
        assert.equal(await open().resolve("build-1"), digest);
      });
    }

    it("gets them from a credential helper", async () => {
      const digest = server.push("image", "build-1");
      server.authentication = "basic";
      const script = `#!/bin/sh\nread host\necho '{"Username":"robot","Secret":"hunter2"}'\n`;
      await writeFile(join(folder, "docker-credential-test"), script, { mode: 0o755 });
      process.env["PATH"] = `${folder}:${process.env["PATH"] ?? ""}`;
      const config = { credHelpers: { [server.host]: "test" } };
      await writeFile(join(folder, "config.json"), JSON.stringify(config));
      assert.equal(await open().resolve("build-1"), digest);
    });

    it("says how to log in when there are none", async () => {
      server.authentication = "basic";
      await assert.rejects(
        open().resolve("build-1"),
        /refuses access: .* none are configured\. Log in/,
      );
    });

    it("says so when they are wrong, without repeating them", async () => {
      for (const authentication of ["basic", "bearer"] as const) {
        server.authentication = authentication;
        process.env["BATON_REGISTRY_HOST"] = server.host;
        process.env["BATON_REGISTRY_USERNAME"] = "robot";
        process.env["BATON_REGISTRY_PASSWORD"] = "wrong-password";
        await assert.rejects(open().resolve("build-1"), (error: Error) => {
          assert.match(error.message, /refuses access/);
          assert.ok(!error.message.includes("wrong-password"));
          return true;
        });
      }
    });

    it("does not quote a broken configuration file", async () => {
      server.authentication = "basic";
      await writeFile(join(folder, "config.json"), '{"auths": "hunter2"');
      await assert.rejects(open().resolve("build-1"), (error: Error) => {
        assert.match(error.message, /config\.json: is not a Docker configuration/);
        assert.ok(!error.message.includes("hunter2"));
        return true;
      });
    });
  });
});
