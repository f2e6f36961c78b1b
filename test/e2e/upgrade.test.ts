import * as assert from "node:assert/strict";
import { execa } from "execa";
import { chmod, mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { until } from "../../sandbox/cluster";
import { NODE, REGISTRY } from "../../sandbox/folder";
import { runSql, superuserUrl } from "../../sandbox/postgres";
import {
  ApiServer,
  FIXTURE,
  pushRecorded,
  readRecorded,
  type Recorded,
  type RecordedObject,
} from "./recorded";
import { onSandbox, PATIENCE, Scene } from "./scene";

const REPOSITORY = { kind: "oci", repository: `${REGISTRY}/upgrade`, plainHttp: true } as const;
/** The database, its owner and the owner's password. */
const DATABASE = "upgrade";
const VOLUME = "baton-e2e-upgrade";
/** Whether the recorded images run here: they are for amd64. */
const isLoadable = onSandbox && process.arch === "x64";
/** Objects with uptime, an address or data: replacing one is an outage. */
const LASTING = ["Namespace", "Service", "Deployment", "PersistentVolumeClaim"];

/** A step of `pulumi preview --json`. */
interface Step {
  readonly op: string;
  readonly urn: string;
}

/* Objects and states as Pulumi's Kubernetes provider of 2020 left them, on the provider of today. */
describe("an environment that an older Kubernetes provider has deployed", () => {
  let scene: Scene;
  let recorded: Recorded;
  let server: ApiServer;

  const objectsOf = (environment: string): readonly RecordedObject[] =>
    recorded.environments[environment]?.objects ?? assert.fail(environment);
  const read = <T extends RecordedObject>({ path, metadata: { name } }: RecordedObject) =>
    server.ask<T>("GET", `${path}/${name}`);
  /** The live object of a kind and name. */
  const live = async <T>(environment: string, kind: string, name: string) => {
    const named = (one: RecordedObject) => one.kind === kind && one.metadata.name === name;
    const object = objectsOf(environment).find(named) ?? assert.fail(`${kind} ${name}`);
    return read<RecordedObject & T>(object);
  };
  const uids = (environment: string) =>
    Promise.all(
      objectsOf(environment)
        .filter(({ kind }) => LASTING.includes(kind))
        .map(async (object) => [
          object.path,
          object.metadata.name,
          (await read(object)).metadata.uid,
        ]),
    );
  const preview = async (environment: string): Promise<Step[]> => {
    const { stdout } = await scene.project.pulumi("preview", "--json", "--stack", environment);
    const { steps } = JSON.parse(stdout) as { steps: Step[] };
    return steps.filter(({ op }) => op !== "same");
  };
  const operations = (steps: readonly Step[]) =>
    steps.map(({ op, urn }) => `${op} ${urn.split("::").slice(2).join(" ")}`);
  const nothingLeft = async (environment: string) =>
    assert.deepEqual(operations(await preview(environment)), []);

  before(async function () {
    if (!isLoadable) this.skip();
    scene = await Scene.anew({ passphraseFile: join(FIXTURE, "passphrase") });
    recorded = await readRecorded();
    server = new ApiServer(scene.kubeconfig);
    await pushRecorded(recorded, REPOSITORY);
    await makeDatabase();
    await makeVolume();
    const { folder } = scene.project;
    await execa("git", ["init", "--quiet", "--initial-branch=main"], { cwd: folder });
    await scene.git(
      "fetch",
      "--quiet",
      "--update-head-ok",
      join(FIXTURE, "ledger.bundle"),
      "+refs/*:refs/*",
    );
    await scene.git("reset", "--quiet", "--hard", "main");
    for (const [environment, { state, objects }] of Object.entries(recorded.environments)) {
      const file = join(folder, "state.json");
      await writeFile(file, JSON.stringify(state));
      await scene.project.pulumi("stack", "import", "--file", file, "--stack", environment);
      await rm(file);
      await server.load(objects);
    }
    for (const environment of Object.keys(recorded.environments)) {
      const namespace = scene.namespaceOf(environment);
      const isUp = async () => {
        const { items } = await scene.apps.listNamespacedDeployment({ namespace });
        return items.every(({ spec, status }) => status?.availableReplicas === spec?.replicas);
      };
      await until(`the pods of ${environment}`, isUp, PATIENCE);
    }
    // As it was before the request that nobody has deployed.
    await scene.git("checkout", "--quiet", "main~1", "--", "Pulumi.qa.yaml");
  });
  after(async () => {
    if (!isLoadable) return;
    await scene.core.deletePersistentVolume({ name: VOLUME }).catch(() => undefined);
  });

  /** The database as the recorded releases left it. */
  async function makeDatabase(): Promise<void> {
    const superuser = await superuserUrl();
    await runSql(
      superuser,
      `DROP DATABASE IF EXISTS ${DATABASE} WITH (FORCE);
SELECT 'CREATE ROLE ${DATABASE} LOGIN'
  WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '${DATABASE}') \\gexec
ALTER ROLE ${DATABASE} PASSWORD '${DATABASE}';
CREATE DATABASE ${DATABASE} OWNER ${DATABASE}`,
    );
    const url = new URL(superuser);
    [url.username, url.password, url.pathname] = [DATABASE, DATABASE, DATABASE];
    await runSql(
      url.href,
      `CREATE TABLE migrations (version int PRIMARY KEY); INSERT INTO migrations VALUES (1), (2);
CREATE TABLE version_1 (id int); CREATE TABLE version_2 (id int)`,
    );
  }

  /** Nothing in the sandbox makes volumes for claims. */
  async function makeVolume(): Promise<void> {
    const path = join(NODE, VOLUME);
    await rm(path, { recursive: true, force: true });
    await mkdir(path, { recursive: true });
    await chmod(path, 0o777);
    await scene.core.deletePersistentVolume({ name: VOLUME }).catch(() => undefined);
    await until(
      "the former volume to go",
      async () => {
        const { items } = await scene.core.listPersistentVolume();
        return !items.some(({ metadata }) => metadata?.name === VOLUME);
      },
      PATIENCE,
    );
    await scene.core.createPersistentVolume({
      body: {
        metadata: { name: VOLUME },
        spec: {
          capacity: { storage: "1Gi" },
          accessModes: ["ReadWriteOnce"],
          storageClassName: "sandbox",
          persistentVolumeReclaimPolicy: "Retain",
          claimRef: { namespace: scene.namespaceOf("prod"), name: "database-backups" },
          hostPath: { path },
        },
      },
    });
  }

  for (const [environment, what] of [
    ["dev", "with rolling releases"],
    ["qa", "with a release that stays beside the one that serves"],
    ["stage", "with a canary's"],
    ["prod", "with a database"],
  ] as const) {
    it(`is taken over ${what}, and nothing that lasts is replaced`, async () => {
      const before = await uids(environment);
      const steps = await preview(environment);
      console.log(operations(steps).join("\n").replace(/^/gm, "      | "));
      const lost = steps.filter(
        ({ op, urn }) =>
          /replace|delete/.test(op) && LASTING.some((kind) => urn.includes(`:${kind}::`)),
      );
      assert.deepEqual(operations(lost), []);
      await scene.project.up(environment);
      assert.deepEqual(await uids(environment), before);
      await nothingLeft(environment);
    });
  }

  it("loses what a later release no longer declares", async () => {
    const { project } = scene;
    const deployment = () => live<Deployed>("dev", "Deployment", "web");
    const former = (await deployment()).spec.template;
    assert.deepEqual(
      former.spec.containers.map(({ env, ports }) => [env?.length, ports?.length]),
      [[1, 1]],
    );
    assert.ok("prometheus.io/scrape" in former.metadata.annotations);

    await project.edit("dev", {
      "baton:settings.secrets": { PARTNER: null },
      "baton:monitoring": { level: "none" },
      "baton:workloads.web.args": ["--port=9899"],
      "baton:workloads.web.port": 9899,
      "baton:workloads.web.exposure.tls": null,
      "baton:network.egress": [],
    });
    await scene.deploy("dev", "build-4");

    const { metadata, spec } = (await deployment()).spec.template;
    const [container, ...others] = spec.containers;
    assert.deepEqual(others, []);
    assert.equal(container?.env, undefined);
    assert.deepEqual(
      container?.ports?.map(({ containerPort }) => containerPort),
      [9899],
    );
    assert.deepEqual(metadata.annotations, undefined);
    const ingress = await live<{ spec: { tls?: unknown } }>("dev", "Ingress", "web");
    assert.equal(ingress.spec.tls, undefined);
    await nothingLeft("dev");
  });

  describe("with the tool", () => {
    const says = (exitCode: number, ...args: string[]) => scene.ends(exitCode, "ann", args);
    before(() => scene.git("reset", "--quiet", "--hard", "main"));

    it("shows what was deployed and asked for", async () => {
      const status = await says(0, "status");
      console.log(status);
      const history = await says(0, "history", "qa");
      console.log(history);
    });
    it("refuses a request of a former program, and takes it when it is made anew", async () => {
      const refused = await says(1, "deploy", "qa", "--yes");
      console.log(refused);
      assert.match(refused, /qa: the plan is another one: program moved since the request/);
      console.log(await says(0, "request", "qa", "--tag", "dev-3"));
      console.log(await says(0, "deploy", "qa", "--yes"));
    });
    it("goes back to the former release and forward again", async () => {
      console.log(await says(0, "rollback", "qa"));
      console.log(await says(0, "unhold", "dev-3", "--reason", "again"));
      console.log(await says(0, "request", "qa", "--tag", "dev-3"));
      console.log(await says(0, "deploy", "qa", "--yes"));
      await nothingLeft("qa");
    });
  });
});

/** A Deployment, as far as the tests read it. */
interface Deployed {
  readonly spec: {
    readonly template: {
      readonly metadata: { readonly annotations: Readonly<Record<string, string>> };
      readonly spec: {
        readonly containers: readonly {
          readonly env?: readonly unknown[];
          readonly ports?: readonly { readonly containerPort: number }[];
        }[];
      };
    };
  };
}
