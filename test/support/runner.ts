import * as assert from "node:assert/strict";
import { execa } from "execa";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { parseRef, type Ref } from "../../release/flow";
import {
  readAction,
  readWorkflows,
  startsOn,
  type Job,
  type Step,
  type Workflow,
} from "./workflows";

/**
 * Every action that a workflow uses, and what takes its place here. All else of a job is run as it
 * is written.
 */
export const ACTIONS: Readonly<Record<string, string>> = {
  "actions/checkout": "a clone of the local repository, at the same branch or tag",
  "actions/setup-node": "the machine's own Node",
  "actions/setup-go": "the machine's own Go",
  "actions/upload-artifact": "nothing: there is nobody to keep them",
  "pulumi/actions": "the sandbox's own Pulumi, which is on PATH",
  "aws-actions/configure-aws-credentials": "nothing: the sandbox's registry and state ask for none",
  "aws-actions/amazon-ecr-login": "nothing: the sandbox's registry asks for no login",
  "docker/setup-buildx-action": "nothing: there is no Docker daemon, see `docker` below",
  "crazy-max/ghaction-github-runtime": "nothing: there is no cache of GitHub's",
  "aquasecurity/setup-trivy": "nothing: Trivy cannot be had here, see `trivy` below",
  "SonarSource/sonarqube-scan-action": "nothing: SonarQube cannot be had here",
};

/** What a job knows of what started it. */
export type Names = Readonly<Record<string, string>>;

export interface Ended {
  readonly workflow: string;
  readonly job: string;
  /** GitHub's environment, whose role it takes on; empty without one. */
  readonly environment: string;
  readonly succeeded: boolean;
  /** All that its steps printed. */
  readonly log: string;
}

export interface Machine {
  /** The bare repository. */
  readonly remote: string;
  /** Where checkouts are made. */
  readonly folder: string;
  /** Of every step. */
  readonly environment: Names;
  /** The repository's variables and secrets, as `vars.NAME` and `secrets.NAME`. */
  readonly names: Names;
}

/**
 * Takes the place of GitHub's `gh` for `workflow run FILE --repo NAME --ref BRANCH -f KEY=VALUE…`:
 * writes its arguments, a line for each, and an empty line, to the file that GH_DISPATCHED names.
 */
export const GH = '[ "$1 $2" = "workflow run" ] && printf "%s\\n" "$@" "" >> "$GH_DISPATCHED"';

/** Runs the jobs of workflows, one after the other, each in a checkout of its own. */
export class Runner {
  private readonly workflows = readWorkflows();
  private checkouts = 0;
  /** Of the workflow `build`, as GitHub counts them. */
  private runs: number;

  constructor(
    private readonly machine: Machine,
    firstRun: number,
  ) {
    this.runs = firstRun - 1;
  }

  /**
   * What a push starts: each workflow whose filters let the ref in.
   * @param again the commit of a run that is started anew: it keeps that, and its number
   */
  async pushed(name: string, again?: string): Promise<Ended[]> {
    const ref = parseRef(name) ?? assert.fail(name);
    const ended: Ended[] = [];
    for (const workflow of this.workflows.filter((one) => startsOn(one, ref))) {
      if (workflow.name === "build" && again === undefined) this.runs += 1;
      const event = { "github.event_name": "push" };
      const sha = again === undefined ? {} : { "github.sha": again };
      ended.push(...(await this.run(workflow, ref, { ...event, ...sha })));
    }
    return ended;
  }

  /** What a person starts by hand, on a branch. */
  async dispatched(name: string, branch: string, inputs: Names): Promise<Ended[]> {
    const given = Object.entries(inputs).map(([key, value]) => [`inputs.${key}`, value]);
    return this.run(
      this.named(name),
      { kind: "branch", name: branch },
      {
        "github.event_name": "workflow_dispatch",
        ...(Object.fromEntries(given) as Names),
      },
    );
  }

