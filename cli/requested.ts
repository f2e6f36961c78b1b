import type { Request } from "../ledger/ledger";
import type { Announcement } from "../release/announcement";
import { problemsOf, type Term } from "../release/gate";
import { formatProblem } from "../release/problem";
import { publish, type Context, type Report } from "./context";

type Requested = Extract<Announcement, { kind: "requested" }>;

/** Tells others where a request stands, for the first time or again. */
export async function announceRequest(
  context: Context,
  request: Request,
  said: Pick<Requested, "approvals" | "missing" | "card">,
): Promise<void> {
  const { environment, id, tag, digest, version, plan, requesters } = request;
  await context.announce(environment, {
    kind: "requested",
    ...{ environment, tag, digest, version, plan },
    requestId: id,
    requester: requesters[0] ?? "",
    ...said,
  });
}

/** Without what it needs from people, or before its time. */
export async function waiting(
  context: Context,
  request: Request,
  terms: readonly Term[],
): Promise<Report> {
  const problems = problemsOf(terms);
  for (const problem of problems) context.print(formatProblem(problem));
  await publish(context);
  return { outcome: "waiting", ...summaryOf(request), waitsFor: problems.map(formatProblem) };
}

/** What a report says of the request it is about. */
export function summaryOf({ environment, id, tag, digest, version, plan }: Request) {
  return { environment, request: id, tag, digest, version, plan };
}
