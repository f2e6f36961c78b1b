import type { FastifyInstance } from "fastify";
import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from "prom-client";

const LABELS = ["method", "route", "status"] as const;
/** In seconds: fine where a user would notice, up to what a client would wait. */
const BUCKETS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5];

/** The process's own metrics, and which release it is. */
export function createRegistry(version: string, revision: string): Registry {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  new Gauge({
    name: "app_info",
    help: "The release that runs; always 1",
    labelNames: ["version", "revision"],
    registers: [registry],
  }).set({ version, revision }, 1);
  return registry;
}

/**
 * Counts and times the requests to every route of this context. Those to unknown paths count as
 * one route: clients must not be able to make series.
 */
export function measureRequests(app: FastifyInstance, registry: Registry): void {
  const registers = [registry];
  const total = new Counter({
    name: "http_requests_total",
    help: "Requests answered",
    labelNames: LABELS,
    registers,
  });
  const duration = new Histogram({
    name: "http_request_duration_seconds",
    help: "How long requests took",
    labelNames: LABELS,
    buckets: BUCKETS,
    registers,
  });
  app.addHook("onResponse", (request, reply, done) => {
    const labels = {
      method: request.method,
      route: request.routeOptions.url ?? "unknown",
      status: String(reply.statusCode),
    };
    total.inc(labels);
    duration.observe(labels, reply.elapsedTime / 1000);
    done();
  });
}
