/*
 * One environment for trials of rollouts: releases that misbehave as they are told, a constant load,
 * and the tool. Tests and measures share it.
 */
import { AppsV1Api, CoreV1Api } from "@kubernetes/client-node";
import { execa } from "execa";
import { rm } from "node:fs/promises";
import { get } from "node:http";
import { join } from "node:path";
import { Config } from "../config-schema";
import { progressOf } from "../provider/progress";
import { openRegistry } from "../registry/registry";
import { deleteNamespaces, kubeconfigOf, until } from "./cluster";
import { Project } from "./engine";
import { ROOT, SANDBOX } from "./folder";
import { ENTRANCES, GATEWAY } from "./gateway";
import { pushTests, pushTrial, targetsOf } from "./images";
import { startLoad, type RunningLoad } from "./load";
import { PROMETHEUS } from "./prometheus";

/** All that a stack file may name. */
export const STRATEGIES: readonly string[] = Config.shape.rollout
  .unwrap()
  .shape.strategy.unwrap().options;
const ENVIRONMENT = "qa";
/** What callers of a Gateway name. */
const HOST = "podinfo.qa.example.com";
/** How long anything may take, in seconds. */
const PATIENCE = 300;
/** How long a release must have been good, in seconds: a short one, with a second between samples. */
export const BAKE = 15;

/** What a strategy needs beside its name. */
const OPTIONS: Readonly<Record<string, object>> = {
  // As short as the bake.
  canary: {
    steps: [
      { weight: 10, duration: "5s" },
      { weight: 50, duration: "5s" },
    ],
  },
};

/** A build that has earned what the environment takes. */
export interface Trial {
  /** What the environment takes. */
  readonly tag: string;
  /** How its answers name it. */
  readonly version: string;
}

/** How a run of the tool ended. */
export interface Ran {
  readonly exitCode: number | undefined;
  readonly text: string;
}

export class Delivery {
  readonly environment = ENVIRONMENT;
  readonly namespace: string;
  private readonly registry = openRegistry({ kind: "oci", ...only(targetsOf({}).app) });
  // Tags never move, so each run needs builds of its own: by milliseconds, as others count seconds.
  private nextBuild = Date.now();

  private constructor(
    readonly project: Project,
    prefix: string,
    private readonly strategy: string,
    private readonly prometheus: string,
    private readonly isBehindGateway: boolean,
  ) {
    this.namespace = `${prefix}${ENVIRONMENT}`;
  }

  /**
   * Opens an environment that runs nothing yet.
   * @param prefix Before the name of its namespace; whatever is in such namespaces goes.
   * Behind a Gateway, that must have been started; see `startGateway`.
   */
  static async open(
    name: string,
    prefix: string,
    strategy: string,
    { prometheus = PROMETHEUS, pods = 2, isBehindGateway = false } = {},
  ): Promise<Delivery> {
    await Delivery.clean(name, prefix);
    await pushTests(targetsOf({}));
    const project = await Project.open(name, { namespacePrefix: prefix });
    const delivery = new Delivery(project, prefix, strategy, prometheus, isBehindGateway);
    await delivery.configure({
      // What a suite would find is not to be found by a suite here.
      "baton:verification": { run: ["smoke"] },
      "baton:quota": { pods: 40 },
      ...(isBehindGateway
        ? {
            "baton:entrances": ENTRANCES,
            "baton:workloads.web.exposure": { scope: "internal", host: HOST, tls: null },
          }
        : {}),
    });
    await project.setConfig(ENVIRONMENT, "baton:workloads.web.replicas", String(pods));
    return delivery;
  }

  /** Removes whatever a former run left, however it ended. */
  static async clean(name: string, prefix: string): Promise<void> {
    await deleteNamespaces(kubeconfigOf({}), prefix, PATIENCE);
    await rm(join(SANDBOX, name), { recursive: true, force: true });
  }

  /** Changes keys of the stack file; what stands in a key goes. */
  async configure(config: Readonly<Record<string, unknown>>): Promise<void> {
    await this.project.edit(ENVIRONMENT, config);
    await this.project.commit("Change the stack file");
  }

  /** Makes a build with a fault; see `pushTrial`. */
  async make(fault: string): Promise<Trial> {
    const build = this.nextBuild++;
    const version = `build-${build}`;
    await pushTrial(build, fault, targetsOf({}));
    const digest = await this.registry.resolve(version);
    if (digest === undefined) throw new Error(`${version} has not arrived`);
    const tag = `dev-${build}`;
    await this.registry.tag(digest, tag);
    return { tag, version };
  }

