import { approvalsOf, type Approvals } from "../ledger/gate";
import type { Request } from "../ledger/ledger";
import { Refusal } from "../ledger/refusal";
import { includes } from "../release/approval";
import { formatCard } from "../release/change-card";
import { problemsOf } from "../release/gate";
import { shortHash } from "../release/plan";
import { formatProblem, type Problem } from "../release/problem";
import type { SchemaChange } from "../release/schema";
import { formatTime } from "../release/time";
import { cardOf, type RequestCard } from "./card";
import {
  checkName,
  fetchOrNote,
  latestRequest,
  publish,
  type Context,
  type Report,
} from "./context";
import { readFacts, type Facts } from "./facts";
import { announceRequest } from "./requested";
import { schemaFacts } from "./schema";
import { startRun } from "./start";
import { agrees, isTerminal } from "./terminal";

/**
 * `baton approve ENV PLAN`: a person's word for the plan of the latest request. Without PLAN, people are
 * shown the card, and asked.
 */
export async function approve(
  context: Context,
  environment: string,
  plan: string | undefined,
): Promise<Report> {
  const { ledger, print } = context;
  const request = await openRequest(context, environment);
  if (plan !== undefined) await checkPlan(context, request, plan);
  else if (context.isQuiet || !isTerminal()) throw planNotGiven(request);
  const { card, doubts, approvals } = await readCard(context, request);
  const { policy } = await approvals();
  const person = await ledger.person();
  if (includes(request.requesters, person) && policy.notOwnRequest && policy.required > 0) {
    throw ownRequest(request, person);
  }
  if (doubts.length > 0) throw new Refusal(doubts);
  // The word that is about to be given is what is missing.
  print(formatCard({ ...card, missing: [], approve: undefined }, process.stdout.columns));
  const named = `${request.tag} for ${environment} under plan ${shortHash(request.plan)}`;
  if (plan === undefined && !(await agrees(`Approve ${named}?`))) {
    print(`${environment}: nothing was recorded.`);
    return { outcome: "refused", environment, request: summaryOf(request) };
  }

  const since = policy.expiresAfter && context.now().getTime() - policy.expiresAfter * 1000;
  const ref = await ledger.say(request, "approve", {
    signed: policy.signed,
    ...(since === undefined ? {} : { since: new Date(since) }),
  });
  print(`${environment}: ${request.tag} approved under plan ${shortHash(request.plan)} (${ref}).`);
  const told = await tell(context, request, await approvals());
  return { ...told, ...(await startIfComplete(context, request)), ref };
}

/** As many digits of a plan as a card shows. */
const SHOWN = shortHash("0".repeat(64)).length;

/** @throws Refusal unless the text names the plan of the request, and no other. */
async function checkPlan({ ledger }: Context, request: Request, given: string): Promise<void> {
  const text = given.toLowerCase();
  const isNamed = text.length >= SHOWN && request.plan.startsWith(text);
  if (!isNamed) {
    throw planProblem(request, {
      value: text.length < SHOWN ? `${given}, which is too short` : given,
      expected: `${shortHash(request.plan)}, the plan of the latest request`,
    });
  }
  if (text === request.plan) return;
  const others = await ledger.requestsIn(request.environment, ["--all"]);
  if (others.every(({ plan }) => plan === request.plan || !plan.startsWith(text))) return;
  throw planProblem(request, {
    value: `${given}, with which another request's plan begins, too`,
    expected: `the whole plan, ${request.plan}`,
  });
}

function planNotGiven(request: Request): Refusal {
  return planProblem(request, {
    value: "not given",
    expected: "the plan that you have read, or a terminal to show it at",
  });
}

function planProblem(
  { environment, tag, requesters, at }: Request,
  { value, expected }: Pick<Problem, "value" | "expected">,
): Refusal {
  const asked = `asked for ${tag} by ${requesters[0] ?? ""} at ${formatTime(at)}`;
  const fix = `Read \`baton show ${environment}\` (${asked}), and give its plan`;
  return new Refusal({ where: environment, property: "PLAN", value, expected, fix });
}

function ownRequest({ environment, tag }: Request, person: string): Refusal {
  return new Refusal({
    where: environment,
    property: "the word",
    value: `of ${person}, whose own request for ${tag} it is, so it does not count`,
    expected: "the word of another person",
    fix: "Let somebody else approve it; nothing was recorded",
  });
}

/** `baton show ENV`: the card of the latest request, as it is now. */
export async function show(context: Context, environment: string): Promise<Report> {
  checkName(environment);
  await context.project.read(environment);
  await fetchOrNote(context);
  const request = await latestRequest(context, environment);
  const { card, approvals } = await readCard(context, request);
  context.print(formatCard(card, process.stdout.columns));
  const { approvedBy } = await approvals();
  const { id, plan } = request;
  return { outcome: "done", environment, request: id, plan, card, approvedBy };
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
  const { tag, requesters, at } = request;
  const plan = shortHash(request.plan);
  context.print(
    `${environment}: ${tag} rejected under plan ${plan}, which ${requesters[0] ?? ""} asked for at ` +
      `${formatTime(at)} (${ref}).`,
  );
  const facts = await readFacts(context);
  const present = await context.project.config(environment);
  const { change } = await schemaFacts(context, environment, present, request);
  const approvals = approvalsWith(context, request, facts, change);
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

interface CardAndApprovals extends RequestCard {
  /** Reads people's words, as they are when it is called. */
  readonly approvals: () => Promise<Approvals>;
}

/** The card of a request. `approvals` reads people's words again, and asks neither registry nor cluster. */
async function readCard(context: Context, request: Request): Promise<CardAndApprovals> {
  const { environment } = request;
  const [facts, present] = await Promise.all([
    readFacts(context),
    context.project.config(environment),
  ]);
  const schema = await schemaFacts(context, environment, present, request);
  const approvals = approvalsWith(context, request, facts, schema.change);
  const { terms, unattended } = await approvals();
  const judged = { terms: [...schema.terms, ...terms], unattended, schema };
  return { ...(await cardOf(context, request, facts, judged)), approvals };
}

function approvalsWith(
  { project, ledger, now }: Context,
  request: Request,
  facts: Facts,
  change: SchemaChange | undefined,
): () => Promise<Approvals> {
  const { environment } = request;
  return async () => {
    const [present, { lastDeployed: last, proven }] = await Promise.all([
      project.config(environment),
      facts.of(environment),
    ]);
    return approvalsOf(project, ledger, request, present, last, proven, change, now());
  };
}

/** Says what is still missing, here and to others. */
async function tell(context: Context, request: Request, approvals: Approvals): Promise<Report> {
  const { environment } = request;
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
    request: summaryOf(request),
    approvedBy: approvals.approvedBy,
    missing: missing.map(formatProblem),
  };
}

function summaryOf({ id, tag, digest, version, plan }: Request) {
  return { id, tag, digest, version, plan };
}
