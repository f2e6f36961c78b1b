import * as pulumi from "@pulumi/pulumi";
import * as sdkState from "@pulumi/pulumi/runtime/state";
import * as assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync, readdirSync } from "node:fs";
import { copyFile, mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parse } from "yaml";
import { TEXT_KEYS } from "../../config";
import program from "../../index";
import type { RecordedResource } from "../../stack-state";
import { RegistryServer } from "./registry";

export const ROOT = join(__dirname, "..", "..");
export const STACKS = readdirSync(ROOT)
  .flatMap((file) => /^Pulumi\.(.+)\.yaml$/.exec(file)?.[1] ?? [])
  .sort();

type Tree = Readonly<Record<string, unknown>>;

/** A resource as the program registered it. */
export interface Registered {
  readonly type: string;
  readonly name: string;
  /** With secrets unwrapped. */
  readonly inputs: Readonly<Record<string, unknown>>;
  /** Paths of inputs that were sent as secrets, e.g. `stringData.SESSION_KEY`. */
  readonly secrets: readonly string[];
  readonly custom: boolean;
  /** URN of the parent; empty for the stack itself. */
  readonly parent: string;
  /** Name of the provider that makes it; empty for a component. */
  readonly provider: string;
  /** Names of the resources it waits for, in alphabetical order. */
  readonly dependsOn: readonly string[];
  readonly options: {
    readonly retainOnDelete: boolean;
    readonly deleteBeforeReplace: boolean;
    readonly replaceOnChanges: readonly string[];
    readonly ignoreChanges: readonly string[];
    readonly createTimeout: string;
    /** Names of the hooks that run before an update, and after a failure. */
    readonly hooks: {
      readonly beforeUpdate: readonly string[];
      readonly onError: readonly string[];
    };
  };
}

export interface Run {
  readonly resources: readonly Registered[];
  readonly outputs: Readonly<Record<string, unknown>>;
}

export interface RunOptions {
  readonly stack: string;
  /** Merged over the stack's own keys, `baton:` left out; null removes one. */
  readonly config?: Tree;
  /** Merged over Pulumi.yaml's defaults. */
  readonly defaults?: Tree;
  /** Values of Pulumi's encrypted config; of another namespace, by the full key. */
  readonly secrets?: Readonly<Record<string, string>>;
  /** Config of other namespaces, by its full key. */
  readonly otherConfig?: Readonly<Record<string, string>>;
  /** What the stack's last successful `up` has left. */
  readonly lastOutputs?: Tree;
  /** What there is of former runs, by URN. */
  readonly recorded?: Readonly<Record<string, RecordedResource>>;
  /** What the Jobs find in the environment's database. */
  readonly database?: { readonly version: number; readonly backup: string };
  /** Which of the two does not know hooks: an engine, or a language host that stands before it. */
  readonly withoutHooks?: "engine" | "host";
  /** Runs as a preview in which nothing that a provider computes is known. */
  readonly preview?: boolean;
}

/** The configuration of a committed stack: `baton:defaults`, and the stack file's own keys. */
export function committedConfig(stack: string): { defaults: Tree; own: Tree } {
  const project = parse(readFileSync(join(ROOT, "Pulumi.yaml"), "utf8")) as {
    config: { "baton:defaults": { value: Tree } };
  };
  const file = parse(readFileSync(join(ROOT, `Pulumi.${stack}.yaml`), "utf8")) as { config: Tree };
  const own = Object.entries(file.config).map(([key, value]) => [
    key.replace(/^baton:/, ""),
    value,
  ]);
  return { defaults: project.config["baton:defaults"].value, own: Object.fromEntries(own) as Tree };
}

/**
 * Runs the committed program under Pulumi's mocks, with a registry and a cluster's address that
 * answer over real HTTP.
 */
export class ProgramHarness {
  private constructor(
    readonly registry: RegistryServer,
    private readonly cluster: Server,
    private readonly folder: string,
  ) {}

