import { execa } from "execa";
import { cp, mkdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { stampOf } from "../ledger/entries";
import { Project } from "../sandbox/engine";
import { ROOT, SANDBOX } from "../sandbox/folder";
import { compare, type Limit } from "./figure";
import type { Report } from "./report";
import { quantile } from "./statistics";
import { seconds } from "./stopwatch";

const FOLDER = join(SANDBOX, "bench-ledger");
const PROMOTIONS = 10_000;
const ROUNDS = 5;
const LIMIT: Limit = { of: "baton", most: 1 };
/** What the open request is for. */
const ASKED = "prod";
const COMMANDS = [["status"], ["why", ASKED], ["history"]] as const;

/**
 * Times what the tool says of the sandbox's stacks beside a ledger of years, as whole processes,
 * and beside one that has just begun.
 */
export async function measureLedger(report: Report): Promise<void> {
  const project = await Project.open("project", {});
  const few = new Map<string, number>();
  const write = async (count: number) => {
    const title = `write a ledger of ${count.toLocaleString("en")} promotions`;
    await report.show([{ title, task: () => writeLedger(project, count) }]);
  };
  const time = async (command: readonly string[]): Promise<number> => {
    const times: number[] = [];
    const task = async () => {
      // The first only warms the caches.
      for (let round = 0; round <= ROUNDS; round++) {
        const took = await seconds(() => baton(project, command));
        if (round > 0) times.push(took);
      }
    };
    await report.show([{ title: `baton ${command.join(" ")}`, task }]);
    return quantile(times, 0.5);
  };
  const eachCommand = async (
    count: number,
    measure: (command: readonly string[], name: string) => Promise<void>,
  ) => {
    await write(count);
    for (const command of COMMANDS) {
      const name = `baton ${command.join(" ")}`;
      const step = `${name}, ${count.toLocaleString("en")} promotions`;
      await report.attempt(step, () => measure(command, name));
    }
  };
  // Each environment gets one promotion.
  await eachCommand(project.path.length, async (command, name) => {
    few.set(name, await time(command));
  });
  await eachCommand(PROMOTIONS, async (command, name) => {
    report.add(
      compare({
        measure: `${name}, ${PROMOTIONS.toLocaleString("en")} promotions`,
        unit: "s",
        baton: await time(command),
        comparedWith: `${project.path.length} promotions`,
        compared: few.get(name) ?? NaN,
        limit: LIMIT,
      }),
    );
  });
  await rm(FOLDER, { recursive: true, force: true });
}

async function baton({ environment }: Project, command: readonly string[]): Promise<unknown> {
  const main = join(ROOT, "cli/main.ts");
  const register = join(ROOT, "node_modules/ts-node/register");
  return execa(process.execPath, ["-r", register, main, ...command], {
    cwd: FOLDER,
    env: { ...environment, PWD: FOLDER },
  });
}

/** Makes a project with the sandbox's stack files and stacks, and a repository that has seen much. */
async function writeLedger({ folder, path }: Project, promotions: number): Promise<void> {
  await rm(FOLDER, { recursive: true, force: true });
  await mkdir(FOLDER, { recursive: true });
  const names = ["Pulumi.yaml", ...path.map((name) => `Pulumi.${name}.yaml`)];
  for (const name of names) await cp(join(folder, name), join(FOLDER, name));
  const git = (args: readonly string[], input?: string) =>
    execa("git", args, { cwd: FOLDER, ...(input === undefined ? {} : { input }) });
  await git(["init", "--quiet", "--initial-branch=main"]);
  const files = await Promise.all(
    names.map(async (name) => [name, await readFile(join(FOLDER, name), "utf8")] as const),
  );
  await git(["fast-import", "--quiet"], [...history(new Map(files), path, promotions)].join(""));
  await git(["reset", "--quiet"]);
  // As git itself tidies up once there is much.
  await git(["gc", "--quiet"]);
}

/** So many promotions through the environments in turn, for git's fast-import, and an open request. */
function* history(
  files: ReadonlyMap<string, string>,
  path: readonly string[],
  promotions: number,
): Generator<string> {
  const person = "Ann <ann@example.com>";
  const data = (text: string) => `data ${Buffer.byteLength(text)}\n${text}\n`;
  const begin = Date.UTC(2020, 0, 1);
  const at = (index: number) => new Date(begin + (index + 1) * 3_600_000);
  const stamp = (index: number) => `${at(index).getTime() / 1000} +0000`;
  const digest = (index: number) => `sha256:${String(index).padStart(64, "0")}`;
  yield `commit refs/heads/main\ncommitter ${person} ${stamp(-1)}\n${data("Begin")}`;
  for (const [name, text] of files) yield `M 100644 inline ${name}\n${data(text)}`;
  yield "\n";
  for (let index = 0; index <= promotions; index++) {
    const isLast = index === promotions;
    const environment = isLast ? ASKED : (path[index % path.length] ?? "");
    const tag = `build-${index + 1}`;
    const plan = String(index).padStart(12, "0").padEnd(64, "0");
    const named =
      `Baton-Project: baton\nBaton-Id: ${index}\nBaton-Tag: ${tag}\nBaton-Digest: ${digest(index)}\n` +
      `Baton-Plan: ${plan}\nBaton-Parts: tag=1 digest=2 settings=3 program=4\n`;
    const file = `Pulumi.${environment}.yaml`;
    yield `commit refs/heads/main\nmark :${index + 1}\ncommitter ${person} ${stamp(index)}\n`;
    yield data(`Request ${tag} for ${environment}\n\nBaton-Request: ${environment}\n${named}`);
    yield `M 100644 inline ${file}\n${data(taking(files.get(file) ?? "", tag, digest(index)))}\n`;
    for (const name of ["bob", "eve"]) {
      const approval = `approve/baton/${environment}/${plan.slice(0, 12)}/${name}-example-com`;
      const tagger = `${name} <${name}@example.com>`;
      yield `tag ${approval}\nfrom :${index + 1}\ntagger ${tagger} ${stamp(index)}\n`;
      yield data(`approve ${tag} for ${environment}\n\n${named}`);
    }
    if (isLast) return;
    const outcome = `outcome/baton/${environment}/${stampOf(at(index))}`;
    yield `tag ${outcome}\nfrom :${index + 1}\ntagger ${person} ${stamp(index)}\n`;
    yield data(
      `${environment}: ${tag} deployed\n\nBaton-Result: deployed\n${named}` +
        `Baton-Former: build-${index} ${digest(index - 1)}\n` +
        "Baton-Approved-By: bob@example.com\nBaton-Who: ann@example.com\n",
    );
  }
}

/** A stack file that takes another release. */
function taking(text: string, tag: string, digest: string): string {
  const rest = text.replace(/^ +baton:(imageTag|imageDigest|version|rollbackOf):.*\n/gm, "");
  const moving = `  baton:imageTag: ${tag}\n  baton:imageDigest: ${digest}\n`;
  return rest.replace(/^config:\n/m, (line) => line + moving);
}
