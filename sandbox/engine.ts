import { execa, ExecaError, type ResultPromise } from "execa";
import { randomBytes } from "node:crypto";
import { createWriteStream } from "node:fs";
import { mkdir, readdir, readFile, readlink, rm, symlink, writeFile } from "node:fs/promises";
import { homedir } from "node:os";
import { delimiter, dirname, join, relative } from "node:path";
import { coerce, gte } from "semver";
import { isMap, parse, parseDocument, type Document } from "yaml";
import { diagnostics } from "../cli/pulumi";
import { Git } from "../ledger/git";
import { MOVING_KEYS } from "../config-schema";
import { orderPath } from "../release/path";
import {
  isBuilt,
  KUBERNETES_PLUGIN,
  KUBERNETES_PROVIDER,
  NODEJS_HOST,
  offerOf,
  PULUMI_CLI,
  RANDOM_PLUGIN,
  RANDOM_PROVIDER,
  readStamp,
  type Part,
} from "./build";
import { BIN, exists, KUBECONFIG, ROOT, SANDBOX } from "./folder";
import { commitOf, type Parts } from "./parts";

/** The oldest Pulumi that runs the program: the first with hooks for errors. */
export const OLDEST_PULUMI = "3.218.0";

const HOME = join(SANDBOX, "pulumi");
const HOME_PROGRAMS = join(HOME, "bin");
const PASSPHRASE = join(SANDBOX, "passphrase");

/** Where the environments are to run. */
export interface Place {
  /** The user's own kubeconfig context; the sandbox's cluster unless given. */
  readonly context?: string;
  /** `host/name` of the user's own registry; the sandbox's unless given. */
  readonly registry?: string;
  /** Put before the environments' names to name their namespaces, such as `baton-`. */
  readonly namespacePrefix?: string;
  /** The service in `app/` is carried, in podinfo's place. */
  readonly app?: boolean;
  /** A file with the passphrase of the stacks' secrets. Default: one that the sandbox has made. */
  readonly passphraseFile?: string;
}

/** A provider that the program needs, in the version that its SDK asks for. */
interface Plugin {
  readonly name: string;
  readonly version: string;
  /** Stands in where this machine does not have the plugin. */
  readonly part: Part;
}

const KUBERNETES: Plugin = {
  name: "kubernetes",
  version: KUBERNETES_PROVIDER,
  part: KUBERNETES_PLUGIN,
};
const PLUGINS: readonly Plugin[] = [
  KUBERNETES,
  { name: "random", version: RANDOM_PROVIDER, part: RANDOM_PLUGIN },
];

/** The parts of the engine that this machine does not have, and `pulumi` cannot download. */
export async function missingEngine(parts?: Parts): Promise<Part[]> {
  const own = await installedPulumi();
  const missing = own === undefined ? [PULUMI_CLI, NODEJS_HOST] : [];
  for (const { name, version, part } of PLUGINS) {
    if ((await installedPlugin(name, version)) !== undefined) continue;
    if (own !== undefined && (await offerOf(part, parts)) === undefined) {
      const install = ["plugin", "install", "resource", name, version];
      if (!(await ownPulumi(install)).failed) continue;
    }
    missing.push(part);
  }
  return missing;
}

/** A program of the engine, and where it comes from. */
export interface EngineProgram {
  readonly name: string;
  readonly source: string;
}

/** The origin and the date of what the release's outcome depends on most. */
export async function describeEngine(): Promise<EngineProgram[]> {
  const programs: EngineProgram[] = [];
  const own = await installedPulumi();
  const host = own === undefined ? await readStamp(NODEJS_HOST) : undefined;
  programs.push({
    name: "Node.js language host",
    source: host?.source ?? `Pulumi ${own ?? ""} on PATH`,
  });
  const path = await installedPlugin(KUBERNETES.name, KUBERNETES.version);
  const stamp = path === undefined ? await readStamp(KUBERNETES_PLUGIN) : undefined;
  const found = [path, path && (await commitOf(path))].filter(Boolean).join(", ");
  programs.push({
    name: `Kubernetes provider v${KUBERNETES.version}`,
    source: stamp?.source ?? found,
  });
  return programs;
}

/**
 * Whether the Kubernetes provider is the one that the sandbox builds: it is older than the version
 * that it gives, and updates an object that exists where the real one refuses to create it.
 */
async function isProviderBuilt(): Promise<boolean> {
  const own = await installedPlugin(KUBERNETES.name, KUBERNETES.version);
  return own === undefined && isBuilt(KUBERNETES_PLUGIN);
}