  static async start(): Promise<ProgramHarness> {
    // An empty cluster.
    const cluster = createServer((_, response) => response.writeHead(404).end("{}"));
    await new Promise<void>((resolve) => cluster.listen(0, "127.0.0.1", resolve));
    const folder = await mkdtemp(join(tmpdir(), "baton-test-"));
    const harness = new ProgramHarness(await RegistryServer.start(), cluster, folder);
    // Where the program looks for the ledger: there is none.
    await copyFile(join(ROOT, "Pulumi.yaml"), join(folder, "Pulumi.yaml"));
    process.env["PWD"] = folder;
    await harness.writeKubeconfig(`http://127.0.0.1:${(cluster.address() as AddressInfo).port}`);
    return harness;
  }

  async stop(): Promise<void> {
    await this.registry.stop();
    this.cluster.closeAllConnections();
    await new Promise((resolve) => this.cluster.close(resolve));
    await rm(this.folder, { recursive: true });
    delete process.env["KUBECONFIG"];
    process.env["PWD"] = process.cwd();
  }

  /** Every context that the committed stack files name leads to this server. */
  async writeKubeconfig(server: string): Promise<void> {
    const kubeconfig = {
      contexts: STACKS.map((name) => ({ name, context: { cluster: "test" } })),
      // The client speaks plain HTTP only to where it need not know whom it speaks to.
      clusters: [{ name: "test", cluster: { server, "insecure-skip-tls-verify": true } }],
    };
    const path = join(this.folder, "kubeconfig");
    await writeFile(path, JSON.stringify(kubeconfig));
    process.env["KUBECONFIG"] = path;
  }

  /**
   * Runs the program.
   * @throws what the program throws; nothing is registered then.
   */
  async run(options: RunOptions, resources: Registered[] = []): Promise<Run> {
    this.configure(options);
    return register(program, options, resources);
  }

  /** Runs the program and gives the message it is refused with, before any resource. */
  async refusal(options: RunOptions): Promise<string> {
    const resources: Registered[] = [];
    const message = await this.run(options, resources).then(
      () => undefined,
      (error: unknown) => {
        if (!pulumi.RunError.isInstance(error)) throw error;
        return error.message;
      },
    );
    const made = resources.filter(({ type }) => !type.startsWith("pulumi:pulumi:"));
    assert.deepEqual(made, [], "nothing is registered");
    assert.ok(message !== undefined, "expected a refusal");
    return message;
  }

  /** As the engine hands a stack's configuration to the program. */
  private configure(options: RunOptions): void {
    const { stack, config = {}, defaults = {}, secrets = {}, otherConfig = {} } = options;
    const committed = committedConfig(stack);
    const repository = `${this.registry.host}/podinfo`;
    const registry = { kind: "oci", plainHttp: true, repository, replication: null };
    const keys: Record<string, string> = { ...otherConfig };
    // Without a ledger, nobody can have approved.
    const approval = { required: 0 };
    const own = override(override(committed.own, { registry, approval }), config);
    for (const [key, value] of Object.entries({
      defaults: override(committed.defaults, defaults),
      ...own,
    })) {
      // A plain text has no null: a stack file simply does not say it.
      if ((value as unknown) === null && TEXT_KEYS.has(key)) continue;
      keys[`baton:${key}`] = typeof value === "string" ? value : JSON.stringify(value);
    }
    const full = (key: string) => (key.includes(":") ? key : `baton:${key}`);
    for (const [key, value] of Object.entries(secrets)) keys[full(key)] = value;
    pulumi.runtime.setAllConfig(keys, Object.keys(secrets).map(full));
  }
}

