import { Refusal } from "../ledger/refusal";
import { RegistryError } from "../registry/errors";
import { openRegistry } from "../registry/registry";
import { shortDigest } from "../release/plan";
import { fetchOrNote, publish, type Context, type Report } from "./context";
import { resumesOf } from "../release/gate";
import { readFacts } from "./facts";

/** `baton hold TAG`: an image goes no further, anywhere, until somebody takes that back. */
export async function hold(
  context: Context,
  tag: string,
  { reason }: { reason: string },
): Promise<Report> {
  await fetchOrNote(context);
  const digest = await digestOf(context, tag);
  const hold = { kind: "hold", scope: "project", tag, digest, reason } as const;
  const ref = await context.ledger.recordHold(hold, context.now());
  const { holds } = await readFacts(context);
  if (!holds.byDigest.has(digest)) throw notInForce(tag, ref);
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
  const unhold = { kind: "unhold", scope: "project", tag, digest, reason } as const;
  const ref = await context.ledger.recordHold(unhold, context.now());
  if ((await readFacts(context)).holds.byDigest.has(digest)) throw notInForce(tag, ref);
  context.print(`${tag} (${shortDigest(digest)}) may move again.`);
  await publish(context);
  return { outcome: "done", tag, digest, reason };
}

export interface LineOptions {
  readonly reason: string;
  /** All projects of the repository. */
  readonly all?: boolean;
}

/** `baton stop`: nothing of the project goes forward, anywhere; the way back stays open. */
export async function stop(context: Context, options: LineOptions): Promise<Report> {
  return setLine(context, "stop", options);
}

/** `baton resume`: it goes on. */
export async function resume(context: Context, options: LineOptions): Promise<Report> {
  return setLine(context, "resume", options);
}

async function setLine(
  context: Context,
  kind: "stop" | "resume",
  { reason, all = false }: LineOptions,
): Promise<Report> {
  const { ledger, project, print, now } = context;
  const scope = all ? "repository" : "project";
  const what = all ? "the path of every project here" : `the path of ${project.name}`;
  await fetchOrNote(context);
  const before = (await readFacts(context)).holds.stops;
  if (kind === "resume" && !before.some((one) => one.scope === scope)) {
    print(`${capitalized(what)} is not stopped.`);
    for (const command of resumesOf(before))
      print(`Another stop stands: ${command} takes it back.`);
    await publish(context);
    return { outcome: "done", stopped: before.length > 0 };
  }
  const ref = await ledger.recordHold({ kind, scope, reason }, now());
  const { stops } = (await readFacts(context)).holds;
  const stopped = kind === "stop";
  if (stops.some((one) => one.scope === scope) !== stopped) throw notInForce(what, ref);
  const command = all ? "baton resume --all" : "baton resume";
  print(
    stopped
      ? `${capitalized(what)} is stopped: nothing goes forward until \`${command}\` is run.`
      : `${capitalized(what)} is open again.`,
  );
  for (const other of stopped ? [] : resumesOf(stops)) {
    print(`Another stop stands: ${other} takes it back.`);
  }
  const who = await ledger.person();
  await context.announceToAll({ kind: stopped ? "stopped" : "resumed", who, reason });
  await publish(context);
  return { outcome: "done", stopped: stops.length > 0, reason };
}

function capitalized(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** For an entry that was recorded, and that another entry outweighs. */
function notInForce(what: string, ref: string): Refusal {
  return new Refusal({
    where: "git",
    property: ref,
    value: `recorded, and without effect on ${what}`,
    expected: "an entry that is in force as soon as it is made",
    fix: "`baton history` names entries whose times cannot be true; find out who made them, and delete them",
  });
}

/** By the registry, or where it does not know the tag or cannot be asked, by a stack file's pin. */
async function digestOf({ project, notes }: Context, tag: string): Promise<string> {
  const path = await project.path();
  const configs = await Promise.all(path.map(async (name) => project.config(name)));
  const registry = configs[0]?.registry;
  const known =
    registry &&
    (await openRegistry(registry)
      .resolve(tag)
      .catch((error: unknown) => {
        if (!(error instanceof RegistryError)) throw error;
        notes.push(`The registry cannot be asked, so the pin counts: ${error.message}`);
        return undefined;
      }));
  const digest = known ?? configs.find(({ imageTag }) => imageTag === tag)?.imageDigest;
  if (digest !== undefined) return digest;
  throw new Refusal({
    where: "baton",
    property: "TAG",
    value: tag,
    expected: "a tag that exists in the registry",
    fix: "`baton status` and `baton history` name them",
  });
}
