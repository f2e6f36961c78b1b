import type { Request } from "../ledger/ledger";
import { problemsOf, type Term } from "../release/gate";
import {
  exceeds,
  notRoutine,
  parseOperations,
  parseUrn,
  type Operation,
} from "../release/operations";
import type { Problem } from "../release/problem";
import { Locked } from "./alone";
import type { Context } from "./context";
import type { Facts } from "./facts";
import { gateOf, type Gate } from "./gate";

/** Whether a request may be deployed now. */
export type Clearance =
  | { readonly state: "clear"; readonly gate: Gate; readonly unattended: boolean }
  /** People's words or time are missing. */
  | { readonly state: "waits"; readonly terms: readonly Term[] }
  | { readonly state: "fails"; readonly problems: readonly Problem[] };

/**
 * Checks all that must hold before a request is deployed, and previews it once more: it must do no
 * more than was approved.
 */
export async function clear(
  context: Context,
  request: Request,
  stackFile: string,
  facts: Facts,
  preview: () => Promise<readonly Operation[] | Locked>,
): Promise<Clearance | Locked> {
  const { environment } = request;
  const gate = await gateOf(context, request, stackFile, facts, { wait: true });
  const others = gate.terms.filter(({ name }) => name !== "approvals");
  const [approvals] = gate.terms.filter(({ name }) => name === "approvals");
  if ([...others, approvals].some((term) => term?.state === "fails")) {
    return { state: "fails", problems: problemsOf(gate.terms) };
  }
  const unattended = approvals?.state === "waits";
  if (unattended && !gate.approvals.unattended) return { state: "waits", terms: gate.terms };
  const operations = await preview();
  if (operations instanceof Locked) return operations;
  const extraordinary = unattended ? notRoutine(operations) : [];
  if (extraordinary.length > 0) {
    for (const { op, urn } of extraordinary) {
      context.print(`${environment}: ${op} ${nameOf(urn)} is more than what every release does.`);
    }
    return { state: "waits", terms: gate.terms };
  }
  if (others.some(({ state }) => state === "waits")) return { state: "waits", terms: others };
  const beyond = exceeds(parseOperations(request.operations), operations);
  if (beyond.length === 0) return { state: "clear", gate, unattended };
  return { state: "fails", problems: beyond.map((each) => beyondProblem(request, each)) };
}

function beyondProblem({ environment }: Request, { op, urn, paths = [] }: Operation): Problem {
  const what = paths.length > 0 ? ` (${paths.slice(0, 5).join(", ")})` : "";
  return {
    where: environment,
    property: "the preview",
    value: `${op} ${nameOf(urn)}${what}, which it was not when it was asked for`,
    expected: "no more than was approved",
    fix: `Find out what has changed meanwhile, and ask anew with \`baton request ${environment}\``,
  };
}

function nameOf(urn: string): string {
  const { type, name } = parseUrn(urn);
  return `${type} ${name}`;
}
