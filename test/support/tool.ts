import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { parse } from "yaml";
import { openContext, type Context } from "../../cli/context";
import { showNothing } from "../../cli/progress";
import type { Tree } from "../../release/merge";
import { RegistryServer } from "./registry";

/**
 * Stands in for Pulumi's CLI: keeps each stack's outputs in a file, deploys whatever the config
 * file asks for, and fails where a file says so. Its lock is that of Pulumi's files: two that come
 * at once refuse each other, and one that is killed leaves it behind, with what it had begun. A preview
 * has the steps of a file, and a state the resources of another one, where a test gives them. It reads
 * no state beside an empty `.attrs` file; with a file `being-written`, that is written the next moment.
 */
const FAKE_PULUMI = String.raw`#!/bin/sh
command=$1 what=$2
while [ $# -gt 0 ]; do
  case $1 in --stack) stack=$2 ;; --config-file) file=$2 ;; esac
  shift
done
if [ $command = whoami ]; then
  echo '{"user":"ann","url":"file://.pulumi?no_tmp_dir=true"}'
  exit
fi
from=$PWD
scene=$BATON_SCENE
[ -n "$scene" ] || [ ! -d .pulumi ] || scene=.
[ -n "$scene" ] || scene=$(dirname "$0")/../..
cd "$scene/.pulumi"
attrs=.pulumi/stacks/baton/$stack.json.attrs
if [ -f $attrs ] && [ ! -s $attrs ]; then
  echo "error: failed to load checkpoint: EOF" >&2
  echo $command >> unreadable
  [ -f being-written ] && mv being-written $attrs
  exit 255
fi
if [ $command = cancel ]; then
  rm -f $stack.lock.*
  exit
fi
if [ $command = stack ] && [ $what = export ]; then
  [ -f $stack.pending ] && pending=$(cat $stack.pending)
  resources=[]
  [ ! -f $stack.resources ] || resources=$(cat $stack.resources)
  echo '{"deployment":{"resources":'"$resources"',"pending_operations":['"$pending"']}}'
  exit
fi
if [ $command = stack ] && [ $what = history ]; then
  [ -f $stack.history ] && exec cat $stack.history
  echo '[]'
  exit
fi
if [ $command = stack ]; then
  echo $stack >> asked
  [ ! -f armed ] || [ ! -f outputs-fail ] || exit 255
  [ -f $stack.json ] && exec cat $stack.json
  echo "error: no stack named '$stack' found" >&2
  exit 255
fi
if [ $command != preview ]; then
  lock=$stack.lock.$$
  date -u +%Y-%m-%dT%H:%M:%SZ > $lock
  trap 'rm -f $lock; [ -z "$AFTER" ] || eval "$AFTER"' EXIT
  [ -f lock-takes ] && sleep $(cat lock-takes)
  for other in $stack.lock.*; do [ $other = $lock ] || others="$others $other"; done
  if [ -n "$others" ]; then
    echo "error: the stack is currently locked by $(echo $others | wc -w) lock(s). Either wait for the other process(es) to end or delete the lock file with \`pulumi cancel\`." >&2
    for other in $others; do
      echo "  file:///$other: created by $(id -un)@$(uname -n) (pid $(echo $other | sed 's/.*\.//')) at $(cat $other 2> /dev/null || date -u +%Y-%m-%dT%H:%M:%SZ)" >&2
    done
    exit 255
  fi
fi
if [ $command = refresh ]; then
  rm -f $stack.pending
  exit
fi
[ -d calls ] || mkdir calls programs
set -- calls/*
[ -e "$1" ] || set --
case $# in ?) number=00$# ;; ??) number=0$# ;; *) number=$# ;; esac
cp "$file" calls/$number-$command
cat "$from/Pulumi.yaml" "$from/index.ts" > programs/$number-$command
if [ $command = preview ]; then
  for name in preview-fails $stack.preview-fails; do [ -f $name ] && fails=$(cat $name); done
  if [ -n "$fails" ]; then
    echo '{"steps":[],"diagnostics":[{"severity":"error","message":"<{%reset%}>'"$fails"'<{%reset%}>"}]}'
    exit 255
  fi
  if [ -f $stack.steps ]; then
    echo '{"steps":'"$(cat $stack.steps)"',"diagnostics":[]}'
    exit
  fi
  echo '{"steps":[{"op":"update","urn":"urn:pulumi:'$stack'::baton::a:b:C$kubernetes:apps/v1:Deployment::web"}],"diagnostics":[]}'
  exit
fi
echo "Updating ($stack):"
if [ -f program-refused ] && grep -qf program-refused "$from/index.ts"; then
  echo "error: no plugin for $(cat "$from/index.ts")" >&2
  exit 255
fi
if [ -f up-refused ]; then
  echo "error: $(cat up-refused)" >&2
  exit 255
fi
echo '{"type":"updating","resource":{"urn":"urn:web","type":"kubernetes:apps/v1:Deployment"}}' > $stack.pending
echo " ~  kubernetes:apps/v1:Deployment web updating (0s)"
while [ -f up-waits ]; do sleep 0.1; done
[ -z "$MIDDLE" ] || eval "$MIDDLE"
rm $stack.pending
while read -r key value || [ -n "$key" ]; do
  case $key in
    *:imageTag:) tag=$value ;;
    *:imageDigest:) digest=$value ;;
    *:version:) version=$value ;;
    *:rollbackOf:) rollbackOf=$value ;;
  esac
done < "$file"
if [ -f up-fails ] && grep -qx $tag up-fails; then
  echo "Diagnostics:"
  echo "  error: web: ImagePullBackOff"
  exit 255
fi
IFS=-
set -- $tag
shift
earned=$stack-"$*"
unset IFS
field() { [ -z "$2" ] || printf ',"%s":"%s"' $1 "$2"; }
{
  printf '{"earnedTag":"%s","release":{"imageTag":"%s"' $earned $tag
  field digest $digest; field version $version; field rollbackOf $rollbackOf
  printf ',"earnedTag":"%s"}' $earned
  [ ! -f layout ] || printf ',"layout":%s' $(cat layout)
  printf '}'
} > $stack.json
`;

