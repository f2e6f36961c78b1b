import { CoreV1Api, BatchV1Api } from "@kubernetes/client-node";
import { execa, type ResultPromise } from "execa";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { deleteNamespaces, kubeconfigOf, until } from "../sandbox/cluster";
import { Project } from "../sandbox/engine";
import { ROOT, SANDBOX } from "../sandbox/folder";
import { pushBuild, pushTests, targetsOf } from "../sandbox/images";
import { PATIENCE } from "./cluster";
import { compare } from "./figure";
import type { Report } from "./report";
import { quantile } from "./statistics";
import { seconds } from "./stopwatch";

const PROJECT = "bench-tool";
/** Of every namespace this measure makes. */
const PREFIX = "bench-tool-";
const ENVIRONMENT = "qa";
const ROUNDS = 2;
/** At most so much longer than by hand, in seconds. */
const MOST_ADDED = 2;

/**
 * Times the tool beside the same changes by hand: a deployment, a way back, and what it takes to
 * carry on after a kill. Two builds go to and fro in one environment.
 */
export async function measureTool(report: Report): Promise<void> {
  const { show } = report;
  // Tags never move, so each run needs builds of its own.
  const build = Math.floor(Date.now() / 1000);
  const tags = [`dev-${build}`, `dev-${build + 1}`] as const;
  const cleanUp = { title: "remove bench environments", task: clean };
  try {
    let project: Project | undefined;
    await show([
      cleanUp,
      { title: "push the suites", task: () => pushTests(targetsOf({})) },
      {
        title: `push and verify ${tags.join(" and ")} in dev`,
        task: async () => {
          project = await Project.open(PROJECT, { namespacePrefix: PREFIX });
          for (const [index, tag] of tags.entries()) {
            await pushBuild(build + index, targetsOf({}));
            await project.setConfig("dev", "imageTag", tag.replace("dev", "build"));
            await project.up("dev");
          }
          await project.setConfig(ENVIRONMENT, "imageTag", tags[0]);
          await project.up(ENVIRONMENT);
          await project.commit("Begin");
        },
      },
    ]);
    if (project === undefined) throw new Error("the bench project could not be opened");
    const bench = new Bench(project);
    const other = async () => ((await bench.runs()) === tags[0] ? tags[1] : tags[0]);
    const byHand: number[] = [];
    const upByHand: number[] = [];
    const byTool: number[] = [];
    const back: number[] = [];
    for (let round = 1; round <= ROUNDS; round += 1) {
      const title = `round ${round} of ${ROUNDS}`;
      const task = async () => {
        // After the way back, the next round goes the other way.
        const [then, next] = round % 2 === 1 ? tags : ([tags[1], tags[0]] as const);
        await bench.setByHand(next);
        const preview = await seconds(() => bench.pulumi("preview"));
        const up = await seconds(() => bench.pulumi("up", "--yes", "--skip-preview"));
        byHand.push(preview + up);
        upByHand.push(up);
        await project?.commit("By hand");
        await bench.baton("request", ENVIRONMENT, "--tag", then);
        byTool.push(await seconds(() => bench.baton("deploy", ENVIRONMENT, "--yes")));
        back.push(await seconds(() => bench.baton("rollback", ENVIRONMENT)));
        await bench.baton("unhold", then, "--reason", "the next round");
      };
      await report.attempt(`tool, ${title}`, () => show([{ title, task }]));
    }
    const comparedWithUp = {
      comparedWith: "up of an image change by hand",
      compared: median(upByHand),
    };
    const added = median(byTool) - median(byHand);
    if (byTool.length > 0) {
      report.add(
        compare({
          measure: `deploy with all gates (${added.toFixed(1)} s more)`,
          unit: "s",
          baton: median(byTool),
          comparedWith: "preview and up by hand",
          compared: median(byHand),
          limit: { of: "baton", most: median(byHand) + MOST_ADDED },
        }),
      );
    }
    if (back.length > 0) {
      report.add(
        compare({
          measure: "rollback",
          unit: "s",
          baton: median(back),
          ...comparedWithUp,
          limit: { of: "ratio", most: 1.2 },
        }),
      );
    }
    /** Shows one step, and keeps how long it took. */
    const measureStep = async (
      title: string,
      measured: Pick<Parameters<typeof compare>[0], "measure" | "comparedWith" | "compared">,
      step: () => Promise<number>,
    ) => {
      await report.attempt(`tool, ${title}`, async () => {
        let baton = NaN;
        const task = async () => {
          baton = await step();
        };
        await show([{ title, task }]);
        report.add(compare({ ...measured, unit: "s", baton }));
      });
    };
    await measureStep(
      "a release that fails its suite",
      { measure: "from the failed suite to the first former pod", ...comparedWithUp },
      async () => bench.fail(await other()),
    );
    const comparedWith = "deploy without a kill";
    for (const [name, kill] of Object.entries(KILLS)) {
      await measureStep(
        `kill ${name}`,
        { measure: `from killing ${name} to done`, comparedWith, compared: median(byTool) },
        async () => bench.recover(await other(), kill),
      );
    }
  } finally {
    await show([cleanUp]);
  }
}

