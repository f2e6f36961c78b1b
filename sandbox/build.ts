import { execa, ExecaError } from "execa";
import { createHash } from "node:crypto";
import { createWriteStream, readFileSync } from "node:fs";
import {
  appendFile,
  chmod,
  copyFile,
  mkdir,
  readdir,
  readFile,
  rename,
  rm,
  symlink,
  writeFile,
} from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { coerce, gte } from "semver";
import { BIN, LOGS, ROOT, SANDBOX } from "./folder";
import { commitOf, type Offer, type Parts } from "./parts";

/** A part of the sandbox: programs that are built from Go modules, or taken as they are. */
export interface Part {
  readonly name: string;
  /** The folder under `sandbox/modules` whose go.mod and go.sum pin everything. */
  readonly module: string;
  /** Go packages by the name of the program they become. */
  readonly programs: Readonly<Record<string, string>>;
  /** Other names a program is called by. */
  readonly links?: Readonly<Record<string, readonly string[]>>;
  /** Values stamped into the programs, as `-X` takes them. */
  readonly stamps?: readonly string[];
  readonly corrections?: readonly Correction[];
  readonly embeds?: readonly Embed[];
  /** The programs run in images: they are for Linux, also on another system. Default: false. */
  readonly inImages?: boolean;
  /** Origin of a built part, for `sandbox status`. Default: its folder under `sandbox/modules`. */
  readonly source?: string;
  /** Estimate of the first build on 2 idle cores, in seconds. */
  readonly seconds: number;
}

/** A correction of a file in a Go module; the build fails if the file does not need it any more. */
interface Correction {
  readonly module: string;
  readonly file: string;
  /** A regular expression; every match is replaced. */
  readonly from: string;
  readonly to: string;
}

/** A JSON file of a Go module that a program embeds, written without white space. */
interface Embed {
  readonly module: string;
  readonly file: string;
  /** Path in the part's folder. */
  readonly to: string;
  /** Values of the file's first level that are replaced. */
  readonly set?: Readonly<Record<string, string>>;
}

const KUBERNETES = "v1.34.4";
const PULUMI = "v3.259.0";
const PROVIDER = "github.com/pulumi/pulumi-kubernetes/provider/v4";
const PROVIDER_SDK = "github.com/pulumi/pulumi-kubernetes/sdk/v4";
/** The version that the program's SDK asks for; the provider must say that it is that version. */
export const KUBERNETES_PROVIDER = packageVersion("@pulumi/kubernetes");
export const RANDOM_PROVIDER = packageVersion("@pulumi/random");

/*
 * Pulumi, its Kubernetes provider and Kubernetes are built from one Go module: packages that they
 * have in common are compiled once.
 */
export const PULUMI_CLI: Part = {
  name: "Pulumi",
  module: "platform",
  programs: { pulumi: "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi" },
  stamps: [`github.com/pulumi/pulumi/sdk/v3/go/common/version.Version=${PULUMI}`],
  source: `module github.com/pulumi/pulumi/pkg/v3 ${PULUMI}`,
  seconds: 330,
};

/** Later language hosts are not served as a Go module. */
export const NODEJS_HOST: Part = {
  name: "Pulumi's Node.js host",
  module: "language-nodejs",
  programs: {
    "pulumi-language-nodejs": "github.com/pulumi/pulumi/sdk/v3/nodejs/cmd/pulumi-language-nodejs",
  },
  stamps: ["github.com/pulumi/pulumi/sdk/v3/go/common/version.Version=v3.68.0"],
  corrections: [
    {
      // Closed too early, the channel lets a run that has succeeded end with "send on closed
      // channel" now and then (https://github.com/pulumi/pulumi/pull/13689).
      module: "github.com/pulumi/pulumi/sdk/v3",
      file: "nodejs/cmd/pulumi-language-nodejs/main.go",
      from: String.raw`\tdefer close\(responseChannel\)\n`,
      to: "",
    },
    {
      // The host stands between program and engine, and passes on no method that it does not know,
      // such as those for hooks: the program is given the engine's own address.
      module: "github.com/pulumi/pulumi/sdk/v3",
      file: "nodejs/cmd/pulumi-language-nodejs/main.go",
      from: String.raw`fmt\.Sprintf\("127\.0\.0\.1:%d", handle\.Port\), pipes`,
      to: "req.GetMonitorAddress(), pipes",
    },
  ],
  source: "module github.com/pulumi/pulumi/sdk/v3 v3.68.0 of 2023-05-18",
  seconds: 30,
};

