import {
  AdmissionregistrationV1Api,
  NetworkingV1Api,
  PatchStrategy,
  setHeaderOptions,
  type V1Deployment,
} from "@kubernetes/client-node";
import { execa } from "execa";
import * as assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:https";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseDocument } from "yaml";
import { until } from "../../sandbox/cluster";
import { NETWORK } from "../../sandbox/folder";
import { onSandbox, PATIENCE, Scene } from "./scene";

const PERF = "perf";
const APPLY = setHeaderOptions("Content-Type", PatchStrategy.ServerSideApply);
const MERGE = setHeaderOptions("Content-Type", PatchStrategy.StrategicMergePatch);

describe("objects that other programs write to, too", () => {
  let scene: Scene;
  let namespace: string;
  let webhook: Webhook | undefined;

  before(async function () {
    // A webhook of the test is called from inside the cluster.
    if (!onSandbox) this.skip();
    scene = await Scene.open();
    namespace = scene.namespaceOf(PERF);
    // One more environment is one more stack file.
    const { folder } = scene.project;
    const document = parseDocument(await readFile(join(folder, "Pulumi.dev.yaml"), "utf8"));
    document.delete("encryptionsalt");
    document.deleteIn(["config", "baton:owns"]);
    document.setIn(["config", "baton:namespace", "name"], namespace);
    document.setIn(["config", "baton:imageTag"], `build-${scene.builds[0]}`);
    document.setIn(["config", "baton:verification", "run"], ["smoke"]);
    await writeFile(join(folder, `Pulumi.${PERF}.yaml`), document.toString());
    await scene.project.pulumi("stack", "init", PERF);
    await scene.project.edit(PERF, {
      "baton:workloads.web.name": "shop",
      "baton:workloads.web.selector": { app: "shop" },
    });
  });
  after(() => webhook?.stop());

  const which = () => ({ namespace, name: "shop" });
  /** What a stack's state says that is declared of an object. */
  const declared = async (type: string, name = "shop"): Promise<{ spec: never }> => {
    const { deployment } = JSON.parse(await scene.state(PERF)) as {
      deployment: { resources: { type: string; inputs?: { metadata?: { name?: string } } }[] };
    };
    const found = deployment.resources.find(
      (one) => one.type === type && one.inputs?.metadata?.name === name,
    );
    assert.ok(found !== undefined, `${type} ${name} is in the state`);
    return found.inputs as never;
  };
  /** What the cluster makes of what is declared: an object that was never written by others. */
  const pristine = async (): Promise<V1Deployment> => {
    const { spec } = await declared("kubernetes:apps/v1:Deployment");
    const body = { metadata: { name: "pristine", namespace }, spec };
    return scene.apps.createNamespacedDeployment({ namespace, body, dryRun: "All" });
  };
  const holdsWhatIsDeclared = async () => {
    const live = await scene.apps.readNamespacedDeployment(which());
    assert.deepEqual(plain(live.spec), plain((await pristine()).spec));
    const service = await scene.core.readNamespacedService(which());
    assert.deepEqual(service.spec?.selector, { app: "shop" });
    assert.deepEqual(plain(service.spec.ports), [
      { name: "http", port: 80, protocol: "TCP", targetPort: 9898 },
    ]);
    const quota = await scene.core.readNamespacedResourceQuota({ namespace, name: "quota" });
    const hard = await declared("kubernetes:core/v1:ResourceQuota", "quota");
    assert.deepEqual(
      Object.keys(quota.spec?.hard ?? {}).sort(),
      Object.keys((hard.spec as { hard: object }).hard).sort(),
    );
  };
  const nothingToDo = (...options: string[]) =>
    scene.project.pulumi("preview", "--expect-no-changes", "--stack", PERF, ...options);
  const drift = (exitCode: number) => scene.ends(exitCode, "ann", ["drift", PERF]);

  it("hold what is declared, and nothing more, once they are adopted", async () => {
    const app = { app: "shop" };
    const metadata = { name: "shop", namespace };
    const image = `${scene.target.repository}:build-${scene.builds[0]}`;
    await scene.core.createNamespace({ body: { metadata: { name: namespace } } });
    const template = {
      metadata: { labels: { ...app, team: "shop" }, annotations: { "shop/restarted": "once" } },
      spec: {
        containers: [
          {
            name: "shop",
            image,
            env: [{ name: "SHOP", value: "open" }],
            ports: [{ containerPort: 8080 }],
            volumeMounts: [{ name: "cache", mountPath: "/cache" }],
          },
          // As the declared one is called: of its lists, only what is declared may stay.
          {
            name: "web",
            image,
            env: [{ name: "SHOP", value: "open" }],
            ports: [{ containerPort: 1 }],
          },
        ],
        volumes: [{ name: "cache", emptyDir: {} }],
        hostAliases: [{ ip: "10.0.0.1", hostnames: ["db"] }],
      },
    };
    await scene.apps.createNamespacedDeployment({
      namespace,
      fieldManager: "helm",
      body: { metadata, spec: { selector: { matchLabels: app }, template } },
    });
    const sidecar = { spec: { template: { spec: { containers: [{ name: "proxy", image }] } } } };
    const header = { apiVersion: "apps/v1", kind: "Deployment", metadata };
    await scene.apps.patchNamespacedDeployment(
      { ...which(), body: { ...header, ...sidecar }, fieldManager: "flux", force: true },
      APPLY,
    );
    await scene.apps.patchNamespacedDeployment(
      {
        ...which(),
        body: {
          spec: {
            minReadySeconds: 1,
            template: { spec: { nodeSelector: { "kubernetes.io/os": "linux" } } },
          },
        },
        fieldManager: "kubectl-edit",
      },
      MERGE,
    );
    await scene.apps.patchNamespacedDeployment(
      {
        ...which(),
        body: { metadata: { annotations: { "mesh/revision": "1" } } },
        fieldManager: "mesh",
      },
      MERGE,
    );
    await scene.core.createNamespacedService({
      namespace,
      fieldManager: "helm",
      body: {
        metadata,
        spec: {
          selector: app,
          ports: [
            { name: "web", port: 80, targetPort: 9898 },
            { name: "admin", port: 8080, targetPort: 9898 },
          ],
        },
      },
    });
    await scene.core.createNamespacedResourceQuota({
      namespace,
      fieldManager: "terraform",
      body: { metadata: { name: "quota" }, spec: { hard: { pods: "7", secrets: "50" } } },
    });
    const { uid } = (await scene.apps.readNamespacedDeployment(which())).metadata ?? {};

    await scene.importObjects(PERF, {
      "kubernetes:core/v1:Namespace": namespace,
      "kubernetes:apps/v1:Deployment": `${namespace}/shop`,
      "kubernetes:core/v1:Service": `${namespace}/shop`,
      "kubernetes:core/v1:ResourceQuota": `${namespace}/quota`,
    });
    await scene.project.pulumi("up", "--yes", "--stack", PERF);

    const adopted = await scene.apps.readNamespacedDeployment(which());
    assert.equal(adopted.metadata?.uid, uid, "it is the same Deployment");
    assert.equal(adopted.metadata?.annotations?.["mesh/revision"], "1", "it is a controller's");
    await holdsWhatIsDeclared();
    const pods = await scene.pods(PERF, "app=shop");
    assert.deepEqual(
      pods.map(({ spec }) => spec?.containers.map(({ name }) => name)),
      [["web"]],
    );
    await nothingToDo("--refresh");
  });

  it("hold it again after `kubectl edit`, which the drift shows", async () => {
    const edited = { fieldManager: "kubectl-edit" };
    await scene.apps.patchNamespacedDeployment(
      {
        ...which(),
        ...edited,
        body: {
          spec: {
            progressDeadlineSeconds: 111,
            template: {
              metadata: { labels: { team: "shop" } },
              spec: { containers: [{ name: "web", env: [{ name: "SHOP", value: "open" }] }] },
            },
          },
        },
      },
      MERGE,
    );
    await scene.core.patchNamespacedService(
      {
        ...which(),
        ...edited,
        body: { spec: { ports: [{ name: "admin", port: 8080, targetPort: 9898 }] } },
      },
      MERGE,
    );
    await scene.core.patchNamespacedResourceQuota(
      { namespace, name: "quota", ...edited, body: { spec: { hard: { pods: "9" } } } },
      MERGE,
    );
    const policies = scene.kubeconfig.makeApiClient(NetworkingV1Api);
    const [policy] = (await policies.listNamespacedNetworkPolicy({ namespace })).items;
    const name = policy?.metadata?.name ?? "";
    await policies.patchNamespacedNetworkPolicy(
      { namespace, name, ...edited, body: { spec: { policyTypes: ["Ingress"] } } },
      MERGE,
    );

    const said = await drift(1);
    assert.match(said, /progressDeadlineSeconds/);
    assert.match(said, /spec\.ports/);
    assert.match(said, /spec\.hard\.pods/);
    await scene.project.pulumi("up", "--yes", "--refresh", "--stack", PERF);

    await holdsWhatIsDeclared();
    const restored = await policies.readNamespacedNetworkPolicy({ namespace, name });
    assert.deepEqual(restored.spec?.policyTypes, policy?.spec?.policyTypes);
    await nothingToDo("--refresh");
    await drift(0);
  });

  it("leave an autoscaler its number, and a webhook its fields, also on the way back", async () => {
    const { project, builds } = scene;
    webhook = await Webhook.start(scene, namespace);
    await project.edit(PERF, {
      "baton:workloads.web.autoscale": { minReplicas: 1, maxReplicas: 3, cpuUtilization: 80 },
      "baton:workloads.web.replicas": null,
    });
    /** As an autoscaler sets it. */
    const scaled = async () => {
      const body = await scene.apps.readNamespacedDeploymentScale(which());
      body.spec = { replicas: 2 };
      await scene.apps.replaceNamespacedDeploymentScale({ ...which(), body, fieldManager: "hpa" });
    };
    const isAsTheyWrote = async () => {
      // A refresh calls a Deployment unhealthy while a pod that was added is not ready yet.
      const isReady = async () =>
        (await scene.apps.readNamespacedDeployment(which())).status?.readyReplicas === 2;
      await until("the pods", isReady, PATIENCE);
      const { spec } = await scene.apps.readNamespacedDeployment(which());
      assert.equal(spec?.replicas, 2);
      assert.deepEqual(plain(spec.template), plain((await pristine()).spec?.template));
      assert.equal(spec.template.metadata?.annotations?.["mesh/injected"], "yes");
      const [container] = spec.template.spec?.containers ?? [];
      assert.ok(container?.env?.some(({ name }) => name === "MESH"));
      await nothingToDo("--refresh");
      await drift(0);
    };
    await scene.deploy(PERF, `build-${builds[1]}`);
    await scaled();
    await isAsTheyWrote();

    await scene.deploy(PERF, `build-${builds[2]}`);
    await isAsTheyWrote();

    await project.setConfig(PERF, "rollbackOf", `build-${builds[2]}`);
    await scene.deploy(PERF, `build-${builds[1]}`);
    await isAsTheyWrote();
  });

  it("that the cluster refuses fail a preview and a request, and nothing is touched", async () => {
    const { project, builds } = scene;
    await project.commit("Begin");
    const head = await scene.git("rev-parse", "HEAD");
    const before = await scene.state(PERF);
    await project.edit(PERF, { "baton:quota": { "request.cpu": 1 } });
    const file = join(project.folder, `Pulumi.${PERF}.yaml`);
    const written = await readFile(file, "utf8");
    await assert.rejects(
      project.pulumi("preview", "--stack", PERF),
      /namespace-quota\):[^]*ResourceQuota "quota" is invalid: \[?spec\.hard\[request\.cpu\]/,
    );
    const said = await scene.ends(1, "ann", ["request", PERF, "--tag", `build-${builds[2]}`]);
    const unwrapped = said.replace(/\s+/g, " ");
    assert.match(
      unwrapped,
      /perf: the cluster refuses ResourceQuota quota: spec\.hard\[request\.cpu\]: Invalid value/,
    );
    assert.equal(unwrapped.match(/is invalid|Invalid value/g)?.length, 1, "it is said once");
    assert.equal(await scene.git("rev-parse", "HEAD"), head);
    assert.equal(await scene.git("tag", "--list"), "");
    assert.equal(await readFile(file, "utf8"), written);
    assert.deepEqual(resourcesOf(await scene.state(PERF)), resourcesOf(before));
    const quota = await scene.core.readNamespacedResourceQuota({ namespace, name: "quota" });
    assert.ok(!("request.cpu" in (quota.spec?.hard ?? {})));
  });
});

