import { Command, InvalidArgumentError, Option } from "commander";
import { isUp } from "../sandbox/host";
import { showOnTerminal } from "../sandbox/progress";
import { measureDelivery } from "./delivery";
import { measureLedger } from "./ledger";
import { measurePath } from "./path";
import { measurePreview } from "./preview";
import { showOnStandardError } from "./progress";
import { Report } from "./report";
import { formatTable } from "./table";
import { measureTagging } from "./tagging";
import { measureTool } from "./tool";

interface Options {
  readonly only?: (typeof MEASURES)[number];
  readonly rounds: number;
  readonly requests: number;
  readonly json?: boolean;
}

const MEASURES = ["preview", "tagging", "path", "tool", "ledger", "delivery"] as const;

new Command("bench")
  .description("Measures Baton against the same work done without it, on the sandbox.")
  .addOption(new Option("--only <measure>", "one measure").choices(MEASURES))
  .option("--rounds <count>", "how many previews of each", parseCount, 15)
  .option("--requests <count>", "how many requests each strategy is to bear", parseCount, 50_000)
  .option("--json", "print the figures as JSON")
  .showHelpAfterError()
  .configureOutput({ outputError: (text, write) => write(text.replace(/^error: /, "bench: ")) })
  .action(async ({ only, rounds, requests, json = false }: Options) => {
    if (!(await isUp())) throw new Error("the sandbox is not up; run `npm run sandbox` first");
    const report = json
      ? new Report(showOnStandardError, console.error)
      : new Report(showOnTerminal, console.log);
    const measures = {
      preview: () => measurePreview(report, rounds),
      tagging: () => measureTagging(report),
      path: () => measurePath(report),
      ledger: () => measureLedger(report),
      tool: () => measureTool(report),
      delivery: () => measureDelivery(report, requests),
    };
    for (const [name, measure] of Object.entries(measures)) {
      if (only === undefined || only === name) await report.attempt(name, measure);
    }
    const { figures, failures } = report;
    console.log(json ? JSON.stringify({ figures, failures }, undefined, 2) : formatTable(figures));
    for (const { step, reason } of failures) console.error(`bench: ${step} failed: ${reason}`);
    if (failures.length > 0) process.exitCode = 1;
  })
  .parseAsync()
  .catch((error: unknown) => {
    console.error(`bench: ${error instanceof Error ? error.message : String(error)}`);
    process.exitCode = 1;
  });

function parseCount(text: string): number {
  const count = Number(text);
  if (!Number.isInteger(count) || count < 1) {
    throw new InvalidArgumentError("expected a whole number from 1");
  }
  return count;
}
