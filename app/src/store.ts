import { DatabaseError, type Pool } from "pg";

export interface NewOrder {
  readonly customer: string;
  readonly item: string;
  readonly quantity: number;
  readonly unitPriceCents: number;
  /** ISO 4217. */
  readonly currency: string;
}

export interface Order extends NewOrder {
  readonly id: string;
  readonly totalCents: number;
  readonly status: "open" | "paid";
  /** ISO 8601. */
  readonly createdAt: string;
  readonly paidAt: string | null;
}

interface Row {
  readonly id: string;
  readonly customer: string;
  readonly item: string;
  readonly quantity: number;
  readonly unit_price_cents: number;
  readonly currency: string;
  readonly created_at: Date;
  readonly paid_at: Date | null;
}

/** Each column by name: a newer schema may have more. */
const COLUMNS = "id, customer, item, quantity, unit_price_cents, currency, created_at, paid_at";
const UNDEFINED_TABLE = "42P01";

/** Orders in PostgreSQL. */
export class OrderStore {
  constructor(private readonly pool: Pool) {}

  async create(order: NewOrder): Promise<Order> {
    const { customer, item, quantity, unitPriceCents, currency } = order;
    const { rows } = await this.pool.query<Row>(
      `INSERT INTO orders (customer, item, quantity, unit_price_cents, currency)
       VALUES ($1, $2, $3, $4, $5) RETURNING ${COLUMNS}`,
      [customer, item, quantity, unitPriceCents, currency],
    );
    return toOrder(only(rows));
  }

  async find(id: string): Promise<Order | undefined> {
    const { rows } = await this.pool.query<Row>(`SELECT ${COLUMNS} FROM orders WHERE id = $1`, [
      id,
    ]);
    return rows[0] && toOrder(rows[0]);
  }

  /** The newest first. */
  async list(limit: number): Promise<Order[]> {
    const { rows } = await this.pool.query<Row>(
      `SELECT ${COLUMNS} FROM orders ORDER BY created_at DESC, id LIMIT $1`,
      [limit],
    );
    return rows.map(toOrder);
  }

  /** Marks an order as paid, unless it is. */
  async markPaid(id: string, paymentId: string): Promise<Order> {
    const { rows } = await this.pool.query<Row>(
      `UPDATE orders SET payment_id = coalesce(payment_id, $2), paid_at = coalesce(paid_at, now())
       WHERE id = $1 RETURNING ${COLUMNS}`,
      [id, paymentId],
    );
    return toOrder(only(rows));
  }

  /** The schema's version: the number of the newest migration that has run, 0 without any. */
  async schemaVersion(): Promise<number> {
    try {
      const { rows } = await this.pool.query<{ version: number }>(
        "SELECT coalesce(max(split_part(name, '_', 1)::integer), 0) AS version FROM pgmigrations",
      );
      return only(rows).version;
    } catch (error) {
      if (error instanceof DatabaseError && error.code === UNDEFINED_TABLE) return 0;
      throw error;
    }
  }

  async close(): Promise<void> {
    await this.pool.end();
  }
}

function only<T>(rows: readonly T[]): T {
  const [row] = rows;
  if (row === undefined) throw new Error("PostgreSQL answered without a row.");
  return row;
}

function toOrder(row: Row): Order {
  return {
    id: row.id,
    customer: row.customer,
    item: row.item,
    quantity: row.quantity,
    unitPriceCents: row.unit_price_cents,
    currency: row.currency,
    totalCents: row.quantity * row.unit_price_cents,
    status: row.paid_at === null ? "open" : "paid",
    createdAt: row.created_at.toISOString(),
    paidAt: row.paid_at?.toISOString() ?? null,
  };
}
