import { approvalsOf } from "../ledger/gate";
import type { Request } from "../ledger/ledger";
import { Refusal } from "../ledger/refusal";
import { problemsOf } from "../release/gate";
import { fetchOrRefuse, latestRequest, publish, type Context, type Report } from "./context";
import { readFacts, type Facts } from "./facts";
import { leadTermOf, movementTerms } from "./gate";
import { summaryOf, waiting } from "./requested";

/**
 * Lets Pulumi Deployments run a request's `pulumi up`, by a tag on the request's commit. Checks what
 * people, the ledger and the clock say, for which neither the registry nor the cluster is needed;
 * the run itself begins with `baton check`, and the program asks for the approvals once more.
 */
export async function startRun(context: Context, request: Request, facts: Facts): Promise<Report> {
  const { ledger, print } = context;
  const { environment } = request;
  const stops = await stopsOf(context, request, facts);
  if (stops !== undefined) return stops;
  // What the run reads must be there before it begins.
  const unpushed = await ledger.push();
  if (unpushed === undefined) {
    // Nothing takes a tag back once it has started a run, so what others have said by now counts.
    await fetchOrRefuse(context);
    const latest = await latestRequest(context, environment);
    if (latest.id !== request.id) throw overtaken(latest);
    const said = await stopsOf(context, request, await readFacts(context));
    if (said !== undefined) return said;
  }
  const started = unpushed === undefined ? await ledger.start(request, context.now()) : unpushed;
  if (typeof started === "string") {
    throw new Refusal({
      where: environment,
      property: "the tag that starts Pulumi Deployments",
      value: `not pushed (${started})`,
      expected: "it and all that the run reads at the remote",
      fix: `Settle that, and run \`baton deploy ${environment}\``,
    });
  }
  print(`${environment}: Pulumi Deployments has been started by ${started.ref}.`);
  print(`Its end is recorded by \`baton record ${environment}\`.`);
  const waitsFor = [`${environment}: the run that ${started.ref} has started is not recorded yet.`];
  return { outcome: "waiting", ...summaryOf(request), started: started.ref, waitsFor };
}

/** Waits, or nothing where people, the ledger and the clock let a request go on. */
async function stopsOf(
  context: Context,
  request: Request,
  facts: Facts,
): Promise<Report | undefined> {
  const { project, ledger } = context;
  const { environment } = request;
  const config = await project.config(environment);
  const [approvals, movement] = await Promise.all([
    facts.of(environment).then(({ lastDeployed: last, proven }) =>
      // The program, which asks the registry, knows what it does to the database.
      approvalsOf(project, ledger, request, config, last, proven, undefined, context.now()),
    ),
    movementTerms(context, environment, config, request, facts),
  ]);
  const people = approvals.terms.filter(
    ({ name }) => name !== "approvals" || !approvals.unattended,
  );
  const lead = request.follows?.environment;
  const leads = lead === undefined ? [] : [await leadTermOf(request, lead, facts)];
  const terms = [...leads, ...people, ...movement];
  if (terms.some(({ state }) => state === "fails")) {
    await publish(context);
    throw new Refusal(problemsOf(terms));
  }
  if (terms.some(({ state }) => state === "waits")) return waiting(context, request, terms);
  return undefined;
}

function overtaken({ environment, tag, requesters }: Request): Refusal {
  return new Refusal({
    where: environment,
    property: "the request",
    value: `another by now, of ${requesters[0] ?? ""} for ${tag}`,
    expected: "the one that was to be started",
    fix: `Look at it with \`baton show ${environment}\``,
  });
}
