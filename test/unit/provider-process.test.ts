import * as assert from "node:assert/strict";
import { spawn, type ChildProcessByStdio } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Duplex, Readable } from "node:stream";
import { credentials } from "@grpc/grpc-js";
import { ResourceProviderClient } from "@pulumi/pulumi/proto/provider_grpc_pb";
import { CreateRequest } from "@pulumi/pulumi/proto/provider_pb";
import { Struct } from "google-protobuf/google/protobuf/struct_pb";
import { KubernetesServer } from "../support/kubernetes";

const SCRIPT = join(__dirname, "..", "..", "provider", "pulumi-resource-promotion");
/** Starts the provider as the engine does, with pipes; descriptor 3 is the test's. */
const ENGINE = `
const { spawn } = require("node:child_process");
const stdio = ["pipe", "pipe", "pipe", 3];
const provider = spawn(process.argv[1], ["127.0.0.1:1"], { stdio, detached: true });
provider.stdout.pipe(process.stdout);
`;

/** An engine that has started the provider. */
async function startEngine() {
  const engine = spawn(process.execPath, ["-e", ENGINE, SCRIPT], {
    stdio: ["ignore", "pipe", "inherit", "pipe"],
  }) as ChildProcessByStdio<null, Readable, null>;
  // Both processes hold its other end, and nothing is written to it.
  const held = engine.stdio[3] as Duplex;
  const ended = once(held.resume(), "end");
  const [port] = (await once(createInterface({ input: engine.stdout }), "line")) as [string];
  return { port, ended, kill: () => engine.kill("SIGKILL") };
}

describe("the provider's process", () => {
  it("ends when its engine is killed", async () => {
    const engine = await startEngine();
    engine.kill();
    await engine.ended;
  });

  it("stops a canary, gives its Lease up and leaves the traffic when its engine is killed", async () => {
    const cluster = await KubernetesServer.start();
    try {
      const apps = "/apis/apps/v1/namespaces/qa";
      const service = "/api/v1/namespaces/qa/services/web";
      const lease = "/apis/coordination.k8s.io/v1/namespaces/qa/leases/canary";
      const selects = (name: string) => ({ "app.kubernetes.io/name": name });
      const both = { "baton/workload": "web" };
      for (const name of ["web-a", "web-b"]) {
        cluster.put(`${apps}/deployments`, name, {
          metadata: { uid: name, namespace: "qa", generation: 1, labels: selects(name) },
          spec: { replicas: 1, selector: { matchLabels: selects(name) }, template: {} },
          status: { observedGeneration: 1, replicas: 1, updatedReplicas: 1, availableReplicas: 1 },
        });
      }
      cluster.put("/api/v1/namespaces/qa/services", "web", {
        spec: { selector: selects("web-a") },
      });
      const specOf = (path: string) => cluster.get(path)?.["spec"] as Record<string, unknown>;
      const isShared = new Promise<void>((resolve) => {
        cluster.controller = (path, object) => {
          const { selector } = object["spec"] as { selector?: unknown };
          if (path === service && JSON.stringify(selector) === JSON.stringify(both)) resolve();
          return object;
        };
      });
      const traffic = [
        {
          ...{ service: "web", to: selects("web-b"), from: selects("web-a"), both },
          ...{ canary: "web-b", stable: "web-a", replicas: 1, isAutoscaled: false },
        },
      ];
      const inputs = {
        ...{ namespace: "qa", deployments: "web-b", spec: "one", analysis: "", lease: "canary" },
        steps: JSON.stringify([{ weight: 50, duration: 600 }]),
        traffic: JSON.stringify(traffic),
      };
      const request = new CreateRequest();
      request.setUrn("urn:pulumi:qa::baton::promotion:index:Canary::canary");
      request.setProperties(Struct.fromJavaScript(inputs));
      const engine = await startEngine();
      const client = new ResourceProviderClient(
        `127.0.0.1:${engine.port}`,
        credentials.createInsecure(),
      );
      client.create(request, () => undefined);
      await isShared;
      assert.notEqual(specOf(lease)["holderIdentity"], "");
      engine.kill();
      await engine.ended;
      client.close();
      assert.equal(specOf(lease)["holderIdentity"], "", "the next run need not wait");
      assert.deepEqual(specOf(service)["selector"], both, "the next run carries it on");
    } finally {
      await cluster.stop();
    }
  });
});
