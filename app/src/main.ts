import closeWithGrace from "close-with-grace";
import pg from "pg";
import { setTimeout } from "node:timers/promises";
import { createApp } from "./app.js";
import { readConfig } from "./config.js";
import { Payments } from "./payments.js";
import { OrderStore } from "./store.js";

/** How long requests that have begun may take once clients have gone elsewhere. */
const CLOSE_MILLISECONDS = 10_000;

const config = readConfig(process.env);
const pool = new pg.Pool({
  connectionString: config.DATABASE_URL,
  application_name: `orders ${config.APP_VERSION}`,
  max: 10,
  connectionTimeoutMillis: 3000,
  statement_timeout: 5000,
});
const { server, drain } = await createApp(config, {
  store: new OrderStore(pool),
  payments: new Payments(config.PAYMENTS_URL),
});
// An idle connection that the server ends is replaced by the next query.
pool.on("error", (error) => server.log.warn({ err: error }, "lost a database connection"));

closeWithGrace(
  { delay: config.DRAIN_SECONDS * 1000 + CLOSE_MILLISECONDS, logger: server.log },
  async ({ signal, err }) => {
    if (err !== undefined) {
      server.log.fatal({ err }, "ending");
    } else {
      server.log.info({ signal }, "shutting down");
      drain();
      await setTimeout(config.DRAIN_SECONDS * 1000);
    }
    await server.close();
  },
);

await server.listen({ host: "0.0.0.0", port: config.PORT });
