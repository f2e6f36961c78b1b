import { ApiException, BatchV1Api } from "@kubernetes/client-node";
import { z } from "zod";
import { Refusal } from "../ledger/refusal";
import type { StackConfig } from "../ledger/stack-config";
import { parseJson } from "../release/json";
import { endAsTouched } from "./bookkeeping";
import { clusterOf, type Cluster } from "./cluster";
import { checkName, type Context, type Report } from "./context";
import { runDatabaseJob, type Answer } from "./database-job";
import { agrees, answer, needTerminal } from "./terminal";

export interface RestoreOptions {
  /** Its name; without one, all are listed. */
  readonly backup?: string;
  /** Without asking, into an empty database. */
  readonly yes?: boolean;
  /** With `yes`: without asking, in place of what the database holds. */
  readonly overwriteLive?: boolean;
}

const Backup = z.object({
  backup: z.string(),
  version: z.int(),
  at: z.string(),
  bytes: z.int(),
  tables: z.int(),
});
type Backup = z.infer<typeof Backup>;
const Holds = z.object({ empty: z.boolean(), version: z.int() });
const Restored = z.object({
  restored: z.string(),
  version: z.int(),
  tables: z.int(),
  rows: z.int(),
});

const RESTORE = "database-restore";
const REFRESH = "database-refresh";

/**
 * `baton restore ENV --backup NAME`: a backup in place of what the environment's database holds, all
 * of it or nothing, compared with the sums that were made with it. Asks once for an empty database,
 * twice for one that is not.
 */
export async function restore(
  context: Context,
  environment: string,
  options: RestoreOptions,
): Promise<Report> {
  return endAsTouched(context, environment, () => listOrRestore(context, environment, options));
}

async function listOrRestore(
  context: Context,
  environment: string,
  { backup: name, yes = false, overwriteLive = false }: RestoreOptions,
): Promise<Report> {
  const { cluster } = await open(context, environment);
  const { print } = context;
  const listed = await ask(context, environment, cluster, "look at the backups", {
    words: ["list"],
  });
  const backups = found(listed, Backup);
  const [holds] = found(listed, Holds);
  if (holds === undefined) throw failed(environment, "the list of backups", listed);
  if (name === undefined) {
    for (const line of table(backups)) print(line);
    return { outcome: "done", environment, backups, ...holds };
  }
  const backup = backups.find((one) => one.backup === name);
  if (backup === undefined) {
    throw new Refusal({
      where: environment,
      property: "--backup",
      value: name,
      expected: `one of ${backups.map((one) => one.backup).join(", ") || "the backups, of which there are none"}`,
      fix: `\`baton restore ${environment}\` lists them`,
    });
  }
  const what = `${environment}: backup ${name} of ${backup.at}, schema version ${backup.version}, ${backup.tables} tables`;
  if (!yes) {
    needTerminal("baton", holds.empty ? "--yes" : "--yes and --overwrite-live");
    const into = holds.empty ? "the empty database" : "the LIVE database";
    if (!(await agrees(`${what}\nRestore it into ${into}?`)))
      return unchanged(context, environment);
  }
  if (!holds.empty && !(yes && overwriteLive)) {
    needTerminal("baton", "--overwrite-live");
    const question =
      `The database holds data at schema version ${holds.version}. What was written since the backup ` +
      `will be gone from it, and kept in a backup of its own.\nType ${environment} to go on: `;
    if ((await answer(question)) !== environment) return unchanged(context, environment);
  }
  // First: of whatever is killed after it, the next deployment asks the database.
  await forgetMigration(context, environment, cluster);
  const env = { BACKUP: name, OVERWRITE: holds.empty ? "" : "yes" };
  const done = await ask(context, environment, cluster, `restore ${name}`, { env });
  const [restored] = found(done, Restored);
  if (restored === undefined) throw failed(environment, `the restore of ${name}`, done);
  const replaced = done.lines.flatMap((line) => /is in backup (\S+)$/.exec(line)?.[1] ?? [])[0];
  if (replaced !== undefined) {
    print(`${environment}: what was there is in backup ${replaced}.`);
  }
  print(
    `${environment}: ${name} is restored: ${restored.rows} rows in ${restored.tables} tables, the same as in the backup; schema version ${restored.version}.`,
  );
  return { outcome: "done", environment, ...restored, replaced };
}