/** Each export encrypts anew, so that only what names the resources is compared. */
function resourcesOf(state: string): unknown {
  const { deployment } = JSON.parse(state) as {
    deployment: { resources: { urn: string; id?: string; modified?: string }[] };
  };
  return deployment.resources.map(({ urn, id, modified }) => ({ urn, id, modified }));
}

/** Without undefined values, and with dates as text. */
function plain(object: unknown): unknown {
  return JSON.parse(JSON.stringify(object ?? null));
}

/** A mutating webhook, as a service mesh has one: it adds to the pods of each Deployment. */
class Webhook {
  private constructor(
    private readonly scene: Scene,
    private readonly server: Server,
  ) {}

  static async start(scene: Scene, namespace: string): Promise<Webhook> {
    const { cert, key } = await certificate(NETWORK.outside);
    const server = createServer({ cert, key }, (request, response) => {
      const parts: Buffer[] = [];
      request.on("data", (part: Buffer) => parts.push(part));
      request.on("end", () => {
        const review = JSON.parse(Buffer.concat(parts).toString()) as Review;
        response.end(JSON.stringify({ ...review, response: answer(review) }));
      });
    });
    await new Promise<void>((resolve) => server.listen(0, NETWORK.outside, resolve));
    const { port } = server.address() as AddressInfo;
    await scene.kubeconfig
      .makeApiClient(AdmissionregistrationV1Api)
      .createMutatingWebhookConfiguration({
        body: {
          metadata: { name: NAME },
          webhooks: [
            {
              name: "mesh.example.com",
              admissionReviewVersions: ["v1"],
              sideEffects: "None",
              clientConfig: {
                url: `https://${NETWORK.outside}:${port}/`,
                caBundle: Buffer.from(cert).toString("base64"),
              },
              namespaceSelector: { matchLabels: { "kubernetes.io/metadata.name": namespace } },
              rules: [
                {
                  apiGroups: ["apps"],
                  apiVersions: ["v1"],
                  operations: ["CREATE", "UPDATE"],
                  resources: ["deployments"],
                },
              ],
            },
          ],
        },
      });
    return new Webhook(scene, server);
  }

