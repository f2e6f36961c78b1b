import { baseOf, isProblem, movedSince, sourceOf, type PlanSource } from "../ledger/changes";
import type { LastDeployed } from "../ledger/gate";
import type { Request } from "../ledger/ledger";
import type { StackConfig } from "../ledger/stack-config";
import { RegistryError } from "../registry/errors";
import { openRegistry } from "../registry/registry";
import { approveCommand } from "../release/approval";
import type { ChangeCard, FollowerCard, Moved } from "../release/change-card";
import { hotfixFromOf } from "../release/eligibility";
import { problemsOf, type Term } from "../release/gate";
import { groupOperations, notRoutine, parseOperations } from "../release/operations";
import { shortHash } from "../release/plan";
import { formatProblem, type Problem } from "../release/problem";
import { describeScan, type ScanAnswer } from "../release/scan";
import type { SchemaChange } from "../release/schema";
import { targetOf, type Target } from "../release/way-back";
import { commitsBetween } from "./commits";
import type { Context } from "./context";
import type { Facts } from "./facts";
import { scanOf } from "./gate";
import { schemaFacts, type SchemaFacts } from "./schema";

/** The gate's judgement of a request, for the request's card. */
export interface Judged {
  readonly terms: readonly Term[];
  /** Whether the request needs no word if all its operations are routine. */
  readonly unattended: boolean;
  readonly schema: SchemaFacts;
  readonly scan?: ScanAnswer | undefined;
}

/** A request's card, and why it does not show what would be deployed, where it does not. */
export interface RequestCard {
  readonly card: ChangeCard;
  readonly doubts: readonly Problem[];
}

/**
 * The card of a request and of what follows it. It shows what the plan is of, by its hash, and the
 * operations that `deploy` holds itself to: not what a message or another preview says of them.
 * @param source a folder of the application's repository, where it is another one
 */
export async function cardOf(
  context: Context,
  request: Request,
  facts: Facts,
  judged: Judged,
  source?: string,
): Promise<RequestCard> {
  const { project, pulumi, now } = context;
  const { environment, tag } = request;
  const [part, doubt] = await partOf(context, request, facts, judged.schema);
  const config = await project.config(environment);
  const { digest = request.digest } = part.to;
  const giver = hotfixFromOf(tag, config.upstream) ?? config.upstream;
  const [commits, given, scan, followers] = await Promise.all([
    commitsOf(source ?? project.folder, config, part.from.digest, digest),
    // Its region may be away.
    giver === undefined ? undefined : pulumi.knownOutputs(giver).catch(() => undefined),
    judged.scan ?? scanOf(config, digest),
    followersOf(context, request, facts),
  ]);
  const isUnattended =
    judged.unattended && notRoutine(parseOperations(request.operations)).length === 0;
  const open = judged.terms.filter(({ name }) => name !== "approvals" || !isUnattended);
  const doubts = [
    ...(doubt === undefined ? [] : [doubt]),
    ...followers.flatMap(([, one]) => one ?? []),
  ];
  const needsWords = open.some(({ name, state }) => name === "approvals" && state === "waits");
  const card: ChangeCard = {
    ...part,
    requester: request.requesters[0] ?? "",
    hotfix: request.hotfix,
    commits,
    suites: given?.earnedTag === tag ? (given.suites ?? []) : [],
    scan: describeScan(scan, config.scan, now()),
    notes: request.notes,
    wayBack: wayBackOf(environment, part.from, judged.schema.change),
    followers: followers.map(([one]) => one),
    missing: [...doubts, ...problemsOf(open)].map(formatProblem),
    approve: needsWords ? approveCommand(request.follows ?? request) : undefined,
  };
  return { card, doubts };
}

/**
 * The requests that a request's commit holds for environments that follow it, in the order of the path.
 * The stack files of this checkout do not decide that: at the deployment they may name other followers.
 */
export async function requestsFollowing(
  { ledger }: Context,
  { environment, id, commit, together, follows }: Request,
): Promise<Request[]> {
  if (follows !== undefined) return [];
  const others = [...new Set(together)].filter((name) => name !== environment);
  const found = await Promise.all(others.map(async (name) => ledger.requestsOf(name, [commit])));
  return found.flat().filter((one) => one.id === id);
}

