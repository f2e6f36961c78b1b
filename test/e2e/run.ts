/*
 * Runs the end-to-end tests: several mocha processes side by side against one sandbox, each with
 * namespaces, a project and build numbers of its own. Prints each process's output in one piece when
 * it has ended, and a table of all files at the end.
 */
import { execa } from "execa";
import { appendFile, mkdir, readdir, readFile, rm } from "node:fs/promises";
import { basename, join } from "node:path";
import { parseArgs } from "node:util";
import { deleteNamespaces, kubeconfigOf } from "../../sandbox/cluster";
import { LOGS, ROOT, SANDBOX } from "../../sandbox/folder";
import { RESULTS, type FileResult } from "./reporter";
import { PATIENCE, SANDBOX_IS_UP, sandboxProcess, SCENE } from "./scene";

/** The variable with the path of the file in which `.ci/run` collects the rows of its own table. */
const GATE_TIMES = "GATE_TIMES";

/** Files that one process runs in this order, as they share a scene. */
type Group = readonly string[];

/** They use nothing of the sandbox's folder, and run while the sandbox is built and started. */
const WITHOUT_SANDBOX: readonly Group[] = [
  ["bypass"],
  ["interruption"],
  ["outages"],
  ["tool-secrets"],
  ["terminal"],
];

/** They stop the node and look for what it leaves, and run before all that uses the sandbox. */
const RESTARTING: readonly Group[] = [["sandbox"]];

/** They share the node, WIDTH at a time, and begin in this order: the longest first. */
const WIDTH = 3;
const SHARING: readonly Group[] = [
  ["path", "refusals", "approvals", "destroy"],
  ["tool"],
  ["database"],
  ["network-policies"],
  ["ownership"],
  ["upgrade"],
  ["kill-sweep"],
  ["undo"],
  ["failures"],
  ["autoscaling"],
  ["pipelines"],
  ["registry-contract"],
  ["workloads"],
  ["services"],
  ["database-script"],
  ["deployments"],
];

/** They judge answers under load, or stop what others use: one by one, at the end. */
const ALONE: readonly Group[] = [["delivery"], ["strategies"], ["app"], ["dr"]];

/** Files that only `npm run test:e2e:full` runs; of the others, all tests that are not marked `(long)`. */
const LONG = ["deployments", "strategies", "app", "dr"];

/** Scenes that are not named after their first file: the fixture of `upgrade` has namespaces `baton-e2e-*`. */
const SCENE_NAMES: Readonly<Record<string, string>> = { upgrade: "e2e" };

interface Row {
  readonly name: string;
  readonly seconds: number;
  readonly outcome: string;
}

const { values, positionals } = parseArgs({
  options: {
    full: { type: "boolean", default: false },
    context: { type: "string" },
    registry: { type: "string" },
  },
  allowPositionals: true,
});
const { full, context, registry } = values;
/** The names of the files that are to run; empty for all. */
const chosen = positionals.map((name) => basename(name, ".test.ts"));
const place = Object.entries({ context, registry }).flatMap(([name, value]) =>
  value === undefined ? [] : [`--${name}`, value],
);
const groups = [...WITHOUT_SANDBOX, ...RESTARTING, ...SHARING, ...ALONE];
const results = join(SANDBOX, "e2e-results");
const rows: Row[] = [];
const counts = { passing: 0, failing: 0, pending: 0 };
const running = new Set<ReturnType<typeof start>>();
/** Whether a signal has asked for the end: no further group begins. */
let isEnding = false;

/** The files of a list that are to run: by default all that have tests to run. */
function asked(list: readonly Group[]): Group[] {
  const isAsked = (file: string) =>
    chosen.length === 0 ? full || !LONG.includes(file) : chosen.includes(file);
  return list.map((group) => group.filter(isAsked)).filter((group) => group.length > 0);
}

function start(group: Group, name: string, log: string) {
  const mocha = [join(ROOT, "node_modules/mocha/bin/mocha.js"), "--config", ".mocharc.e2e.json"];
  const marked = full ? [] : ["--fgrep", "(long)", "--invert"];
  const files = group.map((file) => `test/e2e/${file}.test.ts`);
  const index = groups.findIndex(([first]) => first === name);
  return execa(process.execPath, [...mocha, ...marked, ...files, ...place], {
    cwd: ROOT,
    env: {
      [RESULTS]: join(results, name),
      [SANDBOX_IS_UP]: "yes",
      [SCENE]: JSON.stringify({ name: sceneOf(name), index }),
      ...(process.stdout.isTTY ? { FORCE_COLOR: "1" } : {}),
    },
    all: true,
    stdout: ["pipe", { file: log }],
    stderr: ["pipe", { file: log }],
    maxBuffer: 1e9,
    reject: false,
  });
}

function sceneOf(name: string): string {
  return SCENE_NAMES[name] ?? name;
}

