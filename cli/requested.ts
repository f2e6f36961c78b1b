import type { Request } from "../ledger/ledger";
import type { Announcement } from "../release/announcement";
import type { Context } from "./context";

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
