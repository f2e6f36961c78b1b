import * as assert from "node:assert/strict";
import { BatchV1Api, CoreV1Api, type KubeConfig } from "@kubernetes/client-node";
import { deleteNamespaces, kubeconfigOf, until } from "../../sandbox/cluster";
import { startLoad } from "../../sandbox/load";
import { databaseUrl, POSTGRES, runSql, superuserUrl } from "../../sandbox/postgres";
import { PROMETHEUS, queryPrometheus } from "../../sandbox/prometheus";
import { pushBuild, targetsOf } from "../../sandbox/images";
import { REGISTRY } from "../../sandbox/folder";
import { onSandbox, PATIENCE, sandboxProcess, startSandbox } from "./scene";

const NAMESPACE = "baton-services";
/** What a namespace of Baton's asks of its pods. */
const RESTRICTED = {
  allowPrivilegeEscalation: false,
  readOnlyRootFilesystem: true,
  runAsNonRoot: true,
  capabilities: { drop: ["ALL"] },
  seccompProfile: { type: "RuntimeDefault" },
};

describe("beside the sandbox's cluster", () => {
  let kubeconfig: KubeConfig;
  let core: CoreV1Api;

  before(async function () {
    if (!onSandbox) this.skip();
    await startSandbox();
    kubeconfig = kubeconfigOf({});
    core = kubeconfig.makeApiClient(CoreV1Api);
    await deleteNamespaces(kubeconfig, NAMESPACE, PATIENCE);
    const labels = { "pod-security.kubernetes.io/enforce": "restricted" };
    await core.createNamespace({ body: { metadata: { name: NAMESPACE, labels } } });
  });
  after(async () => {
    if (onSandbox) await deleteNamespaces(kubeconfig, NAMESPACE, PATIENCE);
  });

  /** Runs a script in a pod with what speaks to PostgreSQL; gives what it prints. */
  const inPod = async (name: string, script: string, env: Record<string, string> = {}) => {
    const batch = kubeconfig.makeApiClient(BatchV1Api);
    const container = {
      name,
      image: `${REGISTRY}/postgres-client:15`,
      command: ["/bin/sh", "-euc", script],
      env: Object.entries(env).map(([key, value]) => ({ name: key, value })),
      securityContext: RESTRICTED,
      volumeMounts: [{ name: "work", mountPath: "/work" }],
    };
    const spec = {
      restartPolicy: "Never",
      containers: [container],
      volumes: [{ name: "work", emptyDir: {} }],
    };
    const body = { metadata: { name }, spec: { backoffLimit: 0, template: { spec } } };
    await batch.createNamespacedJob({ namespace: NAMESPACE, body });
    let ended = "";
    const hasEnded = async () => {
      const { status } = await batch.readNamespacedJob({ namespace: NAMESPACE, name });
      ended = status?.conditions?.find(({ type }) => /^(Complete|Failed)$/.test(type))?.type ?? "";
      return ended !== "";
    };
    await until(`Job ${name}`, hasEnded, PATIENCE);
    const labelSelector = `job-name=${name}`;
    const pods = await core.listNamespacedPod({ namespace: NAMESPACE, labelSelector });
    const pod = pods.items[0]?.metadata?.name ?? "";
    const said = await core.readNamespacedPodLog({ namespace: NAMESPACE, name: pod });
    return { ended, said };
  };

  it("PostgreSQL holds a database for each environment, kept from the others' sight", async () => {
    const mine = await databaseUrl("services_a");
    const other = await databaseUrl("services_b");
    await runSql(mine, "DROP TABLE IF EXISTS orders; CREATE TABLE orders (id int)");
    await runSql(mine, "INSERT INTO orders SELECT generate_series(1, 3)");
    assert.equal(await runSql(await databaseUrl("services_a"), "SELECT sum(id) FROM orders"), "6");
    await assert.rejects(runSql(other, "SELECT * FROM orders"), /relation "orders" does not exist/);
    assert.equal(await runSql(mine, "SELECT rolsuper FROM pg_roles WHERE rolname = user"), "f");
    const wrong = new URL(mine);
    wrong.password = "guess";
    await assert.rejects(runSql(String(wrong), "SELECT 1"), /password authentication failed/);
    assert.equal(await runSql(await superuserUrl(), "SHOW password_encryption"), "scram-sha-256");
  });

  it("PostgreSQL is dumped and restored by a pod that may write nothing but its volume", async () => {
    const from = await databaseUrl("services_a");
    const to = await databaseUrl("services_c");
    await runSql(from, "DROP TABLE IF EXISTS orders; CREATE TABLE orders AS SELECT 42 AS id");
    await runSql(to, "DROP TABLE IF EXISTS orders");
    const script = `id -u
      pg_dump --format custom --file /work/dump "$SOURCE"
      pg_restore --list /work/dump | grep -c 'TABLE DATA'
      pg_restore --exit-on-error --no-owner --dbname "$TARGET" /work/dump
      psql --no-align --tuples-only --command 'SELECT id FROM orders' "$TARGET"
      touch /not-here 2>&1 || true`;
    const { ended, said } = await inPod("dump", script, { SOURCE: from, TARGET: to });
    assert.match(said, /^65532\n1\n42\ntouch: \/not-here: Read-only file system\n$/);
    assert.equal(ended, "Complete");
  });

  it("Prometheus scrapes the pods that ask for it, once a second, under their labels", async () => {
    await pushBuild(1, targetsOf({}));
    const pod = (name: string, annotations: Record<string, string>) =>
      core.createNamespacedPod({
        namespace: NAMESPACE,
        body: {
          metadata: { name, annotations, labels: { app: "web", "baton/image-tag": name } },
          spec: {
            containers: [
              {
                name: "web",
                image: `${REGISTRY}/podinfo:build-1`,
                args: ["--port=9898"],
                securityContext: RESTRICTED,
              },
            ],
          },
        },
      });
    const port = "9898";
    await pod("seen", { "prometheus.io/scrape": "true", "prometheus.io/port": port });
    await pod("unseen", { "prometheus.io/port": port });
    const labels = `namespace="${NAMESPACE}",pod="seen",app="web",baton_image_tag="seen"`;
    const scraped = async () => {
      const [samples] = await queryPrometheus(`count_over_time(up{${labels}}[10s])`);
      return (samples?.value ?? 0) >= 8;
    };
    await until("eight scrapes in ten seconds", scraped, PATIENCE);
    assert.deepEqual(
      (await queryPrometheus(`up{namespace="${NAMESPACE}"}`)).map(({ labels: { pod }, value }) => [
        pod,
        value,
      ]),
      [["seen", 1]],
    );
    const { ended, said } = await inPod("ask", `wget -qO- ${PROMETHEUS}/-/ready`);
    assert.match(said, /Prometheus Server is Ready/);
    assert.equal(ended, "Complete");
    await core.deleteNamespacedPod({ namespace: NAMESPACE, name: "seen" });
    const forgotten = async () => (await queryPrometheus(`up{${labels}}`)).length === 0;
    await until("the end of a deleted pod's metrics", forgotten, PATIENCE);
  });

  it("a load is held constant, and its answers are counted by who gave them", async () => {
    const ports = [{ port: 80, targetPort: 9898 }];
    const { spec } = await core.createNamespacedService({
      namespace: NAMESPACE,
      body: { metadata: { name: "web" }, spec: { selector: { app: "web" }, ports } },
    });
    const url = `http://${spec?.clusterIP}/version`;
    const answers = async () => (await fetch(url).catch(() => undefined))?.ok ?? false;
    await until("an answer", answers, PATIENCE);
    const versions = ["build-1", "build-2"];
    const { requests, failures, dropped, byVersion } = await startLoad({
      url,
      perSecond: 20,
      seconds: 5,
      versions,
    }).result;
    assert.ok(requests >= 99 && requests <= 101, `${requests} requests`);
    assert.deepEqual([failures, dropped], [0, 0]);
    assert.equal(byVersion["build-1"]?.requests, requests);
    assert.equal(byVersion["build-2"]?.requests, 0);
    const missing = url.replace("/version", "/status/500");
    const bad = await startLoad({ url: missing, perSecond: 20, seconds: 2, versions }).result;
    assert.equal(bad.failures, bad.requests);
    assert.ok((bad.lastFailure ?? 0) > (bad.firstFailure ?? Infinity));
  });

  it("`status` says where all of it is", async () => {
    const { stdout } = await sandboxProcess("status", ["--json"]);
    const { services } = JSON.parse(stdout) as { services: unknown };
    assert.deepEqual(services, [
      { name: "registry", address: REGISTRY },
      { name: "PostgreSQL", address: POSTGRES },
      { name: "Prometheus", address: PROMETHEUS },
    ]);
  });
});
