import * as assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openRegistry } from "../../registry/registry";
import { RegistryServer } from "../support/registry";

describe("a stack file that names another registry", () => {
  let server: RegistryServer;
  let folder: string;
  const environment = { ...process.env };
  beforeEach(async () => {
    server = await RegistryServer.start();
    folder = await mkdtemp(join(tmpdir(), "baton-docker-"));
    process.env["DOCKER_CONFIG"] = folder;
    process.env["BATON_REGISTRY_USERNAME"] = "robot";
    process.env["BATON_REGISTRY_PASSWORD"] = "hunter2";
  });
  afterEach(async () => {
    await server.stop();
    await rm(folder, { recursive: true });
    process.env = { ...environment };
  });
  const resolve = () =>
    openRegistry({
      kind: "oci",
      repository: `${server.host}/team/podinfo`,
      plainHttp: true,
    }).resolve("build-1");

  for (const authentication of ["basic", "bearer"] as const) {
    it(`gets no credentials that are for the registry of before (${authentication})`, async () => {
      server.authentication = authentication;
      process.env["BATON_REGISTRY_HOST"] = "registry.example.com";
      await assert.rejects(resolve(), /refuses access/);
      assert.ok(server.authorizations.every((header) => header === undefined));
      process.env["BATON_REGISTRY_HOST"] = server.host;
      assert.equal(await resolve(), undefined, "the tag is missing, and the login was right");
    });
  }

  it("gets no credentials that are for no registry in particular", async () => {
    server.authentication = "basic";
    await assert.rejects(
      resolve(),
      /^RegistryError: environment: BATON_REGISTRY_HOST is missing; expected the registry/,
    );
    assert.ok(server.authorizations.every((header) => header === undefined));
  });
});