  /** What a pull request from a branch starts; only that one workflow. */
  async requested(name: string, branch: string, base: string): Promise<Ended[]> {
    const { stdout } = await execa("git", ["rev-parse", branch], { cwd: this.machine.remote });
    return this.run(
      this.named(name),
      { kind: "branch", name: branch },
      {
        "github.event_name": "pull_request",
        "github.base_ref": base,
        "github.event.number": "1",
        "github.event.pull_request.head.repo.full_name": "team/orders",
        "github.event.pull_request.head.sha": stdout,
      },
    );
  }

  /** Starts a workflow by its schedule, on the default branch. */
  async scheduled(name: string): Promise<Ended[]> {
    const event = { "github.event_name": "schedule" };
    return this.run(this.named(name), { kind: "branch", name: "main" }, event);
  }

  private named(name: string): Workflow {
    return this.workflows.find((workflow) => workflow.name === name) ?? assert.fail(name);
  }

  private async run(workflow: Workflow, ref: Ref, event: Names): Promise<Ended[]> {
    const full = `refs/${ref.kind === "branch" ? "heads" : "tags"}/${ref.name}`;
    const git = await execa("git", ["rev-parse", `${full}^{commit}`], { cwd: this.machine.remote });
    const names: Names = {
      ...this.machine.names,
      "github.ref": full,
      "github.ref_name": ref.name,
      "github.sha": git.stdout,
      "github.run_number": String(this.runs),
      "github.run_id": "1",
      "github.repository": "team/orders",
      "github.server_url": "https://github.example",
      "github.token": "token",
      "github.actor": "ann",
      "github.actor_id": "1",
      ...event,
    };
    const ended: Ended[] = [];
    for (const [name, job] of Object.entries(workflow.jobs)) {
      const needs = [job.needs ?? []].flat();
      if (needs.some((need) => !ended.some((one) => one.job === need && one.succeeded))) continue;
      if (!holds(job.if, names, false)) continue;
      for (const combination of job.strategy?.matrix.include ?? [{}]) {
        const values = Object.entries(combination).map(([axis, value]) => [
          `matrix.${axis}`,
          value,
        ]);
        const own = { ...names, ...(Object.fromEntries(values) as Names) };
        const environment = fill(job.environment ?? "", own);
        const { succeeded, log, dispatched } = await this.runJob(workflow, job, own);
        ended.push({ workflow: workflow.name, job: name, environment, succeeded, log });
        for (const started of dispatched) ended.push(...(await started()));
      }
    }
    return ended;
  }

  /** The runs that a job has started by `gh`. */
  private dispatches(text: string): (() => Promise<Ended[]>)[] {
    return text.split("\n\n").flatMap((lines) => {
      const [, , file = "", ...args] = lines.split("\n");
      if (file === "") return [];
      const after = (flag: string) =>
        args.flatMap((arg, index) => (arg === flag ? [args[index + 1] ?? ""] : []));
      const [branch = ""] = after("--ref");
      const inputs = after("-f").map((field) => [
        field.slice(0, field.indexOf("=")),
        field.slice(field.indexOf("=") + 1),
      ]);
      const name = file.replace(/\.yml$/, "");
      return [() => this.dispatched(name, branch, Object.fromEntries(inputs) as Names)];
    });
  }

