import { Refusal } from "../ledger/refusal";
import { problemsOf } from "../release/gate";
import { formatProblem } from "../release/problem";
import { Locked } from "./alone";
import { clear } from "./clearance";
import {
  checkHere,
  checkName,
  fetchOrRefuse,
  latestRequest,
  type Context,
  type Report,
} from "./context";
import { readFacts } from "./facts";
import { summaryOf } from "./requested";

/**
 * `baton check ENV`: all that `deploy` checks of the latest request, the preview included. For
 * whoever runs `pulumi up` next: nothing is deployed, settled or said to others.
 */
export async function check(context: Context, environment: string): Promise<Report> {
  checkName(environment);
  const { project, pulumi, print, showProgress } = context;
  const stackFile = await project.read(environment);
  await fetchOrRefuse(context);
  const request = await latestRequest(context, environment);
  await checkHere(context, request);
  const facts = await readFacts(context);
  const [last] = await facts.outcomesOf(environment);
  if (last?.request === request.id && last.result === "deployed") {
    print(`${environment}: ${request.tag} is deployed already (${last.ref}).`);
    return { outcome: "done", ...summaryOf(request), ref: last.ref };
  }
  const clearance = await clear(context, request, stackFile, facts, () =>
    showProgress(`${environment}: preview`, () => pulumi.preview(environment, stackFile)),
  );
  if (clearance instanceof Locked) throw new Error(`${environment}: a preview locks nothing`);
  switch (clearance.state) {
    case "clear":
      print(`${environment}: ${request.tag} may be deployed.`);
      return {
        outcome: "done",
        ...summaryOf(request),
        approvedBy: clearance.gate.approvals.approvedBy,
      };
    case "waits": {
      const waitsFor = problemsOf(clearance.terms).map(formatProblem);
      for (const line of waitsFor) print(line);
      return { outcome: "waiting", ...summaryOf(request), waitsFor };
    }
    case "fails":
      throw new Refusal(clearance.problems);
  }
}
