import Table from "cli-table3";
import type { Context } from "./context";

/** One environment at a glance. */
export interface EnvironmentStatus {
  readonly environment: string;
  readonly upstream: string | undefined;
  /** What runs, and what it has earned. */
  readonly runs: { tag: string; digest: string; version?: string | undefined } | undefined;
  readonly earnedTag: string | undefined;
  /** What the stack file asks for. */
  readonly asksFor: string | undefined;
  /** The upstream's earned tag, where the stack file asks for another. */
  readonly couldTake: string | undefined;
}

/** Reads the whole path: what runs where, what is asked for, and what could move. */
export async function readStatus({ project, pulumi }: Context): Promise<EnvironmentStatus[]> {
  const path = await project.path();
  const outputs = new Map(
    await Promise.all(path.map(async (name) => [name, await pulumi.outputs(name)] as const)),
  );
  return Promise.all(
    path.map(async (environment) => {
      const { upstream, imageTag } = await project.config(environment);
      const { release, earnedTag } = outputs.get(environment) ?? {};
      const next = upstream === undefined ? undefined : outputs.get(upstream)?.earnedTag;
      return {
        environment,
        upstream,
        runs: release && {
          tag: release.imageTag,
          digest: release.digest,
          version: release.version,
        },
        earnedTag,
        asksFor: imageTag,
        couldTake: next === imageTag ? undefined : next,
      };
    }),
  );
}

const NONE = "–";

/** `baton status`. */
export async function status(context: Context, { json = false }: { json?: boolean }) {
  const environments = await readStatus(context);
  if (json) {
    context.print(JSON.stringify({ version: 1, environments }, undefined, 2));
    return;
  }
  const table = new Table({
    head: ["environment", "runs", "digest", "version", "earned", "asks for", "could take"],
    style: { head: process.stdout.isTTY ? ["cyan"] : [], border: [] },
  });
  for (const { environment, runs, earnedTag, asksFor, couldTake } of environments) {
    table.push([
      environment,
      runs?.tag ?? NONE,
      runs?.digest.slice(0, 19) ?? NONE,
      runs?.version ?? NONE,
      earnedTag ?? NONE,
      asksFor === runs?.tag ? "the same" : (asksFor ?? NONE),
      couldTake ?? NONE,
    ]);
  }
  context.print(table.toString());
}
