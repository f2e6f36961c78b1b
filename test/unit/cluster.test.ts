import * as assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { checkCluster } from "../../cluster";
import { formatProblems } from "../../release/problem";

describe("the cluster", () => {
  let server: Server;
  let folder: string;
  const environment = { ...process.env };

  before(async () => {
    server = createServer((_, response) => response.writeHead(403).end());
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  });
  after(() => void server.close());
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "baton-kube-"));
    delete process.env["HTTPS_PROXY"];
  });
  afterEach(async () => {
    await rm(folder, { recursive: true });
    process.env = { ...environment };
  });

  const url = () => `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const kubeconfig = (name: string, address: string, current = "") => ({
    "current-context": current,
    contexts: [{ name, context: { cluster: name } }],
    clusters: [{ name, cluster: { server: address } }],
  });
  async function write(file: string, content: unknown): Promise<string> {
    const path = join(folder, file);
    await writeFile(path, typeof content === "string" ? content : JSON.stringify(content));
    return path;
  }
  const check = async (context?: string) => formatProblems(await checkCluster("qa", context));

  it("is there when it answers, even if it refuses", async () => {
    process.env["KUBECONFIG"] = await write("config", kubeconfig("qa", url()));
    assert.equal(await check("qa"), "");
  });

  it("is found through the current context", async () => {
    process.env["KUBECONFIG"] = await write("config", kubeconfig("qa", url(), "qa"));
    assert.equal(await check(), "");
  });

  it("is found in any of several files", async () => {
    const first = await write("first", kubeconfig("dev", "https://dev.invalid"));
    const second = await write("second", kubeconfig("qa", url()));
    process.env["KUBECONFIG"] = [first, join(folder, "absent"), second].join(delimiter);
    assert.equal(await check("qa"), "");
  });

  it("is named with its address when it does not answer", async () => {
    process.env["KUBECONFIG"] = await write("config", kubeconfig("qa", "https://127.0.0.1:1"));
    assert.equal(
      await check("qa"),
      "qa: baton:cluster.context is qa; expected a cluster that answers at https://127.0.0.1:1 (ECONNREFUSED). " +
        "Check the network, the VPN and the cluster itself, and run the same command again.",
    );
  });

  it("is missed with the contexts there are", async () => {
    process.env["KUBECONFIG"] = await write("config", kubeconfig("dev", url()));
    assert.match(await check("qa"), /context is qa; expected a context of the kubeconfig: dev\./);
    assert.match(await check(), /context is not set; expected a context of the kubeconfig: dev\./);
  });

  it("is missed without a kubeconfig", async () => {
    process.env["KUBECONFIG"] = join(folder, "absent");
    assert.match(
      await check("qa"),
      /expected a kubeconfig at .*absent\. Log in to the cluster first/,
    );
  });

  it("is not looked for through a broken kubeconfig, which is not quoted", async () => {
    process.env["KUBECONFIG"] = await write("config", "users: [{ token: hunter2 ");
    const said = await check("qa");
    assert.match(said, /expected a readable kubeconfig\. Correct .*config\./);
    assert.ok(!said.includes("hunter2"));
  });

  it("is left to the provider behind a proxy", async () => {
    process.env["KUBECONFIG"] = await write("config", kubeconfig("qa", "https://127.0.0.1:1"));
    process.env["HTTPS_PROXY"] = "http://proxy.invalid";
    assert.equal(await check("qa"), "");
  });

  it("is its own in a pod", async () => {
    process.env["KUBECONFIG"] = join(folder, "absent");
    process.env["KUBERNETES_SERVICE_HOST"] = "10.96.0.1";
    assert.equal(await check(), "");
  });
});