  async stop(): Promise<void> {
    await this.scene.kubeconfig
      .makeApiClient(AdmissionregistrationV1Api)
      .deleteMutatingWebhookConfiguration({ name: NAME });
    this.server.closeAllConnections();
    this.server.close();
  }
}

const NAME = "baton-e2e-mesh";

interface Review {
  readonly request: { readonly uid: string; readonly object: V1Deployment };
}

function answer({ request: { uid, object } }: Review) {
  const { template } = object.spec ?? {};
  const [container] = template?.spec?.containers ?? [];
  const annotations = { ...template?.metadata?.annotations, "mesh/injected": "yes" };
  const others = (container?.env ?? []).filter(({ name }) => name !== "MESH");
  const env = [...others, { name: "MESH", value: "on" }];
  const patch = [
    { op: "add", path: "/spec/template/metadata/annotations", value: annotations },
    { op: "add", path: "/spec/template/spec/containers/0/env", value: env },
  ];
  const encoded = Buffer.from(JSON.stringify(patch)).toString("base64");
  return { uid, allowed: true, patchType: "JSONPatch", patch: encoded };
}

async function certificate(address: string): Promise<{ cert: string; key: string }> {
  const folder = await mkdtemp(join(tmpdir(), "baton-webhook-"));
  try {
    const [cert, key] = [join(folder, "cert"), join(folder, "key")];
    await execa("openssl", [
      ...["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=mesh"],
      ...["-addext", `subjectAltName=IP:${address}`, "-out", cert, "-keyout", key],
    ]);
    return { cert: await readFile(cert, "utf8"), key: await readFile(key, "utf8") };
  } finally {
    await rm(folder, { recursive: true });
  }
}
