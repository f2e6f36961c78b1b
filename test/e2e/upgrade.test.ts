import * as assert from "node:assert/strict";
import { execa } from "execa";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { until } from "../../sandbox/cluster";
import { openRegistry } from "../../registry/registry";
import { REGISTRY } from "../../sandbox/folder";
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
/** Whether the recorded images run here: they are for amd64. */
const isLoadable = onSandbox && process.arch === "x64";
/** Objects with uptime, an address or data: replacing one is an outage. */
const LASTING = ["Namespace", "Service", "Deployment", "PersistentVolumeClaim"];

/** The former releases of qa and stage. */
const BESIDE = /^web-(dev|qa)-1$/;
/** How the former provider marked an object and its fields. */
const LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration";
const FORMER_MANAGER = "pulumi-resource-kubernetes";

/** The output of `pulumi preview --json`. */
interface Preview {
  readonly steps: readonly Step[];
  readonly diagnostics?: readonly { readonly severity: string; readonly message: string }[];
}
interface Step {
  readonly op: string;
  readonly urn: string;
  readonly detailedDiff?: Readonly<Record<string, unknown>> | null;
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
  /** The uids of what lasts; `beside` too: of the release that stays beside the one that serves. */
  const uids = (environment: string, { beside = true } = {}) =>
    Promise.all(
      objectsOf(environment)
        .filter(
          ({ kind, metadata }) => LASTING.includes(kind) && (beside || !BESIDE.test(metadata.name)),
        )
        .map(async (object) => [
          object.kind,
          object.metadata.name,
          (await read(object)).metadata.uid,
        ]),
    );
  const preview = async (environment: string): Promise<Step[]> => {
    const run = scene.project.pulumi("preview", "--json", "--stack", environment);
    // A failed preview is JSON, too, of thousands of lines.
    const { stdout } = await run.catch((error: unknown) => error as Awaited<typeof run>);
    const { steps, diagnostics = [] } = JSON.parse(stdout) as Preview;
    assert.deepEqual(
      diagnostics.filter(({ severity }) => severity === "error"),
      [],
    );
    return steps.filter(({ op }) => op !== "same");
  };
  const operations = (steps: readonly Step[]) =>
    steps.map(({ op, urn }) => `${op} ${urn.split("::").slice(2).join(" ")}`);
  /** Deploys a release whose tag its upstream has earned: what lasts stays. */
  const advance = async (environment: string, tag: string, version?: string) => {
    const { project } = scene;
    const digest = recorded.tags[`build-${tag.split("-")[1] ?? ""}`] ?? assert.fail(tag);
    await openRegistry(REPOSITORY).tag(digest, tag);
    // A release that stays beside goes when the next but one comes.
    const before = await uids(environment, { beside: false });
    await project.setConfig(environment, "imageDigest", digest);
    await scene.deploy(environment, tag, version);
    assert.deepEqual(await uids(environment, { beside: false }), before);
    await nothingLeft(environment);
  };
  const says = (exitCode: number, ...args: string[]) => scene.ends(exitCode, "ann", args);
  /**
   * Asserts that a preview shows nothing. Jobs whose annotations alone are shown are left out: the
   * provider may record a completed Job as it was before its update, while the cluster has the new one.
   */
  const nothingLeft = async (environment: string) => {
    const isStale = ({ op, urn, detailedDiff }: Step) =>
      op === "update" &&
      urn.includes("$kubernetes:batch/v1:Job::") &&
      Object.keys(detailedDiff ?? {}).every((path) => path.startsWith("metadata.annotations"));
    const steps = await preview(environment);
    assert.deepEqual(operations(steps.filter((step) => !isStale(step))), []);
  };

