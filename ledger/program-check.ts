import { policyFor, stricter } from "../release/approval";
import { problemsOf } from "../release/gate";
import { unpinnedImages, type ImagesByKey } from "../release/images";
import { movedParts, type PlanPart } from "../release/plan";
import type { Problem } from "../release/problem";
import type { SchemaChange } from "../release/schema";
import type { Target } from "../release/way-back";
import { runProblems } from "./caller";
import type { StateResource } from "../release/start";
import {
  approvalsOf,
  committed,
  isKnownWayBack,
  planTerm,
  policiesSince,
  startProblems,
} from "./gate";
import { Ledger } from "./ledger";
import type { LoadedFiles } from "./loaded-files";
import { NO_OUTCOMES, readOutcomes } from "./outcomes";
import { uncovered, UncoveredProgram, type Program } from "./program-files";
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
  readonly images?: ImagesByKey;
  /** The net below this program; none in tests. */
  readonly loaded?: LoadedFiles | undefined;
  readonly now: Date;
  /** The release that runs by the stack's own state. */
  readonly running: () => Promise<Target | undefined>;
  /** The resources in the stack's own state; none unless given. */
  readonly state?: () => Promise<readonly StateResource[]>;
}

/**
 * What people's approvals leave open of a deployment by whoever runs `pulumi up`; nothing where the
 * environment asks for none, or where it returns to what was approved before.
 */
export async function unapproved(deployment: Deployment): Promise<readonly Problem[]> {
  const { folder, environment, given, digest, change, now, running } = deployment;
  const { state = () => Promise.resolve([]) } = deployment;
  const project = await Project.open(folder);
  const present = project.parseGiven(environment, given);
  const ledger = new Ledger(project);
  const inGit = await ledger.isInGit();
  const outcomes = inGit
    ? await readOutcomes(project, ledger, environment, now, running)
    : NO_OUTCOMES;
  const { proven, lastDeployed: last } = outcomes;
  const goesBack = present.rollbackOf !== undefined;
  // Asked first: whatever else cannot be found out does not stand in its way.
  if (goesBack) {
    // Only its settings are compared: the program's files need no hash.
    const plan = await project.planOf(present, { program: { files: {}, lockfile: {} } });
    const target = { environment, digest, plan };
    const runs = await running();
    if (await isKnownWayBack(project, ledger, present, target, outcomes, runs)) return [];
  }
  const head = inGit ? await committed(project, ledger, environment, "HEAD") : undefined;
  const since = inGit ? await policiesSince(project, ledger, environment, last) : [];
  const others = since.map(({ config }) => config);
  const policies = [last?.config, ...others, head?.config, present].filter(
    (config) => config !== undefined,
  );
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
  const program = await project.program().catch(uncovered);
  if (program instanceof UncoveredProgram) return program.problems;
  const name = project.stackFile(environment);
  const file = { name, text: await project.text(name) };
  const beside = [
    ...runProblems(environment, file, project.tsconfig),
    ...runningProblems(project, program, deployment),
    ...unpinnedImages(environment, deployment.images ?? {}),
  ];
  const request = inGit ? await ledger.request(environment) : undefined;
  if (request === undefined) {
    return [
      ...beside,
      {
        where: environment,
        property: "the request",
        value: "missing",
        expected: `a commit that asks for the deployment, and the word of ${required} on it`,
        fix: `Ask with \`baton request ${environment}\``,
      },
    ];
  }
  const plan = await project.planOf(present, { program });
  // Of secrets a program knows no ciphertext: the stack file has it, and must be what is deployed.
  const stackFile = await project.read(environment);
  const config = project.parse(environment, stackFile);
  const asked = await project.planOf(config, { program });
  const differing = movedParts(plan.parts, asked.parts).filter((part) => !UNKNOWN.includes(part));
  if (differing.length > 0) {
    return [
      ...beside,
      {
        where: environment,
        property: "the configuration",
        value: `another one than ${name}: ${differing.join(", ")} differ`,
        expected: "the stack file that was approved",
        fix:
          config.beside["environment"] === undefined
            ? "Deploy without --config and --config-file"
            : `Deploy without --config and --config-file, and write into ${name} what the imported environments set as pulumiConfig`,
      },
    ];
  }
  const approvals = await approvalsOf(project, ledger, request, config, last, proven, change, now);
  const terms = approvals.terms.filter(({ name }) => name !== "approvals" || !approvals.unattended);
  const plans = await planTerm(project, ledger, request, stackFile);
  return [
    ...beside,
    ...problemsOf([plans, ...terms]),
    ...startProblems(request, request.starts.length === 0 ? [] : await state()),
  ];
}

/** Problems of a program that runs other files than were hashed. */
function runningProblems(
  project: Project,
  program: Program,
  { environment, loaded }: Deployment,
): readonly Problem[] {
  if (loaded === undefined) return [];
  if (loaded.layout.base === project.layout.base) return loaded.problems(program, true);
  return [
    {
      where: environment,
      property: "the program",
      value: `the one of ${loaded.layout.base}`,
      expected: `that of ${project.layout.base}, as Pulumi.yaml and its main say`,
      fix: "Correct main in Pulumi.yaml or package.json",
    },
  ];
}

/** What a running program cannot know of its plan. */
const UNKNOWN: readonly PlanPart[] = ["secrets"];
