import Table from "cli-table3";
import { approvalsOf } from "../ledger/gate";
import type { LedgerOutcome, Request } from "../ledger/ledger";
import { Refusal } from "../ledger/refusal";
import type { StackConfig } from "../ledger/stack-config";
import type { Term } from "../release/gate";
import type { Hold } from "../release/holds";
import { plain } from "../release/plain-text";
import { formatTime } from "../release/time";
import { targetOf } from "../release/way-back";
import { fetchOrNote, type Context, type Report } from "./context";
import { readFacts, type Facts } from "./facts";
import { leadTermOf, movementTerms, type Moving } from "./gate";
import type { StackOutputs } from "./pulumi";
import { unreviewedOf } from "./sign-off";
import { lengthOf, markOf, paint, sayTerm, widthOf, wrap, type SaidTerm } from "./text";
import { schemaFacts } from "./schema";
import { newsOf, runsBy, type News } from "./updates";

/** One environment at a glance; times in ISO 8601. */
export interface EnvironmentStatus {
  readonly environment: string;
  readonly upstream: string | undefined;
  /** What runs, and what it has earned. */
  readonly runs: { tag: string; digest: string; version?: string | undefined } | undefined;
  readonly earnedTag: string | undefined;
  /** Since when and by whose hand, where the ledger knows. */
  readonly since?: string | undefined;
  readonly by?: string | undefined;
  /** Whether the ledger knows nothing of what runs. */
  readonly deployedByHand: boolean;
  /** What the stack file asks for. */
  readonly asksFor: string | undefined;
  /** The upstream's earned tag, where another runs. */
  readonly couldTake: string | undefined;
  /** What was asked for and neither deployed nor overtaken. */
  readonly request?:
    { id: string; tag: string; at: string; requesters: readonly string[] } | undefined;
  /** The terms that the request, or else what could move, does not pass; no registry was asked. */
  readonly heldBy: readonly SaidTerm[];
  /** A deployment that failed last, and where the way back from it was to lead. */
  readonly failed?: { tag: string; at: string; returningTo?: string | undefined } | undefined;
  /** Hotfixes that nobody has looked at since. */
  readonly unreviewed: readonly { tag: string; at: string }[];
  /** Why it was deployed without the approvals it needs. */
  readonly breakGlass: string | undefined;
  /** The last run of Pulumi, where Pulumi Deployments deploys and the ledger does not know its end. */
  readonly unrecorded?: { news: News; at: string } | undefined;
  /** The tag that has started a run for the request. */
  readonly started?: string | undefined;
}

/** `baton status`: the path at a glance. */
export async function status(context: Context): Promise<Report> {
  const { project } = context;
  const path = await project.path();
  const [facts, outputs] = await Promise.all([
    factsOrNote(context),
    Promise.all(path.map(async (name) => [name, await context.pulumi.outputs(name)] as const)),
  ]);
  const stacks = new Map(outputs);
  const environments = await Promise.all(
    path.map(async (environment) => statusOf(context, environment, stacks, facts)),
  );
  const stopped = facts?.holds.stops ?? [];
  context.print([table(environments), ...remarks(environments, stopped)].join("\n"));
  const stops = stopped.map(({ reason, who, at }) => ({ reason, who, at: at.toISOString() }));
  return { outcome: "done", environments, stopped: stops };
}

/** What the ledger says; nothing where there is none yet. */
export async function factsOrNote(context: Context): Promise<Facts | undefined> {
  try {
    await fetchOrNote(context);
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    context.notes.push(error.message);
    return undefined;
  }
  return readFacts(context);
}

/**
 * Whether a request still waits to be deployed.
 * @param outcomes of its environment, in any order
 */
export function isOpen({ id, at }: Request, outcomes: readonly LedgerOutcome[]): boolean {
  // Git knows a request's time to the second.
  const over = at.getTime() + 1000;
  return !outcomes.some(
    ({ result, request, at: ended }) =>
      result !== "failed" && (request === id || ended.getTime() >= over),
  );
}

