import pRetry, { AbortError } from "p-retry";
import { z } from "zod";

/** Of one request, in milliseconds. */
const TIMEOUT = 5_000;
const RETRIES = 2;
/** Variables: the token for a Prometheus that asks for one, and the `host[:port]` it is for. */
const TOKEN = "BATON_PROMETHEUS_TOKEN";
const TOKEN_HOST = "BATON_PROMETHEUS_HOST";

/** https://prometheus.io/docs/prometheus/latest/querying/api/#instant-queries */
const Value = z.tuple([z.number(), z.string()]);
const Answer = z.discriminatedUnion("resultType", [
  z.object({ resultType: z.literal("vector"), result: z.array(z.object({ value: Value })) }),
  z.object({ resultType: z.literal("scalar"), result: Value }),
]);
const Body = z.object({ data: Answer.optional(), error: z.string().optional() });

/** Prometheus has answered that it will never answer this. */
export class QueryError extends Error {}

/**
 * The one number that a query gives now, or at another time.
 * @returns `undefined` where there is none: no such series, or nothing to divide by.
 * @throws QueryError when the query is at fault, another Error when Prometheus is.
 */
export async function queryNumber(
  address: string,
  query: string,
  at?: Date,
): Promise<number | undefined> {
  const time = at === undefined ? {} : { time: String(at.getTime() / 1000) };
  const token = tokenFor(address);
  const request = async () => {
    const response = await fetch(`${address.replace(/\/$/, "")}/api/v1/query`, {
      method: "POST",
      body: new URLSearchParams({ query, ...time }),
      headers: token === undefined ? {} : { authorization: `Bearer ${token}` },
      signal: AbortSignal.timeout(TIMEOUT),
    });
    const body = Body.safeParse(await response.json().catch(() => undefined));
    // https://prometheus.io/docs/prometheus/latest/querying/api/#format-overview
    if (response.status === 400 || response.status === 422) {
      throw new AbortError(new QueryError(body.data?.error ?? `HTTP ${response.status}`));
    }
    if (!response.ok) throw new Error(`HTTP ${response.status}`);
    if (body.data?.data === undefined) throw new Error("its answer is not Prometheus's");
    return body.data.data;
  };
  try {
    const { resultType, result } = await pRetry(request, {
      retries: RETRIES,
      minTimeout: 250,
      // A failed connection is a TypeError to fetch, and is tried again as well.
      shouldRetry: ({ error }) => !(error instanceof QueryError),
    });
    if (resultType === "vector" && result.length > 1) {
      throw new QueryError(`it gives ${result.length} series; expected one, as sum(…) does`);
    }
    const [, text] = resultType === "vector" ? (result[0]?.value ?? []) : result;
    const value = text === undefined ? NaN : Number(text.replace("Inf", "Infinity"));
    return Number.isNaN(value) ? undefined : value;
  } catch (error) {
    if (error instanceof QueryError) throw error;
    throw new Error(`${address} does not answer: ${reasonOf(error)}`);
  }
}

/**
 * The token for a Prometheus; undefined where the token is for another host. A stack file chooses
 * the address, so a token without a host is given to none.
 */
function tokenFor(address: string): string | undefined {
  const token = process.env[TOKEN];
  if (!token) return undefined;
  const { host } = new URL(address);
  const own = process.env[TOKEN_HOST];
  if (!own) {
    throw new QueryError(
      `environment: ${TOKEN_HOST} is missing; expected the Prometheus that ${TOKEN} is for. ` +
        `Set it, as in ${TOKEN_HOST}=${host}.`,
    );
  }
  return own === host ? token : undefined;
}

/** Node keeps the reason of a failed connection in the error's cause. */
function reasonOf(error: unknown): string {
  const { cause, message } = error as Error & { cause?: { code?: string; message?: string } };
  return cause?.code ?? cause?.message ?? message;
}
