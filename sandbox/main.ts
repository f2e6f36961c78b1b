import Table from "cli-table3";
import { Command, Option } from "commander";
import type { ListrTask } from "listr2";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import {
  ARGO_ROLLOUTS,
  checkGo,
  CLUSTER,
  ENGINE,
  IMAGES,
  isPlaced,
  nameOf,
  offerOf,
  placePart,
  readStamp,
  TRAEFIK,
  type Part,
} from "./build";
import { describeEngine, missingEngine, Project, type Place } from "./engine";
import { BIN, LOGS, SANDBOX } from "./folder";
import { installPackages, isUp, nodePid, SERVICES, start, stop, unfit } from "./host";
import { pushBuild, pushPause, pushPostgresClient, pushTests, targetsOf } from "./images";
import { BUILDER, connectDatabases } from "./orders";
import { pack, Parts, PARTS_VARIABLE } from "./parts";
import { showOnTerminal } from "./progress";
import { readEnvironments, walkPath, type EnvironmentStatus } from "./path";

interface Options {
  readonly parts?: string;
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
const prebuiltParts = () =>
  new Option(
    "--parts <folder|file|url>",
    "take parts from there once their sha256 sums are right, and build only the rest",
  ).env(PARTS_VARIABLE);
const ownService = () =>
  new Option(
    "--app",
    "carry the service in app/, with its databases, instead of podinfo",
  ).conflicts(["context", "registry"]);

program
  .command("run", { isDefault: true })
  .description("start it, push build-1 and carry it through every environment")
  .addOption(prebuiltParts())
  .addOption(ownCluster())
  .addOption(ownRegistry())
  .addOption(ownService())
  .action(async (options: Options) => {
    const began = Date.now();
    const place = checkPlace(options);
    await prepare(place, options.parts);
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
  .addOption(prebuiltParts())
  .addOption(ownCluster())
  .addOption(ownRegistry())
  .addOption(ownService())
  .action(async (options: Options) => {
    const began = Date.now();
    const place = checkPlace(options);
    await prepare(place, options.parts);
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
    const engine = await describeEngine();
    if (json) {
      console.log(JSON.stringify({ environments, services, engine }, undefined, 2));
      return;
    }
    printTable(environments);
    for (const { name, source } of engine) console.log(`${name}: ${source}`);
    for (const { name, address } of services) console.log(`${name}: ${address}`);
  });

program
  .command("pack <file>")
  .description("write all parts that are there, with their sha256 sums, to an archive for --parts")
  .action(async (file: string) => {
    const programs = new Map<string, string>();
    const records = new Map<string, { fingerprint: string; source: string }>();
    for (const part of [...ENGINE, ...CLUSTER, ...IMAGES, TRAEFIK, ARGO_ROLLOUTS]) {
      const stamp = await readStamp(part);
      if (stamp === undefined) continue;
      records.set(nameOf(part), stamp);
      for (const program of Object.keys(part.programs)) programs.set(program, join(BIN, program));
    }
    if (programs.size === 0)
      throw new Error("nothing is built yet; `npm run sandbox -- up` builds what is to be packed");
    await showOnTerminal([
      {
        title: `pack ${[...programs.keys()].join(", ")}`,
        task: () => pack(file, programs, records),
      },
    ]);
  });

/** Each service has a project of its own: both may stand on one sandbox. */
async function openProject(place: Place): Promise<Project> {
  if (place.app !== true) return Project.open("project", place);
  const project = await Project.open("orders", place);
  await connectDatabases(project);
  return project;
}

/** Installs, takes or builds the parts that the place does not have, and starts the node. */
async function prepare(place: Place, location: string | undefined): Promise<void> {
  const ownCluster = place.context !== undefined;
  if (!ownCluster) refuseIfUnfit();
  const parts = await Parts.open(location);
  const needed = [...(ownCluster ? [] : CLUSTER), ...IMAGES, ...(await missingEngine(parts))];
  const offered: Part[] = [];
  const unbuilt: Part[] = [];
  for (const part of needed) {
    if (await isPlaced(part, parts)) continue;
    ((await offerOf(part, parts)) === undefined ? unbuilt : offered).push(part);
  }
  if (unbuilt.length > 0) await checkGo();

  const preparations: ListrTask[] = [];
  if (!ownCluster) {
    preparations.push({
      title: "Debian packages",
      task: (_, task) =>
        installPackages(
          (text) => (task.title = `Debian packages: ${text}`),
          place.app === true ? BUILDER : {},
        ),
    });
  }
  const tasks = [
    ...offered.map((part) => ({
      title: `take ${part.name} from ${String(parts?.location)}`,
      task: () => placePart(part, parts),
    })),
    ...buildTasks(unbuilt, parts),
  ];
  if (tasks.length > 0) {
    // Two builds at once would compile twice what they share.
    const inTurn = { concurrent: false };
    preparations.push({ title: "parts", task: (_, task) => task.newListr(tasks, inTurn) });
  }
  const list: ListrTask[] = [
    // apt-get waits for the network and the disk, the compiler for the processor.
    {
      title: "packages and parts",
      task: (_, task) => task.newListr(preparations, { concurrent: true }),
      enabled: preparations.length > 0,
    },
  ];
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
function buildTasks(unbuilt: readonly Part[], parts: Parts | undefined): ListrTask[] {
  const cores = Math.min(availableParallelism(), 8);
  const began = Date.now();
  let expected = unbuilt.reduce((sum, { seconds }) => sum + seconds, 0) * (2 / cores);
  const total = expected;
  return unbuilt.map((part, index) => ({
    title: `build ${part.name}`,
    task: async (_, task) => {
      // The machine's own pace, once a part has shown it.
      const done = total - expected;
      const pace = done > 0 ? (Date.now() - began) / 1000 / done : 1;
      const left = duration(expected * pace * 1000);
      task.title = `build ${part.name} (${index + 1} of ${unbuilt.length}, about ${left} left)`;
      await placePart(part, parts);
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
