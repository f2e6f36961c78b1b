import { Exec, NetworkingV1Api, type V1NetworkPolicy, type V1Pod } from "@kubernetes/client-node";
import { execa } from "execa";
import * as assert from "node:assert/strict";
import { connect } from "node:net";
import { join } from "node:path";
import { Writable } from "node:stream";
import { setTimeout } from "node:timers/promises";
import { isDeepStrictEqual } from "node:util";
import { until } from "../../sandbox/cluster";
import { BIN, NETWORK, REGISTRY } from "../../sandbox/folder";
import { pushImage } from "../../sandbox/images";
import { databaseUrl, runSql } from "../../sandbox/postgres";
import { onSandbox, Scene } from "./scene";

const ENVIRONMENT = "dev";
const PORT = 9898;
const METRICS = 9797;
/** Where cloud providers hand out a node's own credentials. */
const METADATA = "169.254.169.254";
const CLIENT = "postgres-client:15";
/** Of a connection, in seconds: long enough for a busy machine, as a refusal comes at once. */
const TIMEOUT = 2;
/** Of a suite that is held, and so of the wait for it, in seconds. */
const DEADLINE = 600;
/** How often all flows are tried until they are as the policies say. */
const ATTEMPTS = 60;
const BETWEEN_MILLISECONDS = 200;

/** How a try to connect ended; anything else, such as a timeout, is tried again. */
const PASSES = "passes";
const REFUSED = "refused";
/** How an entrance of a cluster calls the app. */
const GATEWAY = "gateway → app";
const LOAD_BALANCER = "load balancer → app";
type Entrance = typeof GATEWAY | typeof LOAD_BALANCER;
type Flows = Readonly<Record<string, () => Promise<string>>>;

type Direction = "ingress" | "egress";

/** Of a web socket. */
interface Closing {
  on(event: "close", listener: () => void): void;
}

/** Rules of a policy, each by its direction and place, and the flows that need one of them. */
interface Rule {
  readonly policy: string;
  readonly places: readonly (readonly [Direction, number])[];
  readonly flows: readonly string[];
}

const rule = (policy: string, direction: Direction, index: number, ...flows: string[]): Rule => ({
  policy,
  places: [[direction, index]],
  flows,
});

