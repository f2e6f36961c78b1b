import * as pulumi from "@pulumi/pulumi";
import { existsSync, readFileSync } from "node:fs";
import { isAbsolute, join } from "node:path";
import { imagesBeside, isSecretKey, type StackConfig } from "./config";
import type { LoadedFiles } from "./ledger/loaded-files";
import type { Release } from "./release/eligibility";
import { unpinnedImages } from "./release/images";
import { formatProblems, type Problem } from "./release/problem";
import type { DatabasePlan } from "./release/schema";
import type { StateResource } from "./release/start";
import { targetOf, type Running } from "./release/way-back";

/** Its value is the reason to deploy without the approvals that are needed. */
const BREAK_GLASS = "BATON_BREAK_GLASS";

/**
 * Whether people have approved what is about to be deployed, by the ledger in the project's git
 * repository. A preview needs no word, and warns of images that the deployment will refuse in spite of all words.
 */
export async function checkApprovals(
  config: StackConfig,
  release: Release,
  database: DatabasePlan | undefined,
  loaded: LoadedFiles | undefined,
  running: () => Promise<Running | undefined>,
  state: () => Promise<readonly StateResource[]>,
): Promise<{ readonly problems: readonly Problem[]; readonly breakGlass?: string }> {
  const { environment, approval, rollbackOf } = config;
  if (pulumi.runtime.isDryRun()) {
    const asks = approval.required > 0 && rollbackOf === undefined;
    const unpinned = asks ? unpinnedImages(environment, imagesBeside(config)) : [];
    if (unpinned.length > 0) {
      void pulumi.log.warn(`${formatProblems(unpinned)} Without that, it cannot be deployed.`);
    }
    return { problems: [] };
  }
  // Loaded for deployments only: previews are many.
  const { unapproved } = await import("./ledger/program-check");
  const problems = await unapproved({
    folder: projectFolder(),
    environment,
    given: givenConfig(),
    digest: release.digest,
    change: database?.kind === "forward" ? database.change : undefined,
    images: imagesBeside(config),
    loaded,
    now: new Date(),
    running: async () => {
      const runs = await running();
      return runs && targetOf(runs);
    },
    state,
  }).catch((error: unknown) => [unreadable(environment, error)]);
  return pardon(environment, problems);
}

/**
 * Lets a deployment pass without approvals for the reason that its caller gives in BATON_BREAK_GLASS,
 * which everyone will see. Without a reason the problems stand, and say how to give one.
 */
export async function pardon(
  environment: string,
  problems: readonly Problem[],
): Promise<{ readonly problems: readonly Problem[]; readonly breakGlass?: string }> {
  const breakGlass = process.env[BREAK_GLASS]?.trim();
  if (problems.length === 0) return { problems };
  const { isCallersOwn } = await import("./ledger/caller");
  if (!breakGlass || !isCallersOwn(BREAK_GLASS, stackFileText(environment))) {
    const fix = breakGlass
      ? `; ${BREAK_GLASS} counts only where the caller of \`pulumi\` sets it, and no imported environment`
      : `, or set ${BREAK_GLASS} to a reason that everybody will see`;
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

/** The stack file; empty where it cannot be read. */
function stackFileText(environment: string): string {
  try {
    return readFileSync(join(projectFolder(), `Pulumi.${environment}.yaml`), "utf8");
  } catch {
    return "";
  }
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
