import { runner } from "node-pg-migrate";
import pg from "pg";
import { readdir } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { OrderStore } from "./store.js";

const FOLDER = fileURLToPath(new URL("../migrations", import.meta.url));

export interface Schema {
  /** The number of the newest migration that has run, 0 without any. */
  readonly version: number;
  /** The number of the newest migration there is. */
  readonly head: number;
}

type Log = (text: string) => void;

/** Where the schema stands. */
export async function readSchema(databaseUrl: string): Promise<Schema> {
  const store = new OrderStore(new pg.Pool({ connectionString: databaseUrl, max: 1 }));
  try {
    const numbers = (await readdir(FOLDER)).map((name) => Number(name.split("_")[0]));
    return { version: await store.schemaVersion(), head: Math.max(0, ...numbers) };
  } finally {
    await store.close();
  }
}

/**
 * Runs the migrations up to a number, or all; or back down to a number. Each has a transaction of
 * its own, and all run under one lock: who comes second waits, and finds nothing left to do.
 */
export async function migrate(
  databaseUrl: string,
  way: { readonly direction: "up"; readonly to?: number } | { direction: "down"; to: number },
  log: Log,
): Promise<void> {
  const { direction, to } = way;
  await runner({
    databaseUrl,
    dir: FOLDER,
    migrationsTable: "pgmigrations",
    direction,
    // Up, those numbered so or less; down, those numbered so or more.
    timestamp: true,
    count: direction === "up" ? (to ?? Number.POSITIVE_INFINITY) : to + 1,
    singleTransaction: false,
    advisoryLockMode: "wait",
    log,
  });
}
