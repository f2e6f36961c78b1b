import { shortHash } from "../release/plan";
import { formatProblem } from "../release/problem";
import { checkName, latestRequest, type Context } from "./context";
import { approvalsOf } from "./gate";

/** `baton approve ENV`: a person's word for the latest request. */
export async function approve(context: Context, environment: string) {
  checkName(environment);
  const { project, ledger, print } = context;
  await project.read(environment);
  const request = await latestRequest(ledger, environment);
  const ref = await ledger.say(request, "approve");
  print(`${environment}: ${request.tag} approved under plan ${shortHash(request.plan)} (${ref}).`);

  const { policy, missing } = await approvalsOf(project, ledger, request);
  const person = (await ledger.person()).toLowerCase();
  const own = request.requesters.some((email) => email.toLowerCase() === person);
  if (own && policy.notOwnRequest && policy.required > 0) {
    print("It is your own request, so your word does not count.");
  }
  for (const problem of missing) print(formatProblem(problem));
  if (missing.length === 0) print(`Go on with \`baton deploy ${environment}\`.`);
}

/** `baton reject ENV`: a person's word against the latest request. */
export async function reject(context: Context, environment: string, reason: string) {
  checkName(environment);
  const { project, ledger, print } = context;
  await project.read(environment);
  const request = await latestRequest(ledger, environment);
  const ref = await ledger.say(request, "reject", reason);
  print(`${environment}: ${request.tag} rejected under plan ${shortHash(request.plan)} (${ref}).`);
}
