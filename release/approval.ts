import { shortHash } from "./plan";
import type { Problem } from "./problem";
import { after, CLOCKS_DIFFER, formatTime } from "./time";

/** What `baton:approval` asks for. */
export interface ApprovalPolicy {
  /** How many people must approve. */
  readonly required: number;
  /** Whether the word of whoever made the request does not count. */
  readonly notOwnRequest: boolean;
  /** Whose word counts; everyone's unless given. */
  readonly from?: readonly string[] | undefined;
  /** How long a word counts, in seconds; for good unless given. */
  readonly expiresAfter?: number | undefined;
  /** Whether only a signed word counts. */
  readonly signed: boolean;
  /** Why it is stronger than usual. */
  readonly because?: string | undefined;
}

/** What a point of no return asks for in place of the usual. */
export interface StrongerPolicy {
  readonly required: number;
  readonly from?: readonly string[] | undefined;
}

/**
 * The policy that counts for a release.
 * @param crosses whether it crosses a point of no return of the database
 */
export function policyFor<Policy extends ApprovalPolicy>(
  policy: Policy & { readonly irreversible?: StrongerPolicy | undefined },
  crosses: boolean,
): Policy {
  const { irreversible } = policy;
  if (!crosses || irreversible === undefined) return policy;
  return {
    ...policy,
    required: Math.max(policy.required, irreversible.required),
    from: irreversible.from ?? policy.from,
    because: "it crosses a point of no return of the database",
  };
}

/** The policy that is satisfied where two policies both are. */
export function stricter<
  Policy extends ApprovalPolicy & { readonly unattended?: Unattended | undefined },
>(one: Policy, other: Policy): Policy {
  const [mine, theirs] = [one.unattended, other.unattended];
  const isAmong = (keys: readonly string[]) => (key: string) => keys.includes(key);
  return {
    ...other,
    required: Math.max(one.required, other.required),
    notOwnRequest: one.notOwnRequest || other.notOwnRequest,
    from:
      one.from === undefined || other.from === undefined
        ? (one.from ?? other.from)
        : one.from.filter((email) => includes(other.from ?? [], email)),
    expiresAfter:
      one.expiresAfter === undefined || other.expiresAfter === undefined
        ? (one.expiresAfter ?? other.expiresAfter)
        : Math.min(one.expiresAfter, other.expiresAfter),
    signed: one.signed || other.signed,
    because: one.because ?? other.because,
    unattended: mine && theirs && { settings: mine.settings.filter(isAmong(theirs.settings)) },
  };
}

/** The settings that may change without a word. */
export interface Unattended {
  readonly settings: readonly string[];
}

/** A person's word on a request. */
export interface Word {
  readonly email: string;
  readonly kind: "approve" | "reject";
  /** Why, of a rejection. */
  readonly reason?: string | undefined;
  /** When it was given. */
  readonly at: Date;
  /** `good`: by a key that the allowed signers list for this very address. */
  readonly signature: "good" | "bad" | "none";
}

/**
 * The people whose approval counts, each once, however often and in whatever case they wrote.
 * @returns addresses in lower case.
 */
export function countedApprovals(
  policy: ApprovalPolicy,
  requesters: readonly string[],
  words: readonly Word[],
  requestedAt: Date,
  now: Date,
): string[] {
  const counted = countedWords(policy, requesters, words, requestedAt, now);
  return [...new Set(counted.map(({ email }) => email.toLowerCase()))];
}

/** When enough people had approved; undefined where they are too few, or none are needed. */
export function approvedAt(
  policy: ApprovalPolicy,
  requesters: readonly string[],
  words: readonly Word[],
  requestedAt: Date,
  now: Date,
): Date | undefined {
  const firsts = new Map<string, Date>();
  const counted = countedWords(policy, requesters, words, requestedAt, now);
  for (const { email, at } of [...counted].sort((a, b) => a.at.getTime() - b.at.getTime())) {
    const person = email.toLowerCase();
    if (!firsts.has(person)) firsts.set(person, at);
  }
  return [...firsts.values()][policy.required - 1];
}

function countedWords(
  policy: ApprovalPolicy,
  requesters: readonly string[],
  words: readonly Word[],
  requestedAt: Date,
  now: Date,
): Word[] {
  return words
    .filter(({ kind }) => kind === "approve")
    .filter((word) => reasonAgainst(policy, requesters, word, requestedAt, now) === undefined);
}

/** The command that approves a plan, and no other. */
export function approveCommand(on: {
  readonly environment: string;
  readonly plan: string;
}): string {
  return `baton approve ${on.environment} ${shortHash(on.plan)}`;
}