/** Git starts nothing but itself: no agent for signatures, and nobody to tidy up. */
const SETTINGS = `[core]
\trepositoryformatversion = 0
\tbare = false
[commit]
\tgpgsign = false
[tag]
\tgpgsign = false
[maintenance]
\tauto = false
`;

const LAST_BUILD = 9;
const GIVERS = ["build", "dev", "qa", "stage", "prod"];
const imageOf = (number: string) => ({ config: { Labels: { number } } });

/** What every tag with this number names: `build-1`, `dev-1` … are one image. */
export function digestOf(tag: string): string {
  const sha256 = (text: string) => `sha256:${createHash("sha256").update(text).digest("hex")}`;
  const config = sha256(JSON.stringify(imageOf(tag.split("-")[1] ?? "")));
  return sha256(JSON.stringify({ config: { digest: config } }));
}

/** A Pulumi project in a git repository of its own, with a stand-in for Pulumi's CLI. */
export class ToolScene {
  readonly printed: string[] = [];
  private readonly copies = mkdtempSync(join(tmpdir(), "baton-test-"));
  /** What the clock says, where a test stops it. */
  now: Date | undefined;
  private readonly path = process.env["PATH"];

  static async open(
    stackFiles: Readonly<Record<string, string>>,
    /** A project in a folder of its own name, below the repository's. */
    project?: string,
  ): Promise<ToolScene> {
    const registry = await RegistryServer.start();
    for (let number = 1; number <= LAST_BUILD; number += 1) {
      registry.pushImage(imageOf(String(number)), ...GIVERS.map((giver) => `${giver}-${number}`));
    }
    const repository = mkdtempSync(join(tmpdir(), "baton-test-"));
    const folder = project === undefined ? repository : join(repository, project);
    const scene = new ToolScene(registry, folder, repository, project);
    scene.git("init", "--quiet", "--initial-branch=main", repository);
    scene.as("ann");
    scene.make(stackFiles);
    return scene;
  }

  private constructor(
    readonly registry: RegistryServer,
    readonly folder: string,
    private readonly repository = folder,
    readonly project = "baton",
  ) {
    mkdirSync(folder, { recursive: true });
  }

  /** Another project in the same repository. */
  beside(project: string, stackFiles: Readonly<Record<string, string>>): ToolScene {
    const folder = join(this.repository, project);
    const other = new ToolScene(this.registry, folder, this.repository, project);
    other.make(stackFiles);
    return other;
  }

  /** The same as it is now, in a folder of its own, for whoever runs the tool as a process. */
  copy(): ToolScene {
    const folder = mkdtempSync(join(tmpdir(), "baton-test-"));
    execFileSync("cp", ["-a", `${this.folder}/.`, folder]);
    return new ToolScene(this.registry, folder);
  }

  private make(stackFiles: Readonly<Record<string, string>>): void {
    const { registry } = this;
    const bin = join(this.folder, ".pulumi/bin");
    mkdirSync(bin, { recursive: true });
    writeFileSync(join(bin, "pulumi"), FAKE_PULUMI, { mode: 0o755 });
    process.env["PATH"] = [bin, this.path].join(delimiter);
    this.write(".gitignore", ".pulumi\n");
    this.write(
      "Pulumi.yaml",
      `name: ${this.project}
runtime: nodejs
config:
  ${this.project}:defaults:
    value:
      registry: { kind: oci, repository: ${registry.host}/podinfo, plainHttp: true }
`,
    );
    this.write("index.ts", "export {};\n");
    this.write("package-lock.json", "{}\n");
    for (const [name, text] of Object.entries(stackFiles)) this.write(`Pulumi.${name}.yaml`, text);
    this.git("add", ".");
    this.git("commit", "--quiet", "-m", "Begin");
  }

  async remove(): Promise<void> {
    process.env["PATH"] = this.path;
    for (const folder of [this.repository, this.copies]) rmSync(folder, { recursive: true });
    await this.registry.stop();
  }

