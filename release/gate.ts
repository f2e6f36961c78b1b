import {
  approvalProblems,
  approvedAt,
  countedApprovals,
  includes,
  type ApprovalPolicy,
  type Word,
} from "./approval";
import type { Digest } from "./eligibility";
import { activeFreezes, freeAt, freezeProblems, lastFreezeEnd, type FreezeWindow } from "./freeze";
import type { Hold, Holds, Stop } from "./holds";
import type { Problem } from "./problem";
import { after, CLOCKS_DIFFER, formatDuration, formatTime } from "./time";

/** One thing that must hold before a release may move. */
export interface Term {
  readonly name:
    | "earned"
    | "pin"
    | "schema"
    | "scan"
    | "plan"
    | "lead"
    | "approvals"
    | "freeze"
    | "soak"
    | "sign-offs"
    | "hold"
    | "line"
    | "expiry"
    | "order"
    | "start";
  /** `waits` for time to pass, or for people's words; `fails` until somebody changes something. */
  readonly state: "passes" | "fails" | "waits";
  /** One short sentence without its full stop. */
  readonly says: string;
  /** Whatever does not pass has one. */
  readonly problem?: Problem | undefined;
  /** When a term that waits for time will pass, as far as is known now. */
  readonly passesAt?: Date | undefined;
  /** When a term that passes began to pass, as far as is known. */
  readonly passedAt?: Date | undefined;
}

export function passes(name: Term["name"], says: string, passedAt?: Date): Term {
  return { name, state: "passes", says, ...(passedAt && { passedAt }) };
}

export function fails(name: Term["name"], says: string, problem: Problem): Term {
  return { name, state: "fails", says, problem };
}

/** @param passesAt without it, for people's words, or for what says nothing of its end */
export function waits(name: Term["name"], says: string, problem: Problem, passesAt?: Date): Term {
  return { name, state: "waits", says, problem, ...(passesAt && { passesAt }) };
}

/** What stands in the way, in the terms' order. */
export function problemsOf(terms: readonly Term[]): Problem[] {
  return terms.flatMap(({ problem }) => problem ?? []);
}

/**
 * Whether enough people have approved, and nobody has rejected.
 * @param on what people's words are on
 */
export function approvalsTerm(
  environment: string,
  policy: ApprovalPolicy,
  requesters: readonly string[],
  words: readonly Word[],
  requestedAt: Date,
  now: Date,
  on: { readonly environment: string; readonly plan: string },
): Term {
  const name = "approvals";
  const said = [policy, requesters, words, requestedAt, now] as const;
  const counted = countedApprovals(...said);
  const [problem] = approvalProblems(environment, ...said, on);
  if (problem === undefined) {
    const says = counted.length === 0 ? "nobody's word is needed" : `given by ${and(counted)}`;
    return passes(name, says, approvedAt(...said));
  }
  if (words.some(({ kind }) => kind === "reject")) return fails(name, problem.value, problem);
  return waits(name, `${counted.length} of ${policy.required} given`, problem);
}

/** Whether no freeze is on. One that never ends, or cannot be understood, fails. */
export function freezeTerm(environment: string, windows: readonly FreezeWindow[], now: Date): Term {
  const name = "freeze";
  const [invalid] = freezeProblems(environment, windows);
  if (invalid !== undefined) {
    return fails(name, "the windows cannot be understood", invalid);
  }
  const active = activeFreezes(windows, now);
  const [first] = active;
  if (first === undefined) return passes(name, "none is on", lastFreezeEnd(windows, now));
  const names = and(active.map(({ window }) => window.name));
  const problem = { where: environment, property: "baton:freeze", expected: "no freeze" };
  const passesAt = freeAt(windows, now);
  if (passesAt === undefined) {
    const value = `on without an end within a year (${names})`;
    const fix = "Correct the windows; the way back is always open";
    return fails(name, value, { ...problem, value, fix });
  }
  const value = `on until ${formatTime(passesAt, first.window.timeZone)} (${names})`;
  const fix = "Run the same command again then; the way back is always open";
  return waits(name, value, { ...problem, value, fix }, passesAt);
}

/**
 * Whether the upstream has run the image for long enough.
 * @param soak in seconds; none asks for nothing
 * @param since when the upstream's deployment of this image was recorded as verified
 */
export function soakTerm(
  environment: string,
  upstream: string,
  soak: number | undefined,
  since: Date | undefined,
  now: Date,
): Term {
  const name = "soak";
  if (soak === undefined) return passes(name, "none is asked for");
  const problem = {
    where: environment,
    property: `the soak in ${upstream}`,
    expected: `${formatDuration(soak)} after a verified deployment there`,
  };
  if (since === undefined) {
    const value = "not begun";
    const fix = `Deploy it with \`baton deploy ${upstream}\`, which records when it was verified`;
    const says = `${upstream} has no verified deployment of it on record`;
    return fails(name, says, { ...problem, value, fix });
  }
  const passesAt = after(since, soak);
  const begun = `${upstream} has run it since ${formatTime(since)}`;
  if (passesAt <= now) return passes(name, begun, passesAt);
  const value = `not over until ${formatTime(passesAt)}`;
  const fix = "Run the same command again then; the way back is always open";
  return waits(name, value, { ...problem, value, fix }, passesAt);
}