/** The version of the user's own `pulumi`, or `undefined` when there is none or it is too old. */
async function installedPulumi(): Promise<string | undefined> {
  const run = await ownPulumi(["version"]);
  const version = run.failed ? null : coerce(run.stdout);
  return version !== null && gte(version, OLDEST_PULUMI) ? version.version : undefined;
}

/** The user's own plugin of exactly this version: in Pulumi's plugin folder or on PATH. */
async function installedPlugin(name: string, version: string): Promise<string | undefined> {
  const program = `pulumi-resource-${name}`;
  const home = process.env["PULUMI_HOME"] ?? join(homedir(), ".pulumi");
  const plugin = join(home, "plugins", `resource-${name}-v${version}`, program);
  if (!home.startsWith(SANDBOX) && (await exists(plugin))) return plugin;
  for (const path of ownPath().map((folder) => join(folder, program))) {
    if (!(await exists(path))) continue;
    const { failed, stdout } = await ownPulumi(["package", "get-schema", path]);
    if (!failed && (JSON.parse(stdout) as { version?: string }).version === version) return path;
  }
  return undefined;
}

async function ownPulumi(args: readonly string[]) {
  return execa("pulumi", args, { env: { PATH: ownPath().join(delimiter) }, reject: false });
}

/** The folders on PATH; the sandbox's own is among them where its `env` was sourced. */
function ownPath(): string[] {
  const folders = (process.env["PATH"] ?? "").split(delimiter);
  return folders.filter((folder) => !folder.startsWith(SANDBOX));
}

/** A Pulumi project of the sandbox: the committed program and stack files, through the overlay. */
export class Project {
  private constructor(
    readonly folder: string,
    /** The variables that make the Pulumi CLI work on this project. */
    readonly environment: Readonly<Record<string, string>>,
    /** The environments in the order an image passes them. */
    readonly path: readonly string[],
  ) {}

  /**
   * Writes the project's files anew, keeping what a stack file says of its release, and makes the
   * stacks that are missing.
   */
  static async open(name: string, place: Place): Promise<Project> {
    const folder = join(SANDBOX, name);
    const state = join(folder, "state");
    await mkdir(state, { recursive: true });
    const environment = await engineEnvironment(place, state);
    const path = await writeProject(folder, place);
    const project = new Project(folder, environment, path);
    const listed = await project.pulumi("stack", "ls", "--json");
    const stacks = (JSON.parse(listed.stdout) as { name: string }[]).map((stack) => stack.name);
    for (const stack of path) {
      if (!stacks.includes(stack)) await project.pulumi("stack", "init", stack);
    }
    await writeFile(join(folder, "env"), shellExports(environment));
    return project;
  }

  /** Commits the stack files as they are: the tool's ledger is this project's own repository. */
  async commit(message: string): Promise<void> {
    const repository = new Git(this.folder);
    const git = async (...args: string[]) => repository.run([...SANDBOX_PERSON, ...args]);
    const found = await readdir(join(this.folder, ".git")).catch(() => undefined);
    if (found === undefined) {
      await writeFile(join(this.folder, ".gitignore"), "/state/\n/env\n*.log\n");
      await git("init", "--quiet", "--initial-branch=main");
    }
    await git("add", "--all");
    if ((await git("status", "--porcelain")) !== "") await git("commit", "--quiet", "-m", message);
  }

  /** Runs the Pulumi CLI in this project. */
  pulumi(...args: string[]): ResultPromise<{ cwd: string; env: Record<string, string> }> {
    return execa("pulumi", ["--non-interactive", ...args], {
      cwd: this.folder,
      env: { ...this.environment, PWD: this.folder },
    });
  }

  /** Sets one key of a stack's config, as a person would. */
  async setConfig(stack: string, key: string, value: string): Promise<void> {
    await this.pulumi("config", "set", "--stack", stack, "--path", key, "--", value);
  }

  /** Changes keys of a stack's file, with dots between those of maps; a value may be anything. */
  async edit(stack: string, changes: Readonly<Record<string, unknown>>): Promise<void> {
    const path = join(this.folder, `Pulumi.${stack}.yaml`);
    const document = await readDocument(path);
    for (const [key, value] of Object.entries(changes)) {
      const keys = ["config", ...key.split(".")];
      keys.slice(0, -1).forEach((_, index) => {
        const parent = keys.slice(0, index + 1);
        if (!document.hasIn(parent)) document.setIn(parent, document.createNode({}));
      });
      document.setIn(keys, document.createNode(value));
    }
    await writeFile(path, document.toString());
  }

