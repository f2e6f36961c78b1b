import type { TypeBoxTypeProvider } from "@fastify/type-provider-typebox";
import fastify, { type FastifyError, type FastifyInstance } from "fastify";
import type { Config } from "./config.js";
import { injectFault, parseFault } from "./faults.js";
import { createRegistry, measureRequests } from "./metrics.js";
import { operations } from "./operations.js";
import { orders, type OrdersOptions } from "./orders.js";
import type { OrderStore } from "./store.js";

export interface Behind {
  readonly store: OrdersOptions["store"] & Pick<OrderStore, "schemaVersion" | "close">;
  readonly payments: OrdersOptions["payments"];
}

export interface App {
  readonly server: FastifyInstance;
  /** From now on clients are told to go elsewhere, though their requests are still answered. */
  readonly drain: () => void;
}

type Settings = Pick<Config, "LOG_LEVEL" | "APP_VERSION" | "APP_REVISION" | "FAULT">;

/** The service, not listening yet. */
export async function createApp(settings: Settings, { store, payments }: Behind): Promise<App> {
  const { APP_VERSION: version, APP_REVISION: revision } = settings;
  const fault = parseFault(settings.FAULT);
  const registry = createRegistry(version, revision);
  let draining = false;

  const server = fastify({
    logger: { level: settings.LOG_LEVEL, base: { version } },
    // A refusal would be an error that only a deployment has caused.
    return503OnClosing: false,
  }).withTypeProvider<TypeBoxTypeProvider>();

  server.addHook("onSend", (_, reply, payload, done) => {
    if (draining) reply.header("connection", "close");
    done(null, payload);
  });
  server.addHook("onClose", () => store.close());
  server.setErrorHandler((error: FastifyError, request, reply) => {
    const status = error.statusCode ?? 500;
    if (status >= 500) request.log.error({ err: error }, "request failed");
    // What broke inside is for the log; an error of our own has words for the client.
    const expected = error.statusCode !== undefined;
    const message = expected ? error.message : "Something went wrong";
    const code = expected ? error.code : "INTERNAL";
    return reply.code(status).send({ statusCode: status, code, message });
  });

  const isDraining = () => draining;
  await server.register(operations, {
    store,
    registry,
    version,
    revision,
    isDraining,
    // Probes would drown the requests of users.
    logLevel: settings.LOG_LEVEL === "info" ? "warn" : settings.LOG_LEVEL,
  });
  await server.register(async (api) => {
    measureRequests(api, registry);
    if (fault !== undefined) {
      server.log.warn({ fault }, "this process is bad on purpose");
      injectFault(api, fault);
    }
    await api.register(orders, { store, payments });
    // Of this context, so that requests to unknown paths are measured too.
    api.setNotFoundHandler((request, reply) =>
      reply.code(404).send({
        statusCode: 404,
        code: "ROUTE_NOT_FOUND",
        message: `There is no ${request.method} ${request.url}`,
      }),
    );
  });
  return { server, drain: () => (draining = true) };
}
