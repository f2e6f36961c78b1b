import Table from "cli-table3";
import { Command, Option } from "commander";
import type { ListrTask } from "listr2";
import { availableParallelism } from "node:os";
import { build, checkGo, CLUSTER, ENGINE, IMAGES, isBuilt, type Part } from "./build";
import { installedPulumi, Project, type Place } from "./engine";
import { LOGS, SANDBOX } from "./folder";
import { installPackages, isUp, nodePid, SERVICES, start, stop, unfit } from "./host";
import { pushBuild, pushPause, pushPostgresClient, pushTests, targetsOf } from "./images";
import { BUILDER, connectDatabases } from "./orders";
import { showOnTerminal } from "./progress";
import { readEnvironments, walkPath, type EnvironmentStatus } from "./path";

interface Options {
  readonly context?: string;
  readonly registry?: string;
  readonly app?: boolean;
}

const program = new Command("sandbox")
  .description("The whole path on one machine: engine, cluster, registry and five environments.")
  .showHelpAfterError()
  .configureOutput({ outputError: (text, write) => write(text.replace(/^error: /, "sandbox: ")) });

const ownCluster = () =>
  new Option("--context <name>", "use this cluster of your kubeconfig instead of the sandbox's");
const ownRegistry = () =>
  new Option("--registry <host/name>", "use this repository of your registry instead");
const ownService = () =>
  new Option(
    "--app",
    "carry the service in app/, with its databases, instead of podinfo",
  ).conflicts(["context", "registry"]);

program
  .command("run", { isDefault: true })
  .description("start it, push build-1 and carry it through every environment")
  .addOption(ownCluster())
  .addOption(ownRegistry())
  .addOption(ownService())
  .action(async (options: Options) => {
    const began = Date.now();
    const place = checkPlace(options);
    await prepare(place);
    const targets = targetsOf(place);
    await showOnTerminal([
      { title: "push build-1", task: () => pushBuild(1, targets) },
      { title: "push the suites", task: () => pushTests(targets) },
    ]);
    const project = await openProject(place);
    await showOnTerminal(walkPath(project, "build-1", "v1.0.0"));
    await project.commit("Carry build-1 through every environment");
    printTable(await readEnvironments(project, place));
    console.log(`Done in ${duration(Date.now() - began)}. By hand: cd ${project.folder}; . ./env`);
  });

program
  .command("push <number>")
  .description("push another build, for dev to take")
  .addOption(ownRegistry())
  .addOption(ownService())
  .action(async (number: string, options: Options) => {
    const build = Number(number);
    if (!Number.isSafeInteger(build) || build < 1)
      throw new Error(`sandbox: ${number} is no build number; expected one from 1.`);
    await showOnTerminal([
      {
        title: `push build-${build}`,
        task: () => pushBuild(build, targetsOf(checkPlace(options))),
      },
    ]);
  });

program
  .command("up")
  .description("start it, or mend it; what runs already stays as it is")
  .addOption(ownCluster())
  .addOption(ownRegistry())
  .addOption(ownService())
  .action(async (options: Options) => {
    const began = Date.now();
    const place = checkPlace(options);
    await prepare(place);
    await openProject(place);
    console.log(`The sandbox is up after ${duration(Date.now() - began)}.`);
  });

program
  .command("down")
  .description("stop it and leave nothing behind but its folder")
  .action(async () => {
    refuseIfUnfit();
    await stop();
    console.log(`The sandbox is down. Its data is kept in ${SANDBOX}.`);
  });

program
  .command("status")
  .description("say whether it runs, and what runs on it")
  .option("--json", "print it as JSON")
  .addOption(ownService())
  .action(async ({ json = false, app = false }: { json?: boolean; app?: boolean }) => {
    refuseIfUnfit();
    if (!(await isUp())) {
      const half = (await nodePid()) === undefined ? "is down" : "is not healthy";
      console.log(`The sandbox ${half}. \`npm run sandbox -- up\` starts it; logs: ${LOGS}`);
      process.exitCode = 1;
      return;
    }
    const place = checkPlace({ app });
    const environments = await readEnvironments(await openProject(place), place);
    // All of them answer, or it would not be up.
    const services = Object.entries(SERVICES).map(([name, { address }]) => ({ name, address }));
    if (json) {
      console.log(JSON.stringify({ environments, services }, undefined, 2));
      return;
    }
    printTable(environments);
    for (const { name, address } of services) console.log(`${name}: ${address}`);
  });