async function statusOf(
  context: Context,
  environment: string,
  stacks: ReadonlyMap<string, StackOutputs>,
  facts: Facts | undefined,
): Promise<EnvironmentStatus> {
  const { project, ledger } = context;
  const config = await project.config(environment);
  const { upstream, imageTag } = config;
  const { release, earnedTag, breakGlass } = stacks.get(environment) ?? {};
  const given = upstream === undefined ? undefined : stacks.get(upstream);
  const couldTake = given?.earnedTag === release?.imageTag ? undefined : given?.earnedTag;
  const runs = release && targetOf(release);
  const basics = {
    environment,
    upstream,
    runs,
    earnedTag,
    asksFor: imageTag,
    couldTake,
    breakGlass,
  };
  if (facts === undefined) return { ...basics, deployedByHand: false, heldBy: [], unreviewed: [] };

  const outcomes = await facts.outcomesOf(environment);
  const known = runsBy(outcomes);
  const isKnown = runs?.tag === known?.target?.tag && runs?.digest === known?.target?.digest;
  const isElsewhere = config.deployedBy === "pulumi-deployments";
  const [latest, unreviewed, update] = await Promise.all([
    ledger.request(environment),
    unreviewedOf(context, environment, await facts.of(environment)),
    isElsewhere ? context.pulumi.lastUpdate(environment) : undefined,
  ]);
  const request = latest && isOpen(latest, outcomes) ? latest : undefined;
  const news = newsOf(update, stacks.get(environment) ?? {}, outcomes);
  const starts = isElsewhere && request !== undefined ? await ledger.starts(request) : [];
  const next =
    request ??
    (couldTake !== undefined && given?.release !== undefined
      ? { tag: couldTake, digest: given.release.digest, hotfix: false }
      : undefined);
  const heldBy = await termsOf(context, config, environment, { next, request }, facts);
  const [last] = outcomes;
  return {
    ...basics,
    ...(isKnown && known !== undefined
      ? { since: known.outcome.at.toISOString(), by: known.outcome.who }
      : {}),
    deployedByHand: runs !== undefined && !isKnown,
    request: request && {
      id: request.id,
      tag: request.tag,
      at: request.at.toISOString(),
      requesters: request.requesters,
    },
    heldBy: heldBy.filter(({ state }) => state !== "passes").map(sayTerm),
    failed:
      last?.result === "failed"
        ? { tag: last.tag, at: last.at.toISOString(), returningTo: last.returningTo }
        : undefined,
    unreviewed: unreviewed.map(({ tag, at }) => ({ tag, at: at.toISOString() })),
    unrecorded: news && update && { news, at: update.startedAt.toISOString() },
    started: starts.at(-1),
  };
}

/** What the ledger and the clock say of what could move, and people of what is asked for. */
async function termsOf(
  context: Context,
  config: StackConfig,
  environment: string,
  { next, request }: { next: Moving | undefined; request: Request | undefined },
  facts: Facts,
): Promise<readonly Term[]> {
  const { project, ledger } = context;
  try {
    const [movement, people] = await Promise.all([
      next === undefined ? [] : movementTerms(context, environment, config, next, facts),
      request === undefined
        ? []
        : Promise.all([facts.of(environment), schemaFacts(context, environment, config, request)])
            .then(([{ lastDeployed, proven }, { change }]) =>
              approvalsOf(
                ...([project, ledger, request, config] as const),
                ...([lastDeployed, proven, change, context.now()] as const),
              ),
            )
            .then(({ terms }) => terms),
    ]);
    const lead = request?.follows?.environment;
    const leads =
      request === undefined || lead === undefined ? [] : [await leadTermOf(request, lead, facts)];
    return [...leads, ...people, ...movement];
  } catch (error) {
    // What the ledger cannot tell of one environment hides no other.
    if (!(error instanceof Refusal)) throw error;
    context.notes.push(error.message);
    return [];
  }
}

const NONE = "–";
/** As many characters as tell one image from another. */
const DIGEST_SHOWN = 12;

/** What the table shows, and how much people need it: where there is no room, the last go. */
const COLUMNS: readonly {
  readonly head: string;
  readonly rank: number;
  readonly cell: (status: EnvironmentStatus) => string | undefined;
}[] = [
  { head: "environment", rank: 0, cell: ({ environment }) => environment },
  { head: "runs", rank: 1, cell: ({ runs }) => runs?.tag },
  { head: "version", rank: 6, cell: ({ runs }) => runs?.version },
  {
    head: "digest",
    rank: 5,
    cell: ({ runs }) => runs?.digest.replace("sha256:", "").slice(0, DIGEST_SHOWN),
  },
  { head: "since (UTC)", rank: 4, cell: ({ since }) => since && shortTime(since) },
  { head: "by", rank: 7, cell: ({ by }) => by },
  { head: "earned", rank: 2, cell: ({ earnedTag }) => earnedTag },
  { head: "next", rank: 3, cell: ({ request, couldTake }) => request?.tag ?? couldTake },
];
/** Of a tag that would leave no room for others. */
const LONGEST_CELL = 24;