async function runGroup(group: Group): Promise<void> {
  if (isEnding) return;
  const name = groups.find((files) => files.includes(group[0] ?? ""))?.[0] ?? "";
  const title = group.join(", ");
  const log = join(LOGS, `e2e-${name}.log`);
  const began = Date.now();
  console.log(`${clock()} ${title}: begins; its log is ${log}`);
  const run = start(group, name, log);
  running.add(run);
  const { all: output, exitCode, signal, originalMessage } = await run;
  running.delete(run);
  const seconds = (Date.now() - began) / 1000;
  const failure = signal ?? (exitCode === undefined ? originalMessage : `exit code ${exitCode}`);
  const outcome = exitCode === 0 ? "passed" : `failed (${failure ?? ""})`;
  console.log(`${clock()} ${title}: ${outcome} after ${Math.round(seconds)} s\n${output}\n`);
  const told = await readResults(name);
  for (const { file, seconds: its, passing, failing, pending } of told) {
    counts.passing += passing;
    counts.failing += failing;
    counts.pending += pending;
    rows.push({ name: file, seconds: its, outcome: failing === 0 ? "passed" : "failed" });
  }
  if (exitCode === 0) {
    if (told.length === 0) rows.push({ name: title, seconds, outcome: "no test was to run" });
    // Nobody needs them any more, and their probes take processor time.
    if (SHARING.some(([first]) => first === name)) void removeNamespaces(name);
    return;
  }
  process.exitCode = 1;
  // A process that was killed, or that could not load its files, has told nothing of them.
  if (!told.some(({ failing }) => failing > 0)) rows.push({ name: title, seconds, outcome });
}

async function readResults(name: string): Promise<FileResult[]> {
  const text = await readFile(join(results, name), "utf8").catch(() => "");
  const lines = text.split("\n").filter(Boolean);
  return lines.map((line) => JSON.parse(line) as FileResult);
}

async function removeNamespaces(name: string): Promise<void> {
  const kubeconfig = kubeconfigOf(context === undefined ? {} : { context });
  await deleteNamespaces(kubeconfig, `baton-${sceneOf(name)}-`, PATIENCE).catch(
    (error: unknown) => {
      console.error(`the namespaces of ${name} are left: ${String(error)}`);
    },
  );
}

/** Runs the groups in their order, so many at a time. */
async function runGroups(list: readonly Group[], width = 1): Promise<void> {
  const left = [...list];
  const lane = async () => {
    for (let group = left.shift(); group !== undefined; group = left.shift()) await runGroup(group);
  };
  await Promise.all(Array.from({ length: width }, lane));
}

async function runOnSandbox(): Promise<void> {
  const [restarting, sharing, alone] = [asked(RESTARTING), asked(SHARING), asked(ALONE)];
  if ([...restarting, ...sharing, ...alone].length === 0) return;
  if (!(await isSandboxUp())) return;
  await runGroups(restarting);
  // Where such a file has failed, the node may be down.
  if (restarting.length > 0 && !(await isSandboxUp())) return;
  await runGroups(sharing, WIDTH);
  await runGroups(alone);
}

/** Builds and starts what is missing of the sandbox; where that fails, the tests have failed. */
async function isSandboxUp(): Promise<boolean> {
  if (isEnding) return false;
  const began = Date.now();
  const up = sandboxProcess("up", place);
  up.stdout.pipe(process.stdout);
  const failure = await up.then(
    () => undefined,
    (error: unknown) => String(error),
  );
  const outcome = failure === undefined ? "passed" : "failed";
  rows.push({ name: "sandbox up", seconds: (Date.now() - began) / 1000, outcome });
  if (failure === undefined) return true;
  console.error(failure);
  process.exitCode = 1;
  return false;
}

function clock(): string {
  return new Date().toISOString().slice(11, 19);
}

async function finish(): Promise<void> {
  for (const { name, seconds, outcome } of rows) {
    console.log(`${name.padEnd(34)} ${String(Math.round(seconds)).padStart(5)} s  ${outcome}`);
  }
  for (const [what, count] of Object.entries(counts)) {
    if (count > 0 || what === "passing") console.log(`  ${count} ${what}`);
  }
  const times = process.env[GATE_TIMES];
  if (times === undefined) return;
  const lines = rows.map(
    ({ name, seconds, outcome }) => `e2e: ${name}\t${Math.round(seconds)}\t${outcome}\n`,
  );
  await appendFile(times, lines.join(""));
}

async function main(): Promise<void> {
  const listed = groups.flat();
  const there = (await readdir(__dirname)).filter((name) => name.endsWith(".test.ts"));
  const unlisted = [...there.map((name) => basename(name, ".test.ts")), ...chosen].filter(
    (file) => !listed.includes(file),
  );
  if (unlisted.length > 0) {
    throw new Error(
      `test/e2e/run.ts lists no ${unlisted.join(", ")}; expected each file in a list`,
    );
  }
  await rm(results, { recursive: true, force: true });
  for (const folder of [results, LOGS]) await mkdir(folder, { recursive: true });
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    process.on(signal, () => {
      isEnding = true;
      process.exitCode = 1;
      for (const run of running) run.kill();
    });
  }
  try {
    await Promise.all([runGroups(asked(WITHOUT_SANDBOX)), runOnSandbox()]);
  } finally {
    await finish();
  }
}

main().catch((error: unknown) => {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
});