describe("network policies", () => {
  let scene: Scene;
  let networking: NetworkingV1Api;
  let first: number;
  /** Pods by the namespace they call from. */
  const callers: Record<string, V1Pod> = {};
  let migration: V1Pod | undefined;
  let endServer: (() => Promise<void>) | undefined;

  before(async function () {
    if (!onSandbox) this.skip();
    scene = await Scene.anew();
    networking = scene.kubeconfig.makeApiClient(NetworkingV1Api);
    [first] = scene.builds;
    first += 3000;
    const url = await databaseUrl("e2e_network");
    await runSql(url, "DROP SCHEMA public CASCADE; CREATE SCHEMA public");
    await scene.makeVolume(ENVIRONMENT, "database-backups");
    await scene.project.setSecret(ENVIRONMENT, "baton:DATABASE_URL", url);
    endServer = await serve();
    for (const name of ["gateway", "monitoring", "other"]) {
      await scene.core.createNamespace({ body: { metadata: { name: scene.namespaceOf(name) } } });
      callers[name] = await makeCaller(name, {});
    }
  });
  after(async () => {
    if (!onSandbox) return;
    await scene.removeVolume();
    await endServer?.();
  });

  const inNode = (...command: string[]) =>
    execa("ip", ["netns", "exec", NETWORK.namespace, ...command]);

  /**
   * Answers at the metadata address, as a cloud's node does, and beside it over HTTPS's port.
   * @returns what ends it.
   */
  async function serve(): Promise<() => Promise<void>> {
    const lo = [`${METADATA}/32`, "dev", "lo"];
    await inNode("ip", "address", "replace", ...lo);
    const program = `const { createServer } = require("node:net");
      for (const at of process.argv.slice(1)) {
        const [host, port] = at.split(":");
        createServer((socket) => socket.end()).listen(port, host, () => console.log(at));
      }`;
    const addresses = [`${METADATA}:80`, `${METADATA}:443`, `${NETWORK.inside}:443`];
    const server = inNode(process.execPath, "--eval", program, ...addresses);
    let said = "";
    await new Promise<void>((listens, failed) => {
      server.stdout.on("data", (line) => {
        said += String(line);
        if (addresses.every((one) => said.includes(one))) listens();
      });
      server.catch(failed);
    });
    return async () => {
      server.kill();
      await server.catch(() => undefined);
      await inNode("ip", "address", "delete", ...lo);
    };
  }

  /** A pod that calls, and that is called at the app's port. */
  async function makeCaller(environment: string, labels: Record<string, string>): Promise<V1Pod> {
    const namespace = scene.namespaceOf(environment);
    const name = "caller";
    const container = {
      name,
      image: `${REGISTRY}/${CLIENT}`,
      command: ["/bin/httpd", "-f", "-p", String(PORT), "-h", "/"],
      resources: {
        requests: { cpu: "10m", memory: "16Mi" },
        limits: { cpu: "250m", memory: "64Mi" },
      },
      securityContext: {
        allowPrivilegeEscalation: false,
        runAsNonRoot: true,
        capabilities: { drop: ["ALL"] },
        seccompProfile: { type: "RuntimeDefault" },
      },
    };
    const spec = { containers: [container], automountServiceAccountToken: false };
    await scene.core.createNamespacedPod({ namespace, body: { metadata: { name, labels }, spec } });
    const [pod] = await running(`the caller in ${namespace}`, async () => [
      await scene.core.readNamespacedPod({ namespace, name }),
    ]);
    return pod;
  }

  /** Waits until there are pods, and all of them run. */
  async function running(what: string, read: () => Promise<V1Pod[]>): Promise<[V1Pod, ...V1Pod[]]> {
    let pods: V1Pod[] = [];
    const run = async () => {
      pods = await read();
      return pods.length > 0 && pods.every(({ status }) => status?.phase === "Running");
    };
    await until(what, run, DEADLINE);
    return pods as [V1Pod, ...V1Pod[]];
  }

  /** Runs a command in a pod; gives what it prints, as an error where it fails. */
  async function run(pod: V1Pod, ...command: string[]): Promise<string> {
    const { namespace = "", name = "" } = pod.metadata ?? {};
    const container = pod.spec?.containers[0]?.name ?? "";
    let said = "";
    const output = new Writable({
      write: (chunk, _, done) => {
        said += String(chunk);
        done();
      },
    });
    const exec = new Exec(scene.kubeconfig);
    const isGood = await new Promise<boolean>((done, failed) => {
      const ended = ({ status }: { status?: string }) => {
        done(status === "Success");
      };
      exec
        .exec(namespace, name, container, command, output, output, null, false, ended)
        .then((socket: Closing) => {
          socket.on("close", () => {
            done(false);
          });
        }, failed);
    });
    if (!isGood) throw new Error(said);
    return said;
  }

  const outcome = (attempt: Promise<unknown>): Promise<string> =>
    attempt.then(
      () => PASSES,
      (error: unknown) => (/refused/i.test(String(error)) ? REFUSED : String(error)),
    );
  const ipOf = (pod: V1Pod | undefined) => pod?.status?.podIP ?? "";

  /** From a caller, or a suite. */
  const from = (pod: V1Pod | undefined, host: string, port: number) => () =>
    outcome(run(pod ?? {}, "/bin/nc", "-w", String(TIMEOUT), host, String(port)));
  /** From the app's own pod. */
  const fromApp = (pod: V1Pod, to: string) =>
    run(pod, "/bin/podcli", "check", "tcp", to, `--timeout=${TIMEOUT}s`, "--delay=0s");
  /** From beyond the cluster, as a cloud's load balancer. */
  const fromOutside = (host: string, port: number) => () =>
    outcome(
      new Promise<void>((done, failed) => {
        const socket = connect({ host, port, timeout: TIMEOUT * 1000 }, () => {
          socket.destroy();
          done();
        });
        socket.on("error", failed);
        socket.on("timeout", () => {
          socket.destroy(new Error("timeout"));
        });
      }),
    );
  /** Whether a name is found; where it leads to is not called. */
  const findsName = async (pod: V1Pod) =>
    outcome(
      fromApp(pod, "kubernetes.default.svc.cluster.local:443").catch((error: unknown) => {
        if (String(error).includes("lookup")) throw error;
      }),
    );

  const listPolicies = async () => {
    const namespace = scene.namespaceOf(ENVIRONMENT);
    return (await networking.listNamespacedNetworkPolicy({ namespace })).items;
  };

  /** Makes the namespace's policies these. */
  async function setPolicies(wanted: readonly V1NetworkPolicy[]): Promise<void> {
    const namespace = scene.namespaceOf(ENVIRONMENT);
    const present = await listPolicies();
    const named = (policies: readonly V1NetworkPolicy[], name: string | undefined) =>
      policies.find((one) => one.metadata?.name === name);
    for (const { metadata } of present) {
      if (named(wanted, metadata?.name) !== undefined) continue;
      await networking.deleteNamespacedNetworkPolicy({ namespace, name: metadata?.name ?? "" });
    }
    for (const policy of wanted) {
      const name = policy.metadata?.name ?? "";
      const former = named(present, name);
      if (isDeepStrictEqual(former?.spec, policy.spec)) continue;
      const body = structuredClone(policy);
      // Of the object that it was.
      delete body.metadata?.resourceVersion;
      delete body.metadata?.uid;
      delete body.metadata?.managedFields;
      if (former === undefined) await networking.createNamespacedNetworkPolicy({ namespace, body });
      else await networking.replaceNamespacedNetworkPolicy({ namespace, name, body });
    }
  }

  function without(policies: readonly V1NetworkPolicy[], { policy, places }: Rule) {
    const copies = structuredClone(policies) as V1NetworkPolicy[];
    const changed = copies.find(({ metadata }) => metadata?.name === policy);
    for (const [direction, index] of places) {
      const removed = changed?.spec?.[direction]?.splice(index, 1) ?? [];
      assert.equal(removed.length, 1, `${direction} rule ${index} of ${policy}`);
    }
    return copies;
  }

  /** Tries all flows until exactly these are refused and all others pass. */
  async function expectRefused(when: string, flows: Flows, refused: readonly string[]) {
    const names = Object.keys(flows);
    const expected = names.map((name) => [name, refused.includes(name) ? REFUSED : PASSES]);
    let seen: unknown;
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      seen = await Promise.all(names.map(async (name) => [name, await flows[name]?.()]));
      if (isDeepStrictEqual(seen, expected)) {
        console.log(`      ${when}: ${names.length} flows, tried ${attempt + 1} times`);
        return;
      }
      await setTimeout(BETWEEN_MILLISECONDS);
    }
    assert.deepEqual(seen, expected, when);
  }

  /** Shows of each flow that the policies decide on it, and of each needed one, which rule. */
  async function prove(needed: Flows, unneeded: Flows, rules: readonly Rule[]): Promise<void> {
    const flows = { ...needed, ...unneeded };
    const closed = Object.keys(unneeded);
    const shown = new Set(rules.flatMap((one) => one.flows));
    assert.deepEqual([...shown].sort(), Object.keys(needed).sort(), "each has its rule");
    const policies = await listPolicies();
    try {
      await expectRefused("with all policies", flows, closed);
      for (const one of rules) {
        await setPolicies(without(policies, one));
        const what = `without ${one.places.flat().join(" ")} of ${one.policy}`;
        await expectRefused(what, flows, [...closed, ...one.flows]);
      }
      await setPolicies([]);
      await expectRefused("without policies", flows, []);
    } finally {
      await setPolicies(policies);
    }
    await expectRefused("with all policies again", flows, closed);
  }

  async function push(number: number): Promise<string> {
    const tag = `build-${first + number}`;
    await pushImage(tag, scene.target, {
      files: { "bin/podinfo": join(BIN, "podinfo"), "bin/podcli": join(BIN, "podcli") },
      entrypoint: ["/bin/podinfo"],
      labels: {
        "baton.schema-head": "1",
        "baton.schema-kind": "expand",
        "org.opencontainers.image.version": tag,
      },
    });
    return tag;
  }

  /**
   * @param through How the suite that runs meanwhile reaches the app.
   * @param entrance Who calls it from outside: pods, or addresses of a load balancer.
   */
  async function configure(
    rollout: object,
    through: "service" | "exposure",
    entrance: Entrance,
  ): Promise<void> {
    const hold = ["/bin/sh", "-c", `trap 'exit 0' TERM; sleep ${DEADLINE} & wait`];
    const migrate = `psql -q "$DATABASE_URL" -c 'CREATE TABLE migrations AS SELECT 1 AS version'`;
    await scene.project.edit(ENVIRONMENT, {
      "baton:entrances.internal": {
        name: "sandbox",
        ...(entrance === GATEWAY
          ? { namespace: scene.namespaceOf("gateway"), cidr: null }
          : { cidr: `${NETWORK.outside}/32` }),
      },
      "baton:network": {
        prometheusNamespace: scene.namespaceOf("monitoring"),
        egress: [
          { name: "database", cidr: `${NETWORK.inside}/32`, port: 5432 },
          { name: "web", cidr: "0.0.0.0/0", except: [`${METADATA}/32`], port: 80 },
        ],
      },
      "baton:monitoring": { level: "scrape" },
      "baton:workloads.web.args": [
        `--port=${PORT}`,
        `--port-metrics=${METRICS}`,
        "--level=$(LOG_LEVEL)",
      ],
      "baton:workloads.web.metrics": { path: "/metrics", port: METRICS },
      "baton:quota": { pods: 40 },
      "baton:settings.secrets": { DATABASE_URL: { source: "config" } },
      "baton:database": {
        url: "DATABASE_URL",
        client: CLIENT,
        version: "SELECT max(version) FROM migrations",
        migration: { image: CLIENT, command: ["/bin/sh", "-c", migrate] },
        backup: { volume: { size: "1Gi", storageClass: "sandbox" } },
      },
      "baton:verification": {
        suites: {
          hold: { target: "web", image: CLIENT, command: hold, timeoutSeconds: DEADLINE, through },
        },
        run: ["smoke", "hold"],
      },
      "baton:rollout": rollout,
    });
  }

  /** Deploys a release, and does something while its last suite runs, which ends with that. */
  async function whileVerified(
    tag: string,
    action: (suite: V1Pod) => Promise<void>,
  ): Promise<void> {
    const up = scene.deploy(ENVIRONMENT, tag);
    const began = running("the suite", () =>
      scene.pods(ENVIRONMENT, `app.kubernetes.io/name=verification-hold,baton/image-tag=${tag}`),
    );
    await Promise.race([began, up.then(() => assert.fail("the suite was to hold it"))]);
    const [suite] = await began;
    try {
      await action(suite);
    } finally {
      // It may end before the command that ends it.
      await run(suite, "/bin/kill", "-TERM", "1").catch(() => undefined);
      await up;
    }
  }

  /** All flows to and from a release, whose Service of its own has that name. */
  async function flowsOf(
    tag: string,
    suite: V1Pod,
    service: string,
    entrance: Entrance,
  ): Promise<[Flows, Flows]> {
    const [app] = await running("the app", () =>
      scene.pods(ENVIRONMENT, `app.kubernetes.io/name=${service},baton/image-tag=${tag}`),
    );
    const { gateway, monitoring, other } = callers;
    const name = { namespace: scene.namespaceOf(ENVIRONMENT), name: service };
    const { spec } = await scene.core.readNamespacedService(name);
    const database = [NETWORK.inside, 5432] as const;
    const entrances = {
      [GATEWAY]: from(gateway, ipOf(app), PORT),
      [LOAD_BALANCER]: fromOutside(spec?.clusterIP ?? "", 80),
    };
    const stranger = entrance === GATEWAY ? LOAD_BALANCER : GATEWAY;
    const needed = {
      "suite → app": from(suite, ipOf(app), PORT),
      "app → DNS": () => findsName(app),
      "app → DNS over TCP": () => outcome(fromApp(app, `${NETWORK.inside}:53`)),
      "app → database": () => outcome(fromApp(app, database.join(":"))),
      "app → web": () => outcome(fromApp(app, `${NETWORK.inside}:80`)),
      "migration → database": from(migration, ...database),
      [entrance]: entrances[entrance],
      "Prometheus → app": from(monitoring, ipOf(app), METRICS),
    };
    const unneeded = {
      [stranger]: entrances[stranger],
      "another namespace → app": from(other, ipOf(app), PORT),
      "another namespace → metrics": from(other, ipOf(app), METRICS),
      "Prometheus → app's own port": from(monitoring, ipOf(app), PORT),
      "app → metadata": () => outcome(fromApp(app, `${METADATA}:80`)),
      "suite → metadata": from(suite, METADATA, 443),
      "app → another environment": () => outcome(fromApp(app, `${ipOf(other)}:${PORT}`)),
    };
    return [needed, unneeded];
  }

  /** Which rules let the flows of `flowsOf` pass; `policy` is the workload's own. */
  const rulesOf = (policy: string, entrance: Entrance) => [
    {
      policy: "default",
      // kube-router lets pass what either of one policy's directions allows.
      places: [
        ["ingress", 0],
        ["egress", 0],
      ] as const,
      flows: ["suite → app"],
    },
    rule("default", "egress", 1, "app → DNS", "app → DNS over TCP"),
    rule("default", "egress", 2, "app → database", "migration → database"),
    rule("default", "egress", 3, "app → web"),
    rule(policy, "ingress", 0, entrance),
    rule(policy, "ingress", 1, "Prometheus → app"),
  ];

  /** A pod with the labels of the migration's own, which has ended. */
  async function makeMigration(): Promise<V1Pod> {
    const { items } = await scene.batch.listNamespacedJob({
      namespace: scene.namespaceOf(ENVIRONMENT),
    });
    const job = items.find(({ metadata }) => metadata?.name?.includes("-migrate-"));
    assert.ok(job !== undefined, "the migration has run");
    assert.equal(job.status?.succeeded, 1);
    // Not those by which the Job would take the pod for its own.
    const labels = Object.entries(job.spec?.template.metadata?.labels ?? {}).filter(
      ([key]) => !/controller-uid|job-name/.test(key),
    );
    return makeCaller(ENVIRONMENT, Object.fromEntries(labels));
  }

  it("let the needed flows of a release pass, and no others", async () => {
    await configure({}, "exposure", GATEWAY);
    const tag = await push(1);
    await whileVerified(tag, async (suite) => {
      migration = await makeMigration();
      const [needed, unneeded] = await flowsOf(tag, suite, "web", GATEWAY);
      await prove(
        {
          ...needed,
          "suite → gateway": from(suite, ipOf(callers["gateway"]), PORT),
          "suite → public address": from(suite, NETWORK.inside, 443),
        },
        unneeded,
        [
          ...rulesOf("web", GATEWAY),
          rule("verification", "egress", 0, "suite → public address"),
          rule("verification", "egress", 1, "suite → gateway"),
        ],
      );
    });
  });

  for (const [index, [rollout, entrance]] of (
    [
      [{ strategy: "blueGreen" }, LOAD_BALANCER],
      [{ strategy: "canary", steps: [{ weight: 50, duration: "1s" }] }, GATEWAY],
    ] as const
  ).entries()) {
    it(`let those of a ${rollout.strategy}'s new pods pass before they are on the air`, async () => {
      await configure(rollout, "service", entrance);
      const tag = await push(2 + index);
      await whileVerified(tag, async (suite) => {
        const service = { namespace: scene.namespaceOf(ENVIRONMENT), name: "web" };
        const { spec } = await scene.core.readNamespacedService(service);
        assert.notEqual(spec?.selector?.["app.kubernetes.io/name"], `web-${tag}`);
        const flows = await flowsOf(tag, suite, `web-${tag}`, entrance);
        await prove(...flows, rulesOf("web-colours", entrance));
      });
    });
  }
});
