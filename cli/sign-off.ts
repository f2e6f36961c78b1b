import { stampOf } from "../ledger/entries";
import type { LedgerOutcome } from "../ledger/ledger";
import { readNamedWords, type EnvironmentOutcomes } from "../ledger/outcomes";
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
  const outcomes = await facts.of(environment);
  const open = await unreviewedOf(context, environment, outcomes);
  if (open.length === 0) {
    print(`${environment}: no hotfix waits for its review.`);
    await publish(context);
    return { outcome: "done", environment, reviewed: [] };
  }
  const own = open.filter(({ ref, who }) =>
    includes([who, ...(outcomes.requests.get(ref)?.requesters ?? [])], person),
  );
  if (own.length > 0) {
    throw new Refusal({
      where: environment,
      property: "the review",
      value: `by ${person}, who asked for it or deployed it`,
      expected: "another person's eyes",
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
 * The hotfixes that were deployed, and reviewed by no person but those who asked for them or deployed
 * them, the newest first.
 */
export async function unreviewedOf(
  { project, ledger, now }: Pick<Context, "project" | "ledger" | "now">,
  environment: string,
  { proven, requests }: EnvironmentOutcomes,
): Promise<LedgerOutcome[]> {
  const hotfixes = proven.filter(({ hotfix, result }) => hotfix && result === "deployed");
  if (hotfixes.length === 0) return [];
  const words = await readNamedWords(project, ledger, "review", environment, now());
  return hotfixes.filter(({ ref, at, who }) => {
    const own = [who, ...(requests.get(ref)?.requesters ?? [])];
    return !words.some(({ of: [stamp], email }) => stamp === stampOf(at) && !includes(own, email));
  });
}
