import { approvalProblems } from "../release/approval";
import { movedParts, type Plan } from "../release/plan";
import type { Problem } from "../release/problem";
import type { Ledger, LedgerOutcome, Request } from "./ledger";
import type { Project } from "./project";
import type { StackConfig } from "./stack-config";

/**
 * The approval policy that counts for an environment: the one that was deployed last, so that a
 * change which lowers the bar is itself held to the former one. At first, the present one.
 */
async function countingPolicy(
  project: Project,
  ledger: Ledger,
  environment: string,
  outcomes: readonly LedgerOutcome[],
): Promise<StackConfig["approval"]> {
  // A way back asks for no approval, so it cannot bring a policy into force.
  const last = outcomes.find(({ result }) => result === "deployed");
  if (last === undefined) return (await project.config(environment)).approval;
  const [stackFile, projectFile] = await Promise.all([
    ledger.show(last.commit, project.stackFile(environment)),
    ledger.show(last.commit, "Pulumi.yaml"),
  ]);
  return project.parse(environment, stackFile ?? "", projectFile).approval;
}

/** The policy that counts for a request, and whose word is still missing, or against it. */
export async function approvalsOf(
  project: Project,
  ledger: Ledger,
  request: Request,
): Promise<{ policy: StackConfig["approval"]; missing: Problem[] }> {
  const { environment, requesters } = request;
  const [outcomes, words] = await Promise.all([
    ledger.outcomes(environment),
    ledger.words(request),
  ]);
  const policy = await countingPolicy(project, ledger, environment, outcomes);
  return { policy, missing: approvalProblems(environment, policy, requesters, words) };
}

/** What is no longer as it was requested. */
export function planProblems(request: Request, plan: Plan): Problem[] {
  if (request.plan === plan.hash) return [];
  const moved = movedParts(request.parts, plan.parts);
  return [
    {
      where: request.environment,
      property: "the plan",
      value: `another one: ${moved.join(", ") || "the request itself"} moved since the request`,
      expected: `the plan that was requested for ${request.tag}`,
      fix: `Undo that, or ask anew with \`baton request ${request.environment}\``,
    },
  ];
}
