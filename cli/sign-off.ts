import { stampOf } from "../ledger/entries";
import type { Ledger, LedgerOutcome } from "../ledger/ledger";
import { Refusal } from "../ledger/refusal";
import { includes } from "../release/approval";
import { readFacts } from "./facts";
import { checkName, fetchOrNote, publish, type Context, type Report } from "./context";

/** `baton sign-off ENV NAME`: a person's word that an environment's release may move on. */
export async function signOff(
  context: Context,
  environment: string,
  name: string,
  { tag: given }: { tag?: string },
): Promise<Report> {
  checkName(environment);
  const { project, ledger, pulumi, print } = context;
  const { signOffs } = await project.config(environment);
  const people = signOffs[name];
  if (people === undefined) {
    throw new Refusal({
      where: environment,
      property: "NAME",
      value: name,
      expected: `one of baton:signOffs: ${Object.keys(signOffs).join(", ") || "none"}`,
      fix: "Name one of them, or add it to the stack file",
    });
  }
  await fetchOrNote(context);
  const tag = given ?? (await pulumi.outputs(environment)).earnedTag;
  if (tag === undefined) {
    throw new Refusal({
      where: environment,
      property: "earnedTag",
      value: "not set",
      expected: "a release that it has verified",
      fix: `Deploy ${environment} first`,
    });
  }
  const ref = await ledger.sayNamed("sign-off", environment, [tag, name]);
  print(`${environment}: ${name} for ${tag} (${ref}).`);
  const person = await ledger.person();
  if (people.length > 0 && !includes(people, person)) {
    print(`Your word does not count: it takes ${people.join(" or ")}.`);
  }
  await publish(context);
  return { outcome: "done", environment, tag, name, ref };
}

/** `baton review ENV`: somebody has looked at a hotfix that was deployed through the fast lane. */
export async function review(context: Context, environment: string): Promise<Report> {
  checkName(environment);
  const { ledger, print } = context;
  await fetchOrNote(context);
  const person = await ledger.person();
  const facts = await readFacts(context);
  const open = await unreviewedOf(ledger, environment, await facts.outcomesOf(environment));
  if (open.length === 0) {
    print(`${environment}: no hotfix waits for its review.`);
    await publish(context);
    return { outcome: "done", environment, reviewed: [] };
  }
  const own = open.filter(({ who }) => who.toLowerCase() === person.toLowerCase());
  if (own.length > 0) {
    throw new Refusal({
      where: environment,
      property: "the review",
      value: `by ${person}, who deployed it`,
      expected: "somebody else's eyes",
      fix: `Let another person run \`baton review ${environment}\``,
    });
  }
  for (const { at } of open) await ledger.sayNamed("review", environment, [stampOf(at)]);
  const reviewed = open.map(({ tag }) => tag);
  print(`${environment}: the hotfix ${reviewed.join(", ")} is reviewed.`);
  await publish(context);
  return { outcome: "done", environment, reviewed };
}

/**
 * The hotfixes that nobody has looked at since they were deployed.
 * @param outcomes of the environment
 */
export async function unreviewedOf(
  ledger: Ledger,
  environment: string,
  outcomes: readonly LedgerOutcome[],
): Promise<LedgerOutcome[]> {
  const hotfixes = outcomes.filter(({ hotfix, result }) => hotfix && result === "deployed");
  if (hotfixes.length === 0) return [];
  const words = await ledger.namedWords("review", environment);
  const reviewed = new Set(words.map(({ of: [stamp] }) => stamp));
  return hotfixes.filter(({ at }) => !reviewed.has(stampOf(at)));
}
