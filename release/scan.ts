import { fails, passes, waits, type Term } from "./gate";
import { formatTime } from "./time";

/** From the least to the worst. `unknown` also stands for what nobody has rated yet. */
export const SEVERITIES = ["unknown", "info", "low", "medium", "high", "critical"] as const;
export type Severity = (typeof SEVERITIES)[number];

/** One vulnerability of an image. */
export interface Finding {
  /** Such as CVE-2026-1234. */
  readonly id: string;
  readonly severity: Severity;
  /** Where it is: a package's name. */
  readonly in?: string | undefined;
}

/** What a scanner has found in an image. */
export interface Scan {
  /** The scanner. */
  readonly by: string;
  readonly at?: Date | undefined;
  readonly findings: readonly Finding[];
}

/** What is known of an image's vulnerabilities. */
export type ScanAnswer =
  | { readonly state: "known"; readonly scan: Scan }
  /** `running` passes with time, `missing` does not. */
  | { readonly state: "running" | "missing"; readonly says: string; readonly fix: string };

/** Which findings stop a release. */
export interface ScanPolicy {
  /** Findings of this severity, and worse. */
  readonly refuse: Severity;
  readonly exceptions: readonly {
    readonly id: string;
    readonly reason: string;
    /** The first day on which it counts no more, `2026-12-24`, in UTC. */
    readonly expires: string;
  }[];
}

/** As many findings as a message names. */
const NAMED = 10;

/** Whether an image may go on, by what its scan says and the policy excepts. */
export function scanTerm(
  environment: string,
  policy: ScanPolicy,
  answer: ScanAnswer,
  now: Date,
): Term {
  const about = { where: environment, property: "the image's scan" };
  if (answer.state !== "known") {
    const { says, fix } = answer;
    const expected = `findings to compare with baton:scan.refuse (${policy.refuse})`;
    const problem = { ...about, value: says, expected, fix };
    return answer.state === "running" ? waits("scan", says, problem) : fails("scan", says, problem);
  }
  const { refused } = judge(policy, answer.scan, now);
  if (refused.length === 0) return passes("scan", describeScan(answer, policy, now));
  const listed = refused.slice(0, NAMED).map((finding) => {
    const exception = exceptionOf(policy, finding.id);
    const over = exception === undefined ? [] : [`its exception expired on ${exception.expires}`];
    const details = [finding.severity, ...finding.places, ...over].join(", ");
    return `${finding.id} (${details})`;
  });
  const more = refused.length > NAMED ? [`and ${refused.length - NAMED} more`] : [];
  const says = `${count(refused.length, policy.refuse)}: ${[...listed, ...more].join("; ")}`;
  const problem = {
    ...about,
    value: says,
    expected: `none from ${policy.refuse} on, as baton:scan.refuse says, but what is excepted`,
    fix:
      "Build again with what is vulnerable replaced, or except it in baton:scan.exceptions with " +
      "a reason and an expiry",
  };
  return fails("scan", says, problem);
}

/** In one sentence without its full stop, for the card. */
export function describeScan(
  answer: ScanAnswer,
  policy: ScanPolicy | undefined,
  now: Date,
): string {
  if (answer.state !== "known") return `not known: ${answer.says}`;
  const { by, at, findings } = answer.scan;
  const all = group(findings);
  const counts = [...SEVERITIES].reverse().flatMap((severity) => {
    const number = all.filter((finding) => finding.severity === severity).length;
    return number === 0 ? [] : [`${number} ${severity}`];
  });
  const found = counts.length === 0 ? "no findings" : counts.join(", ");
  const source = at === undefined ? by : `${by}, ${formatTime(at)}`;
  const excepted = policy === undefined ? [] : judge(policy, answer.scan, now).excepted;
  const exceptions = excepted.map(
    ({ id, reason, expires }) => `${id} excepted until ${expires}: ${reason}`,
  );
  return [`${found} (${source})`, ...exceptions].join("; ");
}

/** Several images of one release, such as an index's platforms: all of them count. */
export function mergeScans(answers: readonly ScanAnswer[]): ScanAnswer {
  const worst =
    answers.find(({ state }) => state === "missing") ??
    answers.find(({ state }) => state === "running");
  if (worst !== undefined) return worst;
  const scans = answers.flatMap((answer) => (answer.state === "known" ? [answer.scan] : []));
  const times = scans.flatMap(({ at }) => at ?? []).sort((one, other) => +one - +other);
  return {
    state: "known",
    scan: {
      by: [...new Set(scans.map(({ by }) => by))].join(", "),
      // The oldest: all else is at least as new.
      at: times[0],
      findings: scans.flatMap(({ findings }) => findings),
    },
  };
}

interface Grouped {
  readonly id: string;
  readonly severity: Severity;
  readonly places: readonly string[];
}

/** Each vulnerability once, at its worst, the worst first. */
function group(findings: readonly Finding[]): Grouped[] {
  const groups = new Map<string, Grouped>();
  for (const { id, severity, in: place } of findings) {
    const former = groups.get(id);
    const places = new Set([...(former?.places ?? []), ...(place === undefined ? [] : [place])]);
    const worse = former !== undefined && rank(former.severity) > rank(severity);
    groups.set(id, { id, severity: worse ? former.severity : severity, places: [...places] });
  }
  return [...groups.values()].sort(
    (one, other) => rank(other.severity) - rank(one.severity) || one.id.localeCompare(other.id),
  );
}

function judge(policy: ScanPolicy, { findings }: Scan, now: Date) {
  const severe = group(findings).filter(({ severity }) => rank(severity) >= rank(policy.refuse));
  const today = now.toISOString().slice(0, 10);
  const covering = (id: string) =>
    policy.exceptions.find((one) => one.id === id && today < one.expires);
  return {
    refused: severe.filter(({ id }) => covering(id) === undefined),
    excepted: severe.flatMap(({ id }) => covering(id) ?? []),
  };
}

/** The one that lasted longest. */
function exceptionOf({ exceptions }: ScanPolicy, id: string) {
  const named = exceptions.filter((one) => one.id === id);
  return named.sort((one, other) => other.expires.localeCompare(one.expires))[0];
}

const rank = (severity: Severity): number => SEVERITIES.indexOf(severity);

function count(number: number, refuse: Severity): string {
  const range = refuse === "critical" ? "critical" : `${refuse} or worse`;
  return `${number} ${number === 1 ? "finding" : "findings"} (${range})`;
}
