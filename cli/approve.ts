import { approvalsOf, type Approvals } from "../ledger/gate";
import type { Request } from "../ledger/ledger";
import { Refusal } from "../ledger/refusal";
import { includes } from "../release/approval";
import { problemsOf } from "../release/gate";
import { groupOperations, parseOperations } from "../release/operations";
import { shortHash } from "../release/plan";
import { formatProblem, type Problem } from "../release/problem";
import { formatTime } from "../release/time";
import {
  checkName,
  fetchOrNote,
  latestRequest,
  publish,
  type Context,
  type Report,
} from "./context";
import { readFacts } from "./facts";
import { announceRequest } from "./requested";
import { schemaFacts } from "./schema";
import { startRun } from "./start";

/** `baton approve ENV`: a person's word for the latest request. */
export async function approve(context: Context, environment: string): Promise<Report> {
  const { ledger, print } = context;
  const request = await openRequest(context, environment);
  const approvals = await approvalsFor(context, request);
  const { policy } = await approvals();
  const since = policy.expiresAfter && context.now().getTime() - policy.expiresAfter * 1000;
  const ref = await ledger.say(request, "approve", {
    signed: policy.signed,
    ...(since === undefined ? {} : { since: new Date(since) }),
  });
  print(`${environment}: ${request.tag} approved under plan ${shortHash(request.plan)} (${ref}).`);
  print(`It was asked for by ${request.requesters[0] ?? ""} at ${formatTime(request.at)}:`);
  printOperations(context, request);
  for (const follower of await followersOf(context, request)) {
    const { environment: name, tag, plan } = follower;
    print(`With it ${name} takes ${tag}, under plan ${shortHash(plan)}:`);
    printOperations(context, follower);
  }

  const person = await ledger.person();
  if (includes(request.requesters, person) && policy.notOwnRequest && policy.required > 0) {
    print("It is your own request, so your word does not count.");
  }
  const told = await tell(context, request, await approvals());
  return { ...told, ...(await startIfComplete(context, request)), ref };
}

function printOperations({ print }: Context, { operations }: Request): void {
  for (const { op, type, names } of groupOperations(parseOperations(operations))) {
    print(`  ${op.padEnd(9)} ${names.length} ${type}: ${names.join(", ")}`);
  }
}

/**
 * Where Pulumi Deployments deploys, the word that completes what a request needs starts it, once; it
 * could not wait for a word itself.
 */
async function startIfComplete(
  context: Context,
  request: Request,
): Promise<{ started?: string; waitsFor?: unknown }> {
  const { project, ledger, notes } = context;
  const { environment, id } = request;
  const { deployedBy } = await project.config(environment);
  if (deployedBy !== "pulumi-deployments") return {};
  const facts = await readFacts(context);
  const isDeployed = (await facts.outcomesOf(environment)).some(
    (outcome) => outcome.request === id,
  );
  if (isDeployed || (await ledger.starts(request)).length > 0) return {};
  try {
    const { started, waitsFor } = await startRun(context, request, facts);
    return { ...(typeof started === "string" ? { started } : {}), waitsFor };
  } catch (error) {
    // The word is given, whatever else stands in the way.
    if (!(error instanceof Refusal)) throw error;
    notes.push(error.message);
    return {};
  }
}

/** `baton reject ENV`: a person's word against the latest request. */
export async function reject(
  context: Context,
  environment: string,
  { reason }: { reason: string },
): Promise<Report> {
  const request = await openRequest(context, environment);
  const ref = await context.ledger.say(request, "reject", { reason });
  const plan = shortHash(request.plan);
  context.print(`${environment}: ${request.tag} rejected under plan ${plan} (${ref}).`);
  const approvals = await approvalsFor(context, request);
  return { ...(await tell(context, request, await approvals())), outcome: "done", ref };
}

async function openRequest(context: Context, environment: string): Promise<Request> {
  checkName(environment);
  await context.project.read(environment);
  await fetchOrNote(context);
  const request = await latestRequest(context, environment);
  const { follows } = request;
  if (follows === undefined) return request;
  throw new Refusal({
    where: environment,
    property: "the request",
    value: `made together with ${follows.environment}'s, whose words it stands under`,
    expected: "a word on that one",
    fix: `Say it of ${follows.environment}, or ask by itself with \`baton request ${environment}\``,
  });
}

/** What was asked for together with a request. */
async function followersOf({ project, ledger }: Context, { environment, id }: Request) {
  const names = await project.followersOf(environment);
  const requests = await Promise.all(names.map(async (name) => ledger.request(name)));
  return requests.flatMap((one) => (one?.id === id ? [one] : []));
}

/** Asks once for all but people's words; what is returned reads those, as they are by then. */
async function approvalsFor(context: Context, request: Request): Promise<() => Promise<Approvals>> {
  const { project, ledger, now } = context;
  const { environment } = request;
  const [facts, present] = await Promise.all([readFacts(context), project.config(environment)]);
  const [{ lastDeployed: last, proven }, { change }] = await Promise.all([
    facts.of(environment),
    schemaFacts(context, environment, present, request),
  ]);
  return () => approvalsOf(project, ledger, request, present, last, proven, change, now());
}

/** Says what is still missing, here and to others. */
async function tell(context: Context, request: Request, approvals: Approvals): Promise<Report> {
  const { environment, tag, digest, version, id, plan } = request;
  const missing: Problem[] = problemsOf(approvals.terms);
  for (const problem of missing) context.print(formatProblem(problem));
  const { deployedBy } = await context.project.config(environment);
  if (missing.length === 0 && deployedBy === "tool") {
    context.print(`Go on with \`baton deploy ${environment}\`.`);
  }
  await publish(context);
  await announceRequest(context, request, {
    approvals: approvals.approvedBy,
    missing: missing.map(formatProblem),
  });
  return {
    outcome: "done",
    environment,
    request: { id, tag, digest, version, plan },
    approvedBy: approvals.approvedBy,
    missing: missing.map(formatProblem),
  };
}
