import {
  AppsV1Api,
  BatchV1Api,
  CoreV1Api,
  type KubeConfig,
  type V1Pod,
} from "@kubernetes/client-node";
import { execa } from "execa";
import * as assert from "node:assert/strict";
import { chmod, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { openRegistry, type Registry } from "../../registry/registry";
import { deleteNamespaces, kubeconfigOf, until } from "../../sandbox/cluster";
import { type Place, Project } from "../../sandbox/engine";
import { BIN, DR_REGISTRY, NODE, REGISTRY, ROOT, SANDBOX } from "../../sandbox/folder";
import { pushBuild, pushImage, pushTests, targetsOf, type Target } from "../../sandbox/images";
import { as } from "../support/person";

/** The variable with the name and the number of this process's scene, as JSON, where several run. */
export const SCENE = "E2E_SCENE";
/** The variable that is set where the sandbox has been started for all. */
export const SANDBOX_IS_UP = "E2E_SANDBOX_IS_UP";

const scene = JSON.parse(process.env[SCENE] ?? '{ "name": "e2e", "index": 0 }') as {
  readonly name: string;
  readonly index: number;
};
const PREFIX = `baton-${scene.name}-`;
/** The volume that a claim of this scene is bound to. */
const VOLUME = `baton-${scene.name}`;
const PROJECT = `e2e-${scene.name}`;
/** How many seconds there are between the build numbers of one scene and those of the next. */
const NUMBERS = 1e9;
/** The file that `pulumi preview --import-file` writes. */
interface ImportFile {
  readonly resources: readonly {
    readonly type: string;
    readonly name: string;
    readonly id?: string;
    readonly component?: boolean;
  }[];
}

/** How long the tests wait for something to come to hold, in seconds. */
export const PATIENCE = 120;

/** `npm run test:e2e -- --context NAME --registry HOST/NAME`: a cluster and registry of one's own. */
const { context, registry } = parseArgs({
  options: { context: { type: "string" }, registry: { type: "string" } },
  // Mocha's own flags stand there too.
  strict: false,
}).values;
const own: Place = {
  ...(typeof context === "string" ? { context } : {}),
  ...(typeof registry === "string" ? { registry } : {}),
};

export const onSandbox = own.context === undefined;

/** Where the tool works, unless it is in the scene's project. */
interface Surroundings {
  readonly folder?: string;
  readonly variables?: Readonly<Record<string, string>>;
}

/** A project and namespaces of this process's own, empty at first. */
export class Scene {
  private constructor(
    readonly project: Project,
    readonly kubeconfig: KubeConfig,
    readonly registry: Registry,
    /** Where dr's images are; the same one on a registry of one's own. */
    readonly drRegistry: Registry,
    /** Where the app's images are pushed to. */
    readonly target: Target,
    /** Three builds that nobody has seen before. */
    readonly builds: readonly [number, number, number],
  ) {}

  private static opened: Promise<Scene> | undefined;

  /** The one scene that all files of this process share. */
  static open(): Promise<Scene> {
    Scene.opened ??= Scene.make();
    return Scene.opened;
  }

  /** The scene as at first, whatever has been done to it. */
  static anew(): Promise<Scene> {
    Scene.opened = Scene.make();
    return Scene.opened;
  }

  /** A scene without builds, for a project that was recorded with secrets of this passphrase. */
  static forRecorded(passphraseFile: string): Promise<Scene> {
    Scene.opened = Scene.make({ passphraseFile }, []);
    return Scene.opened;
  }

  private static async make(
    passphrase: Pick<Place, "passphraseFile"> = {},
    pushed: readonly number[] = [0, 1, 2],
  ): Promise<Scene> {
    const place: Place = { ...own, ...passphrase, namespacePrefix: PREFIX };
    await startSandbox(
      ...Object.entries(own).flatMap(([name, value]) => [`--${name}`, String(value)]),
    );
    const kubeconfig = kubeconfigOf(place);
    // What a former run left, however it ended.
    await rm(join(SANDBOX, PROJECT), { recursive: true, force: true });
    await deleteNamespaces(kubeconfig, PREFIX, PATIENCE);

    const targets = targetsOf(place);
    // Tags never move, so each run of each scene needs numbers of its own.
    const first = (scene.index + 1) * NUMBERS + (Math.floor(Date.now() / 1000) % NUMBERS);
    const builds = [first, first + 1, first + 2] as const;
    await pushTests(targets);
    for (const index of pushed) await pushBuild(first + index, targets);
    const target = targets.app[0] ?? { repository: `${REGISTRY}/podinfo`, plainHttp: true };
    return new Scene(
      await Project.open(PROJECT, place),
      kubeconfig,
      openRegistry({ kind: "oci", ...target }),
      openRegistry({
        kind: "oci",
        ...target,
        ...(own.registry === undefined ? { repository: `${DR_REGISTRY}/podinfo` } : {}),
      }),
      target,
      builds,
    );
  }

  namespaceOf(environment: string): string {
    return `${PREFIX}${environment}`;
  }

  get core(): CoreV1Api {
    return this.kubeconfig.makeApiClient(CoreV1Api);
  }

  get batch(): BatchV1Api {
    return this.kubeconfig.makeApiClient(BatchV1Api);
  }

  get apps(): AppsV1Api {
    return this.kubeconfig.makeApiClient(AppsV1Api);
  }

  /** The pods of an environment's workloads, without those that are on their way out. */
  async pods(environment: string, selector = "app.kubernetes.io/name=web"): Promise<V1Pod[]> {
    const { items } = await this.core.listNamespacedPod({
      namespace: this.namespaceOf(environment),
      labelSelector: selector,
    });
    return items.filter(({ metadata }) => metadata?.deletionTimestamp === undefined);
  }

  /** The digests that the kubelet says it runs for an environment's workloads, each once. */
  async runningDigests(environment: string): Promise<string[]> {
    const pods = await this.pods(environment);
    const ids = pods.flatMap(({ status }) => status?.containerStatuses ?? []);
    return [...new Set(ids.map(({ imageID }) => imageID.slice(imageID.indexOf("sha256:"))))];
  }

  /** Deploys a release by hand: sets the tag, and the version where one is asked for. */
  async deploy(environment: string, imageTag: string, version?: string): Promise<void> {
    await this.project.setConfig(environment, "imageTag", imageTag);
    if (version !== undefined) await this.project.setConfig(environment, "version", version);
    await this.project.up(environment);
  }

  /** Pushes an image that crashes, under a tag that it has not earned. @returns the tag. */
  async pushCrashing(tag: string): Promise<string> {
    const files = { "bin/podinfo": join(BIN, "podcli") };
    await pushImage(tag, this.target, { files, entrypoint: ["/bin/podinfo", tag] });
    return tag;
  }

  /** Runs git in the project's folder, by ann. */
  async git(...args: string[]): Promise<string> {
    const { stdout } = await execa("git", args, { cwd: this.project.folder, env: as("ann") });
    return stdout;
  }

  /** Starts the tool, by a person. */
  tool(
    person: string,
    args: readonly string[],
    { folder = this.project.folder, variables = {} }: Surroundings = {},
  ) {
    const command = ["-r", "ts-node/register", "cli/main.ts", "--cwd", folder, ...args];
    const env = { ...this.project.environment, ...as(person), ...variables, NO_COLOR: "1" };
    return execa("node", command, { cwd: ROOT, env, reject: false, all: true });
  }

  /** Runs the tool as a person would, and expects it to end so; gives what it printed. */
  async ends(
    exitCode: number,
    person: string,
    args: readonly string[],
    surroundings?: Surroundings,
  ): Promise<string> {
    const ran = await this.tool(person, args, surroundings);
    assert.doesNotMatch(ran.all, /\n\s+at .*:\d+:\d+/, "no stack trace");
    assert.equal(ran.exitCode, exitCode, ran.all);
    return ran.all;
  }

  /** Waits for the tool to run `pulumi up` on a stack. @returns its process id. */
  async pulumiOf(environment: string): Promise<number> {
    // The tool gives Pulumi a stack file below the project's folder.
    const pattern = `^pulumi up .*--stack ${environment} .*${this.project.folder}/`;
    let pid = 0;
    const isFound = async () => {
      const { stdout } = await execa("pgrep", ["-f", pattern], { reject: false });
      pid = Number(stdout.split("\n")[0]);
      return pid > 0;
    };
    await until("a run of Pulumi", isFound, PATIENCE);
    return pid;
  }

  /** The process ids of the providers that a run of Pulumi has started, by their command lines. */
  async providersOf(pulumi: number, pattern = "pulumi-resource-"): Promise<number[]> {
    const args = ["-P", String(pulumi), "-f", pattern];
    const { stdout } = await execa("pgrep", args, { reject: false });
    return stdout.split("\n").filter(Boolean).map(Number);
  }

  /** A stack's state as text, with `--show-secrets` or as it is kept. */
  async state(environment: string, ...options: string[]): Promise<string> {
    const run = this.project.pulumi("stack", "export", ...options, "--stack", environment);
    return (await run).stdout;
  }

  /**
   * Makes the volume of a claim, as nothing in the sandbox does.
   * @returns The folder that it is.
   */
  async makeVolume(environment: string, claim: string): Promise<string> {
    const path = join(NODE, `volume-${scene.name}`);
    await this.removeVolume();
    const gone = async () => {
      const { items } = await this.core.listPersistentVolume();
      return !items.some(({ metadata }) => metadata?.name === VOLUME);
    };
    await until("the end of the former volume", gone, PATIENCE);
    await rm(path, { recursive: true, force: true });
    await mkdir(path, { recursive: true });
    await chmod(path, 0o777);
    await this.core.createPersistentVolume({
      body: {
        metadata: { name: VOLUME },
        spec: {
          capacity: { storage: "1Gi" },
          accessModes: ["ReadWriteOnce"],
          storageClassName: "sandbox",
          persistentVolumeReclaimPolicy: "Retain",
          claimRef: { namespace: this.namespaceOf(environment), name: claim },
          hostPath: { path },
        },
      },
    });
    return path;
  }

  /** Removes what `makeVolume` has made, once its claim is gone. */
  async removeVolume(): Promise<void> {
    await this.core.deletePersistentVolume({ name: VOLUME }).catch(() => undefined);
  }

  /**
   * Imports objects that exist into a stack's state, as docs/adopting.md says.
   * @param ids by type, the id of the one object to import
   */
  async importObjects(stack: string, ids: Readonly<Record<string, string>>): Promise<void> {
    const { project } = this;
    const file = join(project.folder, "import.json");
    const provider = `urn:pulumi:${stack}::baton::pulumi:providers:kubernetes::cluster`;
    // The objects are not the stack's yet, so only the connection to the cluster is made.
    await assert.rejects(
      project.pulumi("up", "--yes", "--skip-preview", "--target", provider, "--stack", stack),
      /Deployment \S+\/shop is in the cluster already, and no stack's/,
    );
    await project.pulumi("preview", "--import-file", file, "--stack", stack);
    const everything = JSON.parse(await readFile(file, "utf8")) as ImportFile;
    const resources = everything.resources.flatMap((resource) => {
      const id = ids[resource.type];
      if (id !== undefined) return [{ ...resource, id }];
      return resource.component === true ? [resource] : [];
    });
    await writeFile(file, JSON.stringify({ ...everything, resources }));
    await project.pulumi(
      ...["import", "--file", file, "--yes", "--skip-preview", "--protect=false"],
      ...["--generate-code=false", "--stack", stack],
    );
  }

  /** Asks a Service through the API server, which works from outside any cluster. */
  async get(environment: string, path: string): Promise<string> {
    const answer = await this.core.connectGetNamespacedServiceProxyWithPath({
      namespace: this.namespaceOf(environment),
      name: "web:80",
      path,
    });
    return typeof answer === "string" ? answer : JSON.stringify(answer);
  }
}

/** Builds and starts what is missing of the sandbox, unless `run.ts` has done so for all. */
export async function startSandbox(...options: readonly string[]): Promise<void> {
  if (process.env[SANDBOX_IS_UP] === undefined) await sandboxProcess("up", options);
}

/** Starts `npm run sandbox -- COMMAND`. */
export function sandboxProcess(command: string, options: readonly string[] = []) {
  return execa("node", ["-r", "ts-node/register", "sandbox/main.ts", command, ...options], {
    cwd: ROOT,
    env: { NO_COLOR: "1" },
  });
}