/** No hook runs under mocks, so there is no server for the engine to call. */
function callbacks(withoutHooks: RunOptions["withoutHooks"]) {
  const register = (method: string) => () =>
    withoutHooks === "host"
      ? Promise.reject(
          // As gRPC says it.
          new Error(
            `12 UNIMPLEMENTED: unknown method ${method} for service pulumirpc.ResourceMonitor`,
          ),
        )
      : Promise.resolve();
  return {
    registerResourceHook: register("RegisterResourceHook"),
    registerErrorHook: register("RegisterErrorHook"),
    awaitStackRegistrations: () => Promise.resolve(),
    shutdown: () => undefined,
  };
}

/** The part of the SDK's own state that says what the engine can do. */
interface SdkStore {
  callbacks: unknown;
  supportsErrorHooks: boolean;
}

/** Runs a program, or a part of one, under Pulumi's mocks and records what it registers. */
export async function register(
  program: () => unknown,
  options: Pick<
    RunOptions,
    "stack" | "preview" | "lastOutputs" | "recorded" | "database" | "withoutHooks"
  > & {
    readonly project?: string;
  } = { stack: "qa" },
  resources: Registered[] = [],
): Promise<Run> {
  const { stack, preview = false, project = "baton", withoutHooks } = options;
  await pulumi.runtime.setMocks(mocks(options), project, stack, preview, "organization");
  const store = (sdkState as unknown as { getStore(): SdkStore }).getStore();
  store.callbacks = callbacks(withoutHooks);
  recordRegistrations(resources);
  // The SDK takes a stack trace for every promise, which ts-node maps back to sources: most of a
  // run's time, for traces that nobody reads.
  const former = Object.assign({}, Error);
  Error.stackTraceLimit = 0;
  let outputs: unknown;
  try {
    outputs = await pulumi.runtime.runInPulumiStack(async () => {
      // By then the SDK has asked the mocks, which can do everything.
      if (withoutHooks === "engine") store.supportsErrorHooks = false;
      const result = await program();
      return result instanceof pulumi.ComponentResource ? {} : result;
    });
    await pulumi.runtime.disconnect();
  } finally {
    Object.assign(Error, former);
  }
  const resolved = preview ? {} : await promiseOf(pulumi.output(outputs));
  return { resources, outputs: resolved as Run["outputs"] };
}

/** Merges maps; unlike the program, keeps null, for the program to see. */
function override(base: Tree, changes: Tree): Tree {
  const merged: Record<string, unknown> = { ...base };
  for (const [key, value] of Object.entries(changes)) {
    const former = merged[key];
    merged[key] = isTree(former) && isTree(value) ? override(former, value) : value;
  }
  return merged;
}