/** Each service has a project of its own: both may stand on one sandbox. */
async function openProject(place: Place): Promise<Project> {
  if (place.app !== true) return Project.open("project", place);
  const project = await Project.open("orders", place);
  await connectDatabases(project);
  return project;
}

/** Builds and starts whatever the place does not have. */
async function prepare(place: Place): Promise<void> {
  const ownCluster = place.context !== undefined;
  if (!ownCluster) refuseIfUnfit();
  const engine = (await installedPulumi()) === undefined ? ENGINE : [];
  const parts = [...engine, ...(ownCluster ? [] : CLUSTER), ...IMAGES];
  const missing: Part[] = [];
  for (const part of parts) if (!(await isBuilt(part))) missing.push(part);

  const list: ListrTask[] = [];
  if (!ownCluster) {
    list.push({
      title: "Debian packages",
      task: (_, task) =>
        installPackages(
          (text) => (task.title = `Debian packages: ${text}`),
          place.app === true ? BUILDER : {},
        ),
    });
  }
  if (missing.length > 0) {
    await checkGo();
    list.push({ title: "build", task: (_, task) => task.newListr(buildTasks(missing)) });
  }
  if (!ownCluster) {
    list.push({
      title: "start the node",
      task: async () => {
        await start();
        await Promise.all([pushPause(), pushPostgresClient()]);
      },
    });
  }
  await showOnTerminal(list);
}

/** One task a part; each title says how much is left when it starts. */
function buildTasks(parts: readonly Part[]): ListrTask[] {
  const cores = Math.min(availableParallelism(), 8);
  const began = Date.now();
  let expected = parts.reduce((sum, { seconds }) => sum + seconds, 0) * (2 / cores);
  const total = expected;
  return parts.map((part, index) => ({
    title: `build ${part.name}`,
    task: async (_, task) => {
      // The machine's own pace, once a part has shown it.
      const done = total - expected;
      const pace = done > 0 ? (Date.now() - began) / 1000 / done : 1;
      const left = duration(expected * pace * 1000);
      task.title = `build ${part.name} (${index + 1} of ${parts.length}, about ${left} left)`;
      await build(part);
      expected -= part.seconds * (2 / cores);
      task.title = `build ${part.name}`;
    },
  }));
}

function checkPlace({ context, registry, app = false }: Options): Place {
  if (context !== undefined && registry === undefined) {
    program.error(
      "sandbox: --context alone: your cluster cannot reach the sandbox's registry; give --registry HOST/NAME too",
    );
  }
  if (registry !== undefined && !registry.includes("/")) {
    program.error(
      `sandbox: --registry is ${registry}; expected HOST/NAME, such as registry.example.com/podinfo`,
    );
  }
  return {
    // `dev` may well be somebody's namespace on a cluster that is used for other things.
    ...(context === undefined ? {} : { context, namespacePrefix: "baton-" }),
    ...(registry === undefined ? {} : { registry }),
    ...(app ? { app, namespacePrefix: "orders-" } : {}),
  };
}

function refuseIfUnfit(): void {
  const reason = unfit();
  if (reason !== undefined) program.error(`sandbox: ${reason}`);
}

function printTable(environments: readonly EnvironmentStatus[]): void {
  const head = ["environment", "tag", "digest", "version", "earned tag", "pods", "URL"];
  const table = new Table({
    head,
    style: { head: process.stdout.isTTY ? ["cyan"] : [], border: [] },
  });
  for (const { name, tag, digest, version, earnedTag, pods, url } of environments) {
    const cells = [name, tag, digest?.slice(0, 19), version, earnedTag, pods, url];
    table.push(cells.map((cell) => cell ?? "–"));
  }
  console.log(table.toString());
}

function duration(milliseconds: number): string {
  const seconds = Math.round(milliseconds / 1000);
  return seconds < 60 ? `${seconds} s` : `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
}

program.parseAsync().catch((error: unknown) => {
  console.error(`sandbox: ${error instanceof Error ? error.message : String(error)}`);
  process.exitCode = 1;
});
