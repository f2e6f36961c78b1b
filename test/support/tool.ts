import { execFileSync } from "node:child_process";
import {
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
import type { Tree } from "../../release/merge";

/**
 * Stands in for Pulumi's CLI: keeps each stack's outputs in a file, deploys whatever the config
 * file asks for, and fails where a file says so.
 */
const FAKE_PULUMI = String.raw`#!/bin/sh
command=$1
while [ $# -gt 0 ]; do
  case $1 in --stack) stack=$2 ;; --config-file) file=$2 ;; esac
  shift
done
cd .pulumi
if [ $command = stack ]; then
  [ -f $stack.json ] && exec cat $stack.json
  echo "error: no stack named '$stack' found" >&2
  exit 255
fi
mkdir -p calls
cp "$file" calls/$(printf %03d $(ls calls | wc -l))-$command
value() { sed -n "s/^ *baton:$1: *//p" "$file"; }
if [ $command = preview ]; then
  if [ -f preview-fails ]; then
    echo '{"steps":[],"diagnostics":[{"severity":"error","message":"<{%reset%}>'"$(cat preview-fails)"'<{%reset%}>"}]}'
    exit 255
  fi
  echo '{"steps":[{"op":"update","urn":"urn:pulumi:'$stack'::baton::a:b:C$kubernetes:apps/v1:Deployment::web"}]}'
  exit
fi
echo "Updating ($stack):"
if [ -f up-refused ]; then
  echo "error: $(cat up-refused)" >&2
  exit 255
fi
echo " ~  kubernetes:apps/v1:Deployment web updating (0s)"
tag=$(value imageTag)
number=$(echo $tag | sed 's/^[a-z]*//')
if [ -f up-fails ] && grep -qx $tag up-fails; then
  echo "Diagnostics:"
  echo "  error: web: ImagePullBackOff"
  exit 255
fi
earned=$stack$number
field() { v=$(value $1); [ -n "$v" ] && printf ',"%s":"%s"' $2 "$v"; }
{
  printf '{"earnedTag":"%s","release":{"imageTag":"%s"' $earned $tag
  field imageDigest digest; field version version; field rollbackOf rollbackOf
  printf ',"earnedTag":"%s"}}' $earned
} > $stack.json
`;

export const digestOf = (tag: string) =>
  `sha256:${Buffer.from(tag).toString("hex").padEnd(64, "0")}`;

/** A Pulumi project in a git repository of its own, with a stand-in for Pulumi's CLI. */
export class ToolScene {
  readonly folder = mkdtempSync(join(tmpdir(), "baton-test-"));
  readonly printed: string[] = [];
  private readonly path = process.env["PATH"];

  constructor(stackFiles: Readonly<Record<string, string>>) {
    mkdirSync(join(this.folder, ".pulumi"));
    mkdirSync(join(this.folder, "bin"));
    writeFileSync(join(this.folder, "bin/pulumi"), FAKE_PULUMI, { mode: 0o755 });
    process.env["PATH"] = [join(this.folder, "bin"), this.path].join(delimiter);
    this.write(".gitignore", ".pulumi\nbin\n");
    this.write(
      "Pulumi.yaml",
      `name: baton
runtime: nodejs
config:
  baton:defaults:
    value:
      registry: { kind: oci, repository: 127.0.0.1:1/podinfo, plainHttp: true }
`,
    );
    this.write("index.ts", "export {};\n");
    this.write("package-lock.json", "{}\n");
    for (const [name, text] of Object.entries(stackFiles)) this.write(`Pulumi.${name}.yaml`, text);
    this.git("init", "--quiet", "--initial-branch=main");
    this.as("ann");
    this.git("add", ".");
    this.git("commit", "--quiet", "-m", "Begin");
  }

  remove(): void {
    process.env["PATH"] = this.path;
    rmSync(this.folder, { recursive: true });
  }

  context(): Promise<Context> {
    return openContext(
      this.folder,
      (text) => this.printed.push(text),
      (_, up) => up(() => {}),
    );
  }

  /** Who is at work from now on. */
  as(person: string): void {
    const user = `[user]\n\tname = ${person}\n\temail = ${person}@example.com\n`;
    const core = "[core]\n\trepositoryformatversion = 0\n\tbare = false\n";
    this.write(
      ".git/config",
      `${core}${user}[commit]\n\tgpgsign = false\n[tag]\n\tgpgsign = false\n`,
    );
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

  /** The configurations that were previewed or deployed, in order. */
  calls(command: "preview" | "up"): Tree[] {
    const folder = join(this.folder, ".pulumi/calls");
    const names = existsSync(folder) ? readdirSync(folder).sort() : [];
    return names
      .filter((name) => name.endsWith(`-${command}`))
      .map((name) => parse(readFileSync(join(folder, name), "utf8")) as { config: Tree })
      .map(({ config }) => config);
  }

  config(stack: string): Tree {
    return (parse(this.read(`Pulumi.${stack}.yaml`)) as { config: Tree }).config;
  }

  /** The names of the tags of a kind, such as `approve/qa`. */
  tags(kind: string): string[] {
    const list = this.git("tag", "--list", `${kind}/*`);
    return list === "" ? [] : list.split("\n");
  }

  /** What the tags of an environment's outcomes say, the oldest first. */
  results(stack: string): string[] {
    return this.tags(`outcome/${stack}`).map((tag) => {
      const message = this.git("tag", "--list", "--format=%(contents)", tag);
      const field = (name: string) => new RegExp(`^Baton-${name}: (.*)$`, "m").exec(message)?.[1];
      return `${field("Result") ?? ""} ${field("Tag") ?? ""}`;
    });
  }
}