/** No number where nothing was measured. */
function median(values: readonly number[]): number {
  return values.length === 0 ? NaN : quantile(values, 0.5);
}

type Kill = (tool: ResultPromise, pulumi: number) => void;

const KILLS: Readonly<Record<string, Kill>> = {
  "the tool": (tool) => tool.kill("SIGKILL"),
  Pulumi: (_, pulumi) => process.kill(pulumi, "SIGKILL"),
  "both of them": (tool, pulumi) => {
    tool.kill("SIGKILL");
    process.kill(pulumi, "SIGKILL");
  },
};

class Bench {
  constructor(private readonly project: Project) {}

  async pulumi(command: string, ...args: string[]): Promise<void> {
    await this.project.pulumi(command, ...args, "--stack", ENVIRONMENT);
  }

  /** As a person would who has never heard of the tool. */
  async setByHand(tag: string): Promise<void> {
    for (const key of ["imageDigest", "rollbackOf"]) {
      await this.project.pulumi("config", "rm", key, "--stack", ENVIRONMENT).catch(() => undefined);
    }
    await this.project.setConfig(ENVIRONMENT, "imageTag", tag);
  }

  start(args: readonly string[]): ResultPromise {
    const { folder, environment } = this.project;
    const person = { NAME: "bench", EMAIL: "bench@example.com" };
    const names = ["AUTHOR", "COMMITTER"].flatMap((role) =>
      Object.entries(person).map(([what, value]) => [`GIT_${role}_${what}`, value] as const),
    );
    const command = ["-r", "ts-node/register", "cli/main.ts", "--cwd", folder, ...args];
    return execa("node", command, {
      cwd: ROOT,
      env: { ...environment, ...Object.fromEntries(names) },
    });
  }

  async baton(...args: string[]): Promise<void> {
    await this.start(args);
  }

  async runs(): Promise<string> {
    const { release } = await this.project.outputs(ENVIRONMENT);
    return (release as { imageTag: string }).imageTag;
  }

  /** Deploys what fails its last suite; the time until a pod of the former release is ready. */
  async fail(tag: string): Promise<number> {
    // All of them: setting one alone would leave nulls before it.
    for (const [index, arg] of ["run", "--quiet", "/no/such/suite.js"].entries()) {
      const key = `baton:verification.suites.regression.args[${index}]`;
      await this.project.setConfig(ENVIRONMENT, key, arg);
    }
    const former = await this.runs();
    await this.baton("request", ENVIRONMENT, "--tag", tag);
    const deploying = this.start(["deploy", ENVIRONMENT, "--yes"]).catch(() => undefined);
    const kubeconfig = kubeconfigOf({});
    const namespace = `${PREFIX}${ENVIRONMENT}`;
    const batch = kubeconfig.makeApiClient(BatchV1Api);
    const core = kubeconfig.makeApiClient(CoreV1Api);
    const failed = async () => {
      const { items } = await batch.listNamespacedJob({ namespace });
      return items.some(({ status }) => (status?.failed ?? 0) > 0);
    };
    await until("the suite's failure", failed, PATIENCE);
    const labelSelector = `app.kubernetes.io/name=web,baton/image-tag=${former}`;
    const ready = async () => {
      const { items } = await core.listNamespacedPod({ namespace, labelSelector });
      return items.some(({ status }) =>
        status?.conditions?.some(({ type, status: is }) => type === "Ready" && is === "True"),
      );
    };
    const time = await seconds(() => until("a former pod", ready, PATIENCE));
    await deploying;
    await this.baton("unhold", tag, "--reason", "the next measure");
    await this.baton("rollback", ENVIRONMENT, "--to", former);
    return time;
  }

  /** Kills in the middle of a rollout; the time the same command takes to finish it. */
  async recover(tag: string, kill: Kill): Promise<number> {
    await this.baton("request", ENVIRONMENT, "--tag", tag);
    const deploying = this.start(["deploy", ENVIRONMENT, "--yes"]);
    const ended = deploying.catch(() => undefined);
    let pid = 0;
    const running = async () => {
      const found = await execa("pgrep", ["-f", `^pulumi up .*${PROJECT}`], { reject: false });
      pid = Number(found.stdout.split("\n")[0]);
      return pid > 0;
    };
    await until("a run of Pulumi", running, PATIENCE);
    // In the middle of the rollout: it has begun, and its suites have not.
    await setTimeout(5000);
    kill(deploying, pid);
    const time = await seconds(() => this.baton("deploy", ENVIRONMENT, "--yes"));
    await ended;
    return time;
  }
}

async function clean(): Promise<void> {
  await deleteNamespaces(kubeconfigOf({}), PREFIX, PATIENCE);
  await rm(join(SANDBOX, PROJECT), { recursive: true, force: true });
}