function isTree(value: unknown): value is Tree {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** The value of an output; rejects where the output fails, as `apply` alone does not. */
export async function promiseOf<T>(output: pulumi.Output<T>): Promise<T> {
  return (output as unknown as { promise(): Promise<T> }).promise();
}

function mocks(
  options: Pick<RunOptions, "preview" | "lastOutputs" | "recorded" | "database">,
): pulumi.runtime.Mocks {
  return {
    newResource(args) {
      if (options.preview === true && !args.type.startsWith("pulumi:")) {
        return { id: undefined, state: {} };
      }
      const state = { ...(args.inputs as Tree), ...computed(args, options) };
      return { id: `${args.name}-id`, state };
    },
    call(args) {
      if (args.token === "pulumi:pulumi:readStackOutputs") {
        return { ...(args.inputs as Tree), outputs: options.lastOutputs ?? {} };
      }
      if (args.token === "pulumi:pulumi:readStackResourceOutputs") {
        return { ...(args.inputs as Tree), outputs: options.recorded ?? {} };
      }
      throw new Error(`the program calls ${args.token}, which no mock answers`);
    },
  };
}

/** What the engine would be asked; the mocks themselves are shown neither parents nor options. */
interface RegisterRequest {
  getType(): string;
  getName(): string;
  getCustom(): boolean;
  getParent(): string;
  getProvider(): string;
  getObject(): { toJavaScript(): unknown };
  getDependenciesList(): string[];
  getRetainondelete(): boolean;
  getDeletebeforereplace(): boolean;
  getReplaceonchangesList(): string[];
  getIgnorechangesList(): string[];
  getCustomtimeouts(): { getCreate(): string } | undefined;
  getHooks(): { getBeforeUpdateList(): string[]; getOnErrorList(): string[] } | undefined;
}

function recordRegistrations(registered: Registered[]): void {
  const monitor = pulumi.runtime.getMonitor() as unknown as {
    registerResource(request: RegisterRequest, callback: unknown): unknown;
  };
  const register = monitor.registerResource.bind(monitor);
  monitor.registerResource = (request, callback) => {
    const secrets: string[] = [];
    const dependencies = request.getDependenciesList().map((urn) => urn.split("::").pop() ?? "");
    registered.push({
      type: request.getType(),
      name: request.getName(),
      inputs: unwrap(request.getObject().toJavaScript(), "", secrets) as Registered["inputs"],
      secrets,
      custom: request.getCustom(),
      parent: request.getParent(),
      provider: request.getProvider().split("::").at(-2) ?? "",
      dependsOn: [...new Set(dependencies)].sort(),
      options: {
        retainOnDelete: request.getRetainondelete(),
        deleteBeforeReplace: request.getDeletebeforereplace(),
        replaceOnChanges: request.getReplaceonchangesList(),
        ignoreChanges: request.getIgnorechangesList(),
        createTimeout: request.getCustomtimeouts()?.getCreate() ?? "",
        hooks: {
          beforeUpdate: request.getHooks()?.getBeforeUpdateList() ?? [],
          onError: request.getHooks()?.getOnErrorList() ?? [],
        },
      },
    });
    return register(request, callback);
  };
}

const JOB_STATUS = {
  startTime: "2026-01-02T03:04:05Z",
  completionTime: "2026-01-02T03:05:17Z",
  succeeded: 1,
};

/** What a provider adds to a resource's inputs. */
function computed(
  { type, name, inputs }: pulumi.runtime.MockResourceArgs,
  options: Pick<RunOptions, "database">,
) {
  const { metadata } = inputs as { metadata?: { name?: string } };
  const named =
    metadata !== undefined && metadata.name === undefined
      ? { metadata: { ...metadata, name: `${name}-${nameSuffix(inputs)}` } }
      : {};
  switch (type) {
    case "random:index/randomPassword:RandomPassword":
      return { result: secretValue(`generated-${name}`) };
    case "aws:ecr/repository:Repository":
      return { repositoryUrl: "repository-url" };
    case "promotion:index:SchemaVersion":
      return options.database ?? { version: 0, backup: "" };
    case "kubernetes:batch/v1:Job":
      return { ...named, status: JOB_STATUS };
    default:
      return named;
  }
}

/** Another content replaces an immutable object, and the new one has another name. */
function nameSuffix(inputs: unknown): string {
  return createHash("sha256").update(JSON.stringify(inputs)).digest("hex").slice(0, 8);
}

const SIGNATURE = "4dabf18193072939515e22adb298388d";
const SECRET = "1b47061264138c4ac30d75fd1eb44270";

function secretValue(value: unknown): Tree {
  return { [SIGNATURE]: SECRET, value };
}

function unwrap(value: unknown, path: string, secrets: string[]): unknown {
  if (Array.isArray(value)) return value.map((item, i) => unwrap(item, `${path}[${i}]`, secrets));
  if (typeof value !== "object" || value === null) return value;
  const tree = value as Tree;
  if (tree[SIGNATURE] === SECRET) {
    secrets.push(path);
    return unwrap(tree["value"], path, secrets);
  }
  const entries = Object.entries(tree).map(([key, child]) => [
    key,
    unwrap(child, path === "" ? key : `${path}.${key}`, secrets),
  ]);
  return Object.fromEntries(entries);
}
