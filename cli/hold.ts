import { Refusal } from "../ledger/refusal";
import { openRegistry } from "../registry/registry";
import { shortDigest } from "../release/plan";
import { fetchOrNote, publish, type Context, type Report } from "./context";
import { readFacts } from "./facts";

/** `baton hold TAG`: an image goes no further, anywhere, until somebody takes that back. */
export async function hold(
  context: Context,
  tag: string,
  { reason }: { reason: string },
): Promise<Report> {
  await fetchOrNote(context);
  const digest = await digestOf(context, tag);
  await context.ledger.recordHold({ kind: "hold", tag, digest, reason }, context.now());
  context.print(`${tag} (${shortDigest(digest)}) is held everywhere.`);
  await publish(context);
  return { outcome: "done", tag, digest, reason };
}

/** `baton unhold TAG`: it may move again. */
export async function unhold(
  context: Context,
  tag: string,
  { reason }: { reason: string },
): Promise<Report> {
  await fetchOrNote(context);
  const { holds } = await readFacts(context);
  const named = [...holds.byDigest].find(([, held]) => held.some((entry) => entry.tag === tag));
  const digest = named?.[0] ?? (await digestOf(context, tag));
  if (!holds.byDigest.has(digest)) {
    context.print(`${tag} is held by nobody.`);
    await publish(context);
    return { outcome: "done", tag, digest };
  }
  await context.ledger.recordHold({ kind: "unhold", tag, digest, reason }, context.now());
  context.print(`${tag} (${shortDigest(digest)}) may move again.`);
  await publish(context);
  return { outcome: "done", tag, digest, reason };
}

/** `baton stop`: nothing goes forward, anywhere; the way back stays open. */
export async function stop(context: Context, { reason }: { reason: string }): Promise<Report> {
  return setLine(context, "stop", reason);
}

/** `baton resume`: it goes on. */
export async function resume(context: Context, { reason }: { reason: string }): Promise<Report> {
  return setLine(context, "resume", reason);
}

async function setLine(context: Context, kind: "stop" | "resume", reason: string): Promise<Report> {
  const { ledger, print, now } = context;
  await fetchOrNote(context);
  const { holds } = await readFacts(context);
  if (kind === "resume" && holds.stops.length === 0) {
    print("Nobody has stopped the path.");
    await publish(context);
    return { outcome: "done", stopped: false };
  }
  await ledger.recordHold({ kind, reason }, now());
  const stopped = kind === "stop";
  print(
    stopped
      ? "The path is stopped: nothing goes forward until somebody runs `baton resume`."
      : "The path is open again.",
  );
  const who = await ledger.person();
  await context.announceToAll({ kind: stopped ? "stopped" : "resumed", who, reason });
  await publish(context);
  return { outcome: "done", stopped, reason };
}

/** By what some environment asks for or has earned, or else by the registry. */
async function digestOf({ project }: Context, tag: string): Promise<string> {
  const path = await project.path();
  const configs = await Promise.all(path.map(async (name) => project.config(name)));
  const asked = configs.find(({ imageTag }) => imageTag === tag)?.imageDigest;
  const registry = configs[0]?.registry;
  const digest = asked ?? (registry && (await openRegistry(registry).resolve(tag)));
  if (digest !== undefined) return digest;
  throw new Refusal({
    where: "baton",
    property: "TAG",
    value: tag,
    expected: "a tag that exists in the registry",
    fix: "`baton status` and `baton history` name them",
  });
}
