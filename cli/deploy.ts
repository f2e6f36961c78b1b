import { createInterface } from "node:readline/promises";
import { shortHash } from "../release/plan";
import type { Result, Target } from "../release/way-back";
import { checkName, latestRequest, type Context } from "./context";
import { approvalsOf, planProblems } from "./gate";
import { goBack } from "./go-back";
import type { Request } from "./ledger";
import type { UpResult } from "./pulumi";
import { Refusal } from "./refusal";

/**
 * `baton deploy ENV`: deploys the latest request, exactly as it was approved, and goes back at once
 * when that fails.
 * @returns whether the request runs.
 */
export async function deploy(
  context: Context,
  environment: string,
  { yes = false }: { yes?: boolean },
): Promise<boolean> {
  checkName(environment);
  const { project, pulumi, ledger, print, showUp } = context;
  // What is checked is what is deployed, whatever happens to the file meanwhile.
  const stackFile = await project.read(environment);
  const request = await latestRequest(ledger, environment);
  const plan = await project.plan(environment, stackFile);
  const problems = [
    ...planProblems(request, plan),
    ...(await approvalsOf(project, ledger, request)).missing,
  ];
  if (problems.length > 0) throw new Refusal(problems);
  await ledger.person();

  const done = (await ledger.outcomes(environment))[0];
  if (done?.commit === request.commit && done.result === "deployed") {
    print(`${environment}: ${request.tag} is deployed already (${done.ref}).`);
    return true;
  }
  const { release: running } = await pulumi.outputs(environment);
  const former = running && {
    tag: running.imageTag,
    digest: running.digest,
    version: running.version,
  };
  const change = `${environment}: ${former?.tag ?? "nothing"} → ${request.tag}, plan ${shortHash(plan.hash)}`;
  if (!yes && !(await confirm(change))) {
    print(`${environment}: nothing was changed.`);
    return false;
  }

  const up = await showUp(change, (show) => pulumi.up(environment, stackFile, show));
  if (up.succeeded) {
    const ref = await record(context, request, "deployed", former);
    print(`${environment}: ${request.tag} is deployed and verified (${ref}).`);
    return true;
  }
  print(up.reason);
  await recover(context, request, stackFile, up, former);
  return false;
}

/** After an `up` that failed. */
async function recover(
  context: Context,
  request: Request,
  stackFile: string,
  up: UpResult,
  former: Target | undefined,
): Promise<void> {
  const { print } = context;
  const { environment, tag } = request;
  if (!up.touched) {
    print(`${environment}: ${tag} was refused before anything was changed. See above.`);
    return;
  }
  if (up.interrupted) {
    const ref = await record(context, request, "failed", former);
    print(
      `${environment}: stopped on the way to ${tag} (${ref}). Carry on with ` +
        `\`baton deploy ${environment}\`, or go back with \`baton rollback ${environment}\`.`,
    );
    return;
  }
  if (former === undefined) {
    const ref = await record(context, request, "failed", former);
    print(`${environment}: ${tag} failed, and there is no former release (${ref}).`);
    return;
  }
  const back = await goBack(context, environment, stackFile, former, tag);
  if (back.up.succeeded) {
    const ref = await record(context, request, "went-back", former);
    print(`${environment}: ${tag} failed; ${former.tag} runs again, as before (${ref}).`);
    return;
  }
  print(back.up.reason);
  const ref = await record(context, request, "failed", former);
  print(
    `${environment}: ${tag} failed, and so did the way back to ${former.tag} (${ref}). ` +
      `Settle what is said above, and run \`baton rollback ${environment}\`.`,
  );
}

async function record(
  { ledger }: Context,
  request: Request,
  result: Result,
  former: Target | undefined,
): Promise<string> {
  const { environment, commit, tag, digest, version, plan } = request;
  const outcome = { result, tag, digest, version, commit, former };
  return ledger.record(environment, outcome, { "Baton-Plan": plan });
}

/** @throws Refusal where nobody can be asked. */
async function confirm(change: string): Promise<boolean> {
  if (!process.stdin.isTTY || !process.stdout.isTTY) {
    throw new Refusal({
      where: "baton deploy",
      property: "--yes",
      value: "not given",
      expected: "it, or a terminal to ask at",
      fix: "Give --yes",
    });
  }
  const terminal = createInterface({ input: process.stdin, output: process.stdout });
  try {
    return /^y(es)?$/i.test((await terminal.question(`${change}\nDeploy? [y/N] `)).trim());
  } finally {
    terminal.close();
  }
}
