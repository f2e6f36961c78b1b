import * as pulumi from "@pulumi/pulumi";
import { existsSync } from "node:fs";
import { isAbsolute, join } from "node:path";
import { isSecretKey, type StackConfig } from "./config";
import type { Release } from "./release/eligibility";
import { formatProblems, type Problem } from "./release/problem";
import type { DatabasePlan } from "./release/schema";
import { targetOf, type Running } from "./release/way-back";

/** Its value is the reason to deploy without the approvals that are needed. */
const BREAK_GLASS = "BATON_BREAK_GLASS";

/**
 * Whether people have approved what is about to be deployed, by the ledger in the project's git
 * repository. A preview needs nobody's word.
 */
export async function checkApprovals(
  { environment }: StackConfig,
  release: Release,
  database: DatabasePlan | undefined,
  running: () => Promise<Running | undefined>,
): Promise<{ readonly problems: readonly Problem[]; readonly breakGlass?: string }> {
  if (pulumi.runtime.isDryRun()) return { problems: [] };
  // Loaded for deployments only: previews are many.
  const { unapproved } = await import("./ledger/program-check");
  const problems = await unapproved({
    folder: projectFolder(),
    environment,
    given: givenConfig(),
    digest: release.digest,
    change: database?.kind === "forward" ? database.change : undefined,
    now: new Date(),
    running: async () => {
      const runs = await running();
      return runs && targetOf(runs);
    },
  }).catch((error: unknown) => [unreadable(environment, error)]);
  const breakGlass = process.env[BREAK_GLASS]?.trim();
  if (problems.length === 0 || !breakGlass) {
    const fix = `, or set ${BREAK_GLASS} to a reason that everybody will see`;
    return { problems: problems.map((problem) => ({ ...problem, fix: problem.fix + fix })) };
  }
  void pulumi.log.warn(
    `Deployed for the reason “${breakGlass}”, and not approved:\n${formatProblems(problems)}`,
  );
  return { problems: [], breakGlass };
}

/** Where Pulumi.yaml is. Language hosts before 3.100 do not say; then, where `pulumi` was called. */
export function projectFolder(): string {
  const told = pulumi.runtime.getRootDirectory();
  if (isAbsolute(told)) return told;
  const called = process.env["PWD"] ?? "";
  return existsSync(join(called, "Pulumi.yaml")) ? called : process.cwd();
}

/** A ledger that nobody can read has no approvals in it; an emergency may still go past that. */
function unreadable(environment: string, error: unknown): Problem {
  const message = error instanceof Error ? error.message : String(error);
  return {
    where: environment,
    property: "the ledger",
    value: `unreadable (${message.replace(/\.$/, "")})`,
    expected: "the approvals that this deployment needs, in the project's git repository",
    fix: "Settle that",
  };
}

/** The stack's configuration as the engine gave it to this program, without the secrets' values. */
function givenConfig(): Readonly<Record<string, string | undefined>> {
  const entries = Object.entries(pulumi.runtime.allConfig());
  return Object.fromEntries(
    entries.map(([key, value]) => [key, isSecretKey(key) ? undefined : value]),
  );
}
