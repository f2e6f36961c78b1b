import { Command, CommanderError, InvalidArgumentError } from "commander";
import { resolve } from "node:path";
import { Refusal } from "../ledger/refusal";
import { EXIT_CODES, openContext, type Context, type Report } from "./context";
import type { DeployOptions } from "./deploy";
import type { LineOptions } from "./hold";
import type { NotifyOptions } from "./notify";
import { plainJson } from "../release/plain-text";
import { showNothing } from "./progress";
import type { RequestOptions } from "./request";
import type { RestoreOptions } from "./restore";
import type { RecordOptions } from "./record";
import type { RollbackOptions } from "./rollback";
import { printable } from "./text";

/** Of the shape that `--json` prints. */
const JSON_VERSION = 1;

const program = new Command("baton")
  .description("Promotes a release behind an approved preview, and gets back.")
  .option("-C, --cwd <folder>", "the Pulumi project's folder", startFolder())
  .option("--json", "print one JSON document instead of text")
  .showHelpAfterError()
  .exitOverride()
  .configureOutput({
    outputError: (text, write) => write(printable(text.replace(/^error: /, "baton: "))),
  });

/** One subcommand; its module is loaded when it is called. */
function command(
  usage: string,
  description: string,
  action: (context: Context, ...args: never[]) => Promise<Report>,
): Command {
  return program
    .command(usage)
    .description(description)
    .option("--json", "print one JSON document instead of text")
    .exitOverride()
    .action(async (...args: unknown[]) => {
      const subcommand = args.at(-1) as Command;
      const given = args.slice(0, -1) as never[];
      await run(subcommand, (context) => action(context, ...given));
    });
}

function releasing(subcommand: Command): Command {
  return subcommand
    .option("--tag <tag>", "another than the upstream runs and has earned; required for builds")
    .option("--version <version>", "the release's name, where releases are versioned")
    .option("--hotfix", "through the fast lane that the policy describes")
    .option("--notes <text>", "release notes for the change card")
    .option("--source <folder>", "the application's repository, where it is another one");
}

command(
  "status",
  "the path at a glance: what runs where, what could move, what holds it",
  async (c) => (await import("./status")).status(c),
);
command(
  "why <env> [tag]",
  "what the gate says of a release, term by term",
  async (c, env: string, tag: string | undefined) =>
    (await import("./why")).why(c, env, tag === undefined ? {} : { tag }),
);
command(
  "history [env]",
  "who moved what, when, approved by whom",
  async (c, environment: string | undefined, options: { limit?: number }) =>
    (await import("./history")).history(c, {
      ...options,
      ...(environment === undefined ? {} : { environment }),
    }),
).option("--limit <count>", "how many of the latest", parseCount);
command(
  "drift [env]",
  "whether cluster, state, ledger and stack file still agree",
  async (c, environment: string | undefined) =>
    (await import("./drift")).drift(c, environment === undefined ? {} : { environment }),
);
releasing(
  command(
    "request <env>",
    "ask for what the upstream has earned, behind a preview",
    async (c, env: string, options: RequestOptions) =>
      (await import("./request")).request(c, env, options),
  ),
);
command("show <env>", "the change card of the latest request", async (c, env: string) =>
  (await import("./approve")).show(c, env),
);
command(
  "approve <env> [plan]",
  "say yes to the plan that a card shows; at a terminal also without, behind that card",
  async (c, env: string, plan: string | undefined) =>
    (await import("./approve")).approve(c, env, plan),
);
command(
  "reject <env>",
  "say no to the latest request",
  async (c, env: string, options: { reason: string }) =>
    (await import("./approve")).reject(c, env, options),
).requiredOption("--reason <text>", "why");
command(
  "record [env]",
  "record how a deployment ended that the tool did not run",
  async (c, env: string | undefined, options: RecordOptions) =>
    (await import("./record")).record(c, env, options),
).option("--go-back", "to the former release at once, where it failed");
command("check <env>", "all that deploy checks, and nothing deployed", async (c, env: string) =>
  (await import("./check")).check(c, env),
);
command(
  "deploy <env>",
  "deploy the latest request, and go back when that fails",
  async (c, env: string, options: DeployOptions) =>
    (await import("./deploy")).deploy(c, env, options),
).option("--yes", "without asking");
releasing(
  command(
    "promote <env>",
    "request and deploy in one, as soon as it is approved",
    async (c, env: string, options: RequestOptions & DeployOptions) =>
      (await import("./promote")).promote(c, env, options),
  ),
).option("--yes", "without asking");
command(
  "rollback <env>",
  "go back to the former release at once",
  async (c, env: string, options: RollbackOptions) =>
    (await import("./rollback")).rollback(c, env, options),
).option("--to <tag>", "to this one, which was deployed here before");
command(
  "cleanup <env>",
  "remove the former release that stays beside the one that runs",
  async (c, env: string) => (await import("./cleanup")).cleanup(c, env),
);
command(
  "restore <env>",
  "list the backups of a database, or restore one",
  async (c, env: string, options: RestoreOptions) =>
    (await import("./restore")).restore(c, env, options),
)
  .option("--backup <name>", "the one to restore")
  .option("--yes", "into an empty database: without asking")
  .option("--overwrite-live", "with --yes: in place of what the database holds");
