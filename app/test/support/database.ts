import pg from "pg";

export interface TestDatabase {
  readonly url: string;
  readonly drop: () => Promise<void>;
}

/**
 * Makes a new, empty database beside the one that DATABASE_URL names, whose user must be allowed to.
 */
export async function createDatabase(): Promise<TestDatabase> {
  const given = process.env["DATABASE_URL"];
  if (given === undefined) {
    throw new Error(
      "DATABASE_URL is missing; expected a PostgreSQL to test with. `docker compose up -d postgres` starts one.",
    );
  }
  const name = `test_${process.pid}_${Date.now()}`;
  const url = new URL(given);
  url.pathname = `/${name}`;
  await query(given, `CREATE DATABASE ${name}`);
  const drop = async () => {
    await query(given, `DROP DATABASE ${name} WITH (FORCE)`);
  };
  return { url: url.href, drop };
}

/** Runs one statement on a connection of its own. */
export async function query(databaseUrl: string, text: string): Promise<unknown[]> {
  const client = new pg.Client({ connectionString: databaseUrl });
  await client.connect();
  try {
    return (await client.query<Record<string, unknown>>(text)).rows;
  } finally {
    await client.end();
  }
}
