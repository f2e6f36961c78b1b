/*
 * npm run mocks: a payments service for working alone. It takes every charge, but declines those
 * whose amount ends in 13 cents.
 */
import fastify from "fastify";
import { pathToFileURL } from "node:url";

export function createPaymentsMock() {
  const app = fastify();
  app.post<{ Body: { amountCents: number } }>("/charges", async (request, reply) => {
    if (request.body.amountCents % 100 === 13) return reply.code(402).send({ error: "declined" });
    return reply.code(201).send({ id: `mock-${String(request.headers["idempotency-key"])}` });
  });
  return app;
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  const address = await createPaymentsMock().listen({
    host: "0.0.0.0",
    port: Number(process.env["PORT"] ?? 8081),
  });
  console.log(`The payments mock listens at ${address}`);
}
