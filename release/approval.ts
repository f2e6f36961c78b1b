import type { Problem } from "./problem";

/** What `baton:approval` asks for. */
export interface ApprovalPolicy {
  /** How many people must approve. */
  readonly required: number;
  /** Whether the word of whoever made the request does not count. */
  readonly notOwnRequest: boolean;
}

/** A person's word on a request. */
export interface Word {
  readonly email: string;
  readonly kind: "approve" | "reject";
  /** Why, of a rejection. */
  readonly reason?: string | undefined;
}

/** The people whose approval counts, each once, however often and in whatever case they wrote. */
export function countedApprovals(
  policy: ApprovalPolicy,
  requesters: readonly string[],
  words: readonly Word[],
): string[] {
  const own = requesters.map((email) => email.toLowerCase());
  const people = words
    .filter(({ kind }) => kind === "approve")
    .map(({ email }) => email.toLowerCase())
    .filter((email) => !policy.notOwnRequest || !own.includes(email));
  return [...new Set(people)];
}

/** What stands in the way of deploying a request; nothing when it may go on. */
export function approvalProblems(
  environment: string,
  policy: ApprovalPolicy,
  requesters: readonly string[],
  words: readonly Word[],
): Problem[] {
  const rejections = words.filter(({ kind }) => kind === "reject");
  if (rejections.length > 0) {
    return rejections.map(({ email, reason = "no reason given" }) => ({
      where: environment,
      property: "the request",
      value: `rejected by ${email} (${reason})`,
      expected: "a request that nobody has rejected",
      fix: `Settle it, then ask anew with \`baton request ${environment}\``,
    }));
  }
  const counted = countedApprovals(policy, requesters, words);
  const missing = policy.required - counted.length;
  if (missing <= 0) return [];
  const people = `${policy.required} ${policy.required === 1 ? "person" : "people"}`;
  const others = policy.notOwnRequest ? ` other than ${requesters[0] ?? "who asked"}` : "";
  return [
    {
      where: environment,
      property: "the request",
      value: counted.length === 0 ? "approved by nobody" : `approved by ${counted.join(", ")} only`,
      expected: `the word of ${people}${others}`,
      fix: `${missing} more must run \`baton approve ${environment}\``,
    },
  ];
}

/** An email address as part of a ref's name. */
export function slug(email: string): string {
  const words = email.toLowerCase().match(/[a-z0-9]+/g);
  return words === null ? "someone" : words.join("-");
}
