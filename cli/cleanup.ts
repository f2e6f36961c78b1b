import { Refusal } from "../ledger/refusal";
import type { Operation } from "../release/operations";
import { alone, Locked } from "./alone";
import { endAsTouched } from "./bookkeeping";
import { checkName, fetchOrNote, type Context, type Report } from "./context";

/** What the program removes the former release by. */
const CLEANUP = { BATON_CLEANUP: "1" };

/**
 * `baton cleanup ENV`: removes the former release that a blueGreen or canary rollout has left beside
 * the one that runs. What runs is deployed once more as it is, without the former one.
 */
export async function cleanup(context: Context, environment: string): Promise<Report> {
  checkName(environment);
  await fetchOrNote(context);
  return endAsTouched(context, environment, () =>
    alone(context, environment, () => attempt(context, environment)),
  );
}

async function attempt(context: Context, environment: string): Promise<Report | Locked> {
  const { project, pulumi, print, showProgress } = context;
  const [stackFile, { release, colours }] = await Promise.all([
    project.read(environment),
    pulumi.outputs(environment),
  ]);
  const removed = colours?.kept?.settings.imageTag;
  if (removed === undefined) {
    print(`${environment}: no former release stays beside the one that runs.`);
    return { outcome: "done", environment };
  }
  const { imageTag, rollbackOf } = project.parse(environment, stackFile);
  if (imageTag !== release?.imageTag || rollbackOf !== release?.rollbackOf) {
    throw more(environment, project.stackFile(environment), `a request for ${imageTag ?? "none"}`);
  }
  const { operations } = await showProgress(`${environment}: preview`, () =>
    pulumi.preview(environment, stackFile, CLEANUP),
  );
  const others = operations.filter(
    (operation) => operation.urn.includes("kubernetes:") && !isRemoval(operation),
  );
  if (others.length > 0) {
    const names = others.map(({ op, urn }) => `${op} ${urn.split("::").at(-1) ?? urn}`);
    throw more(environment, "the preview", names.join(", "));
  }
  const up = await showProgress(`${environment}: remove ${removed}`, (show) =>
    pulumi.up(environment, stackFile, show, { env: CLEANUP }),
  );
  if (up.lockedBy.length > 0) return new Locked(stackFile, up.lockedBy);
  if (!up.succeeded) {
    print(up.reason);
    print(`${environment}: ${removed} is not removed; the log is ${up.log}. Run this again.`);
    return { outcome: "failed", environment, reason: up.reason, log: up.log };
  }
  print(`${environment}: ${removed} is removed; a way back to it would roll it out again.`);
  return { outcome: "done", environment, removed };
}

/** The number of pods that a canary was given is declared again once nothing stays beside it. */
function isRemoval({ op, paths = [] }: Operation): boolean {
  const isCounted = paths.length > 0 && paths.every((path) => path === "spec.replicas");
  return op === "delete" || op === "same" || (op === "update" && isCounted);
}

function more(where: string, property: string, value: string): Refusal {
  return new Refusal({
    where,
    property,
    value,
    expected: "nothing but the removal of the former release",
    fix: "Deploy what is asked for, which removes the former release, too, or take it back, first",
  });
}
