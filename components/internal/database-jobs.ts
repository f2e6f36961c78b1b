import type { RecordedResource } from "../../stack-state";

/** A Job of the database that the stack has recorded, also in a run that failed. */
export interface DatabaseJob {
  /** Its resource's. */
  readonly name: string;
  readonly objectName: string;
  /** RFC 3339, in UTC. */
  readonly createdAt: string;
  readonly after: string | undefined;
}

/** Of a Job's pod: the Job that had changed the schema before. */
export const AFTER = "baton/after";

interface Outputs {
  readonly metadata?: { readonly name?: string; readonly creationTimestamp?: string };
  readonly spec?: {
    readonly template?: { readonly metadata?: { readonly annotations?: Record<string, string> } };
  };
}

export function databaseJobs(
  resources: Readonly<Record<string, RecordedResource>>,
): readonly DatabaseJob[] {
  return Object.entries(resources).flatMap(([urn, { outputs }]): DatabaseJob[] => {
    const name = JOB.exec(urn)?.[1];
    const { metadata, spec } = outputs as Outputs;
    const objectName = metadata?.name;
    const createdAt = metadata?.creationTimestamp;
    if (name === undefined || objectName === undefined || createdAt === undefined) return [];
    const after = spec?.template?.metadata?.annotations?.[AFTER];
    return [{ name, objectName, createdAt, after }];
  });
}

const JOB = /baton:components:Database\$kubernetes:batch\/v1:Job::(.*)$/;

/**
 * What a Job of this name has found out or done holds until another deployment changes the schema:
 * then it is to be made anew, though nothing about itself has changed.
 * @param release as the deployment's own Jobs are called: what they change is what they are for
 * @returns the last Job that has done so; nothing where the recorded one is the first of its name
 */
export function lastChange(
  jobs: readonly DatabaseJob[],
  name: string,
  release: string,
): string | undefined {
  const recorded = jobs.find((job) => job.name === name);
  if (recorded === undefined) return undefined;
  const own = CHANGES.map((step) => `${step}${release}`);
  const since = jobs
    .filter((job) => CHANGES.some((step) => job.name.startsWith(step)) && !own.includes(job.name))
    .filter(({ createdAt }) => createdAt > recorded.createdAt)
    .sort((a, b) => a.createdAt.localeCompare(b.createdAt));
  return since.at(-1)?.objectName ?? recorded.after;
}

const CHANGES = ["database-migrate-", "database-down-"];
