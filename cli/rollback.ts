import { join } from "node:path";
import { wayBack } from "../release/way-back";
import { checkName, type Context } from "./context";
import { goBack } from "./go-back";
import { Refusal } from "./refusal";
import { writeAtomically } from "./stack-file";

/**
 * `baton rollback ENV`: the former release, at once and without anybody's approval.
 * @returns whether it runs.
 */
export async function rollback(
  context: Context,
  environment: string,
  { to }: { to?: string },
): Promise<boolean> {
  checkName(environment);
  const { project, pulumi, ledger, print } = context;
  const stackFile = await project.read(environment);
  await ledger.check();
  await ledger.person();
  const asked = project.parse(environment, stackFile).imageTag;
  const outcomes = await ledger.outcomes(environment);
  const { release: running } = await pulumi.outputs(environment);
  const target = running && wayBack(outcomes, running, asked, to);
  if (running === undefined || target === undefined) {
    const known = outcomes.filter(({ result }) => result === "deployed").map(({ tag }) => tag);
    throw new Refusal({
      where: environment,
      property: to === undefined ? "the former release" : "--to",
      value: to ?? "missing",
      expected: `a release that \`baton deploy\` has deployed here: ${[...new Set(known)].join(", ") || "none yet"}`,
      fix: "Without one, set baton:imageTag and baton:rollbackOf by hand and run `pulumi up`",
    });
  }

  // What is being left: what runs, or where that is the target already, what did not get to run.
  const left = running.imageTag === target.tag ? (running.rollbackOf ?? asked) : running.imageTag;
  const leaving = left ?? target.tag;
  const { text, up } = await goBack(context, environment, stackFile, target, leaving);
  if (!up.succeeded) {
    print(up.reason);
    print(`${environment}: the way back to ${target.tag} failed. Settle it, and run this again.`);
    return false;
  }
  const file = project.stackFile(environment);
  const path = join(project.folder, file);
  if (stackFile !== text && stackFile !== (await ledger.show("HEAD", file))) {
    await writeAtomically(`${path}.orig`, stackFile);
    print(`${environment}: what was not committed of ${file} is in ${file}.orig.`);
  }
  await writeAtomically(path, text);
  await ledger.commit(file, `Roll ${environment} back from ${leaving} to ${target.tag}`, {
    "Baton-Rollback": environment,
    "Baton-Tag": target.tag,
    "Baton-Digest": target.digest,
    "Baton-Version": target.version,
  });
  const { tag, digest, version } = target;
  const commit = await ledger.head();
  const outcome = { result: "rolled-back", tag, digest, version, commit } as const;
  const ref = await ledger.record(environment, outcome, { "Baton-Left": leaving });
  print(`${environment}: ${tag} runs again; ${leaving} was left (${ref}).`);
  return true;
}