/** `baton refresh ENV`: other data in place of what is there, as `baton:database.refresh` says. */
export async function refresh(
  context: Context,
  environment: string,
  { yes = false }: { readonly yes?: boolean },
): Promise<Report> {
  const { config, cluster } = await open(context, environment);
  if (config.database?.refresh === undefined) {
    throw new Refusal({
      where: environment,
      property: "baton:database.refresh",
      value: "not set",
      expected: "the data that may take the place of what is there",
      fix: "Declare it, where nobody needs what the database holds",
    });
  }
  if (!yes) {
    needTerminal("baton", "--yes");
    const question = `${environment}: all that the database holds will be gone. Go on?`;
    if (!(await agrees(question))) return unchanged(context, environment);
  }
  const done = await ask(context, environment, cluster, "refresh the data", {}, REFRESH);
  if (!done.succeeded) throw failed(environment, "the refresh", done);
  context.print(`${environment}: the data are fresh.`);
  return { outcome: "done", environment, job: done.job };
}

/** @throws Refusal for an environment without a database of its own. */
async function open(
  { project }: Context,
  environment: string,
): Promise<{ config: StackConfig; cluster: Cluster }> {
  checkName(environment);
  const config = await project.config(environment);
  if (config.database === undefined || config.database.follower) {
    throw new Refusal({
      where: environment,
      property: "baton:database",
      value: config.database === undefined ? "not set" : "a follower",
      expected: "a database of its own",
      fix: "Name the environment whose database it is",
    });
  }
  return { config, cluster: clusterOf(environment, config) };
}

function ask(
  { showProgress }: Context,
  environment: string,
  cluster: Cluster,
  title: string,
  asked: Parameters<typeof runDatabaseJob>[3],
  cronJob = RESTORE,
): Promise<Answer> {
  return showProgress(`${environment}: ${title}`, () =>
    runDatabaseJob(cluster, environment, cronJob, asked),
  );
}

/** The lines that are JSON of a kind. */
function found<T>({ lines }: Answer, kind: z.ZodType<T>): T[] {
  return lines.flatMap((line) => {
    if (!line.startsWith("{")) return [];
    const parsed = kind.safeParse(parseJson(line));
    return parsed.success ? [parsed.data] : [];
  });
}

/** The Jobs that have migrated do so again on the next deployment: what they made may be gone. */
async function forgetMigration(
  { pulumi, project, print, showProgress }: Context,
  environment: string,
  { kubeconfig }: Cluster,
): Promise<void> {
  const recorded = await pulumi.objects(environment);
  const jobs = recorded.filter(({ urn }) => JOB_OF_DATABASE.test(urn));
  if (jobs.length === 0) return;
  const batch = kubeconfig.makeApiClient(BatchV1Api);
  for (const { id } of jobs) {
    const [namespace = "", name = ""] = id.split("/");
    const propagationPolicy = "Foreground";
    await batch
      .deleteNamespacedJob({ namespace, name, propagationPolicy })
      .catch((error: unknown) => {
        if (!(error instanceof ApiException) || error.code !== 404) throw error;
      });
  }
  const stackFile = await project.read(environment);
  const urns = jobs.map(({ urn }) => urn);
  const forgotten = await showProgress(`${environment}: forget what has migrated`, (show) =>
    pulumi.forget(environment, stackFile, urns, show),
  );
  if (!forgotten) {
    print(
      `${environment}: somebody is at work on the stack. Before the next deployment, run ` +
        `\`pulumi refresh --stack ${environment}\`: else it takes the migration for done.`,
    );
  }
}

const JOB_OF_DATABASE = /baton:components:Database\$kubernetes:batch\/v1:Job::/;

function failed(environment: string, what: string, { lines, job }: Answer): Refusal {
  return new Refusal({
    where: environment,
    property: what,
    value: `failed (${lines.slice(-3).join("; ") || "it has said nothing"})`,
    expected: `the end of the Job ${job}`,
    fix: "Settle that, and run the same command again",
  });
}

function unchanged({ print }: Context, environment: string): Report {
  print(`${environment}: nothing was changed.`);
  return { outcome: "refused", environment };
}

function table(backups: readonly Backup[]): string[] {
  if (backups.length === 0) return ["There are no backups."];
  const rows = [...backups].sort((a, b) => a.at.localeCompare(b.at));
  const width = Math.max(...rows.map(({ backup }) => backup.length));
  return rows.map(
    ({ backup, at, version, tables, bytes }) =>
      `${backup.padEnd(width)}  ${at.replace("T", " ").replace(/:\d\dZ$/, "")}  schema ${version}, ${tables} tables, ${Math.ceil(bytes / 1024)} KiB`,
  );
}
