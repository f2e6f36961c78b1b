/*
 * The sandbox's PostgreSQL, Debian's own. The first half runs in the node, the second wherever
 * somebody needs a database.
 */
import { execa } from "execa";
import { randomBytes } from "node:crypto";
import { chmod, chown, mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { DEBIAN, exists, libraries, NETWORK, NODE } from "./folder";

const PORT = 5432;
/** Reached from pods and from the user's side. */
export const POSTGRES = `${NETWORK.inside}:${PORT}`;

const FOLDER = join(NODE, "postgres");
const PASSWORDS = join(FOLDER, "passwords.json");
const PROGRAMS = "usr/lib/postgresql/15/bin";
/** Debian's `nobody`: the server refuses to run as root, and initdb one whose user has no name. */
const NOBODY = { uid: 65534, gid: 65534 };
/** The owner of every environment's database. */
const OWNER = "app";

interface Passwords {
  readonly postgres: string;
  readonly app: string;
}

/** How the node starts a part under another user. */
export interface Server {
  readonly command: string;
  readonly args: readonly string[];
  readonly options: { readonly uid: number; readonly gid: number; readonly env: NodeJS.ProcessEnv };
}

/**
 * Makes the server ready to be started; its data is kept from one start to the next.
 * @param mounts A folder that is the node's alone.
 */
export async function preparePostgres(mounts: string): Promise<Server> {
  // Nobody need not be let into the folders that lead to the sandbox's.
  const home = join(mounts, "postgres");
  const debian = join(mounts, "debian");
  await mkdir(FOLDER, { recursive: true });
  await chmod(FOLDER, 0o755);
  for (const [from, to] of [
    [FOLDER, home],
    [join(DEBIAN, "lib"), join(debian, "lib")],
    [join(DEBIAN, "usr"), join(debian, "usr")],
  ] as const) {
    await mkdir(to, { recursive: true });
    await execa("mount", ["--bind", from, to]);
  }
  const options = { ...NOBODY, env: { LD_LIBRARY_PATH: await libraries(debian) } };
  const data = join(home, "data");
  if (!(await exists(data))) await makeCluster(home, join(debian, PROGRAMS, "initdb"), options);
  // The former server's, which had no time to remove it; its process number may be another's now.
  await rm(join(data, "postmaster.pid"), { force: true });
  const settings = {
    listen_addresses: NETWORK.inside,
    port: PORT,
    unix_socket_directories: "",
    // What a sandbox loses in a power cut is worth less than a disk flush on every commit.
    fsync: "off",
    shared_buffers: "32MB",
    // Ends with the node's own IPC namespace; files in /dev/shm would not.
    dynamic_shared_memory_type: "sysv",
    // A statement that fails may hold a password.
    log_min_error_statement: "panic",
  };
  const args = Object.entries(settings).flatMap(([name, value]) => ["-c", `${name}=${value}`]);
  return { command: join(debian, PROGRAMS, "postgres"), args: ["-D", data, ...args], options };
}

async function makeCluster(
  home: string,
  initdb: string,
  options: Server["options"],
): Promise<void> {
  const random = () => randomBytes(24).toString("base64url");
  const passwords: Passwords = { postgres: random(), app: random() };
  await writeFile(PASSWORDS, JSON.stringify(passwords), { mode: 0o600 });
  const work = join(home, "unfinished");
  await rm(work, { recursive: true, force: true });
  await mkdir(work);
  await chown(work, NOBODY.uid, NOBODY.gid);
  const passwordFile = join(work, "password");
  await writeFile(passwordFile, passwords.postgres, { mode: 0o600 });
  await chown(passwordFile, NOBODY.uid, NOBODY.gid);
  const data = join(work, "data");
  await execa(
    initdb,
    [
      ...["--pgdata", data, "--username", "postgres", "--pwfile", passwordFile],
      ...["--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync"],
    ],
    { ...options, cwd: work },
  );
  await writeFile(join(data, "pg_hba.conf"), "host all all all scram-sha-256\n");
  await rename(data, join(home, "data"));
  await rm(work, { recursive: true });
}

/** Whether the server takes connections. */
export async function postgresReady(): Promise<boolean> {
  const args = ["--host", NETWORK.inside, "--port", String(PORT), "--timeout", "1"];
  return (await client("pg_isready", args, {}).catch(() => undefined)) !== undefined;
}

/**
 * The URL of an environment's database, `app_NAME`, with its password: made, and owned by the user
 * `app`, unless it is there. Tests that must not meet each other's data take names of their own.
 * @throws Error when the sandbox is not up.
 */
export async function databaseUrl(name: string): Promise<string> {
  if (!/^[a-z][a-z0-9_]*$/.test(name)) {
    throw new Error(`the database's name is ${name}; expected small letters, digits and _`);
  }
  const database = `${OWNER}_${name}`;
  const { app } = await readPasswords();
  const superuser = await superuserUrl();
  // One at a time: PostgreSQL has no CREATE DATABASE IF NOT EXISTS.
  await runSql(
    superuser,
    `SELECT pg_advisory_lock(1);
SELECT $$CREATE ROLE ${OWNER} LOGIN PASSWORD '${app}'$$
  WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '${OWNER}') \\gexec
SELECT 'CREATE DATABASE ${database} OWNER ${OWNER}'
  WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = '${database}') \\gexec`,
  );
  return url(OWNER, app, database);
}

/** The URL of a database for the superuser `postgres`. */
export async function superuserUrl(database = "postgres"): Promise<string> {
  return url("postgres", (await readPasswords()).postgres, database);
}

/**
 * Runs SQL, and psql's own commands, with psql; the first error ends it.
 * @returns The rows, one a line, columns separated by `|`.
 */
export async function runSql(databaseUrl: string, sql: string): Promise<string> {
  const { hostname, port, username, password, pathname } = new URL(databaseUrl);
  const args = ["--no-psqlrc", "--quiet", "--no-align", "--tuples-only"];
  return client("psql", [...args, "--set", "ON_ERROR_STOP=1"], {
    input: sql,
    // On the command line everybody on the machine could read it.
    env: {
      PGHOST: hostname,
      PGPORT: port,
      PGUSER: username,
      PGPASSWORD: password,
      PGDATABASE: pathname.slice(1),
    },
  });
}

async function client(
  program: string,
  args: readonly string[],
  options: { readonly input?: string; readonly env?: Readonly<Record<string, string>> },
): Promise<string> {
  const env = { ...options.env, ...(await clientEnvironment()) };
  const { stdout } = await execa(program, args, { ...options, env });
  return stdout;
}

/** Where `psql` and its like are found. */
export async function clientEnvironment(): Promise<Readonly<Record<string, string>>> {
  const path = [join(DEBIAN, PROGRAMS), process.env["PATH"]].join(":");
  return { PATH: path, LD_LIBRARY_PATH: await libraries(DEBIAN) };
}

async function readPasswords(): Promise<Passwords> {
  return JSON.parse(await readFile(PASSWORDS, "utf8")) as Passwords;
}

function url(user: string, password: string, database: string): string {
  return `postgresql://${user}:${password}@${POSTGRES}/${database}`;
}
