import { userInfo } from "node:os";
import { setTimeout } from "node:timers/promises";
import { Refusal } from "../ledger/refusal";
import { clusterOf } from "./cluster";
import { checkName, type Context, type Report } from "./context";

/** How often it is tried, a second apart. */
const ATTEMPTS = 10;

/**
 * `baton abort ENV`: makes what is being rolled out, verified or baked fail now, from any machine;
 * whoever deploys goes back then.
 */
export async function abort(
  context: Context,
  environment: string,
  { reason }: { reason: string },
): Promise<Report> {
  checkName(environment);
  const cluster = clusterOf(environment, await context.project.config(environment));
  // A rollout is stopped also where git knows no person.
  const who = await context.ledger.person().catch(() => userInfo().username);
  const { begun, left, unheard, said } = await context.showProgress(
    `${environment}: abort`,
    async () => {
      let begun: ReadonlyMap<string, string> | undefined;
      let left: string[] = [];
      let unheard: readonly string[] = [];
      const said: string[] = [];
      for (let attempt = 1; attempt <= ATTEMPTS; attempt += 1) {
        const { stopped: found, ...more } = await cluster.abort(who, reason, begun);
        said.push(...more.said);
        left = begun === undefined ? [] : [...found.keys()];
        unheard = more.unheard;
        // Whoever waits for a rollout may have come a moment later: it is told until it has heard.
        if (begun !== undefined && found.size === 0) break;
        if (found.size > 0) begun ??= found;
        await setTimeout(1000);
      }
      return { begun, left, unheard, said };
    },
  );
  const stopped = [...(begun?.keys() ?? [])];
  if (stopped.length === 0) {
    throw new Refusal({
      where: environment,
      property: "the rollout",
      value: "not running",
      expected: "one to stop",
      fix: `To return to the former release, run \`baton rollback ${environment}\``,
    });
  }
  for (const line of said) context.print(`${environment}: ${line}.`);
  const over = stopped.filter((what) => !left.includes(what));
  if (over.length > 0) {
    context.print(`${environment}: ${over.join(" and ")} stopped; whoever deploys goes back now.`);
  }
  // Whoever hears of an abort may also leave the pods as they are; and who comes later does not know of
  // it where no rollout was begun.
  for (const what of left) {
    const text = unheard.includes(what)
      ? "nobody deploys now. Whoever carries it on will hear"
      : "whoever deploys now goes back, and nobody who begins later";
    context.print(`${environment}: ${what} is marked; ${text}.`);
  }
  return { outcome: "done", environment, stopped, reason };
}
