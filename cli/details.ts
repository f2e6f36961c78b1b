import type { OutcomeDetails } from "../ledger/details";
import type { Request } from "../ledger/ledger";
import { readHolds } from "../ledger/outcomes";
import { REVISION } from "../registry/images";
import { openRegistry } from "../registry/registry";
import type { Term } from "../release/gate";
import type { HoldEntry } from "../release/holds";
import { within } from "./bookkeeping";
import { releasedCommits } from "./commits";
import type { Context } from "./context";
import type { Deployment } from "./deploy";
import type { StackOutputs } from "./pulumi";

/** How long an outcome waits for its details, in milliseconds. */
const PATIENCE = 5000;

type Details = { -readonly [Key in keyof OutcomeDetails]: OutcomeDetails[Key] };

/**
 * Finds out the details of a deployment that has succeeded. A detail that cannot be found out in
 * time is left out, and that is noted.
 */
export async function detailsOf(
  context: Context,
  deployment: Deployment,
  outputs: StackOutputs | undefined,
  patience = PATIENCE,
): Promise<OutcomeDetails> {
  const { books } = context;
  const { request } = deployment;
  const suites = suitesOf(request, outputs);
  const details: Details = { ...(suites && { suites }) };
  const found = [
    async () => addWaits(details, context, deployment),
    async () => addCommits(details, context, deployment),
  ];
  await books.attempt(`${request.environment}: details of the outcome are missing`, async () => {
    const late = `they were not found out within ${patience / 1000} s`;
    const ended = await within(patience, late, Promise.allSettled(found.map((find) => find())));
    const failed = ended.find((one) => one.status === "rejected");
    if (failed !== undefined) throw failed.reason;
  });
  // A search that ends too late must not change what is being recorded.
  return { ...details };
}

/** The suites that the stack's outputs name, if the outputs are of the release that was asked for. */
function suitesOf(
  { tag, digest }: Request,
  { release, suites = [] }: StackOutputs = {},
): OutcomeDetails["suites"] {
  if (release?.imageTag !== tag || release.digest !== digest) return undefined;
  return suites.flatMap(({ name, result, seconds }) =>
    seconds === undefined || result !== "passed" ? [] : [{ name, seconds }],
  );
}

async function addCommits(
  details: Details,
  { project }: Context,
  { request, stackFile, former }: Deployment,
): Promise<void> {
  const registry = openRegistry(project.parse(request.environment, stackFile).registry);
  const labels = await registry.labels(request.digest);
  const revision = labels[REVISION];
  if (revision === undefined) return;
  details.revision = revision;
  if (former === undefined) return;
  const before = await registry.labels(former.digest);
  details.commits = await releasedCommits(project.folder, before, labels);
}

async function addWaits(
  details: Details,
  { project, ledger, now }: Context,
  { request, terms }: Deployment,
): Promise<void> {
  details.waited = waitsOf(request, terms);
  const { counted } = await readHolds(project, ledger, now());
  details.waited = { ...details.waited, ...liftedHolds(request, counted) };
}

/** Seconds from a request until the terms passed whose time is known; 0 for a time before it. */
export function waitsOf(
  { at }: Pick<Request, "at">,
  terms: readonly Term[],
): Record<string, number> {
  const waits = terms.flatMap(({ name, state, passedAt }) =>
    state === "passes" && passedAt !== undefined ? [[name, secondsBetween(at, passedAt)]] : [],
  );
  return Object.fromEntries(waits) as Record<string, number>;
}

/** Seconds from a request until holds of its image, and stops, were taken back that came after it. */
export function liftedHolds(
  { at, digest }: Pick<Request, "at" | "digest">,
  entries: readonly HoldEntry[],
): Record<string, number> {
  const lifts = [
    ["hold", entries.filter((entry) => entry.kind === "unhold" && entry.digest === digest)],
    ["line", entries.filter(({ kind }) => kind === "resume")],
  ] as const;
  const waits = lifts.flatMap(([name, lifted]) => {
    const seconds = Math.max(...lifted.map((entry) => secondsBetween(at, entry.at)));
    return seconds > 0 ? [[name, seconds]] : [];
  });
  return Object.fromEntries(waits) as Record<string, number>;
}

function secondsBetween(from: Date, to: Date): number {
  return Math.max(0, Math.round((to.getTime() - from.getTime()) / 1000));
}
