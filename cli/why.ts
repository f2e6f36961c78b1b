import { Refusal } from "../ledger/refusal";
import type { StackConfig } from "../ledger/stack-config";
import { RegistryError } from "../registry/errors";
import { openRegistry } from "../registry/registry";
import { checkRequest } from "../release/eligibility";
import { parseTag } from "../release/tags";
import { formatTime } from "../release/time";
import { checkHere, checkName, fetchOrNote, type Context, type Report } from "./context";
import { readFacts, type Facts } from "./facts";
import { gateOf, movementTerms, registryTerms, scanned } from "./gate";
import type { StackOutputs } from "./pulumi";
import { isOpen } from "./status";
import { markOf, sayTerm, wrap, type SaidTerm } from "./text";

export interface WhyOptions {
  /** Another than is asked for, or the upstream has earned. */
  readonly tag?: string;
}

/** `baton why ENV [TAG]`: all that must hold before a release may move there, and when it will. */
export async function why(
  context: Context,
  environment: string,
  { tag }: WhyOptions = {},
): Promise<Report> {
  checkName(environment);
  const { project, ledger, print } = context;
  const stackFile = await project.read(environment);
  await fetchOrNote(context);
  const [facts, request] = await Promise.all([readFacts(context), ledger.request(environment)]);
  const outcomes = await facts.outcomesOf(environment);
  if (
    request !== undefined &&
    isOpen(request, outcomes) &&
    (tag === undefined || tag === request.tag)
  ) {
    await checkHere(context, request);
    const { terms } = await gateOf(context, request, stackFile, facts);
    const { id, digest, version, plan, requesters, at, hotfix } = request;
    print(
      wrap(
        "",
        `${environment}: ${request.tag}, asked for by ${requesters[0] ?? ""} at ${formatTime(at)}`,
      ),
    );
    const asked = { id, plan, requesters, hotfix, at: at.toISOString() };
    return tell(
      context,
      environment,
      { tag: request.tag, digest, version, request: asked },
      terms.map(sayTerm),
    );
  }
  return unasked(context, environment, project.parse(environment, stackFile), facts, tag);
}

const NONE: StackOutputs = {};

/** Of what nobody has asked for yet. */
async function unasked(
  context: Context,
  environment: string,
  config: StackConfig,
  facts: Facts,
  named: string | undefined,
): Promise<Report> {
  const { pulumi, print } = context;
  const { upstream } = config;
  const [given, present] = await Promise.all([
    upstream === undefined ? NONE : pulumi.outputs(upstream),
    pulumi.outputs(environment),
  ]);
  const tag = named ?? given.earnedTag;
  if (tag === undefined) {
    throw new Refusal({
      where: environment,
      property: upstream === undefined ? "TAG" : `${upstream}'s earnedTag`,
      value: "not set",
      expected: upstream === undefined ? "a build's tag, such as build-45" : "a release to move",
      fix:
        upstream === undefined
          ? `Name it: \`baton why ${environment} TAG\``
          : `Deploy ${upstream} first`,
    });
  }
  const { release } = present;
  if (release?.imageTag === tag) {
    print(
      wrap(
        "",
        `${environment}: ${tag} runs already${named === undefined ? ", and nothing else could move" : ""}.`,
      ),
    );
    return { outcome: "done", environment, tag, digest: release.digest, terms: [] };
  }
  const lane = config.approval.hotfix?.upstream;
  const hotfix = lane !== undefined && lane !== upstream && parseTag(tag)?.giver === lane;
  checkTag(environment, config, tag, hotfix ? lane : undefined);
  const known = tag === given.earnedTag ? given.release?.digest : undefined;
  const digest = known ?? (await resolve(config, tag));
  const [registry, scans, movement] = await Promise.all([
    registryTerms(environment, config, { tag, digest }),
    digest === undefined
      ? []
      : facts
          .lastDeployed(environment)
          .then((last) => scanned(context, environment, config, digest, last))
          .then(({ terms }) => terms),
    movementTerms(context, environment, config, { tag, digest: digest ?? "", hotfix }, facts),
  ]);
  // Of an image that is not known nobody can say whether it is held, or how long it has run.
  const sayable = movement.filter(
    ({ name }) => digest !== undefined || (name !== "hold" && name !== "soak"),
  );
  const requested: SaidTerm = {
    name: "request",
    state: "waits",
    says: "nobody has made one",
    fix: `Ask with \`baton request ${environment}\``,
  };
  print(wrap("", `${environment}: ${tag}, which nobody has asked for yet`));
  return tell(context, environment, { tag, digest }, [
    ...[...registry, ...scans].map(sayTerm),
    requested,
    ...sayable.map(sayTerm),
  ]);
}

/** @throws Refusal for a tag that this environment never takes. */
function checkTag(
  environment: string,
  { upstream, versioned }: StackConfig,
  imageTag: string,
  hotfixFrom: string | undefined,
): void {
  const checked = checkRequest({ environment, upstream, hotfixFrom, versioned, imageTag });
  // The version is named when it is asked for.
  const problems =
    "ok" in checked ? [] : checked.problems.filter(({ property }) => property !== "baton:version");
  if (problems.length > 0) throw new Refusal(problems);
}

/** Nothing also where the registry cannot be asked: its term says so. */
async function resolve({ registry }: StackConfig, tag: string): Promise<string | undefined> {
  try {
    return await openRegistry(registry).resolve(tag);
  } catch (error) {
    if (!(error instanceof RegistryError)) throw error;
    return undefined;
  }
}

function tell(
  { print }: Context,
  environment: string,
  release: Readonly<Record<string, unknown>>,
  terms: readonly SaidTerm[],
): Report {
  const width = Math.max(...terms.map(({ name }) => name.length));
  for (const { name, state, says, fix } of terms) {
    const advice = fix === undefined ? "" : `. ${fix}.`;
    print(wrap(`${markOf(state)} ${name.padEnd(width)}  `, `${says}${advice}`, width + 4));
  }
  const passes = terms.every(({ state }) => state === "passes");
  if (passes) print(wrap("", `Nothing is in the way: \`baton deploy ${environment}\`.`));
  return { outcome: "done", environment, ...release, passes, terms };
}