  /** Sets one key of a stack's config to a secret, which it keeps when the project is opened anew. */
  async setSecret(stack: string, key: string, value: string): Promise<void> {
    const run = this.pulumi("config", "set", "--secret", "--stack", stack, key);
    // On the command line everybody on the machine could read it.
    run.stdin.end(value);
    await run;
  }

  /**
   * Runs `pulumi up`; its output goes to `up-STACK.log` in the project's folder.
   * @throws Error with Pulumi's diagnostics.
   */
  async up(stack: string, variables: Readonly<Record<string, string>> = {}): Promise<void> {
    const log = join(this.folder, `up-${stack}.log`);
    const args = ["--non-interactive", "up", "--yes", "--skip-preview", "--stack", stack];
    const run = execa("pulumi", args, {
      cwd: this.folder,
      env: { ...this.environment, PWD: this.folder, ...variables },
    });
    run.stdout.pipe(createWriteStream(log));
    try {
      await run;
    } catch (error) {
      const output = error instanceof ExecaError ? String(error.stdout) : String(error);
      throw new Error(
        `pulumi up --stack ${stack} failed; the log is ${log}\n${diagnostics(output)}`,
      );
    }
  }

  /** The stack's own keys as text, structured ones as JSON. */
  async config(stack: string): Promise<Record<string, string>> {
    const { stdout } = await this.pulumi("config", "--json", "--stack", stack);
    const entries = Object.entries(JSON.parse(stdout) as Record<string, { value?: string }>);
    return Object.fromEntries(entries.map(([key, { value }]) => [key, value ?? ""]));
  }

  async outputs(stack: string): Promise<Record<string, unknown>> {
    const { stdout } = await this.pulumi("stack", "output", "--json", "--stack", stack);
    return JSON.parse(stdout) as Record<string, unknown>;
  }
}

/** Whoever runs the sandbox need not have told git who they are. */
const SANDBOX_PERSON = [
  ...["-c", "user.name=sandbox", "-c", "user.email=sandbox@example.com"],
  ...["-c", "commit.gpgsign=false"],
];

async function engineEnvironment(
  { context, passphraseFile = PASSPHRASE }: Place,
  state: string,
): Promise<Record<string, string>> {
  if ((await readFile(PASSPHRASE).catch(() => undefined)) === undefined) {
    await writeFile(PASSPHRASE, randomBytes(24).toString("hex"), { mode: 0o600 });
  }
  const common = {
    // Without `.attrs` files, which no reader may meet half written.
    PULUMI_BACKEND_URL: `file://${state}?metadata=skip`,
    PULUMI_CONFIG_PASSPHRASE_FILE: passphraseFile,
    PULUMI_SKIP_UPDATE_CHECK: "true",
    ...(context === undefined ? { KUBECONFIG } : {}),
  };
  const own = await installedPulumi();
  const installed = await Promise.all(
    PLUGINS.map(({ name, version }) => installedPlugin(name, version)),
  );
  if (own !== undefined && !installed.includes(undefined)) return common;
  if (own === undefined) {
    await link(join(BIN, "pulumi"), join(HOME_PROGRAMS, "pulumi"));
    // Beside the engine that it comes with, the host causes no warning.
    await link(join(BIN, "pulumi-language-nodejs"), join(HOME_PROGRAMS, "pulumi-language-nodejs"));
  }
  for (const [index, { name, version }] of PLUGINS.entries()) {
    const program = `pulumi-resource-${name}`;
    const place = join(HOME, "plugins", `resource-${name}-v${version}`);
    await link(installed[index] ?? join(BIN, program), join(place, program));
  }
  return {
    ...common,
    ...(own === undefined ? { PATH: [HOME_PROGRAMS, process.env["PATH"]].join(delimiter) } : {}),
    PULUMI_HOME: HOME,
    // Found on PATH, a plugin of any version would be preferred, with a warning on every run.
    PULUMI_IGNORE_AMBIENT_PLUGINS: "true",
    // The sandbox has no need of the AWS provider, and may have no way to fetch it.
    PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION: "true",
    // The program's `enablePatchForce`, which the provider knows by this name only.
    ...((await isProviderBuilt()) ? { PULUMI_K8S_ENABLE_PATCH_FORCE: "true" } : {}),
  };
}

/** A link that is right already stays: other processes may be about to start the program. */
async function link(program: string, path: string): Promise<void> {
  if ((await readlink(path).catch(() => undefined)) === program) return;
  await mkdir(dirname(path), { recursive: true });
  await rm(path, { force: true });
  await symlink(program, path);
}

