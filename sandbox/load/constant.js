// A constant load on one URL, whatever answers there; load.ts starts it and reads what it prints.
import http from "k6/http";
import { Trend } from "k6/metrics";

const { URL, CONNECTIONS, HOSTS } = __ENV;
const PER_SECOND = Number(__ENV.PER_SECOND);
const UNKNOWN = "unknown";
const VERSIONS = [...JSON.parse(__ENV.VERSIONS), UNKNOWN];
const OUTCOMES = ["ok", "failed"];

const partOf = (version, outcome) => `answers{version:${version},outcome:${outcome}}`;
const PARTS = VERSIONS.flatMap((version) => OUTCOMES.map((outcome) => partOf(version, outcome)));

export const options = {
  scenarios: {
    load: {
      executor: "constant-arrival-rate",
      rate: PER_SECOND,
      timeUnit: "1s",
      duration: `${__ENV.SECONDS}s`,
      // Enough for answers that take two seconds, and for five at most.
      preAllocatedVUs: Math.max(PER_SECOND * 2, 10),
      maxVUs: Math.max(PER_SECOND * 5, 10),
      gracefulStop: "5s",
    },
  },
  hosts: JSON.parse(HOSTS),
  noVUConnectionReuse: CONNECTIONS === "new",
  noConnectionReuse: CONNECTIONS === "new",
  // A summary has only those parts of a metric that a threshold names.
  thresholds: Object.fromEntries(PARTS.map((part) => [part, ["max>=0"]])),
  summaryTrendStats: ["count", "min", "max", "med", "p(95)", "p(99)"],
};

/** When each answer came, in milliseconds since 1970. */
const answers = new Trend("answers");

export default function () {
  const answer = http.get(URL, { timeout: "5s" });
  const outcome = answer.status >= 200 && answer.status < 400 ? "ok" : "failed";
  answers.add(Date.now(), { version: versionOf(answer), outcome });
}

/** Who answered: the `X-Version` header, or what podinfo's /version says. */
function versionOf({ status, headers, body }) {
  let version = headers["X-Version"];
  if (version === undefined && status === 200) {
    try {
      version = JSON.parse(body).commit;
    } catch {
      // An answer that does not say.
    }
  }
  return VERSIONS.includes(version) ? version : UNKNOWN;
}

export function handleSummary({ metrics }) {
  const { med, max, "p(95)": p95, "p(99)": p99 } = metrics.http_req_duration.values;
  const summary = {
    dropped: metrics.dropped_iterations?.values.count ?? 0,
    milliseconds: { median: med, p95, p99, max },
    parts: VERSIONS.flatMap((version) =>
      OUTCOMES.map((outcome) => {
        const { count, min, max: last } = metrics[partOf(version, outcome)].values;
        return { version, outcome, count, first: min, last };
      }),
    ),
  };
  return { stdout: JSON.stringify(summary) };
}
