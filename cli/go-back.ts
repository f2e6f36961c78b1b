import type { Target } from "../release/way-back";
import type { Context } from "./context";
import { readFacts } from "./facts";
import type { UpResult } from "./pulumi";

/** What becomes of a release that was left because of how it ran. */
export function heldEverywhere(tag: string): string {
  return `${tag} is held everywhere until somebody runs \`baton unhold ${tag}\` with a reason.`;
}

/** Deploys a former release as it was, in place of the one that is being left. */
export async function goBack(
  context: Context,
  environment: string,
  stackFile: string,
  target: Target,
  leaving: string,
): Promise<{ readonly text: string; readonly up: UpResult }> {
  const { project, pulumi, ledger, showProgress } = context;
  const outcomes = await (await readFacts(context)).outcomesOf(environment);
  const all = outcomes.filter(({ result }) => result === "deployed");
  const known = all.find(({ tag, digest }) => tag === target.tag && digest === target.digest);
  // A release that was deployed by hand goes back with the stack file that was approved last, or
  // where none was, with the present one.
  const deployed = known ?? all[0];
  const former = deployed && (await ledger.show(deployed.commit, project.stackFile(environment)));
  const text = project.editBack(environment, stackFile, { target, leaving, former });
  const title = `${environment}: back from ${leaving} to ${target.tag}`;
  return { text, up: await showProgress(title, (show) => pulumi.up(environment, text, show)) };
}
