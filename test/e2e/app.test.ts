import { CoreV1Api } from "@kubernetes/client-node";
import { execa } from "execa";
import * as assert from "node:assert/strict";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { openRegistry } from "../../registry/registry";
import { deleteNamespaces, kubeconfigOf, until } from "../../sandbox/cluster";
import { type Place, Project } from "../../sandbox/engine";
import { ROOT, SANDBOX } from "../../sandbox/folder";
import { pushBuild, pushTests, targetsOf } from "../../sandbox/images";
import { connectDatabases } from "../../sandbox/orders";
import { runSql, superuserUrl } from "../../sandbox/postgres";
import { onSandbox, PATIENCE, sandboxProcess } from "./scene";

const PREFIX = "baton-orders-";
const PLACE: Place = { app: true, namespacePrefix: PREFIX };
/** Tags never move, so each run needs a number of its own. */
const BUILD = Math.floor(Date.now() / 1000);
const TEA = { customer: "Ada", item: "Tea", quantity: 2, unitPriceCents: 650 };

describe("the service in app/ (long)", () => {
  let project: Project;
  let core: CoreV1Api;
  const targets = targetsOf(PLACE);
  const [target] = targets.app;
  assert.ok(target);
  const registry = openRegistry({ kind: "oci", ...target });

  before(async function () {
    if (!onSandbox) this.skip();
    await sandboxProcess("up", ["--app"]);
    const kubeconfig = kubeconfigOf(PLACE);
    core = kubeconfig.makeApiClient(CoreV1Api);
    // What a former run left, however it ended.
    await rm(join(SANDBOX, "e2e-orders"), { recursive: true, force: true });
    await deleteNamespaces(kubeconfig, PREFIX, PATIENCE);
    const databases = await runSql(
      await superuserUrl(),
      "SELECT format('DROP DATABASE %I WITH (FORCE);', datname) FROM pg_database WHERE datname LIKE 'app_e2e_orders_%'",
    );
    await runSql(await superuserUrl(), databases);
    await pushTests(targets);
    await pushBuild(BUILD, targets);
    project = await Project.open("e2e-orders", PLACE);
    await connectDatabases(project, "e2e_orders_");
  });

  /** The Service's address: Services can be called from here. */
  const urlOf = async (environment: string) => {
    const { spec } = await core.readNamespacedService({
      namespace: `${PREFIX}${environment}`,
      name: "web",
    });
    return `http://${spec?.clusterIP}`;
  };
  const deploy = async (environment: string, imageTag: string) => {
    await project.setConfig(environment, "imageTag", imageTag);
    await project.up(environment);
  };
  const order = async (url: string) => {
    const headers = { "content-type": "application/json" };
    const body = JSON.stringify(TEA);
    const answer = await fetch(`${url}/orders`, { method: "POST", headers, body });
    assert.equal(answer.status, 201);
    return (await answer.json()) as { id: string };
  };
  const schema = (url: string) => runSql(url, "SELECT count(*) FROM pgmigrations");
  const databaseOf = (environment: string) => superuserUrl(`app_e2e_orders_${environment}`);

  it("passes its own tests with the sandbox's PostgreSQL", async () => {
    await execa("npm", ["ci"], { cwd: join(ROOT, "app") });
    const env = { DATABASE_URL: await superuserUrl() };
    const { stdout } = await execa("npm", ["run", "test:integration"], {
      cwd: join(ROOT, "app"),
      env,
    });
    assert.match(stdout, /^ℹ pass [1-9]/m);
    assert.match(stdout, /^ℹ fail 0$/m);
  });

  it("is built by its Dockerfile: not root, and saying what it is", async () => {
    const reference = `${target.repository}:build-${BUILD}`;
    const crane = join(SANDBOX, "bin/crane");
    const { stdout } = await execa(crane, ["config", "--insecure", reference]);
    const { config } = JSON.parse(stdout) as {
      config: { User: string; Labels: Record<string, string> };
    };
    assert.equal(config.User, "65532:65532");
    const { stdout: revision } = await execa("git", ["rev-parse", "HEAD"], { cwd: ROOT });
    assert.equal(config.Labels["org.opencontainers.image.version"], String(BUILD));
    assert.equal(config.Labels["org.opencontainers.image.revision"], revision);
    assert.equal(config.Labels["baton.schema-head"], "3");
    assert.equal(config.Labels["baton.schema-kind"], "expand");
  });

  for (const [environment, tag] of [
    ["dev", `build-${BUILD}`],
    ["qa", `dev-${BUILD}`],
  ] as const) {
    it(`goes to ${environment}, migrates its database and answers from it`, async () => {
      await deploy(environment, tag);
      const earned = await registry.resolve(`${environment}-${BUILD}`);
      assert.equal(earned, await registry.resolve(`build-${BUILD}`));
      assert.equal(await schema(await databaseOf(environment)), "3");

      const url = await urlOf(environment);
      const version = (await (await fetch(`${url}/version`)).json()) as { version: string };
      assert.equal(version.version, String(BUILD));
      const { id } = await order(url);
      const found = (await (await fetch(`${url}/orders/${id}`)).json()) as object;
      assert.deepEqual({ ...found, ...TEA }, found);
      const customer = `SELECT customer FROM orders WHERE id = '${id}'`;
      assert.equal(await runSql(await databaseOf(environment), customer), "Ada");
    });
  }

  it("keeps each environment's orders apart", async () => {
    const { id } = await order(await urlOf("dev"));
    assert.equal((await fetch(`${await urlOf("qa")}/orders/${id}`)).status, 404);
  });

  it("keeps where its database is to itself", async () => {
    const password = new URL(await superuserUrl()).password;
    const { stdout: url } = await project.pulumi("config", "get", "--stack", "qa", "DATABASE_URL");
    const { stdout: state } = await project.pulumi("stack", "export", "--stack", "qa");
    const own = new URL(url).password;
    assert.notEqual(own, password);
    assert.ok(own.length > 20 && !state.includes(own), "the state holds the password");
    const [pod] = (
      await core.listNamespacedPod({
        namespace: `${PREFIX}qa`,
        labelSelector: "app.kubernetes.io/name=web",
      })
    ).items;
    const log = { namespace: `${PREFIX}qa`, name: pod?.metadata?.name ?? "" };
    for (const container of ["migrate", "web"]) {
      const said = await core.readNamespacedPodLog({ ...log, container });
      assert.notEqual(said, "");
      assert.ok(!said.includes(own), `${container} logs the password`);
    }
  });

  it("does not replace the version that works when it is bad on purpose", async () => {
    const before = await registry.resolve(`dev-${BUILD}`);
    await pushBuild(BUILD + 1, targets);
    await project.setConfig("dev", "baton:settings.config.FAULT", "crash");
    await project.setConfig("dev", "baton:rollout.progressDeadlineSeconds", "60");
    await assert.rejects(deploy("dev", `build-${BUILD + 1}`), /FAULT is crash/);
    assert.equal(await registry.resolve(`dev-${BUILD + 1}`), undefined);
    const answer = await fetch(`${await urlOf("dev")}/version`);
    assert.equal(((await answer.json()) as { version: string }).version, String(BUILD));

    await project.pulumi("config", "rm", "--path", "baton:settings.config.FAULT", "--stack", "dev");
    await deploy("dev", `build-${BUILD + 1}`);
    assert.notEqual(await registry.resolve(`dev-${BUILD + 1}`), before);
  });

  it("becomes unready without its database, and ready again with it, without a restart", async () => {
    const admin = await superuserUrl();
    const ready = async () => (await fetch(`${url}/readyz`).catch(() => undefined))?.status === 200;
    const url = await urlOf("qa");
    const allow = (yes: boolean) =>
      runSql(admin, `ALTER DATABASE app_e2e_orders_qa ALLOW_CONNECTIONS ${String(yes)}`);
    const restarts = async () => {
      const { items } = await core.listNamespacedPod({ namespace: `${PREFIX}qa` });
      const statuses = items.flatMap(({ status }) => status?.containerStatuses ?? []);
      return statuses.map(({ restartCount }) => restartCount);
    };
    const former = await restarts();
    assert.ok(await ready());
    try {
      await allow(false);
      await runSql(
        admin,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'app_e2e_orders_qa'",
      );
      await until("the end of readiness", async () => !(await ready()), PATIENCE);
    } finally {
      await allow(true);
    }
    await until("readiness", ready, PATIENCE);
    assert.deepEqual(await restarts(), former);
  });
});
