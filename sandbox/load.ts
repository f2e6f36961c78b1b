/* A constant load on whatever answers HTTP in the sandbox, from the user's side, by k6. */
import { execa } from "execa";
import { join } from "node:path";
import { BIN, ROOT } from "./folder";

export interface Load {
  /** A Service's address serves: the user's side has a route to them. Else see `hosts`. */
  readonly url: string;
  readonly perSecond: number;
  readonly seconds: number;
  /**
   * Who may answer: an answer's `X-Version` header, or the `commit` that podinfo's /version says.
   * Answers of nobody here count as `unknown`.
   */
  readonly versions: readonly string[];
  /**
   * `new`: one for each request, so that each is routed anew, as requests of many clients are.
   * `kept`: as one client with a pool has them; they stay with the pod they were opened to.
   */
  readonly connections?: "new" | "kept";
  /** Addresses, as HOST:PORT, of the hosts that no DNS knows. */
  readonly hosts?: Readonly<Record<string, string>>;
}

/** Answers of one version. */
export interface Answers {
  readonly requests: number;
  /** No answer within 5 s, none at all, or a status of 400 or above. */
  readonly failures: number;
  /** Milliseconds since 1970; absent where there was no such answer. */
  readonly first?: number;
  readonly last?: number;
  readonly firstFailure?: number;
  readonly lastFailure?: number;
}

export interface LoadResult extends Answers {
  /** Requests that could not be started in time: too many others were waiting for answers. */
  readonly dropped: number;
  readonly milliseconds: Readonly<Record<"median" | "p95" | "p99" | "max", number>>;
  /** Those that could be told apart, and `unknown`. */
  readonly byVersion: Readonly<Record<string, Answers>>;
}

interface Summary extends Pick<LoadResult, "dropped" | "milliseconds"> {
  readonly parts: readonly {
    readonly version: string;
    readonly outcome: "ok" | "failed";
    readonly count: number;
    readonly first: number;
    readonly last: number;
  }[];
}

export interface RunningLoad {
  /** @throws Error when k6 fails, which no answer makes it do. */
  readonly result: Promise<LoadResult>;
  /** Ends it before its time; the result is of what was until then. */
  readonly stop: () => void;
}

/** Starts a load. It lasts its time, whatever it meets. */
export function startLoad({
  url,
  perSecond,
  seconds,
  versions,
  connections = "new",
  hosts = {},
}: Load): RunningLoad {
  const script = join(ROOT, "sandbox/load/constant.js");
  const run = execa(
    join(BIN, "k6"),
    ["run", "--quiet", "--no-usage-report", "--log-output=none", script],
    {
      env: {
        URL: url,
        PER_SECOND: String(perSecond),
        SECONDS: String(seconds),
        VERSIONS: JSON.stringify(versions),
        CONNECTIONS: connections,
        HOSTS: JSON.stringify(hosts),
      },
      reject: false,
    },
  );
  const result = run.then(({ stdout, stderr, failed, exitCode }) => {
    // Stopped, k6 says so by its exit code, and has its summary.
    if (stdout === "") throw new Error(`k6 ended with ${exitCode ?? failed}: ${stderr}`);
    return readSummary(JSON.parse(stdout) as Summary);
  });
  return { result, stop: () => run.kill("SIGINT") };
}

function readSummary({ dropped, milliseconds, parts }: Summary): LoadResult {
  const versions = [...new Set(parts.map(({ version }) => version))];
  const byVersion = versions.map((name): [string, Answers] => [
    name,
    addUp(parts.filter(({ version }) => version === name)),
  ]);
  return { ...addUp(parts), dropped, milliseconds, byVersion: Object.fromEntries(byVersion) };
}

function addUp(parts: Summary["parts"]): Answers {
  const some = parts.filter(({ count }) => count > 0);
  const failed = some.filter(({ outcome }) => outcome === "failed");
  const sum = (of: Summary["parts"]) => of.reduce((total, { count }) => total + count, 0);
  const span = (of: Summary["parts"]) =>
    [Math.min(...of.map(({ first }) => first)), Math.max(...of.map(({ last }) => last))] as const;
  const answers = { requests: sum(some), failures: sum(failed) };
  if (some.length === 0) return answers;
  const [first, last] = span(some);
  if (failed.length === 0) return { ...answers, first, last };
  const [firstFailure, lastFailure] = span(failed);
  return { ...answers, first, last, firstFailure, lastFailure };
}
