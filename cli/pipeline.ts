import { resolve } from "node:path";
import pRetry from "p-retry";
import { Git } from "../ledger/git";
import { Refusal } from "../ledger/refusal";
import { openRegistry, type Registry } from "../registry/registry";
import { hotfixFromOf } from "../release/eligibility";
import {
  FLOW_FILE,
  matches,
  names,
  newestFirst,
  parseRef,
  protectedBranch,
  rowFor,
  type Ref,
} from "../release/flow";
import { isEnvironmentName } from "../release/tags";
import { REVISION } from "../registry/images";
import { fetchOrRefuse, type Context, type Report } from "./context";
import { deploy } from "./deploy";
import { readFacts } from "./facts";
import { readFlow } from "./flow";
import { promote } from "./promote";
import { refusal, Revisions } from "./revisions";

export interface PipelineOptions {
  /** The build that was made of the push. */
  readonly tag?: string;
  /** The application's repository, where it is another one. */
  readonly source?: string;
}

/**
 * `baton pipeline REF`: does what the table says of a push to a branch or of a tag. `baton pipeline
 * ENV` deploys the latest request of an environment. A job runs it where the branch is checked out,
 * with all history and tags, and may be gone a moment later: a result that could not be pushed is a
 * failure.
 */
export async function pipeline(
  context: Context,
  text: string,
  options: PipelineOptions,
): Promise<Report> {
  const ref = parseRef(text);
  if (ref === undefined && !isEnvironmentName(text)) {
    throw new Refusal({
      where: "baton",
      property: "REF",
      value: text,
      expected: "refs/heads/ and a branch, refs/tags/ and a tag, or an environment",
      fix: "Give the whole name, as git and pipelines know it",
    });
  }
  const report =
    ref === undefined ? await deployOnBranch(context, text) : await byTable(context, ref, options);
  const unpushed = await pushAgain(context);
  if (unpushed === undefined) return { ...report, ref: text };
  context.print(unpushed);
  const ended = report.outcome === "done" || report.outcome === "waiting";
  return { ...report, ref: text, ...(ended ? { outcome: "failed", problems: [unpushed] } : {}) };
}

/** Deploys an environment's latest request, where its protected branch is checked out. */
async function deployOnBranch(context: Context, environment: string): Promise<Report> {
  const { project, ledger } = context;
  await project.read(environment);
  await ledger.check();
  const branch = protectedBranch(await readFlow(project), environment);
  const present = await ledger.branch();
  if (present === undefined || matches(branch, present) === undefined) {
    throw new Refusal({
      where: environment,
      property: "the checkout",
      value: present ?? "of a commit by itself",
      expected: `${branch}, its protected branch`,
      fix: `Start the job on that branch, or correct protected in ${FLOW_FILE}`,
    });
  }
  return deploy(context, environment, { yes: true });
}

async function byTable(context: Context, ref: Ref, options: PipelineOptions): Promise<Report> {
  const { project, print } = context;
  const flow = await readFlow(project);
  const match = rowFor(flow, ref);
  if (match === undefined) {
    const rows = flow.rows.map((row) => ("tag" in row ? `tag ${row.tag}` : `branch ${row.branch}`));
    throw refusal(ref, {
      property: `the ${ref.kind}`,
      value: `without a row in ${FLOW_FILE}`,
      expected: rows.join(", "),
      fix: "Add a row, or give it another name",
    });
  }
  const { row, version } = match;
  const environment = row.promote;
  if (environment === undefined) {
    print(`${ref.name}: ${FLOW_FILE} promotes nothing from it.`);
    return { outcome: "done" };
  }
  const { upstream, registry: location, versioned, approval } = await project.config(environment);
  const source = resolve(options.source ?? project.folder);
  const branch = "tag" in row ? row.on : ref.name;
  await checkBranch(context, ref, source === resolve(project.folder) ? branch : undefined);
  await fetchOrRefuse(context);

  const registry = openRegistry(location);
  const revisions = new Revisions(new Git(source), flow.application);
  const commit = await revisions.commitOf(ref);
  if ("tag" in row) await revisions.checkOn(ref, commit, row.on);
  const found =
    upstream === undefined
      ? await givenBuild(ref, registry, options.tag)
      : await findRelease(ref, { registry, revisions, commit, upstream }, options.tag);
  const { tag, digest, revision } = found;
  if (upstream === undefined && (await revisions.isOwn(revision ?? "", environment))) {
    print(`${ref.name}: ${tag} was built of a request for ${environment} itself; nothing is new.`);
    return { outcome: "done", environment, tag, digest };
  }

  const named = versioned ? version : undefined;
  if (await runsAlready(context, environment, { tag, digest, version: named })) {
    print(`${environment}: ${tag} is deployed already, with the settings of now.`);
    return { outcome: "done", environment, tag, digest };
  }
  const author = await revisions.whoAsks(ref, commit, approval.required > 0);
  print(`${ref.name}: ${tag} goes to ${environment}, asked for by ${author}.`);
  const asks = {
    tag,
    author,
    yes: true,
    ...(named === undefined ? {} : { version: named }),
    ...(options.source === undefined ? {} : { source: options.source }),
  };
  const promoted = await promote(context, environment, asks, () => checkPushed(context, ref));
  const report = { environment, tag, digest, ...promoted };
  const waits = report.outcome === "waiting";
  if (waits) print(`${environment}: waiting. The tag of the last approval starts the deployment.`);
  if (row.pullRequest === undefined) return report;
  return { ...report, pullRequest: { from: branch, to: row.pullRequest } };
}

