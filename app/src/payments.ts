import createError from "@fastify/error";
import type { Order } from "./store.js";

export const PaymentDeclined = createError("PAYMENT_DECLINED", "The payment was declined", 402);
export const PaymentsAway = createError(
  "PAYMENTS_AWAY",
  "The payments service does not answer as it should: %s",
  502,
);

const TIMEOUT_MILLISECONDS = 2000;

/** The payments service, which others run. */
export class Payments {
  constructor(private readonly url: string) {}

  /**
   * Charges for an order; the same order is charged once, however often this is called.
   * @returns the payment's id.
   * @throws PaymentDeclined, PaymentsAway
   */
  async charge(order: Order): Promise<string> {
    let answer: Response;
    let body: unknown;
    try {
      answer = await fetch(new URL("/charges", this.url), {
        method: "POST",
        headers: { "content-type": "application/json", "idempotency-key": order.id },
        body: JSON.stringify({ amountCents: order.totalCents, currency: order.currency }),
        signal: AbortSignal.timeout(TIMEOUT_MILLISECONDS),
      });
      body = await answer.json().catch(() => undefined);
    } catch (error) {
      throw new PaymentsAway(error instanceof Error ? error.message : String(error), {
        cause: error,
      });
    }
    if (answer.status === 402) throw new PaymentDeclined();
    if (!answer.ok) throw new PaymentsAway(`status ${answer.status}`);
    if (!hasId(body)) throw new PaymentsAway("an answer without an id");
    return body.id;
  }
}

function hasId(body: unknown): body is { id: string } {
  return typeof body === "object" && body !== null && "id" in body && typeof body.id === "string";
}