  /** Deploys the first release by hand, and unwatched: nobody calls it yet. */
  async begin({ tag }: Trial): Promise<void> {
    const { strategy, prometheus } = this;
    await this.configure({ "baton:rollout": { strategy } });
    await this.project.setConfig(ENVIRONMENT, "imageTag", tag);
    await this.project.up(ENVIRONMENT);
    const analysis = { prometheus, interval: "1s", window: "5s" };
    const options = OPTIONS[strategy] ?? {};
    await this.configure({
      "baton:rollout": { strategy, ...options, bake: `${BAKE}s`, analysis },
    });
  }

  /** Starts the tool as a process: what it prints is in `all`, and how it ends is no error here. */
  start(...args: string[]) {
    const { folder, environment } = this.project;
    const person = { NAME: "ann", EMAIL: "ann@example.com" };
    const names = ["AUTHOR", "COMMITTER"].flatMap((role) =>
      Object.entries(person).map(([what, value]) => [`GIT_${role}_${what}`, value] as const),
    );
    const command = ["-r", "ts-node/register", "cli/main.ts", "--cwd", folder, ...args];
    const env: Record<string, string> = { ...environment, ...Object.fromEntries(names) };
    return execa("node", command, {
      cwd: ROOT,
      env: { ...env, NO_COLOR: "1" },
      all: true,
      reject: false,
    });
  }

  async baton(...args: string[]): Promise<Ran> {
    const { exitCode, all } = await this.start(...args);
    return { exitCode, text: all };
  }

  /**
   * Asks for a release.
   * @throws Error with what the tool says when it refuses.
   */
  async request({ tag }: Trial): Promise<void> {
    const { exitCode, text } = await this.baton("request", ENVIRONMENT, "--tag", tag);
    if (exitCode !== 0) throw new Error(text);
  }

  /** Deploys what was asked for. */
  deploy(): Promise<Ran> {
    return this.baton("deploy", ENVIRONMENT, "--yes");
  }

  /** What the stack says that it runs. */
  async runs(): Promise<string> {
    const { release } = await this.project.outputs(ENVIRONMENT);
    return (release as { imageTag: string }).imageTag;
  }

  /** How far the bake that goes on now is. */
  async bake(): Promise<{ readonly good: number } | undefined> {
    const apps = kubeconfigOf({}).makeApiClient(AppsV1Api);
    const { items } = await apps.listNamespacedDeployment({ namespace: this.namespace });
    return items.map(progressOf).find((progress) => progress?.state === "running");
  }

  /** Tells all pods of a release to fail from now on, where that is their fault. */
  async tell({ tag }: Trial): Promise<void> {
    const { namespace } = this;
    const core = kubeconfigOf({}).makeApiClient(CoreV1Api);
    const { items } = await core.listNamespacedPod({
      namespace,
      labelSelector: `baton/image-tag=${tag}`,
      fieldSelector: "status.phase=Running",
    });
    for (const { metadata } of items) {
      const name = `${metadata?.name ?? ""}:9898`;
      await core.connectGetNamespacedPodProxyWithPath({ namespace, name, path: "fail" });
    }
  }

  async hasEarned({ tag }: Trial): Promise<boolean> {
    return (await this.registry.resolve(tag.replace("dev", ENVIRONMENT))) !== undefined;
  }

  /** Waits until callers are answered, and puts a load on what answers. */
  async load(
    perSecond: number,
    seconds: number,
    trials: readonly Trial[],
    service = "web",
  ): Promise<RunningLoad> {
    const address = this.isBehindGateway ? GATEWAY : await this.addressOf(service);
    const host = this.isBehindGateway ? HOST : address;
    await until("an answer", () => isAnswered(address, host), PATIENCE);
    const versions = trials.map(({ version }) => version);
    const hosts = this.isBehindGateway ? { [HOST]: GATEWAY } : {};
    return startLoad({ url: `http://${host}/version`, perSecond, seconds, versions, hosts });
  }

  private async addressOf(name: string): Promise<string> {
    const core = kubeconfigOf({}).makeApiClient(CoreV1Api);
    const { spec } = await core.readNamespacedService({ namespace: this.namespace, name });
    if (spec?.clusterIP === undefined) throw new Error(`Service ${name} has no address`);
    return spec.clusterIP;
  }
}

/** `fetch` takes no host that is not the URL's. */
function isAnswered(address: string, host: string): Promise<boolean> {
  return new Promise((resolve) => {
    const options = { headers: { host }, agent: false };
    get(`http://${address}/version`, options, (answer) => {
      answer.resume();
      resolve(answer.statusCode === 200);
    }).on("error", () => {
      resolve(false);
    });
  });
}

function only<T>(list: readonly T[]): T {
  const [first] = list;
  if (first === undefined) throw new Error("the sandbox's registry is missing");
  return first;
}
