import { setTimeout } from "node:timers/promises";
import { Refusal } from "../ledger/refusal";
import type { Tree } from "../release/merge";
import type { Context } from "./context";
import type { Holder } from "./run";

/** Says that a stack was found locked. */
export class Locked {
  constructor(
    readonly stackFile: string,
    readonly holders: readonly Holder[],
  ) {}
}

/**
 * Does something that only one may do to an environment at a time, all of it again after whatever a
 * killed run of this checkout had left is removed. Pulumi's lock in files can refuse two that come
 * at once, so both try again; whoever finds the same holder twice gives up.
 * @throws Refusal that says who holds it, and since when.
 */
export async function alone<T>(
  context: Context,
  environment: string,
  action: () => Promise<T | Locked>,
): Promise<T> {
  const { project, pulumi } = context;
  let seen: string | undefined;
  for (;;) {
    const result = await action();
    if (!(result instanceof Locked)) return result;
    const { stackFile, holders } = result;
    // Loading it takes a third of a second, which few runs need.
    const { clusterOf } = await import("./cluster");
    const cluster = clusterOf(environment, project.parse(environment, stackFile));
    const remove = (object: Tree) => cluster.remove(object, project.name);
    const recovered = await context.showProgress(`${environment}: find out who holds it`, (show) =>
      pulumi.recover(environment, stackFile, holders, remove, show),
    );
    if (recovered) {
      seen = undefined;
      continue;
    }
    const found = holders.map(({ host, pid, since }) => `${host} ${pid} ${since}`).join();
    if (found === seen) throw heldBy(environment, holders);
    seen = found;
    await setTimeout(500 + Math.random() * 1500);
  }
}

function heldBy(environment: string, holders: readonly Holder[]): Refusal {
  const who = holders.map(
    ({ user, host, pid, since }) => `${user} on ${host} since ${since} (process ${pid})`,
  );
  return new Refusal({
    where: environment,
    property: "the stack",
    value: `held by ${who.join(", ")}`,
    expected: "nobody else at work on it",
    fix:
      "Wait until they are done, and run the same command again; if that machine is gone, " +
      `run \`pulumi cancel --stack ${environment}\` first`,
  });
}
