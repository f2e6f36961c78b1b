/* npm run seed: some orders to work with; those that are there already stay as they are. */
import pg from "pg";
import { readDatabaseUrl } from "./config.js";

const ORDERS = [
  ["00000000-0000-4000-8000-000000000001", "Ada", "Tea, 100 g", 2, 650, "EUR"],
  ["00000000-0000-4000-8000-000000000002", "Grace", "Teapot", 1, 4200, "USD"],
  ["00000000-0000-4000-8000-000000000003", "Edsger", "Cup", 4, 1150, "EUR"],
];

async function main(): Promise<void> {
  const pool = new pg.Pool({ connectionString: readDatabaseUrl(process.env), max: 1 });
  try {
    for (const order of ORDERS) {
      await pool.query(
        `INSERT INTO orders (id, customer, item, quantity, unit_price_cents, currency)
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (id) DO NOTHING`,
        order,
      );
    }
  } finally {
    await pool.end();
  }
}

main().catch((error: unknown) => {
  console.error(`seed: ${error instanceof Error ? error.message : String(error)}`);
  process.exitCode = 1;
});