/**
 * What stands in the way of deploying a request; nothing when it may go on.
 * @param on what people's words are on
 */
export function approvalProblems(
  environment: string,
  policy: ApprovalPolicy,
  requesters: readonly string[],
  words: readonly Word[],
  requestedAt: Date,
  now: Date,
  on: Parameters<typeof approveCommand>[0],
): Problem[] {
  // Whose a rejection is does not matter, nor whether it is signed: to stop is the safe side.
  const rejections = words.filter(({ kind }) => kind === "reject");
  if (rejections.length > 0) {
    const list = rejections.map(
      ({ email, reason = "no reason given" }) => `rejected by ${email} (${reason})`,
    );
    return [
      {
        where: environment,
        property: "the request",
        value: [...new Set(list)].join(", "),
        expected: "a request that nobody has rejected",
        fix: `Settle it, then ask anew with \`baton request ${environment}\``,
      },
    ];
  }
  const counted = countedApprovals(policy, requesters, words, requestedAt, now);
  const missing = policy.required - counted.length;
  if (missing <= 0) return [];
  const approved =
    counted.length === 0 ? "approved by nobody" : `approved by ${counted.join(", ")} only`;
  const uncounted = uncountedApprovals(policy, requesters, words, requestedAt, now);
  const { people, enough } = whoMay(policy, requesters);
  const because = policy.because === undefined ? "" : `, as ${policy.because}`;
  return [
    {
      where: environment,
      property: "the request",
      value:
        uncounted.length === 0 ? approved : `${approved}, not counting ${uncounted.join(", ")}`,
      expected: `the ${policy.signed ? "signed " : ""}word of ${people}${because}`,
      fix: enough
        ? `${missing} more must run \`${approveCommand(on)}\``
        : "They are too few: let somebody else ask, or name more in baton:approval.from",
    },
  ];
}

/** Whose word is needed, and whether there are so many of them at all. */
function whoMay(
  { required, notOwnRequest, from }: ApprovalPolicy,
  requesters: readonly string[],
): { people: string; enough: boolean } {
  const count = `${required} ${required === 1 ? "person" : "people"}`;
  if (from === undefined) {
    const others = notOwnRequest ? ` other than ${requesters[0] ?? "who asked"}` : "";
    return { people: `${count}${others}`, enough: true };
  }
  const others = from.filter((email) => !notOwnRequest || !includes(requesters, email));
  const who = others.length === 0 ? "nobody" : others.join(", ");
  return { people: `${count} of ${who}`, enough: others.length >= required };
}

/** The approvals that do not count, each person's last one, and why. */
function uncountedApprovals(
  policy: ApprovalPolicy,
  requesters: readonly string[],
  words: readonly Word[],
  requestedAt: Date,
  now: Date,
): string[] {
  const counted = countedApprovals(policy, requesters, words, requestedAt, now);
  const last = new Map<string, string>();
  for (const word of [...words].sort((a, b) => a.at.getTime() - b.at.getTime())) {
    const email = word.email.toLowerCase();
    const reason = reasonAgainst(policy, requesters, word, requestedAt, now);
    if (word.kind !== "approve" || reason === undefined || counted.includes(email)) continue;
    last.set(email, `${email} (${reason})`);
  }
  return [...last.values()];
}

/** Why an approval does not count; `undefined` when it does. */
function reasonAgainst(
  { from, notOwnRequest, expiresAfter, signed }: ApprovalPolicy,
  requesters: readonly string[],
  { email, at, signature }: Word,
  requestedAt: Date,
  now: Date,
): string | undefined {
  if (from !== undefined && !includes(from, email)) return "not in baton:approval.from";
  if (notOwnRequest && includes(requesters, email)) return "own request";
  if (after(at, CLOCKS_DIFFER) < requestedAt) {
    return `dated ${formatTime(at)}, before the request`;
  }
  if (expiresAfter !== undefined && after(at, expiresAfter) <= now) {
    return `expired at ${formatTime(after(at, expiresAfter))}`;
  }
  // Or it would not expire before that.
  if (expiresAfter !== undefined && at > after(now, CLOCKS_DIFFER)) {
    return `dated ${formatTime(at)}`;
  }
  if (!signed || signature === "good") return undefined;
  return signature === "none"
    ? "not signed"
    : "not signed by a key of baton:approval.allowedSigners";
}

/** Whether an address is among others, in whatever case they are written. */
export function includes(people: readonly string[], email: string): boolean {
  return people.some((person) => person.toLowerCase() === email.toLowerCase());
}

/** An email address as part of a ref's name. */
export function slug(email: string): string {
  const words = email.toLowerCase().match(/[a-z0-9]+/g);
  return words === null ? "someone" : words.join("-");
}