/** The newest provider that is served as a Go module. */
export const KUBERNETES_PLUGIN: Part = {
  name: "Kubernetes provider",
  module: "platform",
  programs: { "pulumi-resource-kubernetes": "./provider" },
  stamps: [`${PROVIDER}/pkg/version.Version=v${KUBERNETES_PROVIDER}`],
  corrections: [
    {
      // The field is a pointer in the version of Pulumi that this module is built with.
      module: PROVIDER,
      file: "pkg/gen/schema.go",
      from: String.raw`Provider: pschema\.ResourceSpec\{`,
      to: "Provider: &pschema.ResourceSpec{",
    },
    // An object of a YAML manifest or a chart is registered under its type's token, with typed
    // outputs that the provider never reads. The SDK has a package of such types for each version
    // of each API group; together, these packages take longer to compile than the provider does.
    {
      module: PROVIDER_SDK,
      file: "go/kubernetes/yaml/v2/kinds.go",
      from: String.raw`\t\w+ "${PROVIDER_SDK}/go/kubernetes/[^"]+"\n`,
      to: "",
    },
    {
      module: PROVIDER_SDK,
      file: "go/kubernetes/yaml/v2/kinds.go",
      from: String.raw`var res \w+\.\w+\n`,
      to: "var res apiextensions.CustomResource\n",
    },
  ],
  embeds: [
    {
      module: PROVIDER,
      file: "cmd/pulumi-resource-kubernetes/schema.json",
      to: "provider/schema.json",
      set: { version: KUBERNETES_PROVIDER },
    },
    {
      module: PROVIDER,
      file: "cmd/pulumi-resource-kubernetes/terraform-mapping.json",
      to: "provider/terraform-mapping.json",
    },
  ],
  source: `module ${PROVIDER} of 2026-01-15`,
  seconds: 200,
};

/** The real one is not served as a Go module. */
export const RANDOM_PLUGIN: Part = {
  name: "stand-in for the random provider",
  module: "platform",
  programs: { "pulumi-resource-random": "./random" },
  stamps: [`main.version=v${RANDOM_PROVIDER}`],
  seconds: 5,
};

export const ENGINE: readonly Part[] = [PULUMI_CLI, NODEJS_HOST, KUBERNETES_PLUGIN, RANDOM_PLUGIN];

export const CLUSTER: readonly Part[] = [
  {
    name: "Kubernetes, etcd, CoreDNS and metrics-server",
    module: "platform",
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
    seconds: 300,
  },
  {
    name: "kube-router",
    module: "kube-router",
    programs: { "kube-router": "github.com/cloudnativelabs/kube-router/v2/cmd/kube-router" },
    seconds: 100,
  },
  { name: "pause", module: "pause", programs: { pause: "." }, inImages: true, seconds: 3 },
];

/** The sample app; its first build is the part itself. */
export const PODINFO: Part = {
  name: "podinfo",
  module: "podinfo",
  programs: {
    podinfo: "github.com/stefanprodan/podinfo/cmd/podinfo",
    podcli: "github.com/stefanprodan/podinfo/cmd/podcli",
  },
  stamps: [podinfoStamp(1)],
  inImages: true,
  seconds: 40,
};

/** Makes each build of the sample app another program. */
export function podinfoStamp(build: number): string {
  return `github.com/stefanprodan/podinfo/pkg/version.REVISION=build-${build}`;
}