/**
 * @param branch that must be checked out; any, where the application's repository is another one
 * @throws Refusal where the commit of a request would be lost
 */
async function checkBranch(
  { ledger }: Context,
  ref: Ref,
  branch: string | undefined,
): Promise<void> {
  await ledger.check();
  const present = await ledger.branch();
  if (present !== undefined && (branch === undefined || present === branch)) return;
  throw refusal(ref, {
    property: "the checkout",
    value: present ?? "of a commit by itself",
    expected: `the branch ${branch ?? "that requests are committed to"}`,
    fix: "Check it out, with all history and tags",
  });
}

interface Found {
  readonly tag: string;
  readonly digest: string;
  readonly revision: string | undefined;
}

/** The build that the job before has pushed. */
async function givenBuild(ref: Ref, registry: Registry, tag: string | undefined): Promise<Found> {
  const digest = tag === undefined ? undefined : await registry.resolve(tag);
  if (tag !== undefined && digest !== undefined) {
    return { tag, digest, revision: (await registry.labels(digest))[REVISION] };
  }
  throw refusal(ref, {
    property: "--tag",
    value: tag === undefined ? "not set" : `${tag}, which the registry does not have`,
    expected: "the build of this push, such as build-45",
    fix: "Run `baton publish` first, and give its tag",
  });
}

/** As many as a refusal shows. */
const SHOWN = 3;

/** The newest release that the upstream has verified, and that the push names. */
async function findRelease(
  ref: Ref,
  where: {
    readonly registry: Registry;
    readonly revisions: Revisions;
    readonly commit: string;
    readonly upstream: string;
  },
  given: string | undefined,
): Promise<Found> {
  const { registry, revisions, commit, upstream } = where;
  if (given !== undefined) {
    throw refusal(ref, {
      property: "--tag",
      value: given,
      expected: "none, as the push itself names the release",
      fix: "Leave it out, or use `baton promote`",
    });
  }
  const passed: string[] = [];
  for (const tag of newestFirst(await registry.tags(), upstream)) {
    const digest = await registry.resolve(tag);
    if (digest === undefined) continue;
    const revision = (await registry.labels(digest))[REVISION];
    const ancestry =
      revision === undefined ? undefined : await revisions.ancestry(revision, commit);
    if (ancestry !== undefined && names(ref, ancestry)) return { tag, digest, revision };
    const why =
      revision === undefined
        ? `has no label ${REVISION}`
        : ancestry === undefined
          ? `is of ${revision.slice(0, 9)}, which is not in this repository`
          : ancestry.contained
            ? `is of ${revision.slice(0, 9)}, whose application is another one`
            : `is of ${revision.slice(0, 9)}, which is not part of it`;
    passed.push(`${tag} ${why}`);
  }
  const more = passed.length > SHOWN ? `, and ${passed.length - SHOWN} older ones` : "";
  const seen = passed.length === 0 ? "" : ` (${passed.slice(0, SHOWN).join("; ")}${more})`;
  const wanted =
    ref.kind === "tag"
      ? "a release of this commit, or of an earlier one with the same application"
      : "a release whose revision it contains";
  throw refusal(ref, {
    property: commit.slice(0, 9),
    value: `nothing that ${upstream} has verified${seen}`,
    expected: wanted,
    fix:
      `Let ${upstream} verify its build first, and run this job again; ` +
      "a squash or a rebase makes other commits than those that were built",
  });
}

/** Whether nothing would be another afterwards than what was deployed last. */
async function runsAlready(
  context: Context,
  environment: string,
  { tag, digest, version }: { tag: string; digest: string; version: string | undefined },
): Promise<boolean> {
  const { project } = context;
  const [last] = await (await readFacts(context)).outcomesOf(environment);
  if (last?.result !== "deployed" || last.tag !== tag) return false;
  const former = await project.read(environment);
  const { upstream, version: present } = project.parse(environment, former);
  const text = project.edit(environment, former, {
    imageTag: tag,
    imageDigest: digest,
    version: version ?? present,
    rollbackOf: undefined,
    hotfixFrom: hotfixFromOf(tag, upstream),
  });
  return text === former && (await project.plan(environment, text)).hash === last.plan;
}

/** @throws Refusal before anything is deployed that the branch would not say. */
async function checkPushed({ ledger }: Context, ref: Ref): Promise<void> {
  const said = await ledger.push();
  if (said === undefined) return;
  throw refusal(ref, {
    property: "the request",
    value: `not pushed (${said})`,
    expected: "a branch that has it before it is deployed",
    fix:
      "Run this job again, as somebody may have been faster; where the branch is protected, " +
      "let the account of the pipelines push to it",
  });
}

const RETRIES = 4;

/** Why others cannot be told what was done; nothing once they were. */
async function pushAgain({ ledger }: Context): Promise<string | undefined> {
  try {
    await pRetry(
      async () => {
        const said = await ledger.push();
        if (said !== undefined) throw new Error(said);
      },
      { retries: RETRIES, minTimeout: 1000, factor: 2 },
    );
    return undefined;
  } catch (error) {
    return (
      `What was done here is known here only: ${(error as Error).message}. ` +
      "Run this job again; if the machine is gone, `baton drift` shows what others do not know."
    );
  }
}
