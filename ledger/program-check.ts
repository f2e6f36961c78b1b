import { policyFor, stricter } from "../release/approval";
import { problemsOf } from "../release/gate";
import { movedParts, type PlanPart } from "../release/plan";
import type { Problem } from "../release/problem";
import type { SchemaChange } from "../release/schema";
import type { Target } from "../release/way-back";
import { approvalsOf, committed, isKnownWayBack, planTerm } from "./gate";
import { Ledger } from "./ledger";
import { readOutcomes, type EnvironmentOutcomes } from "./outcomes";
import { Project } from "./project";

/** What a program is about to deploy. */
export interface Deployment {
  /** The Pulumi project's. */
  readonly folder: string;
  readonly environment: string;
  /** The stack's configuration as Pulumi gave it; a secret without its value. */
  readonly given: Readonly<Record<string, string | undefined>>;
  readonly digest: string;
  /** What it does to the environment's database. */
  readonly change?: SchemaChange | undefined;
  readonly now: Date;
  /** The release that runs by the stack's own state. */
  readonly running: () => Promise<Target | undefined>;
}

const NO_OUTCOMES: Pick<EnvironmentOutcomes, "proven" | "lastDeployed"> = {
  proven: [],
  lastDeployed: undefined,
};

/**
 * What people's approvals leave open of a deployment by whoever runs `pulumi up`; nothing where the
 * environment asks for none, or where it returns to what was approved before.
 */
export async function unapproved(deployment: Deployment): Promise<readonly Problem[]> {
  const { folder, environment, given, digest, change, now, running } = deployment;
  const project = await Project.open(folder);
  const present = project.parseGiven(environment, given);
  const ledger = new Ledger(project);
  const inGit = (await ledger.git.try("rev-parse", "--verify", "--quiet", "HEAD")) !== undefined;
  const { proven, lastDeployed: last } = inGit
    ? await readOutcomes(project, ledger, environment, now, running)
    : NO_OUTCOMES;
  const goesBack = present.rollbackOf !== undefined;
  // Asked first: whatever else cannot be found out does not stand in its way.
  if (goesBack) {
    const target = { environment, digest, plan: await project.planOf(present) };
    const runs = await running();
    if (await isKnownWayBack(project, ledger, present, target, proven, runs)) return [];
  }
  const head = inGit ? await committed(project, ledger, environment, "HEAD") : undefined;
  const policies = [last?.config, head?.config, present].filter((config) => config !== undefined);
  const { required } = policies
    .map(({ approval }) => policyFor(approval, change?.wayBack === "restore"))
    .reduce(stricter);
  if (required === 0) return [];
  if (goesBack) {
    return [
      {
        where: environment,
        property: "the settings",
        value: "others than that release has had here",
        expected: "those of a deployment that was approved",
        fix: `Go back with \`baton rollback ${environment}\``,
      },
    ];
  }
  const request = inGit ? await ledger.request(environment) : undefined;
  if (request === undefined) {
    return [
      {
        where: environment,
        property: "the request",
        value: "missing",
        expected: `a commit that asks for the deployment, and the word of ${required} on it`,
        fix: `Ask with \`baton request ${environment}\``,
      },
    ];
  }
  const plan = await project.planOf(present);
  // Of secrets a program knows no ciphertext: the stack file has it, and must be what is deployed.
  const stackFile = await project.read(environment);
  const config = project.parse(environment, stackFile);
  const asked = await project.planOf(config);
  const differing = movedParts(plan.parts, asked.parts).filter((part) => !UNKNOWN.includes(part));
  if (differing.length > 0) {
    return [
      {
        where: environment,
        property: "the configuration",
        value: `another one than ${project.stackFile(environment)}: ${differing.join(", ")} differ`,
        expected: "the stack file that was approved",
        fix: "Deploy without --config and --config-file",
      },
    ];
  }
  const approvals = await approvalsOf(project, ledger, request, config, last, change, now);
  const terms = approvals.terms.filter(({ name }) => name !== "approvals" || !approvals.unattended);
  return problemsOf([await planTerm(project, ledger, request, stackFile), ...terms]);
}

/** What a running program cannot know of its plan. */
const UNKNOWN: readonly PlanPart[] = ["secrets"];