  /**
   * Remembers all files, of other folders too, and tags of images as they are; gives what puts them
   * back.
   */
  keep(...others: readonly string[]): () => void {
    const kept = [this.repository, ...others].map((folder) => {
      const copy = join(this.copies, String(readdirSync(this.copies).length));
      cpSync(folder, copy, { recursive: true });
      return { folder, copy };
    });
    const tags = [...this.registry.tags];
    return () => {
      for (const { folder, copy } of kept) {
        rmSync(folder, { recursive: true });
        cpSync(copy, folder, { recursive: true });
      }
      this.registry.tags.clear();
      for (const [tag, digest] of tags) this.registry.tags.set(tag, digest);
      this.printed.length = 0;
      this.now = undefined;
    };
  }

  /** What leads to a state when it is first called, and puts that state back from then on. */
  once(lead: () => Promise<unknown>): () => Promise<void> {
    let restore: (() => void) | undefined;
    return async () => {
      if (restore === undefined) {
        await lead();
        restore = this.keep();
      }
      restore();
    };
  }

  context(): Promise<Context> {
    return openContext(this.folder, {
      print: (text) => this.printed.push(text),
      showProgress: showNothing,
      now: () => this.now ?? new Date(),
    });
  }

  /** Who is at work from now on. */
  as(person: string, remote?: string): void {
    const user = `[user]\n\tname = ${person}\n\temail = ${person}@example.com\n`;
    const fetch = "\tfetch = +refs/heads/*:refs/remotes/origin/*\n";
    const origin = remote === undefined ? "" : `[remote "origin"]\n\turl = ${remote}\n${fetch}`;
    writeFileSync(join(this.repository, ".git/config"), `${SETTINGS}${user}${origin}`);
  }

  git(...args: string[]): string {
    return execFileSync("git", args, { cwd: this.folder, encoding: "utf8" }).trim();
  }

  write(path: string, text: string): void {
    writeFileSync(join(this.folder, path), text);
  }

  read(path: string): string {
    return readFileSync(join(this.folder, path), "utf8");
  }

  /** Says what a stack has deployed and earned, or changes how the stand-in behaves. */
  pulumi(file: string, content: string | undefined): void {
    const path = `.pulumi/${file}`;
    if (content === undefined) rmSync(join(this.folder, path), { force: true });
    else this.write(path, content);
  }

  /** The resources of a stack's state from now on, and the steps of its previews. */
  hasState(stack: string, resources: readonly object[], steps: readonly object[]): void {
    this.pulumi(`${stack}.resources`, JSON.stringify(resources));
    this.pulumi(`${stack}.steps`, JSON.stringify(steps));
  }

  hasDeployed(stack: string, imageTag: string, earnedTag: string): void {
    const release = { imageTag, digest: digestOf(imageTag), earnedTag };
    this.pulumi(`${stack}.json`, JSON.stringify({ release, earnedTag }));
  }

  runs(stack: string): Record<string, unknown> | undefined {
    if (!existsSync(join(this.folder, `.pulumi/${stack}.json`))) return undefined;
    const outputs = JSON.parse(this.read(`.pulumi/${stack}.json`)) as {
      release: Record<string, unknown>;
    };
    return outputs.release;
  }

  /** The stacks whose outputs were asked for since the last time, in order. */
  asked(): string[] {
    const asked = this.read(".pulumi/asked").trim().split("\n");
    this.pulumi("asked", undefined);
    return asked;
  }

  /** The configurations that were previewed or deployed, in order. */
  calls(command: "preview" | "up"): Tree[] {
    const folder = join(this.folder, ".pulumi/calls");
    const names = existsSync(folder) ? readdirSync(folder).sort() : [];
    return names
      .filter((name) => name.endsWith(`-${command}`))
      .map((name) => parse(readFileSync(join(folder, name), "utf8")) as { config: Tree })
      .map(({ config }) => config);
  }

  /** Pulumi.yaml and the program of each deployment, in order. */
  programs(): string[] {
    const folder = join(this.folder, ".pulumi/programs");
    const names = existsSync(folder) ? readdirSync(folder).sort() : [];
    const ups = names.filter((name) => name.endsWith("-up"));
    return ups.map((name) => readFileSync(join(folder, name), "utf8"));
  }

  config(stack: string): Tree {
    return (parse(this.read(`Pulumi.${stack}.yaml`)) as { config: Tree }).config;
  }

  /** The names of the tags of a kind, such as `approve/baton/qa`. */
  tags(kind: string): string[] {
    const list = this.git("tag", "--list", `${kind}/*`);
    return list === "" ? [] : list.split("\n");
  }

  /** What the tags of an environment's outcomes say, the oldest first. */
  results(stack: string): string[] {
    return this.tags(`outcome/${this.project}/${stack}`).map((tag) => {
      const message = this.git("tag", "--list", "--format=%(contents)", tag);
      const field = (name: string) => new RegExp(`^Baton-${name}: (.*)$`, "m").exec(message)?.[1];
      return `${field("Result") ?? ""} ${field("Tag") ?? ""}`;
    });
  }
}
