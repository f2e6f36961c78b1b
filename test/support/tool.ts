import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { parse } from "yaml";
import { openContext, type Context } from "../../cli/context";

/**
 * Stands in for Pulumi's CLI: keeps each stack's outputs in a file, deploys whatever the config
 * file asks for, and fails where a file says so.
 */
const FAKE_PULUMI = String.raw`#!/usr/bin/env node
const fs = require("node:fs");
const args = process.argv.slice(2);
const option = (name) => args[args.indexOf(name) + 1];
const stack = option("--stack");
const outputs = ".pulumi/" + stack + ".json";
const broken = (name) => fs.existsSync(".pulumi/" + name) ? fs.readFileSync(".pulumi/" + name, "utf8") : undefined;
const stop = (code, out, err = "") => { fs.writeSync(1, out); fs.writeSync(2, err); process.exit(code); };
if (args[0] === "stack") {
  if (!fs.existsSync(outputs)) stop(255, "", "error: no stack named '" + stack + "' found\n");
  stop(0, fs.readFileSync(outputs, "utf8"));
}
const file = fs.readFileSync(option("--config-file"), "utf8");
const value = (key) => new RegExp("^ +baton:" + key + ": *(.*)$", "m").exec(file)?.[1];
fs.appendFileSync(".pulumi/calls", JSON.stringify({ command: args[0], stack, file }) + "\n");
if (args[0] === "preview") {
  const message = broken("preview-fails");
  const diagnostics = [{ severity: "error", message: "<{%reset%}>" + message + "<{%reset%}>" }];
  if (message !== undefined) stop(255, JSON.stringify({ steps: [], diagnostics }));
  const urn = "urn:pulumi:" + stack + "::baton::a:b:C$kubernetes:apps/v1:Deployment::web";
  stop(0, JSON.stringify({ steps: [{ op: "update", urn }] }));
}
const refused = broken("up-refused");
if (refused !== undefined) stop(255, "Updating (" + stack + "):\n", "error: " + refused + "\n");
console.log("Updating (" + stack + "):\n ~  kubernetes:apps/v1:Deployment web updating (0s)");
if ((broken("up-fails") ?? "").split("\n").includes(value("imageTag"))) {
  stop(255, "Diagnostics:\n  error: web: ImagePullBackOff\n\nResources:\n    1 unchanged\n");
}
const release = { imageTag: value("imageTag"), digest: value("imageDigest"), version: value("version"), rollbackOf: value("rollbackOf") };
const earnedTag = release.imageTag.replace(/^[a-z]+/, stack);
fs.writeFileSync(outputs, JSON.stringify({ release: { ...release, earnedTag }, earnedTag }));
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
    this.git("config", "commit.gpgsign", "false");
    this.git("config", "tag.gpgsign", "false");
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
    this.git("config", "user.name", person);
    this.git("config", "user.email", `${person}@example.com`);
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
  calls(command: "preview" | "up"): Record<string, unknown>[] {
    if (!existsSync(join(this.folder, ".pulumi/calls"))) return [];
    const calls = this.read(".pulumi/calls").trim().split("\n");
    return calls
      .map((line) => JSON.parse(line) as { command: string; file: string })
      .filter((call) => call.command === command)
      .map(({ file }) => (parse(file) as { config: Record<string, unknown> }).config);
  }

  config(stack: string): Record<string, unknown> {
    return (parse(this.read(`Pulumi.${stack}.yaml`)) as { config: Record<string, unknown> }).config;
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