  before(async function () {
    if (!isLoadable) this.skip();
    scene = await Scene.forRecorded(join(FIXTURE, "passphrase"));
    recorded = await readRecorded();
    server = new ApiServer(scene.kubeconfig);
    await pushRecorded(recorded, REPOSITORY);
    await makeDatabase();
    await scene.makeVolume("prod", "database-backups");
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
    await Promise.all(Object.keys(recorded.environments).map(load));
    // As it was before the request that nobody has deployed.
    await scene.git("checkout", "--quiet", "main~1", "--", "Pulumi.qa.yaml");
  });
  after(async () => {
    if (!isLoadable) return;
    await scene.removeVolume();
  });

  /** Makes an environment's objects and state again, and waits for its pods. */
  async function load(environment: string): Promise<void> {
    const file = join(scene.project.folder, `state/${environment}.json`);
    await writeFile(file, JSON.stringify(recorded.environments[environment]?.state));
    await scene.project.pulumi("stack", "import", "--file", file, "--stack", environment);
    await server.load(objectsOf(environment));
    const namespace = scene.namespaceOf(environment);
    const isUp = async () => {
      const { items } = await scene.apps.listNamespacedDeployment({ namespace });
      return items.every(({ spec, status }) => status?.availableReplicas === spec?.replicas);
    };
    await until(`the pods of ${environment}`, isUp, PATIENCE);
  }

  /** The database as the recorded releases left it. */
  async function makeDatabase(): Promise<void> {
    await runSql(
      await superuserUrl(),
      `DROP DATABASE IF EXISTS ${DATABASE} WITH (FORCE);
SELECT 'CREATE ROLE ${DATABASE} LOGIN'
  WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '${DATABASE}') \\gexec
ALTER ROLE ${DATABASE} PASSWORD '${DATABASE}';
CREATE DATABASE ${DATABASE} OWNER ${DATABASE}`,
    );
    await runSql(
      await databaseUrl(),
      `CREATE TABLE migrations (version int PRIMARY KEY); INSERT INTO migrations VALUES (1), (2);
CREATE TABLE version_1 (id int); CREATE TABLE version_2 (id int)`,
    );
  }

  async function databaseUrl(): Promise<string> {
    const url = new URL(await superuserUrl());
    [url.username, url.password, url.pathname] = [DATABASE, DATABASE, DATABASE];
    return url.href;
  }

  it("is shown by the tool as it was recorded", async () => {
    const { environments } = JSON.parse(await says(0, "status", "--json")) as {
      environments: { environment: string; runs?: { tag: string; version?: string } }[];
    };
    assert.deepEqual(
      environments.map(({ environment, runs }) => [environment, runs?.tag, runs?.version]),
      [
        ["dev", "build-3", undefined],
        ["qa", "dev-2", undefined],
        ["stage", "qa-2", undefined],
        ["prod", "stage-2", "v2.0.0"],
        ["dr", undefined, undefined],
      ],
    );
    const { entries } = JSON.parse(await says(0, "history", "prod", "--json")) as {
      entries: { tag: string; result: string }[];
    };
    assert.deepEqual(
      entries.map(({ tag, result }) => [tag, result]),
      [
        ["stage-2", "deployed"],
        ["stage-1", "deployed"],
      ],
    );
  });

  it("is taken over as it is", async () => {
    const takeOver = async (environment: string) => {
      const before = await uids(environment);
      const lost = (await preview(environment)).filter(
        ({ op, urn }) =>
          /replace|delete/.test(op) && LASTING.some((kind) => urn.includes(`:${kind}::`)),
      );
      assert.deepEqual(operations(lost), []);
      await scene.project.up(environment);
      assert.deepEqual(await uids(environment), before);
      await nothingLeft(environment);
    };
    await Promise.all(Object.keys(recorded.environments).map(takeOver));
  });

