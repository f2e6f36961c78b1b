/*
 * node dist/migrate.js [up [--to N] | down --to N | status]
 *
 * Brings the database's schema to the newest version, or to another one; `status` prints
 * `{"version":2,"head":3}` and changes nothing.
 */
import { parseArgs } from "node:util";
import { pino } from "pino";
import { readDatabaseUrl } from "./config.js";
import { migrate, readSchema } from "./migrations.js";

async function main(): Promise<void> {
  const { positionals, values } = parseArgs({
    options: { to: { type: "string" } },
    allowPositionals: true,
  });
  const [command = "up", ...others] = positionals;
  if (others.length > 0) throw new Error(`${others.join(" ")} is too much; expected one command`);
  const to = values.to === undefined ? undefined : Number(values.to);
  if (to !== undefined && !(Number.isSafeInteger(to) && to >= 0)) {
    throw new Error(`--to is ${String(values.to)}; expected the number of a migration, or 0`);
  }
  const databaseUrl = readDatabaseUrl(process.env);
  const log = pino();
  const say = (text: string) => log.info(text);
  switch (command) {
    case "up":
      await migrate(databaseUrl, { direction: "up", ...(to === undefined ? {} : { to }) }, say);
      break;
    case "down":
      if (to === undefined) throw new Error("down needs --to, the number to go back to");
      await migrate(databaseUrl, { direction: "down", to }, say);
      break;
    case "status":
      console.log(JSON.stringify(await readSchema(databaseUrl)));
      return;
    default:
      throw new Error(`there is no command ${command}; expected up, down or status`);
  }
  log.info(await readSchema(databaseUrl), "migrated");
}

main().catch((error: unknown) => {
  console.error(`migrate: ${error instanceof Error ? error.message : String(error)}`);
  process.exitCode = 1;
});
