import { execa, ExecaError } from "execa";
import { createHash } from "node:crypto";
import { createWriteStream, readFileSync } from "node:fs";
import {
  chmod,
  copyFile,
  cp,
  mkdir,
  readdir,
  readFile,
  rename,
  rm,
  symlink,
  writeFile,
} from "node:fs/promises";
import { join } from "node:path";
import { coerce, gte } from "semver";
import { BIN, LOGS, ROOT } from "./folder";

/** A part of the sandbox that is built from Go modules. */
export interface Part {
  readonly name: string;
  /** The folder under `sandbox/modules` whose go.mod and go.sum pin everything. */
  readonly module: string;
  /** Go packages by the name of the program they become. */
  readonly programs: Readonly<Record<string, string>>;
  /** Other names a program is called by. */
  readonly links?: Readonly<Record<string, readonly string[]>>;
  /** Values stamped into the program, as `-X` takes them. */
  readonly stamps?: readonly string[];
  /** A correction that a later version has, of a file in a module. */
  readonly correction?: {
    readonly module: string;
    readonly file: string;
    readonly from: string;
    readonly to: string;
  };
  /** Without libc, to run in an empty image. */
  readonly static?: boolean;
  /** How long the first build takes on 2 cores, in seconds, for the estimate of what is left. */
  readonly seconds: number;
}

const KUBERNETES = "v1.34.4";
const PULUMI = "v3.259.0";
/** What the program's SDK asks for; the provider must say that it is that version. */
export const KUBERNETES_PROVIDER = packageVersion("@pulumi/kubernetes");
export const RANDOM_PROVIDER = packageVersion("@pulumi/random");

export const ENGINE: readonly Part[] = [
  {
    name: "Pulumi",
    module: "pulumi",
    programs: { pulumi: "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi" },
    stamps: [`github.com/pulumi/pulumi/sdk/v3/go/common/version.Version=${PULUMI}`],
    seconds: 330,
  },
  {
    name: "Pulumi's Node.js host",
    module: "language-nodejs",
    programs: {
      "pulumi-language-nodejs": "github.com/pulumi/pulumi/sdk/v3/nodejs/cmd/pulumi-language-nodejs",
    },
    stamps: ["github.com/pulumi/pulumi/sdk/v3/go/common/version.Version=v3.68.0"],
    // Closed too early, it lets a run that has succeeded end with "send on closed channel" now and
    // then (https://github.com/pulumi/pulumi/pull/13689); later hosts are no Go module.
    correction: {
      module: "github.com/pulumi/pulumi/sdk/v3",
      file: "nodejs/cmd/pulumi-language-nodejs/main.go",
      from: "\tdefer close(responseChannel)\n",
      to: "",
    },
    seconds: 30,
  },
  {
    name: "Kubernetes provider",
    module: "provider-kubernetes",
    programs: {
      "pulumi-resource-kubernetes":
        "github.com/pulumi/pulumi-kubernetes/provider/v2/cmd/pulumi-resource-kubernetes",
    },
    stamps: [
      `github.com/pulumi/pulumi-kubernetes/provider/v2/pkg/version.Version=v${KUBERNETES_PROVIDER}`,
    ],
    // It takes every kind that the cluster describes for one that can be merged strategically, as
    // custom resources cannot; later versions know, and are no Go module.
    correction: {
      module: "github.com/pulumi/pulumi-kubernetes/provider/v2",
      file: "pkg/openapi/openapi.go",
      from: "resources.LookupResource(gvk); resSchema != nil {\n\t\tlogger",
      to: "resources.LookupResource(gvk); resSchema != nil && scheme.Scheme.Recognizes(gvk) {\n\t\tlogger",
    },
    seconds: 60,
  },
  {
    // The real one is not published as a module.
    name: "stand-in for the random provider",
    module: "random",
    programs: { "pulumi-resource-random": "." },
    stamps: [`main.version=v${RANDOM_PROVIDER}`],
    seconds: 20,
  },
];

export const CLUSTER: readonly Part[] = [
  {
    name: "Kubernetes, etcd, CoreDNS and metrics-server",
    module: "cluster",
    programs: {
      kube: "./kube",
      etcd: "go.etcd.io/etcd/server/v3",
      coredns: "./coredns",
      "metrics-server": "sigs.k8s.io/metrics-server/cmd/metrics-server",
    },
    links: {
      kube: [
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
        "kube-proxy",
        "kubelet",
      ],
    },
    stamps: [
      `k8s.io/component-base/version.gitVersion=${KUBERNETES}`,
      "k8s.io/component-base/version.gitMajor=1",
      "k8s.io/component-base/version.gitMinor=34",
      `k8s.io/client-go/pkg/version.gitVersion=${KUBERNETES}`,
    ],
    seconds: 420,
  },
  { name: "pause", module: "pause", programs: { pause: "." }, static: true, seconds: 3 },
];

export const IMAGES: readonly Part[] = [
  {
    name: "podinfo",
    module: "podinfo",
    programs: {
      podinfo: "github.com/stefanprodan/podinfo/cmd/podinfo",
      podcli: "github.com/stefanprodan/podinfo/cmd/podcli",
    },
    static: true,
    seconds: 40,
  },
  { name: "k6", module: "k6", programs: { k6: "go.k6.io/k6" }, static: true, seconds: 80 },
  {
    name: "crane",
    module: "crane",
    programs: { crane: "github.com/google/go-containerregistry/cmd/crane" },
    seconds: 20,
  },
];