function table(environments: readonly EnvironmentStatus[]): string {
  const columns = COLUMNS.map(({ head, rank, cell }) => {
    const cells = environments.map((status) => shorten(cell(status) ?? NONE));
    // With a space on either side, and the line between two columns.
    const width = Math.max(...[head, ...cells].map(lengthOf)) + 3;
    return { head, rank, cells, width };
  });
  let room = widthOf() - 1;
  const fitting = [...columns]
    .sort((one, other) => one.rank - other.rank)
    .filter(({ width }) => {
      if (width > room) return false;
      room -= width;
      return true;
    });
  const shown = columns.filter((column) => fitting.includes(column));
  const rendered = new Table({
    head: shown.map(({ head }) => paint("cyan", head)),
    style: { head: [], border: [], compact: true },
  });
  environments.forEach((_, row) => rendered.push(shown.map(({ cells }) => cells[row] ?? NONE)));
  return rendered.toString();
}

function shorten(text: string): string {
  const characters = Array.from(plain(text));
  if (characters.length <= LONGEST_CELL) return characters.join("");
  return `${characters.slice(0, LONGEST_CELL - 1).join("")}…`;
}

function shortTime(iso: string): string {
  return iso.slice(0, 16).replace("T", " ");
}

/** What holds something or is not as it should be, a line each, with the command that helps. */
function remarks(environments: readonly EnvironmentStatus[], stops: readonly Hold[]): string[] {
  const line = (state: SaidTerm["state"], text: string) => wrap(`${markOf(state)} `, text, 2);
  return [
    ...stops.map(({ who, reason, at }) =>
      line(
        "fails",
        `the path is stopped by ${who} since ${formatTime(at)} (${reason}): \`baton resume\``,
      ),
    ),
    ...environments.flatMap((status) =>
      remarksOf(status).map(([state, text, command]) =>
        line(state, `${status.environment}: ${text}: \`baton ${command}\``),
      ),
    ),
  ];
}

function remarksOf({
  environment,
  runs,
  deployedByHand,
  asksFor,
  couldTake,
  request,
  heldBy,
  failed,
  unreviewed,
  breakGlass,
  unrecorded,
  started,
}: EnvironmentStatus): (readonly [SaidTerm["state"], string, string])[] {
  const next = request?.tag ?? couldTake ?? "";
  const remarks: (readonly [SaidTerm["state"], string, string])[] = [];
  if (failed !== undefined) {
    const { tag, returningTo } = failed;
    const rest =
      returningTo === undefined
        ? "it is left as it is"
        : `the way back to ${returningTo} is not finished`;
    remarks.push(["fails", `${tag} failed, and ${rest}`, `rollback ${environment}`]);
  }
  if (breakGlass !== undefined) {
    const text = `${runs?.tag ?? "it"} was deployed without its approvals (${breakGlass})`;
    remarks.push(["fails", text, `history ${environment}`]);
  }
  if (unrecorded !== undefined) {
    const at = formatTime(new Date(unrecorded.at));
    const ended = unrecorded.news === "running" ? "is not at its end" : unrecorded.news;
    const text = `the update of ${at} ${ended}, and is not recorded`;
    remarks.push([unrecorded.news === "failed" ? "fails" : "waits", text, `record ${environment}`]);
  } else if (started !== undefined) {
    const text = `${next}: ${started} has started a run that is not recorded`;
    remarks.push(["waits", text, `record ${environment}`]);
  } else if (deployedByHand) {
    const text = `the ledger does not know how ${runs?.tag ?? "it"} got here`;
    remarks.push(["waits", text, `record ${environment}`]);
  }
  for (const { tag, at } of unreviewed) {
    const text = `nobody has looked at the hotfix ${tag} of ${formatTime(new Date(at))}`;
    remarks.push(["waits", text, `review ${environment}`]);
  }
  if (asksFor !== undefined && asksFor !== runs?.tag && request === undefined) {
    const text = `the stack file asks for ${asksFor}, and nobody's request does`;
    remarks.push(["waits", text, `request ${environment}`]);
  }
  // A stop is said once, of the whole path.
  const held = heldBy.filter(({ name }) => name !== "line");
  for (const { name, state, says } of held) {
    remarks.push([state, `${next}: ${name}: ${says}`, `why ${environment}`]);
  }
  return remarks;
}
