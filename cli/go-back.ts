import type { LedgerOutcome } from "../ledger/ledger";
import { refusalIn } from "../release/schema";
import type { Target } from "../release/way-back";
import { reasonOf } from "./bookkeeping";
import type { Context } from "./context";
import { readFacts } from "./facts";
import { programOf } from "./former-program";
import type { UpResult } from "./pulumi";

/** What becomes of a release that was left because of how it ran. */
export function heldEverywhere(tag: string): string {
  return `${tag} is held everywhere until somebody runs \`baton unhold ${tag}\` with a reason.`;
}

/** What the ledger has of a release to return to. */
interface Approved {
  /** Its deployment; none where it was deployed without the tool. */
  readonly outcome: LedgerOutcome | undefined;
  /** The commit of that request, or of the last deployment's before, in the reviewed history. */
  readonly commit: string | undefined;
  /** The stack file and Pulumi.yaml of its deployment, or of the last one before. */
  readonly stackFile: string | undefined;
  readonly projectFile: string | undefined;
}

/**
 * Deploys a former release as it was, in place of the one that is being left: its image, settings,
 * defaults and program, with the present secrets. Where its program cannot be had, or is refused
 * before anything is changed, the present program returns to it: a way back always wins.
 */
export async function goBack(
  context: Context,
  environment: string,
  stackFile: string,
  target: Target,
  leaving: string,
): Promise<{ readonly text: string; readonly up: UpResult }> {
  const { project, pulumi, print, showProgress } = context;
  const title = `${environment}: back from ${leaving} to ${target.tag}`;
  const back = { target, leaving };
  const present = project.editBack(environment, stackFile, back);
  let [text, approved, why] = [present, NOTHING, ""];
  try {
    approved = await approvedOf(context, environment, target);
    text = project.editBack(environment, stackFile, { ...back, former: approved.stackFile });
  } catch (error) {
    print(
      `${environment}: how ${target.tag} was configured cannot be had (${reasonOf(error)}); it goes back with the present settings.`,
    );
    [text, approved] = [present, NOTHING];
  }

  const { outcome, commit } = approved;
  if (outcome !== undefined && commit !== undefined) {
    const program = await programOf(context, environment, outcome, commit);
    if (program.kind === "missing") why = program.why;
    if (program.kind === "former") {
      const { folder, env, remove } = program;
      print(
        `${environment}: ${target.tag} goes back with its own program (${commit.slice(0, 9)}).`,
      );
      const then = { ...back, former: approved.stackFile, policy: "then" } as const;
      const own = project.editBack(environment, stackFile, then);
      const up = await showProgress(title, (show) =>
        pulumi.up(environment, own, show, { env, folder }),
      ).finally(remove);
      if (!isRefused(up)) return { text, up };
      why = `its own was refused (${firstReason(up.reason)})`;
    }
  }
  if (why !== "") {
    print(`${environment}: the present program goes back to ${target.tag}: ${why}.`);
  }

  const { projectFile } = approved;
  const whole = projectFile && project.withDefaults(environment, text, projectFile);
  if (whole !== undefined && whole !== text) {
    const up = await showProgress(title, (show) => pulumi.up(environment, whole, show));
    if (!isRefused(up)) return { text, up };
    print(
      `${environment}: with the present defaults, as the former ones were refused (${firstReason(up.reason)}).`,
    );
  }
  return { text, up: await showProgress(title, (show) => pulumi.up(environment, text, show)) };
}

const NOTHING: Approved = {
  outcome: undefined,
  commit: undefined,
  stackFile: undefined,
  projectFile: undefined,
};

/** The stack file of a way back. */
export async function stackFileOf(
  context: Context,
  environment: string,
  stackFile: string,
  target: Target,
  leaving: string,
): Promise<string> {
  const { stackFile: former } = await approvedOf(context, environment, target);
  return context.project.editBack(environment, stackFile, { target, leaving, former });
}

/** How a release was deployed, by a request in the reviewed history and by no tag's claim. */
async function approvedOf(
  context: Context,
  environment: string,
  target: Target,
): Promise<Approved> {
  const { project, ledger } = context;
  const { proven, requests } = await (await readFacts(context)).of(environment);
  const all = proven.filter(({ result, ref }) => result === "deployed" && requests.has(ref));
  const outcome = all.find(({ tag, digest }) => tag === target.tag && digest === target.digest);
  // A release that was deployed by hand goes back with the stack file that was approved last, or
  // where none was, with the present one.
  const deployed = outcome ?? all[0];
  const commit = deployed && requests.get(deployed.ref)?.commit;
  if (commit === undefined) return NOTHING;
  const [stackFile, projectFile] = await Promise.all([
    ledger.show(commit, project.stackFile(environment)),
    ledger.show(commit, "Pulumi.yaml"),
  ]);
  return { outcome, commit, stackFile, projectFile };
}

/** Whether a run was refused before it changed anything, for a reason that another may not have. */
function isRefused({
  succeeded,
  touched,
  lockedBy,
  interrupted,
  killed,
  reason,
}: UpResult): boolean {
  const isOver = succeeded || touched || lockedBy.length > 0 || interrupted || killed;
  // A schema that has passed its point of no return refuses every program.
  return !isOver && refusalIn(reason) === undefined;
}

/** The first line that says why, for people, the ledger and Slack. */
export function firstReason(text: string): string {
  const errors = text.split("\n").flatMap((line) => /error: (.+)$/.exec(line)?.[1] ?? []);
  const told = errors.find(
    (line) => !/^(update failed|1 error occurred|\d+ errors occurred)/.test(line),
  );
  return (told ?? errors[0] ?? text).trim().slice(0, 300);
}