  private async runJob(
    workflow: Workflow,
    job: Job,
    names: Names,
  ): Promise<
    Pick<Ended, "succeeded" | "log"> & { readonly dispatched: (() => Promise<Ended[]>)[] }
  > {
    this.checkouts += 1;
    const folder = join(this.machine.folder, `checkout-${this.checkouts}`);
    await rm(folder, { recursive: true, force: true });
    await mkdir(folder, { recursive: true });
    const dispatched = `${folder}.dispatched`;
    await writeFile(dispatched, "");
    let log = "";
    let failed = false;
    const runSteps = async (steps: readonly Step[], known: Names): Promise<void> => {
      for (const step of steps) {
        if (!holds(step.if, known, failed)) continue;
        if (step.uses?.startsWith("./")) {
          const inputs = Object.entries(step.with ?? {}).map(([key, value]) => [
            `inputs.${key}`,
            fill(String(value), known),
          ]);
          await runSteps(readAction(step.uses), {
            ...known,
            ...(Object.fromEntries(inputs) as Names),
          });
          continue;
        }
        if (step.uses !== undefined) {
          const [action = ""] = step.uses.split("@");
          assert.ok(action in ACTIONS, `${action} has no stand-in`);
          if (action === "actions/checkout") await this.checkOut(folder, step, known);
          continue;
        }
        const ran = await execa("bash", ["-e", "-c", step.run ?? ""], {
          cwd: folder,
          reject: false,
          all: true,
          env: {
            ...this.machine.environment,
            PWD: folder,
            GITHUB_REF: known["github.ref"] ?? "",
            GITHUB_REF_NAME: known["github.ref_name"] ?? "",
            GH_DISPATCHED: dispatched,
            GITHUB_SHA: known["github.sha"] ?? "",
            GITHUB_REPOSITORY: known["github.repository"] ?? "",
            ...filled(workflow.env, known),
            ...filled(job.env, known),
            ...filled(step.env, known),
          },
        });
        log += `$ ${step.run ?? ""}\n${ran.all}\n`;
        if (ran.failed) failed = true;
      }
    };
    await runSteps(job.steps, names);
    const runs = this.dispatches(await readFile(dispatched, "utf8"));
    return { succeeded: !failed, log, dispatched: runs };
  }

  /** As the action does: a branch as a local one, a tag by its commit. */
  private async checkOut(folder: string, step: Step, names: Names): Promise<void> {
    const git = (...args: string[]) => execa("git", args, { cwd: folder });
    await git("clone", "--quiet", this.machine.remote, ".");
    const given = step.with?.["ref"];
    const ref = given === undefined ? (names["github.ref"] ?? "") : fill(String(given), names);
    if (ref.startsWith("refs/tags/")) {
      await git("checkout", "--quiet", "--detach", ref);
      return;
    }
    const branch = ref.replace(/^refs\/heads\//, "");
    // What has started the job, whatever the branch has become, unless a branch is asked for.
    const at = given === undefined ? (names["github.sha"] ?? "") : `origin/${branch}`;
    await git("checkout", "--quiet", "-B", branch, at);
    await git("branch", "--quiet", `--set-upstream-to=origin/${branch}`);
  }
}

/** A text with what its expressions stand for. */
export function fill(text: string, names: Names): string {
  return text.replace(/\$\{\{(.*?)\}\}/g, (_, expression: string) =>
    String(evaluate(expression, names, false)),
  );
}

function filled(values: Names | undefined, names: Names): Names {
  const entries = Object.entries(values ?? {}).map(([key, value]) => [key, fill(value, names)]);
  return Object.fromEntries(entries) as Names;
}

/** Whether a job or step is run; without a condition, unless something has failed before. */
export function holds(condition: string | undefined, names: Names, failed: boolean): boolean {
  if (condition === undefined) return !failed;
  const expression = /^\$\{\{(.*)\}\}$/.exec(condition.trim())?.[1] ?? condition;
  const always = /\b(failure|cancelled|always)\(\)/.test(expression);
  return Boolean(evaluate(expression, names, failed)) && (always || !failed);
}

/** The part of GitHub's expressions that the workflows use: its operators are JavaScript's. */
function evaluate(expression: string, names: Names, failed: boolean): unknown {
  const filled = expression
    .replace(/\b(github|vars|secrets|inputs|matrix)(\.\w+)+/g, (name) =>
      JSON.stringify(names[name] ?? ""),
    )
    .replace(/startsWith\(("[^"]*"), '([^']*)'\)/g, (_, text: string, start: string) =>
      String((JSON.parse(text) as string).startsWith(start)),
    )
    .replace(/\bfailure\(\)/g, String(failed))
    .replace(/\bcancelled\(\)/g, "false");
  assert.match(filled, /^([\s!()=&|]|"[^"]*"|'[^']*'|true|false)*$/, expression);
  return eval(filled) as unknown;
}