/**
 * Whether the environment that another follows runs what both were asked to run.
 * @param since when its deployment of that very request was recorded as verified
 */
export function leadTerm(environment: string, lead: string, since: Date | undefined): Term {
  if (since !== undefined) return passes("lead", `${lead} runs it`, since);
  const says = `${lead} has not deployed it yet`;
  return waits("lead", says, {
    where: environment,
    property: "the request",
    value: says,
    expected: `${lead} to run it first, as ${environment} follows it`,
    fix: `Run \`baton deploy ${lead}\`, which goes on with ${environment}`,
  });
}

/** Somebody's word that an environment's release may move on. */
export interface SignOff {
  /** Of the sign-off, such as `uat`. */
  readonly name: string;
  readonly email: string;
  /** When it was given. */
  readonly at?: Date | undefined;
}

/**
 * Whether everybody whose word the upstream's releases need has given it.
 * @param signOffs of the upstream: whose word counts, by the sign-off's name; no people: anyone's
 * @param given for the release that moves
 * @param tag the upstream's earned tag
 */
export function signOffTerm(
  environment: string,
  upstream: string,
  signOffs: Readonly<Record<string, readonly string[]>>,
  given: readonly SignOff[],
  tag: string,
): Term {
  const name = "sign-offs";
  const givenOf = ([wanted, people]: readonly [string, readonly string[]]) =>
    given.filter(
      ({ name: said, email }) =>
        said === wanted && (people.length === 0 || includes(people, email)),
    );
  const wanted = Object.entries(signOffs);
  const missing = wanted.filter((entry) => givenOf(entry).length === 0);
  if (missing.length === 0) {
    const names = wanted.map(([key]) => key);
    if (names.length === 0) return passes(name, "none is asked for");
    const firsts = wanted.map((entry) => {
      const times = givenOf(entry).map(({ at }) => at?.getTime() ?? NaN);
      return Math.min(...times);
    });
    const last = Math.max(...firsts);
    const passedAt = Number.isNaN(last) ? undefined : new Date(last);
    return passes(name, `${and(names)} given`, passedAt);
  }
  const names = missing.map(([key]) => key);
  const people = missing.map(([key, emails]) =>
    emails.length === 0 ? `${key} by anyone` : `${key} by ${emails.join(" or ")}`,
  );
  const says = `${and(names)} missing`;
  return waits(name, says, {
    where: environment,
    property: `the sign-off of ${tag} in ${upstream}`,
    value: says,
    expected: and(people),
    fix: `Whoever it is must run ${and(names.map((key) => `\`baton sign-off ${upstream} ${key}\``))}`,
  });
}

/** Whether nobody holds the image. */
export function holdTerm(environment: string, tag: string, digest: Digest, holds: Holds): Term {
  const name = "hold";
  const active = holds.byDigest.get(digest) ?? [];
  if (active.length === 0) return passes(name, "nobody holds it");
  const says = `held by ${and(active.map(formatHold))}`;
  return fails(name, says, {
    where: environment,
    property: tag,
    value: says,
    expected: "an image that nobody holds",
    fix: `Settle it and run \`baton unhold ${tag}\`, or choose another release`,
  });
}

/**
 * Whether nobody has stopped the whole path.
 * @param stops those that nobody has taken back
 */
export function lineTerm(stops: readonly Stop[]): Term {
  const name = "line";
  if (stops.length === 0) return passes(name, "nobody has stopped it");
  const says = `stopped by ${and(stops.map(formatHold))}`;
  return fails(name, says, {
    where: "the path",
    property: "the line",
    value: says,
    expected: "no stop",
    fix: `Settle it and run ${and(resumesOf(stops))}; the way back is always open`,
  });
}

/** The commands that take stops back. */
export function resumesOf(stops: readonly Stop[]): string[] {
  const isOf = (wanted: Stop["scope"]) => stops.some(({ scope }) => scope === wanted);
  return [
    ...(isOf("project") ? ["`baton resume`"] : []),
    ...(isOf("repository") ? ["`baton resume --all`"] : []),
  ];
}

/**
 * Whether a request may still be deployed.
 * @param expiresAfter in seconds; none: for good
 */
export function expiryTerm(
  environment: string,
  requestedAt: Date,
  expiresAfter: number | undefined,
  now: Date,
): Term {
  const name = "expiry";
  if (expiresAfter === undefined) return passes(name, "it does not expire");
  const at = after(requestedAt, expiresAfter);
  const early = requestedAt > after(now, CLOCKS_DIFFER);
  if (at > now && !early) return passes(name, `it expires at ${formatTime(at)}`);
  const says = early ? `dated ${formatTime(requestedAt)}` : `expired at ${formatTime(at)}`;
  return fails(name, says, {
    where: environment,
    property: "the request",
    value: says,
    expected: `a request of the last ${formatDuration(expiresAfter)}`,
    fix: `Ask anew with \`baton request ${environment}\``,
  });
}

function formatHold({ who, reason, at }: Hold): string {
  return `${who} since ${formatTime(at)} (${reason})`;
}

/** `one`, `one and two`, `one, two and three`. */
function and(words: readonly string[]): string {
  const last = words.at(-1) ?? "";
  return words.length < 2 ? last : `${words.slice(0, -1).join(", ")} and ${last}`;
}