/** Built at each push, as it is another program for each fault. */
export const TRIAL: Part = {
  name: "trial",
  module: "trial",
  programs: { trial: "." },
  static: true,
  seconds: 30,
};

/** Built when a test needs a Gateway, as nothing else does. */
export const TRAEFIK: Part = {
  name: "Traefik",
  module: "traefik",
  programs: { traefik: "github.com/traefik/traefik/v3/cmd/traefik" },
  seconds: 400,
};

/** Built when it is compared with, as nothing else needs it. */
export const ARGO_ROLLOUTS: Part = {
  name: "Argo Rollouts",
  module: "argo-rollouts",
  programs: {
    "rollouts-controller": "github.com/argoproj/argo-rollouts/cmd/rollouts-controller",
  },
  seconds: 200,
};

function packageVersion(name: string): string {
  const manifest = readFileSync(join(ROOT, "node_modules", name, "package.json"), "utf8");
  return (JSON.parse(manifest) as { version: string }).version;
}

/** Whether this very version of a part has been built already. */
export async function isBuilt(part: Part): Promise<boolean> {
  const stamp = await readFile(stampPath(part), "utf8").catch(() => undefined);
  return stamp === (await fingerprint(part));
}

/** The oldest Go that the modules build with. */
const OLDEST_GO = "1.26.0";

/** @throws Error when there is no Go on PATH that can build the parts. */
export async function checkGo(): Promise<void> {
  const { stdout, failed } = await execa("go", ["env", "GOVERSION"], { reject: false });
  const version = failed ? null : coerce(stdout);
  if (version !== null && gte(version, OLDEST_GO)) return;
  throw new Error(
    `go on PATH is ${version?.version ?? "missing"}; expected ${OLDEST_GO} or later, ` +
      "as what is missing here is built from source. Install it, and run the same command again.",
  );
}

/**
 * Builds a part with the Go toolchain on PATH; Go fetches what its go.mod asks for and checks it
 * against go.sum. What is there afterwards is whole: a killed build leaves the former one.
 */
export async function build(part: Part): Promise<void> {
  await mkdir(BIN, { recursive: true });
  await mkdir(LOGS, { recursive: true });
  for (const [program, packagePath] of Object.entries(part.programs)) {
    const unfinished = join(BIN, `.${program}.unfinished`);
    await goBuild(part, packagePath, unfinished, part.stamps ?? []);
    await rename(unfinished, join(BIN, program));
    for (const link of part.links?.[program] ?? []) {
      await rm(join(BIN, link), { force: true });
      await symlink(program, join(BIN, link));
    }
  }
  await writeFile(stampPath(part), await fingerprint(part));
}

export async function goBuild(
  part: Part,
  packagePath: string,
  output: string,
  stamps: readonly string[],
): Promise<void> {
  const log = join(LOGS, `build-${part.module}.log`);
  const flags = ["-s", "-w", ...stamps.flatMap((stamp) => ["-X", stamp])].join(" ");
  const args = ["-mod=readonly", "-ldflags", flags, ...(await corrected(part)), "-o", output];
  const run = execa("go", ["build", ...args, packagePath], {
    cwd: folderOf(part),
    env: { ...(part.static ? { CGO_ENABLED: "0", GOOS: "linux" } : {}) },
    all: true,
  });
  run.all.pipe(createWriteStream(log, { flags: "a" }));
  try {
    await run;
  } catch (error) {
    const said = error instanceof ExecaError ? String(error.all) : String(error);
    const last = said.trim().split("\n").slice(-5).join("\n");
    throw new Error(`${part.name} cannot be built; the log is ${log}. It ends with:\n${last}`);
  }
}

/** What makes Go build with a corrected copy of a module. */
async function corrected(part: Part): Promise<string[]> {
  if (part.correction === undefined) return [];
  const { module, file, from, to } = part.correction;
  const copy = join(BIN, `.${part.module}.corrected`);
  await rm(copy, { recursive: true, force: true });
  await cp(await moduleFolder(part, module), copy, { recursive: true });
  const text = await readFile(join(copy, file), "utf8");
  if (!text.includes(from)) throw new Error(`${module}: ${file} needs no correction any more`);
  await chmod(join(copy, file), 0o644);
  await writeFile(join(copy, file), text.replace(from, to));
  const modfile = join(BIN, `.${part.module}.mod`);
  const own = await readFile(join(folderOf(part), "go.mod"), "utf8");
  await writeFile(modfile, `${own}\nreplace ${module} => ${copy}\n`);
  await copyFile(join(folderOf(part), "go.sum"), modfile.replace(/mod$/, "sum"));
  return ["-modfile", modfile];
}

/** Where Go keeps the files of a module that a part is built from. */
export async function moduleFolder(part: Part, module: string): Promise<string> {
  const { stdout } = await execa("go", ["mod", "download", "-json", module], {
    cwd: folderOf(part),
  });
  return (JSON.parse(stdout) as { Dir: string }).Dir;
}

function folderOf(part: Part): string {
  return join(ROOT, "sandbox", "modules", part.module);
}

function stampPath(part: Part): string {
  return join(BIN, `.${part.module}.built`);
}

async function fingerprint(part: Part): Promise<string> {
  const folder = folderOf(part);
  const hash = createHash("sha256").update(JSON.stringify(part));
  const files = await readdir(folder, { recursive: true, withFileTypes: true });
  const paths = files
    .filter((file) => file.isFile())
    .map((file) => join(file.parentPath, file.name));
  for (const path of paths.sort()) hash.update(await readFile(path));
  return hash.digest("hex");
}
