import { Command } from "commander";
import { resolve } from "node:path";
import { approve, reject } from "./approve";
import { openContext, type Context } from "./context";
import { deploy } from "./deploy";
import { request } from "./request";
import { rollback } from "./rollback";
import { status } from "./status";

const program = new Command("baton")
  .description("Promotes a release behind an approved preview, and gets back.")
  .option("-C, --cwd <folder>", "the Pulumi project's folder", startFolder())
  .showHelpAfterError()
  .configureOutput({ outputError: (text, write) => write(text.replace(/^error: /, "baton: ")) });

program
  .command("status")
  .description("the path at a glance: what runs where, and what could move")
  .option("--json", "as JSON")
  .action(run((context, options: { json?: boolean }) => status(context, options)));

program
  .command("request <env>")
  .description("ask for what the upstream has earned, behind a preview")
  .option("--tag <tag>", "another tag; required where builds are taken")
  .option("--version <version>", "the release's name, where releases are versioned")
  .action(
    run((context, env: string, options: { tag?: string; version?: string }) =>
      request(context, env, options),
    ),
  );

program
  .command("approve <env>")
  .description("say yes to the latest request")
  .action(run((context, env: string) => approve(context, env)));

program
  .command("reject <env>")
  .description("say no to the latest request")
  .requiredOption("--reason <text>", "why")
  .action(
    run((context, env: string, { reason }: { reason: string }) => reject(context, env, reason)),
  );

program
  .command("deploy <env>")
  .description("deploy the latest request, and go back when that fails")
  .option("--yes", "without asking")
  .action(run((context, env: string, options: { yes?: boolean }) => deploy(context, env, options)));

program
  .command("rollback <env>")
  .description("go back to the former release at once")
  .option("--to <tag>", "to this one, which was deployed here before")
  .action(run((context, env: string, options: { to?: string }) => rollback(context, env, options)));

/** A command that says false has not done what it was asked to. */
function run<Arguments extends unknown[]>(
  command: (context: Context, ...args: Arguments) => Promise<unknown>,
): (...args: Arguments) => Promise<void> {
  return async (...args) => {
    const { cwd } = program.opts<{ cwd: string }>();
    const context = await openContext(resolve(cwd), (text) => console.log(text));
    if ((await command(context, ...args)) === false) process.exitCode = 1;
  };
}

/** npm runs scripts in its package's folder, and says where it was called. */
function startFolder(): string {
  const called = process.env["npm_lifecycle_event"] === "baton" && process.env["INIT_CWD"];
  return called || process.cwd();
}

program.parseAsync().catch((error: unknown) => {
  console.error(error instanceof Error ? error.message : String(error));
  process.exitCode = 1;
});
