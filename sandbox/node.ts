/*
 * The node: the first program in network, mount and process namespaces of its own (see host.ts).
 * Starts the parts of a Kubernetes cluster and a registry, and ends with the first of them that
 * does: then the kernel takes the whole tree down.
 */
import { execa } from "execa";
import { spawn, type ChildProcess, type SpawnOptions } from "node:child_process";
import { openSync } from "node:fs";
import { mkdir, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { stringify } from "yaml";
import {
  BIN,
  CGROUP,
  CONTEXT,
  DEBIAN,
  DR_REGISTRY,
  exists,
  KUBECONFIG,
  LOGS,
  NETWORK,
  NODE,
  REGISTRY,
  ROOT,
} from "./folder";
import { preparePostgres } from "./postgres";
import { PROMETHEUS_ARGS, PROMETHEUS_CONFIG, prometheusConfig, TARGETS } from "./prometheus";

const PKI = join(NODE, "pki");
const IP = NETWORK.inside;
const CNI_PLUGINS = join(DEBIAN, "usr/lib/cni");
const CONTAINERD_SOCKET = join(NODE, "containerd.sock");
/** Empty at first, and nobody's but the node's. */
const MOUNTS = "/run/netns";

async function main(): Promise<void> {
  process.env["PATH"] = [
    BIN,
    join(DEBIAN, "usr/bin"),
    join(DEBIAN, "usr/sbin"),
    process.env["PATH"],
    "/usr/sbin",
    "/sbin",
  ].join(":");
  await mkdir(NODE, { recursive: true });
  await mkdir(LOGS, { recursive: true });
  process.chdir(NODE);
  // What belonged to the former node's processes; images and cluster state are kept.
  const off = ["registry.off", "registry-dr.off"];
  const stale = ["containerd-run", "cni-data", "kubelet", "containerd.sock", ...off];
  for (const path of [...stale.map((name) => join(NODE, name)), TARGETS]) {
    await rm(path, { recursive: true, force: true });
  }
  await setUpNetwork();
  await makeCertificates();
  await writeKubeconfig();

  await startRegistry("registry", REGISTRY);
  await startRegistry("registry-dr", DR_REGISTRY);
  start("etcd", "etcd", [
    ...["--data-dir", join(NODE, "etcd")],
    ...["--listen-client-urls", "http://127.0.0.1:2379"],
    ...["--advertise-client-urls", "http://127.0.0.1:2379"],
    ...["--listen-peer-urls", "http://127.0.0.1:2380"],
    // What a sandbox loses in a power cut is worth less than a disk flush on every write.
    "--unsafe-no-fsync",
  ]);
  startApiServer();
  // Beside the control plane, which takes longer to start.
  const postgres = startPostgres();
  await startContainerd();
  await waitForAnswer("/readyz", "ok");
  startControllers();
  await startKubelet();
  start("kube-proxy", "kube-proxy", [
    `--kubeconfig=${KUBECONFIG}`,
    "--proxy-mode=iptables",
    `--cluster-cidr=${NETWORK.pods}`,
    "--hostname-override=node",
    // Sysctls that a namespace may not write.
    "--conntrack-max-per-core=0",
    "--conntrack-tcp-timeout-established=0",
    "--conntrack-tcp-timeout-close-wait=0",
  ]);
  await startPolicies();
  await startDns();
  startMetricsServer();
  await writeFile(PROMETHEUS_CONFIG, prometheusConfig());
  start("prometheus", "prometheus", PROMETHEUS_ARGS);
  // One process: most of what it takes is what both of them load.
  start("controllers", process.execPath, [
    ...["--require", require.resolve("ts-node/register")],
    ...["--require", join(ROOT, "sandbox", "entrance.ts")],
    join(ROOT, "sandbox", "discovery.ts"),
  ]);
  await postgres;
}

/** Runs a part for as long as the node lives. */
function start(
  name: string,
  command: string,
  args: readonly string[],
  options: SpawnOptions = {},
): void {
  const log = openSync(join(LOGS, `${name}.log`), "w");
  const part = spawn(command, args, { ...options, stdio: ["ignore", log, log] });
  const end = (how: string) => {
    console.error(`${name} ${how}; its log is ${join(LOGS, `${name}.log`)}`);
    process.exit(1);
  };
  part.on("error", (error) => end(`cannot be started: ${error.message}`));
  part.on("exit", (code, signal) => end(`ended with ${signal ?? code}`));
}

/** Runs a part that is stopped for as long as there is a file NAME.off, as where a region is away. */
function keep(name: string, command: string, args: readonly string[]): void {
  const off = join(NODE, `${name}.off`);
  const log = openSync(join(LOGS, `${name}.log`), "w");
  let part: ChildProcess | undefined;
  let stopping = false;
  const look = async () => {
    stopping = await exists(off);
    if (stopping) part?.kill();
    else if (part === undefined) {
      part = spawn(command, args, { stdio: ["ignore", log, log] });
      part.on("error", () => process.exit(1));
      part.on("exit", () => {
        part = undefined;
        if (!stopping) process.exit(1);
      });
    }
  };
  void look();
  setInterval(() => void look(), 250);
}

async function setUpNetwork(): Promise<void> {
  // CNI keeps names here; on the host they would outlive the node.
  await mkdir(MOUNTS, { recursive: true });
  await execa("mount", ["-t", "tmpfs", "none", MOUNTS]);
  await execa("ip", ["link", "set", "lo", "up"]);
  // Packets to a Service need a route before kube-proxy's rules see them: an empty bridge serves.
  await execa("ip", ["link", "add", "services", "type", "bridge"]);
  await execa("ip", ["link", "set", "services", "up"]);
  await execa("ip", ["route", "add", NETWORK.services, "dev", "services"]);
  await writeFile("/proc/sys/net/ipv4/ip_forward", "1");
  // By default a pod hears of one refusal a second, and its other callers wait for their timeouts.
  await writeFile("/proc/sys/net/ipv4/icmp_ratelimit", "0");
}

async function makeCertificates(): Promise<void> {
  if (await exists(join(PKI, "complete"))) return;
  await mkdir(PKI, { recursive: true });
  const openssl = (...args: string[]) => execa("openssl", args, { cwd: PKI });
  const key = ["-newkey", "rsa:2048", "-nodes"];
  const ca = ["-keyout", "ca.key", "-out", "ca.crt", "-days", "3650", "-subj", "/CN=sandbox"];
  await openssl("req", "-x509", ...key, ...ca);
  const certify = async (name: string, subject: string, names: string) => {
    await writeFile(join(PKI, `${name}.ext`), `subjectAltName=${names}\n`);
    const request = ["-keyout", `${name}.key`, "-out", `${name}.csr`, "-subj", subject];
    await openssl("req", ...key, ...request);
    const signature = ["-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "3650"];
    const files = ["-in", `${name}.csr`, "-out", `${name}.crt`, "-extfile", `${name}.ext`];
    await openssl("x509", "-req", ...signature, ...files);
  };
  const apiServerNames = [
    `IP:${IP}`,
    "IP:127.0.0.1",
    `IP:${NETWORK.apiServerService}`,
    "DNS:kubernetes.default.svc",
  ];
  await certify("apiserver", "/CN=kube-apiserver", apiServerNames.join(","));
  await certify("admin", "/O=system:masters/CN=admin", "DNS:admin");
  await certify("front-proxy", "/CN=front-proxy", "DNS:front-proxy");
  await certify("kubelet", "/CN=node", `IP:${IP},DNS:node`);
  await openssl("genrsa", "-out", "service-accounts.key", "2048");
  await writeFile(join(PKI, "complete"), "");
}

async function writeKubeconfig(): Promise<void> {
  const encode = async (file: string) => (await execa("base64", ["-w0", join(PKI, file)])).stdout;
  const text = stringify({
    apiVersion: "v1",
    kind: "Config",
    clusters: [
      {
        name: CONTEXT,
        cluster: {
          server: `https://${IP}:6443`,
          "certificate-authority-data": await encode("ca.crt"),
        },
      },
    ],
    users: [
      {
        name: CONTEXT,
        user: {
          "client-certificate-data": await encode("admin.crt"),
          "client-key-data": await encode("admin.key"),
        },
      },
    ],
    contexts: [{ name: CONTEXT, context: { cluster: CONTEXT, user: CONTEXT } }],
    "current-context": CONTEXT,
  });
  await writeFile(KUBECONFIG, text, { mode: 0o600 });
}

async function startRegistry(name: string, addr: string): Promise<void> {
  const config = {
    version: "0.1",
    storage: { filesystem: { rootdirectory: join(NODE, name) }, delete: { enabled: true } },
    http: { addr },
  };
  const path = join(NODE, `${name}.yaml`);
  await writeFile(path, stringify(config));
  keep(name, "docker-registry", ["serve", path]);
}

async function startPostgres(): Promise<void> {
  const { command, args, options } = await preparePostgres(MOUNTS);
  start("postgres", command, args, options);
}

function startApiServer(): void {
  const pki = (file: string) => join(PKI, file);
  start("kube-apiserver", "kube-apiserver", [
    "--etcd-servers=http://127.0.0.1:2379",
    "--secure-port=6443",
    `--bind-address=${IP}`,
    `--advertise-address=${IP}`,
    `--tls-cert-file=${pki("apiserver.crt")}`,
    `--tls-private-key-file=${pki("apiserver.key")}`,
    `--client-ca-file=${pki("ca.crt")}`,
    `--kubelet-client-certificate=${pki("admin.crt")}`,
    `--kubelet-client-key=${pki("admin.key")}`,
    `--kubelet-certificate-authority=${pki("ca.crt")}`,
    "--kubelet-preferred-address-types=InternalIP",
    `--requestheader-client-ca-file=${pki("ca.crt")}`,
    "--requestheader-allowed-names=front-proxy",
    "--requestheader-extra-headers-prefix=X-Remote-Extra-",
    "--requestheader-group-headers=X-Remote-Group",
    "--requestheader-username-headers=X-Remote-User",
    `--proxy-client-cert-file=${pki("front-proxy.crt")}`,
    `--proxy-client-key-file=${pki("front-proxy.key")}`,
    "--service-account-issuer=https://kubernetes.default.svc",
    `--service-account-key-file=${pki("service-accounts.key")}`,
    `--service-account-signing-key-file=${pki("service-accounts.key")}`,
    `--service-cluster-ip-range=${NETWORK.services}`,
    "--authorization-mode=Node,RBAC",
    "--allow-privileged=true",
  ]);
}

/** Waits until the API server gives an answer at `path` that has `text` in it. */
async function waitForAnswer(path: string, text: string): Promise<void> {
  const tls = ["--cacert", "ca.crt", "--cert", "admin.crt", "--key", "admin.key"];
  for (;;) {
    const answer = await execa("curl", ["-sf", ...tls, `https://${IP}:6443${path}`], {
      cwd: PKI,
      reject: false,
    });
    if (answer.exitCode === 0 && answer.stdout.includes(text)) return;
    await setTimeout(250);
  }
}

function startControllers(): void {
  start("kube-controller-manager", "kube-controller-manager", [
    `--kubeconfig=${KUBECONFIG}`,
    `--service-account-private-key-file=${join(PKI, "service-accounts.key")}`,
    `--root-ca-file=${join(PKI, "ca.crt")}`,
    "--leader-elect=false",
    "--bind-address=127.0.0.1",
    // A minute is the default for a new pod's first sample: too long for a sandbox.
    "--horizontal-pod-autoscaler-initial-readiness-delay=10s",
    // Default: 15 s.
    "--horizontal-pod-autoscaler-sync-period=5s",
  ]);
  start("kube-scheduler", "kube-scheduler", [
    `--kubeconfig=${KUBECONFIG}`,
    "--leader-elect=false",
    "--bind-address=127.0.0.1",
  ]);
}

async function startContainerd(): Promise<void> {
  const cni = {
    cniVersion: "0.4.0",
    name: "sandbox",
    plugins: [
      {
        // Not bridge: on one node it would need br_netfilter for pods to reach Services.
        type: "ptp",
        ipam: {
          type: "host-local",
          dataDir: join(NODE, "cni-data"),
          ranges: [[{ subnet: NETWORK.pods }]],
          routes: [{ dst: "0.0.0.0/0" }],
        },
      },
    ],
  };
  await mkdir(join(NODE, "cni"), { recursive: true });
  await writeFile(join(NODE, "cni", "10-sandbox.conflist"), JSON.stringify(cni));
  await writeFile(
    join(NODE, "containerd.toml"),
    `version = 2
root = "${join(NODE, "containerd")}"
state = "${join(NODE, "containerd-run")}"
[grpc]
  address = "${CONTAINERD_SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "${REGISTRY}/pause:1"
  # Without CAP_SYS_RESOURCE, runc may not lower a score.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "${CNI_PLUGINS}"
    conf_dir = "${join(NODE, "cni")}"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "${join(NODE, "registries")}"
`,
  );
  // The node reaches nothing but itself: every image, whatever its registry, is in its own; but for
  // what dr pulls from its own.
  for (const [folder, registry] of [
    ["_default", REGISTRY],
    [DR_REGISTRY.replace(":", "_") + "_", DR_REGISTRY],
  ] as const) {
    await mkdir(join(NODE, "registries", folder), { recursive: true });
    await writeFile(
      join(NODE, "registries", folder, "hosts.toml"),
      `[host."http://${registry}"]\n  capabilities = ["pull", "resolve"]\n`,
    );
  }
  start("containerd", "containerd", ["--config", join(NODE, "containerd.toml")]);
  while (!(await exists(CONTAINERD_SOCKET))) await setTimeout(100);
}

async function startKubelet(): Promise<void> {
  const config = {
    apiVersion: "kubelet.config.k8s.io/v1beta1",
    kind: "KubeletConfiguration",
    authentication: {
      anonymous: { enabled: false },
      webhook: { enabled: true },
      x509: { clientCAFile: join(PKI, "ca.crt") },
    },
    authorization: { mode: "Webhook" },
    tlsCertFile: join(PKI, "kubelet.crt"),
    tlsPrivateKeyFile: join(PKI, "kubelet.key"),
    cgroupDriver: "cgroupfs",
    cgroupRoot: `/${CGROUP}`,
    enforceNodeAllocatable: [],
    failSwapOn: false,
    failCgroupV1: false,
    containerRuntimeEndpoint: `unix://${CONTAINERD_SOCKET}`,
    clusterDNS: [IP],
    clusterDomain: "cluster.local",
    podLogsDir: join(NODE, "pod-logs"),
    // The disk is the user's: its fill level is no reason to evict or delete.
    imageGCHighThresholdPercent: 100,
    evictionHard: { "memory.available": "100Mi" },
  };
  await writeFile(join(NODE, "kubelet.yaml"), stringify(config));
  start("kubelet", "kubelet", [
    `--config=${join(NODE, "kubelet.yaml")}`,
    `--kubeconfig=${KUBECONFIG}`,
    `--root-dir=${join(NODE, "kubelet")}`,
    "--hostname-override=node",
    `--node-ip=${IP}`,
  ]);
}

/** Starts kube-router, which refuses what no NetworkPolicy allows; it answers events at once. */
async function startPolicies(): Promise<void> {
  // It puts back the whole filter table as it has read it a moment before, and kube-proxy's newest
  // rules with it would be lost: the kernel's legacy tables are its own.
  const tables = join(NODE, "iptables-legacy");
  await rm(tables, { recursive: true, force: true });
  await mkdir(tables);
  for (const program of ["iptables", "iptables-save", "iptables-restore"]) {
    await symlink("/usr/sbin/xtables-legacy-multi", join(tables, program));
  }
  // It reads the node's address once, at its start.
  await waitForAnswer("/api/v1/nodes/node", `"${IP}"`);
  start(
    "kube-router",
    "kube-router",
    [
      "--run-firewall=true",
      "--run-router=false",
      "--run-service-proxy=false",
      `--kubeconfig=${KUBECONFIG}`,
      "--hostname-override=node",
      `--service-cluster-ip-range=${NETWORK.services}`,
      "--health-port=0",
    ],
    {
      env: {
        ...process.env,
        PATH: [tables, process.env["PATH"]].join(":"),
        // Outside of the sandbox's folder it would be left behind.
        XTABLES_LOCKFILE: join(tables, "lock"),
      },
    },
  );
}

async function startDns(): Promise<void> {
  const corefile = `.:53 {
  bind ${IP}
  errors
  kubernetes cluster.local {
    kubeconfig ${KUBECONFIG} ${CONTEXT}
  }
}
`;
  await writeFile(join(NODE, "Corefile"), corefile);
  start("coredns", "coredns", ["-conf", join(NODE, "Corefile")]);
}

function startMetricsServer(): void {
  start("metrics-server", "metrics-server", [
    `--kubeconfig=${KUBECONFIG}`,
    `--authentication-kubeconfig=${KUBECONFIG}`,
    `--authorization-kubeconfig=${KUBECONFIG}`,
    `--kubelet-certificate-authority=${join(PKI, "ca.crt")}`,
    "--kubelet-preferred-address-types=InternalIP",
    "--metric-resolution=10s",
    "--kubelet-request-timeout=5s",
    `--bind-address=${IP}`,
    "--secure-port=4443",
    `--cert-dir=${join(NODE, "metrics-server")}`,
  ]);
}

main().catch((error: unknown) => {
  console.error(error);
  process.exit(1);
});