export const IMAGES: readonly Part[] = [
  PODINFO,
  { name: "k6", module: "k6", programs: { k6: "go.k6.io/k6" }, inImages: true, seconds: 80 },
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
  inImages: true,
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

/** The record of a part that is there, beside its programs. */
interface Stamp {
  readonly fingerprint: string;
  /** How the part came here, in words. */
  readonly source: string;
  /** Sums of the files that the programs were taken from; undefined where they were built. */
  readonly sums?: string;
}

/**
 * Whether a part is there as this checkout asks for it: taken from `parts` where they have it, and
 * built here otherwise.
 */
export async function isPlaced(part: Part, parts?: Parts): Promise<boolean> {
  const stamp = await readStamp(part);
  const offer = await offerOf(part, parts);
  return stamp?.fingerprint === (await fingerprint(part)) && stamp.sums === offer?.sums;
}

/** Puts a part's programs where the sandbox looks for them: taken from `parts`, or else built. */
export async function placePart(part: Part, parts?: Parts): Promise<void> {
  const offer = await offerOf(part, parts);
  if (parts === undefined || offer === undefined) return build(part);
  const commits: string[] = [];
  await place(part, async (program, path) => {
    await parts.unpack(program, path);
    const commit = await commitOf(path);
    if (commit !== undefined) commits.push(commit);
  });
  const origin = offer.record?.source ?? [...new Set(commits)].join(", ");
  const source = [`taken from ${parts.location}`, origin].filter(Boolean).join(": ");
  await writeStamp(part, { fingerprint: await fingerprint(part), source, sums: offer.sums });
}

/** The files of a part among `parts`; undefined where a checkout of another version has packed them. */
export async function offerOf(part: Part, parts?: Parts): Promise<Offer | undefined> {
  const offer = await parts?.offer(Object.keys(part.programs));
  if (offer?.record === undefined) return offer;
  return offer.record.fingerprint === (await fingerprint(part)) ? offer : undefined;
}

/** The record of a part that is there, for those who pack it or show it. */
export async function readStamp(part: Part): Promise<Stamp | undefined> {
  const text = await readFile(stampPath(part), "utf8").catch(() => undefined);
  return text === undefined ? undefined : (JSON.parse(text) as Stamp);
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
 * against go.sum. A killed build leaves the former programs.
 */
export async function build(part: Part): Promise<void> {
  const folder = await prepareFolder(part);
  await place(part, (program, path) =>
    goBuild(part, part.programs[program] ?? ".", path, part.stamps ?? [], folder),
  );
  if (folder !== folderOf(part)) await rm(folder, { recursive: true });
  await writeStamp(part, { fingerprint: await fingerprint(part), source: builtFrom(part) });
}

function builtFrom(part: Part): string {
  return `built from ${part.source ?? `sandbox/modules/${part.module}`}`;
}

/** Whether the programs that are there were built by this recipe, here or where they were packed. */
export async function isBuilt(part: Part): Promise<boolean> {
  const stamp = await readStamp(part);
  return stamp?.source.endsWith(builtFrom(part)) === true;
}

/** Replaces each program of a part once the new one is whole. */
async function place(
  part: Part,
  make: (program: string, path: string) => Promise<void>,
): Promise<void> {
  await mkdir(BIN, { recursive: true });
  await rm(stampPath(part), { force: true });
  for (const program of Object.keys(part.programs)) {
    const unfinished = join(BIN, `.${program}.unfinished`);
    try {
      await make(program, unfinished);
      await rename(unfinished, join(BIN, program));
    } finally {
      await rm(unfinished, { force: true });
    }
    for (const link of part.links?.[program] ?? []) {
      await rm(join(BIN, link), { force: true });
      await symlink(program, join(BIN, link));
    }
  }
}

/** Builds one program from a package of the part's module. */
export async function goBuild(
  part: Part,
  packagePath: string,
  output: string,
  stamps: readonly string[],
  folder = folderOf(part),
): Promise<void> {
  await mkdir(LOGS, { recursive: true });
  const log = join(LOGS, `build-${part.module}.log`);
  const linker = ["-s", "-w", ...stamps.flatMap((stamp) => ["-X", stamp])].join(" ");
  // The linker drops debug information (-w): not making it saves a tenth of the compiler's time.
  const flags = ["-mod=readonly", "-trimpath", "-gcflags=all=-dwarf=false", `-ldflags=${linker}`];
  const run = execa("go", ["build", ...flags, "-o", output, packagePath], {
    cwd: folder,
    // The same for all parts, so that they share the compiled packages of Go's own library.
    env: { CGO_ENABLED: "0", ...(part.inImages ? { GOOS: "linux" } : {}) },
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

/**
 * Makes the folder that a part is built in: its own under `sandbox/modules`, or a copy with the
 * files that the part embeds, and with copies of the modules that it corrects.
 */
async function prepareFolder(part: Part): Promise<string> {
  const { corrections = [], embeds = [] } = part;
  if (corrections.length + embeds.length === 0) return folderOf(part);
  const folder = join(SANDBOX, "build", nameOf(part));
  await rm(folder, { recursive: true, force: true });
  await copyFolder(folderOf(part), folder);
  for (const { module, file, to, set = {} } of embeds) {
    const text = await readFile(join(await moduleFolder(part, module), file), "utf8");
    const value = { ...(JSON.parse(text) as object), ...set };
    await writeFile(join(folder, to), JSON.stringify(value));
  }
  for (const module of new Set(corrections.map(({ module }) => module))) {
    const copy = join(folder, ".corrected", module);
    await copyFolder(await moduleFolder(part, module), copy);
    for (const { file, from, to } of corrections.filter((other) => other.module === module)) {
      const text = await readFile(join(copy, file), "utf8");
      const corrected = text.replace(new RegExp(from, "g"), to);
      if (corrected === text) throw new Error(`${module}: ${file} needs no correction any more`);
      await chmod(join(copy, file), 0o644);
      await writeFile(join(copy, file), corrected);
    }
    await appendFile(join(folder, "go.mod"), `\nreplace ${module} => ${copy}\n`);
  }
  return folder;
}

/** Copies files only: folders of Go's module cache are read-only, and so would be their copies. */
async function copyFolder(from: string, to: string): Promise<void> {
  for (const entry of await readdir(from, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const folder = join(to, relative(from, entry.parentPath));
    await mkdir(folder, { recursive: true });
    await copyFile(join(entry.parentPath, entry.name), join(folder, entry.name));
  }
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

/** The part's first program, which no other part has. */
export function nameOf(part: Part): string {
  return Object.keys(part.programs)[0] ?? part.module;
}

function stampPath(part: Part): string {
  return join(BIN, `.${nameOf(part)}.json`);
}

async function writeStamp(part: Part, stamp: Stamp): Promise<void> {
  await writeFile(stampPath(part), JSON.stringify(stamp));
}

/** The recipe of a part: changed, the part is built or taken anew. */
async function fingerprint(part: Part): Promise<string> {
  const folder = folderOf(part);
  const recipe = { ...part, name: undefined, seconds: undefined, source: undefined };
  const hash = createHash("sha256").update(JSON.stringify(recipe));
  const files = await readdir(folder, { recursive: true, withFileTypes: true });
  const paths = files
    .filter((file) => file.isFile())
    .map((file) => join(file.parentPath, file.name))
    .filter((path) => isOf(part, relative(folder, path)));
  for (const path of paths.sort()) hash.update(await readFile(path));
  return hash.digest("hex");
}

/** Whether a part is built from a file of its module, and not another part of that module. */
function isOf(part: Part, path: string): boolean {
  const folder = dirname(path);
  return folder === "." || Object.values(part.programs).includes(`./${folder}`);
}
