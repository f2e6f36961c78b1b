import type { FastifyBaseLogger, FastifyPluginCallback } from "fastify";
import type { Registry } from "prom-client";
import { setTimeout } from "node:timers/promises";
import type { OrderStore } from "./store.js";

/** The schema this version needs, or a later one: migrations only expand. */
export const SCHEMA_HEAD = 3;
/** Less than Kubernetes waits for a probe. */
const READY_TIMEOUT_MILLISECONDS = 800;

export interface OperationsOptions {
  readonly store: Pick<OrderStore, "schemaVersion">;
  readonly registry: Registry;
  readonly version: string;
  readonly revision: string;
  readonly isDraining: () => boolean;
}

/** What the platform calls: probes, metrics, and which release this is. */
export const operations: FastifyPluginCallback<OperationsOptions> = (app, options, done) => {
  const { store, registry, version, revision, isDraining } = options;

  // Whether the process serves, whatever is behind it: a restart would not mend the database.
  app.get("/healthz", () => ({ status: "ok" }));

  app.get("/readyz", async (request, reply) => {
    const reason = isDraining() ? "shutting down" : await unready(store, request.log);
    if (reason === undefined) return { status: "ready" };
    return reply.code(503).send({ status: "not ready", reason });
  });

  app.get("/version", () => ({ version, revision, schemaHead: SCHEMA_HEAD }));

  app.get("/metrics", async (_, reply) =>
    reply.type(registry.contentType).send(await registry.metrics()),
  );
  done();
};

/** Why the service cannot work, or nothing. */
async function unready(
  store: OperationsOptions["store"],
  log: FastifyBaseLogger,
): Promise<string | undefined> {
  try {
    const schema = await Promise.race([
      store.schemaVersion(),
      setTimeout(READY_TIMEOUT_MILLISECONDS, undefined),
    ]);
    if (schema === undefined) return "the database does not answer";
    if (schema >= SCHEMA_HEAD) return undefined;
    return `the schema is at ${schema}; expected ${SCHEMA_HEAD} or later`;
  } catch (error) {
    // Its words may name hosts and users: they are for the log.
    log.warn({ err: error }, "the database cannot be reached");
    return "the database cannot be reached";
  }
}