  it("takes the next release, and loses what that no longer declares", async () => {
    const { project } = scene;
    const deployment = () => live<Deployed>("dev", "Deployment", "web");
    const former = (await deployment()).spec.template;
    assert.equal(former.spec.containers[0]?.env?.length, 1);
    assert.ok("prometheus.io/scrape" in (former.metadata.annotations ?? {}));

    await project.edit("dev", {
      "baton:settings.secrets": { PARTNER: null },
      "baton:monitoring": { level: "none" },
      "baton:workloads.web.args": ["--port=9899"],
      "baton:workloads.web.port": 9899,
      "baton:workloads.web.exposure.tls": null,
      "baton:network.egress": [],
      "baton:quota": { pods: 20 },
    });
    await advance("dev", "build-4");

    const { metadata, spec } = await deployment();
    assert.deepEqual(
      metadata.managedFields?.filter(({ manager }) => manager === FORMER_MANAGER),
      [],
    );
    assert.ok(!(LAST_APPLIED in (metadata.annotations ?? {})));
    const [container, ...others] = spec.template.spec.containers;
    assert.deepEqual(others, []);
    assert.deepEqual(container?.env ?? [], []);
    assert.deepEqual(
      container?.ports?.map(({ containerPort }) => containerPort),
      [9899],
    );
    assert.deepEqual(spec.template.metadata.annotations ?? {}, {});
    const ingress = await live<{ spec: { tls?: unknown } }>("dev", "Ingress", "web");
    assert.equal(ingress.spec.tls, undefined);
    const quota = await live<{ spec: { hard: object } }>("dev", "ResourceQuota", "quota");
    assert.deepEqual(quota.spec.hard, { pods: "20" });
  });

  it("takes the next release by a canary", async () => {
    await advance("stage", "qa-3");
    const { spec } = await live<{ spec: { selector: object } }>("stage", "Service", "web");
    assert.deepEqual(spec.selector, { "app.kubernetes.io/name": "web-qa-3" });
  });

  it("takes the next release with a migration", async () => {
    await scene.project.edit("prod", { "baton:settings.config.TARGET": 3 });
    await advance("prod", "stage-3", "v3.0.0");
    assert.equal(await runSql(await databaseUrl(), "SELECT max(version) FROM migrations"), "3");
  });

  describe("with the tool", () => {
    const ask = () => says(0, "request", "qa", "--tag", "dev-3");
    const deploy = () => says(0, "deploy", "qa", "--yes");
    const serves = async () => {
      const { spec } = await live<{ spec: { selector: object } }>("qa", "Service", "web");
      return spec.selector;
    };
    before(() => scene.git("reset", "--quiet", "--hard", "main"));

    it("refuses the request of a former program, and takes it when it is made anew", async () => {
      assert.match(
        await says(1, "deploy", "qa", "--yes"),
        /qa: the request is kept with shortened hashes, .*`baton request qa`/s,
      );
      const before = await uids("qa", { beside: false });
      await ask();
      assert.match(await deploy(), /qa: dev-3 is deployed and verified/);
      assert.deepEqual(await serves(), { "app.kubernetes.io/name": "web-dev-3" });
      assert.deepEqual(await uids("qa", { beside: false }), before);
    });

    it("goes back to a release of the former provider, and forward again", async () => {
      const before = await uids("qa", { beside: false });
      await says(0, "rollback", "qa");
      assert.deepEqual(await serves(), { "app.kubernetes.io/name": "web-dev-2" });
      await says(0, "unhold", "dev-3", "--reason", "it is good");
      await ask();
      await deploy();
      assert.deepEqual(await serves(), { "app.kubernetes.io/name": "web-dev-3" });
      assert.deepEqual(await uids("qa", { beside: false }), before);
      await nothingLeft("qa");
    });
  });
});

/** A Deployment, as far as the tests read it. */
interface Deployed {
  readonly metadata: { readonly managedFields?: readonly { readonly manager: string }[] };
  readonly spec: {
    readonly template: {
      readonly metadata: { readonly annotations?: Readonly<Record<string, string>> };
      readonly spec: {
        readonly containers: readonly {
          readonly env?: readonly unknown[];
          readonly ports?: readonly { readonly containerPort: number }[];
        }[];
      };
    };
  };
}