command(
  "refresh <env>",
  "put fresh data into a database whose data nobody needs",
  async (c, env: string, options: { yes?: boolean }) =>
    (await import("./restore")).refresh(c, env, options),
).option("--yes", "without asking");
command(
  "abort <env>",
  "stop a running rollout, from any machine",
  async (c, env: string, options: { reason: string }) =>
    (await import("./abort")).abort(c, env, options),
).requiredOption("--reason <text>", "why");
command("hold <tag>", "let an image go no further", async (c, tag: string, o: { reason: string }) =>
  (await import("./hold")).hold(c, tag, o),
).requiredOption("--reason <text>", "why");
command(
  "unhold <tag>",
  "let an image move again",
  async (c, tag: string, options: { reason: string }) =>
    (await import("./hold")).unhold(c, tag, options),
).requiredOption("--reason <text>", "why");
command("stop", "let nothing go forward, anywhere", async (c, options: LineOptions) =>
  (await import("./hold")).stop(c, options),
)
  .requiredOption("--reason <text>", "why")
  .option("--all", "all projects of the repository");
command("resume", "let it go on", async (c, options: LineOptions) =>
  (await import("./hold")).resume(c, options),
)
  .requiredOption("--reason <text>", "why")
  .option("--all", "what `stop --all` has stopped");
command(
  "sign-off <env> <name>",
  "say that an environment's release may move on",
  async (c, env: string, name: string, options: { tag?: string }) =>
    (await import("./sign-off")).signOff(c, env, name, options),
).option("--tag <tag>", "another than it has earned last");
command("review <env>", "say that a hotfix is all right", async (c, env: string) =>
  (await import("./sign-off")).review(c, env),
);
command(
  "attach-scan <tag>",
  "give an image Trivy's report on it, for baton:scan",
  async (c, tag: string, options: { report: string }) =>
    (await import("./attach-scan")).attachScan(c, tag, options),
).requiredOption("--report <file>", "what `trivy image --format json` has written");
command(
  "notify <env>",
  "tell Slack that a build has failed",
  async (c, env: string, options: NotifyOptions) =>
    (await import("./notify")).notify(c, env, options),
)
  .requiredOption("--failed <gate>", "what did not pass, such as lint")
  .requiredOption("--revision <commit>", "what was built")
  .option("--build <tag>", "the build's tag")
  .option("--committer <email>", "whom to tell; whoever committed it unless given")
  .option("--url <address>", "where the log is");

command(
  "pipeline <ref>",
  "do what the table says of a push, refs/heads/BRANCH or refs/tags/TAG; or deploy the latest request of an environment",
  async (c, ref: string, options: { tag?: string; source?: string }) =>
    (await import("./pipeline")).pipeline(c, ref, options),
)
  .option("--tag <tag>", "the build that was made of the push")
  .option("--source <folder>", "the application's repository, where it is another one");
command(
  "preview [environment]",
  "what the stack files would change that differ from a commit's, or one of another commit",
  async (c, environment: string | undefined, options: { base?: string; of?: string }) =>
    (await import("./preview")).preview(c, environment, options),
)
  .option("--base <commit>", "such as origin/main: every stack file that differs from it")
  .option("--of <commit>", "the environment's stack file there, and nothing else of that commit");
command(
  "publish <tag>",
  "push a build under its number, once",
  async (c, tag: string, options: { image: string }) =>
    (await import("./publish")).publish(c, tag, options),
).requiredOption("--image <name>", "the image on this machine");

function parseCount(text: string): number {
  const count = Number(text);
  if (Number.isInteger(count) && count > 0) return count;
  throw new InvalidArgumentError("expected a whole number from 1");
}

/** Opens what the command works on, and prints how it ended. */
async function run(
  subcommand: Command,
  action: (context: Context) => Promise<Report>,
): Promise<void> {
  const { cwd, json = false } = subcommand.optsWithGlobals<{ cwd: string; json?: boolean }>();
  const notes: string[] = [];
  let report: Report;
  let context: Context | undefined;
  try {
    context = await openContext(resolve(cwd), {
      print: json ? () => {} : (text) => console.log(text),
      isQuiet: json,
      ...(json ? { showProgress: showNothing } : {}),
    });
    try {
      report = await action(context);
    } finally {
      await context.settle();
      notes.push(...context.notes);
    }
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    const problems = error instanceof Refusal ? message.split("\n") : [message];
    report = { outcome: context?.pulumi.hasTouched ? "failed" : "refused", problems };
    if (!json) console.error(printable(message));
  }
  if (json) {
    const document = { version: JSON_VERSION, command: subcommand.name(), ...report, notes };
    console.log(plainJson(JSON.stringify(document, undefined, 2)));
  } else {
    for (const note of notes) console.error(printable(note));
  }
  process.exitCode = EXIT_CODES[report.outcome];
}

/** npm runs scripts in its package's folder, and says where it was called. */
function startFolder(): string {
  const called = process.env["npm_lifecycle_event"] === "baton" && process.env["INIT_CWD"];
  return called || process.cwd();
}

// A pipe that was closed at its other end, such as that of `| head`, ends no command half way.
for (const stream of [process.stdout, process.stderr]) stream.on("error", () => undefined);

program.parseAsync().catch((error: unknown) => {
  if (error instanceof CommanderError) {
    process.exitCode = error.exitCode === 0 ? 0 : EXIT_CODES.usage;
    return;
  }
  console.error(printable(error instanceof Error ? error.message : String(error)));
  process.exitCode = EXIT_CODES.refused;
});