async function followersOf(
  context: Context,
  request: Request,
  facts: Facts,
): Promise<(readonly [FollowerCard, Problem | undefined])[]> {
  const requests = await requestsFollowing(context, request);
  return Promise.all(
    requests.map(async (one) => {
      const config = await context.project.config(one.environment);
      // Another region's database, of which nothing may be known here.
      const schema = await schemaFacts(context, one.environment, config, one).catch(
        () => NO_SCHEMA,
      );
      return partOf(context, one, facts, schema);
    }),
  );
}
const NO_SCHEMA: SchemaFacts = { terms: [], change: undefined, says: undefined };

/** The part of a card that is about one environment, and a problem where its plan cannot be shown. */
async function partOf(
  { project, ledger, pulumi }: Context,
  request: Request,
  facts: Facts,
  schema: SchemaFacts,
): Promise<readonly [FollowerCard, Problem | undefined]> {
  const { environment, tag, digest, version, plan } = request;
  const [source, last, outputs] = await Promise.all([
    sourceOf(project, ledger, request),
    facts.lastDeployed(environment),
    pulumi.knownOutputs(environment).catch(() => undefined),
  ]);
  const runs = outputs?.release;
  const from: Partial<Target> =
    outputs === undefined ? (request.former ?? {}) : runs === undefined ? {} : targetOf(runs);
  const operations = parseOperations(request.operations);
  const moved = isProblem(source)
    ? undefined
    : await movedSince(project, ledger, source, baseOf(last));
  const card = {
    environment,
    from,
    to: isProblem(source) ? { tag, digest, version } : requestedBy(source),
    plan: shortHash(plan),
    moved,
    schema: schema.says,
    operations: groupOperations(operations),
    routine:
      moved !== undefined &&
      schema.change === undefined &&
      notRoutine(operations).length === 0 &&
      isRoutine(moved, last),
  };
  return [card, isProblem(source) ? source : undefined];
}

/** The release that a stack file asks for. */
function requestedBy({ config: { imageTag, imageDigest, version } }: PlanSource) {
  return { tag: imageTag, digest: imageDigest, version };
}

/** Whether nothing moved but the image, and settings that may change without a word. */
export function isRoutine(moved: Moved, last: LastDeployed | undefined): boolean {
  if (moved.since === "nothing" || last === undefined) return false;
  const { secrets, policy, suites, program, packages, unnamed, settings } = moved;
  const others = [secrets, policy, suites, program.files, program.project, packages, unnamed];
  const allowed = last.config.approval.unattended?.settings.map((key) => `settings.config.${key}`);
  return (
    others.every((list) => list.length === 0) &&
    settings.every(({ path }) => allowed?.includes(path) ?? false)
  );
}

/** How people would go back. */
export function wayBackOf(
  environment: string,
  { tag }: ChangeCard["from"],
  change: SchemaChange | undefined,
): string {
  if (tag === undefined) return "none, as nothing ran before";
  if (change?.wayBack === "restore") return "none but the database's backup";
  return `${tag}, with \`baton rollback ${environment}\``;
}

/** The source of the plan of a stack file's text with the program of this folder. */
export async function sourceHere(
  { project }: Pick<Context, "project">,
  environment: string,
  stackFile: string,
): Promise<PlanSource> {
  const config = project.parse(environment, stackFile);
  const [program, allowedSigners] = await Promise.all([
    project.program(),
    config.approval.signed ? project.text(config.approval.allowedSigners) : "",
  ]);
  const { parts } = await project.planOf(config, { program, allowedSigners });
  return { config, allowedSigners, program, parts };
}

export async function commitsOf(
  folder: string,
  { registry: location }: StackConfig,
  former: string | undefined,
  next: string,
) {
  const registry = openRegistry(location);
  try {
    const [from, to] = await Promise.all([
      former === undefined ? undefined : registry.labels(former),
      registry.labels(next),
    ]);
    return await commitsBetween(folder, from, to);
  } catch (error) {
    // The card is the better for it, and no worse than its absence.
    if (!(error instanceof RegistryError)) throw error;
    const why = "the images' labels cannot be read";
    return { state: "unknown", why, commits: [], behind: 0, total: 0 } as const;
  }
}
