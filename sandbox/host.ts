/*
 * The node seen from outside: what it needs of the machine, its life and its end. One process holds
 * a tree that has its own network, mounts, shared memory and process numbers: when it dies, however
 * it dies, the kernel takes everything else with it. What the kernel leaves, `stop` removes.
 */
import {
  ApiException,
  ApiregistrationV1Api,
  CoordinationV1Api,
  CoreV1Api,
} from "@kubernetes/client-node";
import { execa } from "execa";
import { spawn } from "node:child_process";
import { openSync } from "node:fs";
import { mkdir, readdir, readFile, rm, rmdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { kubeconfigOf } from "./cluster";
import {
  CGROUP,
  DEBIAN,
  DR_REGISTRY,
  exists,
  KUBECONFIG,
  LOGS,
  NETWORK,
  NODE,
  NODE_PID,
  REGISTRY,
  ROOT,
} from "./folder";
import { POSTGRES, postgresReady } from "./postgres";
import { PROMETHEUS, prometheusReady } from "./prometheus";

const READY_TIMEOUT_MILLISECONDS = 120_000;
/** For how long kubelet's lease counts as fresh; it renews every 10 s. */
const LEASE_MILLISECONDS = 40_000;
const NAMESPACE_PATH = `/run/netns/${NETWORK.namespace}`;

/** Installed where missing: programs by the Debian package that has them. */
const INSTALLED: Readonly<Record<string, string>> = {
  ip: "iproute2",
  iptables: "iptables",
  ipset: "ipset",
  conntrack: "conntrack",
  curl: "curl",
  openssl: "openssl",
  tini: "tini",
};
/**
 * Unpacked into the sandbox's folder: installed, some of them would start services, and some would
 * take the place of Docker's own.
 */
const UNPACKED = [
  ...["containerd", "runc", "containernetworking-plugins", "docker-registry"],
  // With the libraries that a Debian without them lacks.
  ...["postgresql-15", "postgresql-client-15", "libpq5", "libicu72", "libxml2", "libreadline8"],
  ...["prometheus", "busybox-static"],
];

/** Why this machine cannot hold the node, in one line, or nothing. */
export function unfit(): string | undefined {
  const instead = "use your own with --context NAME --registry HOST/NAME";
  if (process.platform !== "linux") return `the sandbox's cluster needs Linux; ${instead}`;
  if (process.getuid?.() !== 0) return `the sandbox's cluster needs root; ${instead}`;
  return undefined;
}

/**
 * Installs and unpacks what Debian has; says what it installs.
 * @param more To be installed where missing, too: programs by their package.
 */
export async function installPackages(
  say: (text: string) => void,
  more: Readonly<Record<string, string>> = {},
): Promise<void> {
  const missing: string[] = [];
  for (const [program, name] of Object.entries({ ...INSTALLED, ...more })) {
    if (!(await onPath(program))) missing.push(name);
  }
  const complete = join(DEBIAN, "complete");
  const unpacked = (await readFile(complete, "utf8").catch(() => "")).split("\n");
  const packed = UNPACKED.filter((name) => !unpacked.includes(name));
  if (missing.length === 0 && packed.length === 0) return;
  if (!(await onPath("apt-get"))) {
    throw new Error(
      `the sandbox installs ${missing.join(", ")} with apt-get, which is not on this machine; ` +
        "use your own cluster with --context NAME --registry HOST/NAME",
    );
  }
  const environment = { env: { DEBIAN_FRONTEND: "noninteractive" } };
  say("apt-get update");
  await execa("apt-get", ["update", "--quiet"], environment);
  if (missing.length > 0) {
    say(`apt-get install ${missing.join(" ")}`);
    const install = ["install", "--yes", "--no-install-recommends", ...missing];
    await execa("apt-get", install, environment);
  }
  if (packed.length > 0) {
    say(`unpack ${packed.join(", ")}`);
    await mkdir(DEBIAN, { recursive: true });
    await execa("apt-get", ["download", ...packed], { cwd: DEBIAN });
    for (const file of await readdir(DEBIAN)) {
      if (!file.endsWith(".deb")) continue;
      await execa("dpkg-deb", ["--extract", file, "."], { cwd: DEBIAN });
      await rm(join(DEBIAN, file));
    }
    await writeFile(complete, UNPACKED.join("\n"));
  }
}

/** Whether the node runs, and its cluster and all beside it answer. */
export async function isUp(): Promise<boolean> {
  return (await nodePid()) !== undefined && (await ready(Date.now() - LEASE_MILLISECONDS));
}

/** What stands beside the cluster for those who are on it, by where it is reached. */
export const SERVICES = {
  registry: { address: REGISTRY, ready: registryReady },
  PostgreSQL: { address: POSTGRES, ready: postgresReady },
  Prometheus: { address: PROMETHEUS, ready: prometheusReady },
} as const;

async function ready(since: number): Promise<boolean> {
  for (const service of Object.values(SERVICES)) if (!(await service.ready())) return false;
  return clusterReady(since);
}

/** Starts the node and waits until it can run pods. A node that is up stays as it is. */
export async function start(): Promise<void> {
  if (await isUp()) return;
  await refuseForeignNode();
  await stop();
  await mkdir(LOGS, { recursive: true });
  const { namespace, insideInterface, outsideInterface, inside, outside, prefix } = NETWORK;
  const ip = (...args: string[]) => execa("ip", args);
  await ip("netns", "add", namespace);
  const cable = ["type", "veth", "peer", "name", insideInterface, "netns", namespace];
  await ip("link", "add", outsideInterface, ...cable);
  await ip("addr", "add", `${outside}/${prefix}`, "dev", outsideInterface);
  await ip("link", "set", outsideInterface, "up");
  await ip("-n", namespace, "addr", "add", `${inside}/${prefix}`, "dev", insideInterface);
  await ip("-n", namespace, "link", "set", insideInterface, "up");
  // So that Services can be called from here.
  await ip("route", "add", NETWORK.services, "via", inside);
  for (const path of await cgroupPaths()) await mkdir(path, { recursive: true });

  const log = openSync(join(LOGS, "node.log"), "w");
  const isolation = ["--mount", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc"];
  const node = spawn(
    "nsenter",
    [
      `--net=${NAMESPACE_PATH}`,
      ...["unshare", ...isolation],
      ...["tini", "--", process.execPath],
      ...["--require", require.resolve("ts-node/register")],
      join(ROOT, "sandbox", "node.ts"),
    ],
    { cwd: ROOT, detached: true, stdio: ["ignore", log, log] },
  );
  node.unref();
  await writeFile(NODE_PID, String(node.pid));

  const began = Date.now();
  const deadline = began + READY_TIMEOUT_MILLISECONDS;
  while (!(await ready(began))) {
    if ((await nodePid()) === undefined || Date.now() > deadline) {
      const said = await readFile(join(LOGS, "node.log"), "utf8");
      throw new Error(
        `the node did not become ready; the logs are in ${LOGS}. node.log ends with:\n` +
          said.trim().split("\n").slice(-5).join("\n"),
      );
    }
    await setTimeout(250);
  }
  await registerMetrics();
}

/** Ends the node and removes every trace of it outside the sandbox's folder. */
export async function stop(): Promise<void> {
  const pid = await nodePid();
  if (pid !== undefined) process.kill(pid, "SIGKILL");
  if (await exists(NAMESPACE_PATH)) {
    // Processes of the tree are gone once the namespace has none.
    const members = async () =>
      (await execa("ip", ["netns", "pids", NETWORK.namespace])).stdout.trim();
    while ((await members()) !== "") await setTimeout(50);
    await execa("ip", ["netns", "delete", NETWORK.namespace]);
  }
  // Goes with the namespace, but not at once.
  await execa("ip", ["link", "delete", NETWORK.outsideInterface], { reject: false });
  for (const path of await cgroupPaths()) await removeCgroups(path);
  await rm(NODE_PID, { force: true });
}

/** The process that holds the node together, if it lives. */
export async function nodePid(): Promise<number | undefined> {
  const pid = Number(await readFile(NODE_PID, "utf8").catch(() => ""));
  if (!pid) return undefined;
  // The number may have gone to another program since.
  const command = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
  return command.includes(join(ROOT, "sandbox", "node.ts")) ? pid : undefined;
}

/** The addresses are fixed: two sandboxes cannot run on one machine. */
async function refuseForeignNode(): Promise<void> {
  if ((await nodePid()) !== undefined || !(await exists(NAMESPACE_PATH))) return;
  const { stdout } = await execa("ip", ["netns", "pids", NETWORK.namespace]);
  for (const pid of stdout.split("\n").filter(Boolean)) {
    const command = (await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "")).split("\0");
    const other = command.find((word) => word.endsWith("/sandbox/node.ts"));
    if (other !== undefined && !other.startsWith(`${ROOT}/`)) {
      throw new Error(`another sandbox runs on this machine: ${other}; stop it first`);
    }
  }
}

async function cgroupPaths(): Promise<string[]> {
  const root = "/sys/fs/cgroup";
  if (await exists(join(root, "cgroup.controllers"))) return [join(root, CGROUP)];
  // Version 1: a tree for each controller. Some are links to others.
  const trees = (await readdir(root, { withFileTypes: true })).filter((tree) => tree.isDirectory());
  return trees.map((tree) => join(root, tree.name, CGROUP));
}

/** From the leaves up; a group is empty once its processes are reaped, which takes a moment. */
async function removeCgroups(path: string): Promise<void> {
  if (!(await exists(path))) return;
  for (const entry of await readdir(path, { withFileTypes: true })) {
    if (entry.isDirectory()) await removeCgroups(join(path, entry.name));
  }
  for (let attempt = 0; attempt < 40; attempt++) {
    const busy = await rmdir(path).then(
      () => false,
      () => true,
    );
    if (!busy) return;
    await setTimeout(100);
  }
  throw new Error(`the control group ${path} cannot be removed: something still runs in it`);
}

/** The cluster's own record says Ready for a while after a hard stop; kubelet's lease does not lie. */
async function clusterReady(since: number): Promise<boolean> {
  if (!(await exists(KUBECONFIG))) return false;
  const coordination = kubeconfigOf({}).makeApiClient(CoordinationV1Api);
  const core = kubeconfigOf({}).makeApiClient(CoreV1Api);
  try {
    const name = "node";
    const { spec } = await coordination.readNamespacedLease({ name, namespace: "kube-node-lease" });
    const { status } = await core.readNode({ name });
    const ready = status?.conditions?.find(({ type }) => type === "Ready")?.status === "True";
    return ready && Date.parse(String(spec?.renewTime)) > since;
  } catch {
    return false;
  }
}

async function registryReady(): Promise<boolean> {
  return (await Promise.all([REGISTRY, DR_REGISTRY].map(answers))).every(Boolean);
}

async function answers(registry: string): Promise<boolean> {
  return fetch(`http://${registry}/v2/`, { signal: AbortSignal.timeout(1_000) }).then(
    ({ ok }) => ok,
    () => false,
  );
}

/** Stops one of the registries, or starts it again, as where its region is away. */
export async function setRegistry(name: "registry" | "registry-dr", on: boolean): Promise<void> {
  const off = join(NODE, `${name}.off`);
  if (on) await rm(off, { force: true });
  else await writeFile(off, "");
  const address = name === "registry" ? REGISTRY : DR_REGISTRY;
  while ((await answers(address)) !== on) await setTimeout(250);
}

/** metrics-server runs beside the cluster, so its Service gets its address by hand. */
async function registerMetrics(): Promise<void> {
  const core = kubeconfigOf({}).makeApiClient(CoreV1Api);
  const registration = kubeconfigOf({}).makeApiClient(ApiregistrationV1Api);
  const namespace = "kube-system";
  const metadata = { name: "metrics-server", namespace };
  await ifMissing(
    core.createNamespacedService({
      namespace,
      body: { metadata, spec: { ports: [{ port: 443, targetPort: 4443 }] } },
    }),
  );
  await ifMissing(
    core.createNamespacedEndpoints({
      namespace,
      body: {
        metadata,
        subsets: [{ addresses: [{ ip: NETWORK.inside }], ports: [{ port: 4443 }] }],
      },
    }),
  );
  await ifMissing(
    registration.createAPIService({
      body: {
        metadata: { name: "v1beta1.metrics.k8s.io" },
        spec: {
          service: metadata,
          group: "metrics.k8s.io",
          version: "v1beta1",
          insecureSkipTLSVerify: true,
          groupPriorityMinimum: 100,
          versionPriority: 100,
        },
      },
    }),
  );
}

async function ifMissing(creation: Promise<unknown>): Promise<void> {
  await creation.catch((error: unknown) => {
    if (!(error instanceof ApiException && error.code === 409)) throw error;
  });
}

async function onPath(program: string): Promise<boolean> {
  const folders = [...(process.env["PATH"] ?? "").split(":"), "/usr/sbin", "/sbin"];
  const found = await Promise.all(folders.map((folder) => exists(join(folder, program))));
  return found.includes(true);
}