type Tree = Readonly<Record<string, unknown>>;
interface Overlay {
  readonly defaults: Tree;
  readonly stacks: Tree;
  readonly [stack: string]: Tree;
}

async function writeProject(folder: string, place: Place): Promise<string[]> {
  const overlays = await readOverlays(place);
  const own = ownPlace(place);

  const project = await readDocument(join(ROOT, "Pulumi.yaml"));
  project.set("main", relative(folder, ROOT));
  project.setIn(["plugins", "providers", 0, "path"], relative(folder, join(ROOT, "provider")));
  for (const { defaults } of overlays) {
    overlayTree(project, ["config", "baton:defaults", "value"], defaults);
  }
  overlayTree(project, ["config", "baton:defaults", "value"], own.defaults);
  await writeFile(join(folder, "Pulumi.yaml"), project.toString());

  const upstreams: Record<string, string | undefined> = {};
  for (const file of await readdir(ROOT)) {
    const stack = /^Pulumi\.(.+)\.yaml$/.exec(file)?.[1];
    if (stack === undefined) continue;
    const document = await readDocument(join(ROOT, file));
    const trees = overlays.flatMap((overlay) => [overlay.stacks, overlay[stack] ?? {}]);
    for (const tree of [...trees, own.stack(stack)]) {
      overlayTree(document, ["config"], tree);
    }
    const former = await readDocument(join(folder, file)).catch(() => undefined);
    // Which release it runs, its secrets, and the key to them.
    const kept = [...MOVING_KEYS.map((key) => `baton:${key}`), ...secretKeys(former)];
    for (const path of [...kept.map((key) => ["config", key]), ["encryptionsalt"]]) {
      const value = former?.getIn(path);
      if (value !== undefined) document.setIn(path, value);
    }
    await writeFile(join(folder, file), document.toString());
    upstreams[stack] = document.getIn(["config", "baton:upstream"]) as string | undefined;
  }
  return orderPath(upstreams);
}

/** The keys whose values Pulumi has encrypted. */
function secretKeys(document: Document | undefined): string[] {
  const { config = {} } = (document?.toJS() ?? {}) as { config?: Record<string, unknown> };
  const isSecret = (value: unknown) =>
    typeof value === "object" && value !== null && "secure" in value;
  return Object.keys(config).filter((key) => isSecret(config[key]));
}

async function readOverlays({ app = false }: Place): Promise<Overlay[]> {
  const names = ["overlay.yaml", ...(app ? ["overlay-orders.yaml"] : [])];
  const read = (name: string) => readFile(join(ROOT, "sandbox", name), "utf8");
  return Promise.all(names.map(async (name) => parse(await read(name)) as Overlay));
}

/** What a cluster and a registry of the user's own change. */
function ownPlace({ context, registry, namespacePrefix }: Place): {
  defaults: Tree;
  stack: (name: string) => Tree;
} {
  const tests = `${registry ?? ""}:tests-1`;
  const suites = ["integration", "regression", "end-to-end", "load"];
  return {
    defaults:
      registry === undefined
        ? {}
        : {
            registry: { repository: registry, plainHttp: false },
            verification: {
              suites: Object.fromEntries(suites.map((suite) => [suite, { image: tests }])),
            },
          },
    stack: (name) => ({
      ...(context === undefined ? {} : { "baton:cluster": { context } }),
      ...(registry === undefined
        ? {}
        : { "baton:registry": { repository: registry, plainHttp: false, replica: null } }),
      ...(namespacePrefix === undefined
        ? {}
        : { "baton:namespace": { name: `${namespacePrefix}${name}` } }),
    }),
  };
}

async function readDocument(path: string): Promise<Document> {
  return parseDocument(await readFile(path, "utf8"));
}

/** Sets every leaf of the tree, so that what stands beside them, comments too, stays. */
function overlayTree(document: Document, path: readonly unknown[], tree: Tree): void {
  for (const [key, value] of Object.entries(tree)) {
    const here = [...path, key];
    if (typeof value === "object" && value !== null && !Array.isArray(value)) {
      if (!isMap(document.getIn(here, true))) document.setIn(here, document.createNode({}));
      overlayTree(document, here, value as Tree);
    } else if (value === null && path.length === 1) {
      // As a value of its own, Pulumi would hand it to the program as an empty text.
      document.deleteIn(here);
    } else {
      document.setIn(here, value);
    }
  }
}

function shellExports(environment: Readonly<Record<string, string>>): string {
  const lines = Object.entries(environment).map(([name, value]) => `export ${name}='${value}'`);
  return `# Source this, and pulumi works on the sandbox by hand.\n${lines.join("\n")}\n`;
}
