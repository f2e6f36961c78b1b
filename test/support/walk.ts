import { execFileSync, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { hostname, tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { as } from "./person";
import { ROOT } from "./program";
import { ToolScene } from "./tool";

/** At which of the programs that the tool starts it is killed, and when. */
export interface Kill {
  readonly at: number;
  /** `middle`: the program is killed too, in the midst of its work. `aside`: it goes on alone. */
  readonly when: "before" | "middle" | "after" | "aside";
}

/** How a run of the tool ended. */
export interface Run {
  readonly exitCode: number | null;
  readonly text: string;
  /** The programs that it started, in order, with their arguments. */
  readonly calls: readonly string[];
  /** At each of them, what was on disk; where that was looked at. */
  readonly disks: readonly string[];
}

/**
 * Stands before git and Pulumi on PATH, counts its calls, and kills the tool, its parent, at one.
 * Git is killed when it holds its locks and has changed nothing.
 */
const WRAPPER = String.raw`#!/bin/sh
tool=$PPID
set -C
n=1
until echo "NAME $*" > "$WALK/$n"; do n=$((n + 1)); done 2> /dev/null
set +C
[ -z "$WALK_LOOK" ] || (
  cd "$BATON_SCENE"
  find . -name calls -prune -o -type f -printf '%p %s %T@\n' | sort | cksum > "$WALK/$n.disk"
)
case $n$WALK_WHEN in
  "$WALK_AT"before) kill -9 $tool; exit 137 ;;
  "$WALK_AT"aside) kill -9 $tool ;;
  "$WALK_AT"after) AFTER="kill -9 $tool" ;;
  "$WALK_AT"middle) AFTER="kill -9 $tool"; MIDDLE="kill -9 $tool \$\$" ;;
esac
RUN
`;
const RUN_PULUMI = String.raw`[ -z "$AFTER" ] || trap "$AFTER" EXIT
. "$BATON_SCENE/.pulumi/bin/pulumi"`;
const RUN_GIT = String.raw`[ -z "$AFTER" ] && exec REAL "$@"
[ -n "$MIDDLE" ] && set -- -c core.hooksPath="$HOOKS" -c core.attributesFile="$HOOKS/attributes" \
  -c filter.walk.clean='kill -9 $PPID' "$@"
REAL "$@"
eval "$AFTER"`;
const HOOK = '#!/bin/sh\n[ "$1" != prepared ] || kill -9 $PPID\n';

/** Programs and subcommands that may change anything. */
const CHANGES = /^(git( -c \S+)? (add|commit|tag|fetch|push)|pulumi (up|refresh|cancel))\b/;

/** Runs the tool as a process on copies of a scene, and kills it. */
export class Walk {
  private readonly folder = mkdtempSync(join(tmpdir(), "baton-walk-"));

  constructor() {
    const real = execFileSync("sh", ["-c", "command -v git"], { encoding: "utf8" }).trim();
    const bin = join(this.folder, "bin");
    mkdirSync(bin);
    for (const [name, run] of [
      ["git", RUN_GIT.replaceAll("REAL", real)],
      ["pulumi", RUN_PULUMI],
    ] as const) {
      const text = WRAPPER.replace("NAME", name).replace("RUN", () => run);
      writeFileSync(join(bin, name), text, { mode: 0o755 });
    }
    writeFileSync(join(bin, "reference-transaction"), HOOK, { mode: 0o755 });
    writeFileSync(join(bin, "attributes"), "* filter=walk\n");
  }

  remove(): void {
    rmSync(this.folder, { recursive: true, force: true });
  }

  /**
   * Runs the tool on a scene until it ends or is killed.
   * @param heard is given all that the tool has printed so far, each time it prints
   */
  async run(
    scene: ToolScene,
    args: readonly string[],
    person = "ann",
    how?: Kill | "look",
    heard: (text: string) => void = () => undefined,
  ): Promise<Run> {
    const kill = how === "look" ? undefined : how;
    const calls = mkdtempSync(join(this.folder, "calls-"));
    const temporary = join(calls, "tmp");
    mkdirSync(temporary);
    const bin = join(this.folder, "bin");
    const path = (process.env["PATH"] ?? "").split(delimiter);
    // Not the stand-in of the scene that this one was copied from.
    const others = path.filter((folder) => !folder.startsWith(join(tmpdir(), "baton-")));
    const env = {
      ...process.env,
      PATH: [bin, ...others].join(delimiter),
      BATON_SCENE: scene.folder,
      WALK: calls,
      WALK_LOOK: how === "look" ? "yes" : "",
      WALK_AT: String(kill?.at ?? ""),
      WALK_WHEN: kill?.when ?? "",
      HOOKS: bin,
      AFTER: "",
      MIDDLE: "",
      TMPDIR: temporary,
      NO_COLOR: "1",
      ...as(person),
    };
    const command = ["-r", "ts-node/register", "cli/main.ts", "--cwd", scene.folder, ...args];
    const child = spawn("node", command, { cwd: ROOT, env, stdio: ["ignore", "pipe", "pipe"] });
    let text = "";
    for (const stream of [child.stdout, child.stderr]) {
      stream.on("data", (chunk: Buffer) => {
        text += chunk.toString();
        heard(text);
      });
    }
    const exitCode = await new Promise<number | null>((resolve) => child.on("close", resolve));
    const numbers = readdirSync(calls).filter((name) => /^\d+$/.test(name));
    numbers.sort((one, other) => Number(one) - Number(other));
    const read = (name: string) => readFileSync(join(calls, name), "utf8").trim();
    const disks = how === "look" ? numbers.map((name) => read(`${name}.disk`)) : [];
    return { exitCode, text, calls: numbers.map(read), disks };
  }
}

/**
 * The moments at which a command is to be killed, by an undisturbed run. Nobody can clean up after
 * `kill -9`: what it leaves is what is on disk, so where nothing has changed there since the call
 * before, a kill would leave the same again. With WALK=all, every moment.
 */
export function killsOf({ calls, disks }: Run): Kill[] {
  return calls.flatMap((call, index) => {
    const changes = CHANGES.test(call);
    const same = index > 0 && disks[index] === disks[index - 1];
    const all = process.env["WALK"] === "all";
    const whens = [
      ...(same && !all ? [] : (["before"] as const)),
      ...(changes ? (["middle"] as const) : []),
      ...(changes || all ? (["after"] as const) : []),
    ];
    return whens.map((when) => ({ at: index + 1, when }));
  });
}

/** What there is to see of an environment, without times and ids. */
export function stateOf(scene: ToolScene, environment: string) {
  const file = `Pulumi.${environment}.yaml`;
  const files = execFileSync("find", [".", "-not", "-path", "./.git/objects/*", "-type", "f"], {
    cwd: scene.folder,
    encoding: "utf8",
  }).split("\n");
  const count = (trailer: string) =>
    Number(scene.git("rev-list", "--count", "-E", `--grep=^${trailer}: ${environment}$`, "HEAD"));
  return {
    file: scene.read(file),
    committed: `${scene.git("show", `HEAD:${file}`)}\n`,
    status: scene.git("status", "--porcelain"),
    commits: scene.git("rev-list", "--count", "HEAD"),
    requests: count("Baton-Request"),
    waysBack: count("Baton-Rollback"),
    outcomes: outcomesOf(scene, environment),
    words: scene.tags("approve").map((name) => name.replace(/\/[0-9a-f]{12}\//, "/PLAN/")),
    runs: scene.runs(environment),
    // Drafts, locks, process ids and beginnings of runs that are no more. A lock of a ref that is
    // named by its time, and so never comes again, is in nobody's way.
    left: files.filter((name) =>
      /\.tmp$|\.begun$|\.unrecorded$|\.program-|\/pid$|\.pulumi\/.*\.(lock|pending)|\.git\/(?!refs\/tags\/outcome).*(?<!next-index-\d+)\.lock$/.test(
        name,
      ),
    ),
    remote: remoteOf(scene),
  };
}

function outcomesOf(scene: ToolScene, environment: string): string[] {
  const fields = ["Result", "Tag", "Former", "Left", "Returning-To"];
  return scene.tags(`outcome/baton/${environment}`).map((tag) => {
    const message = scene.git("tag", "--list", "--format=%(contents)", tag);
    const field = (name: string) =>
      new RegExp(`^Baton-${name}: (.*)$`, "m").exec(message)?.[1] ?? "–";
    return fields.map(field).join(", ");
  });
}

/** Which of its refs the remote does not have, or has otherwise. */
function remoteOf(scene: ToolScene): string[] {
  if (scene.git("remote") === "") return [];
  const refs = scene.git("ls-remote", "origin", "refs/heads/*", "refs/tags/*").split("\n");
  const there = new Set(refs.map((line) => line.replace("\t", " ")));
  const own = scene.git(
    "for-each-ref",
    "--format=%(objectname) %(refname)",
    "refs/heads",
    "refs/tags",
  );
  return own.split("\n").filter((line) => !there.has(line));
}

/**
 * What a killed run has left, to know whether another one left the same. Times, ids and what
 * nothing reads again do not count.
 */
export function printOf(scene: ToolScene): string {
  const plain = (text: string) =>
    text
      .replaceAll(hostname(), "HOST")
      .replace(/\d{8}T\d{6}\.\d{3}Z/g, "TIME")
      .replace(/TIME-\d+/g, "RUN")
      .replace(/\b\d{4,}\b/g, "NUMBER")
      .replace(/[0-9a-f]{8}-[0-9a-f-]{27}/g, "ID")
      .replace(/"head":"[0-9a-f]+"/, "HEAD");
  const ignored = ["objects", "logs", "index", "COMMIT_EDITMSG"].map((name) => `./.git/${name}`);
  const find = [...ignored, "./.pulumi/calls", "./.pulumi/remote.git/objects"].flatMap((path) => [
    ...["-path", path, "-prune", "-o"],
  ]);
  const options = { cwd: scene.folder, encoding: "utf8" } as const;
  const files = execFileSync("find", [".", ...find, "-type", "f", "-print"], options)
    .split("\n")
    .sort();
  const read = files.filter((name) =>
    /^\.\/Pulumi|\.begun$|\.pulumi\/[^/]*\.(json|pending)$|\/log$/.test(name),
  );
  return [
    ...files.map(plain).sort(),
    ...read.map((name) => plain(scene.read(name))),
    scene.git("rev-parse", "HEAD^{tree}"),
    scene.git("rev-list", "--count", "--all"),
    scene.git("ls-files", "--stage"),
  ].join("\n");
}
