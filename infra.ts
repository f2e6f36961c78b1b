import * as pulumi from "@pulumi/pulumi";
import { Colour, KeptColour, type ColourRecord } from "./components/colour";
import { Database } from "./components/database";
import { EnvironmentNamespace } from "./components/environment-namespace";
import { Exposure } from "./components/exposure";
import { isRouted, standsBeside } from "./components/internal/beside";
import { databaseJobs, type DatabaseJob } from "./components/internal/database-jobs";
import {
  replicationProblem,
  scanningProblem,
  withReplication,
} from "./components/internal/ecr-settings";
import { objectHooks } from "./components/internal/hooks";
import { COLOUR_OF, releaseLabels, selectorLabels } from "./components/internal/labels";
import { Monitoring, scrapeAnnotations } from "./components/monitoring";
import { PromotionProvider } from "./components/promotion-provider";
import { Settings, type KeptSettings } from "./components/settings";
import { Traffic } from "./components/traffic";
import { unshare, Verification, type SharedSwitch, type Switch } from "./components/verification";
import { replicasOf, Workload } from "./components/workload";
import type { EcrPlace } from "./components/internal/iam";
import { asksApproval, Refusal, type StackConfig } from "./config";
import { DeclaredObjects } from "./declared-objects";
import type { StackState } from "./stack-state";
import type { Cleared } from "./preflight";
import { parseEcrHost } from "./registry/ecr";
import type { EcrSettings } from "./registry/ecr-settings";
import { RegistryError } from "./registry/errors";
import { splitRepository } from "./registry/reference";
import { formatProblems } from "./release/problem";
import type { Suite } from "./release/change-card";
import { slugOf } from "./release/colour";
import type { Release } from "./release/eligibility";
import { irreversibleBy, type DatabasePlan, type SchemaRecord } from "./release/schema";

/** A stack's outputs. */
export interface Outputs {
  /** What runs and has passed its verification; absent while only the foundation stands. */
  readonly release?: pulumi.Output<Release>;
  /** The tag the release has earned here: what the next environment's imageTag becomes. */
  readonly earnedTag?: pulumi.Output<string>;
  /** How the release's suites ended. */
  readonly suites?: pulumi.Output<Suite[]>;
  /** What its database holds, where it declares one. */
  readonly schema?: pulumi.Output<SchemaRecord | undefined>;
  /** What the next release needs to know of this one, which stays beside it. */
  readonly colours?: pulumi.Output<Colours>;
  readonly namespace: pulumi.Output<string>;
  /** ARNs of the roles that this stack has made, by what they are for. */
  readonly roles?: Readonly<Record<string, pulumi.Output<string>>>;
  /** Where the first workload that can be called is reached. */
  readonly url?: string;
}

/**
 * Declares one environment: what it shares, where it lives, and the release it runs; only the
 * foundation without one.
 */
export async function createInfra(
  config: StackConfig,
  { release, database }: Cleared,
  state: StackState,
): Promise<Outputs> {
  const ownsEcr = config.owns.includes("repository") && config.registry.kind === "ecr";
  // Both are refused before any object is made: settings of AWS, and names in the cluster.
  const settings = ownsEcr ? await readSettings(config) : undefined;
  const outputs = await declareEnvironment(config, release, database, state);
  const roles = await declareShared(config, settings);
  return roles === undefined ? outputs : { ...outputs, roles };
}

/**
 * Declares resources that all environments share, in the stack that owns them; only that stack loads
 * their SDKs.
 * @param settings AWS's settings for the whole registry, by region, where the stack owns a repository
 */
async function declareShared(
  config: StackConfig,
  settings: Record<string, EcrSettings> | undefined,
): Promise<Outputs["roles"]> {
  const { environment, owns, registry, roles, slack, hasSlackToken } = config;
  const protect = asksApproval(config);
  if (settings !== undefined) {
    const { ArtifactRepository } = await import("./components/artifact-repository");
    new ArtifactRepository("artifacts", { registry, settings, protect });
  }
  if (owns.includes("slackChannels") && slack !== undefined && hasSlackToken) {
    const { SlackChannels } = await import("./components/slack-channels");
    new SlackChannels("slack", { channels: slack.channels, protect });
  }
  if (!owns.includes("roles") || roles === undefined) return undefined;
  const { AccessRoles } = await import("./components/access-roles");
  const project = pulumi.getProject();
  return new AccessRoles("access", { roles, place: placeOf(registry), project, owner: environment })
    .arns;
}

function placeOf({ repository, replication }: StackConfig["registry"]): EcrPlace {
  const { host, name } = splitRepository(repository);
  const { account, region } = parseEcrHost(host) ?? { account: "", region: "" };
  return { account, name, regions: [region, ...replication.map((copy) => copy.region)] };
}

/**
 * What AWS keeps once for a whole registry, and what is there by now.
 * @throws Refusal where it would have to be changed for others, too.
 */
async function readSettings({
  environment,
  registry,
}: StackConfig): Promise<Record<string, EcrSettings>> {
  const { account, name, regions } = placeOf(registry);
  const [home = ""] = regions;
  const isEnhanced = registry.scanning === "enhanced";
  const asked = isEnhanced ? regions : registry.replication.length > 0 ? [home] : [];
  const { readEcrSettings } = await import("./registry/ecr-settings");
  const found = await Promise.all(
    asked.map(async (region) => [region, await readEcrSettings(region, name)] as const),
  ).catch((error: unknown) => {
    if (error instanceof RegistryError) throw new Refusal(`${environment}: ${error.message}`);
    throw error;
  });
  const problems = found.flatMap(([region, settings]) => {
    const rules = withReplication(settings.replication, name, account, regions.slice(1));
    return [
      region === home && regions.length > 1 ? replicationProblem(environment, rules) : undefined,
      isEnhanced ? scanningProblem(environment, region, settings) : undefined,
    ].filter((problem) => problem !== undefined);
  });
  if (problems.length > 0) throw new Refusal(formatProblems(problems));
  return Object.fromEntries(found);
}

async function declareEnvironment(
  config: StackConfig,
  release: Release | undefined,
  databasePlan: DatabasePlan | undefined,
  state: StackState,
): Promise<Outputs> {
  // Before anything is declared: from then on the engine writes the file that this reads.
  const beside = Object.values(config.workloads).some((one) => standsBeside(config, one));
  const { kept, served } =
    beside && release !== undefined
      ? await formerColours(state, release.imageTag)
      : { kept: undefined, served: false };
  const recorded = await state.resources();
  const isPlanned = databasePlan !== undefined && databasePlan.kind !== "none";
  const jobs = isPlanned ? databaseJobs(recorded) : [];
  const running = (await state.output("release")) as Release | undefined;
  const isSameRelease =
    running?.imageTag === release?.imageTag && running?.digest === release?.digest;
  const hooks = await objectHooks(config.environment, config.cluster.context);
  // First, as it is the slowest to start: it does so while the other resources are declared.
  const promotion = new PromotionProvider("promotion");
  const objects = new DeclaredObjects(
    {
      environment: config.environment,
      namespace: config.namespaceName,
      context: config.cluster.context,
      isSameRelease,
    },
    recorded,
  );
  const inCluster = { ...objects.options, hooks };
  const place = new EnvironmentNamespace("namespace", { config }, inCluster);
  if (release === undefined) {
    const source =
      config.upstream === undefined ? "a build's tag" : `a tag ${config.upstream} earned`;
    void pulumi.log.info(
      `${config.environment}: no baton:imageTag yet, so only the foundation is made. ` +
        `Set it to ${source} and run \`pulumi up\` again.`,
    );
    await objects.check();
    return { namespace: place.namespace };
  }
  const namespace = config.namespaceName;

  const labels = releaseLabels(config.environment, release);
  const image = `${config.registry.repository}@${release.digest}`;
  const placed = { ...inCluster, dependsOn: [place] };
  // Only where it is needed: nothing else waits for it to start.
  const { kubernetes } = inCluster.providers;
  const promoted = { ...placed, providers: { kubernetes, promotion } };
  const settings = new Settings(
    "settings",
    {
      namespace,
      settings: config.settings,
      configSecrets: config.configSecrets,
      imageTag: release.imageTag,
      labels,
    },
    placed,
  );

  const database = declareDatabase(config, databasePlan, promoted, {
    release,
    settings,
    serviceAccount: place.serviceAccount,
    labels,
    jobs,
  });
  // Whatever fails there leaves what runs as it is.
  const rollsOut = {
    ...promoted,
    dependsOn: [place, ...(database === undefined ? [] : [database])],
  };
  if (kept !== undefined && kept.settings.imageTag !== release.imageTag) {
    settings.keep(kept.settings);
  }
  const { rollbackOf } = release;
  const back = rollbackOf !== undefined;
  const byCanary = config.rollout.strategy === "canary";
  const irreversible = irreversibleBy(databasePlan, config.environment);
  // Beside a schema that it does not run on, the former release keeps no share of the traffic.
  const inSteps = byCanary && !back && irreversible === undefined;
  // What is being left is not returned to.
  const staying =
    rollbackOf === undefined ? irreversible : `${rollbackOf}, which ran before, is being left`;
  const inPlace = Object.entries(config.workloads)
    .filter(([, one]) => one.kind === "Deployment" && !standsBeside(config, one))
    .map(([name, one]) => one.name ?? name);
  const keptColours: pulumi.Resource[] = [];
  let unshared: (resource: pulumi.Resource) => void = () => undefined;
  const comesUp = {
    ...rollsOut,
    dependsOn: [...rollsOut.dependsOn, new Promise<pulumi.Resource>((done) => (unshared = done))],
  };
  // With blueGreen, too: the canary that was killed may be of a former strategy. What is gone back to,
  // has been verified.
  const unshares = !back;
  const workloads = Object.entries(config.workloads).map(([name, workload]) => {
    const args = {
      namespace,
      context: config.cluster.context,
      serviceAccount: place.serviceAccount,
      workload,
      rollout: config.rollout,
      image,
      settings: settings.container,
      labels,
      podAnnotations: scrapeAnnotations(config.monitoring, workload),
    };
    if (!standsBeside(config, workload)) {
      const component = new Workload(name, { ...args, inPlace, irreversible: staying }, rollsOut);
      return { name, workload, component, ready: [component] };
    }
    const objectName = workload.name ?? name;
    const former = kept?.workloads[name];
    if (former !== undefined) {
      const kept = { record: former, context: args.context, namespace };
      // It serves until the switch: whatever fails before leaves its autoscaler, too.
      keptColours.push(new KeptColour(former.objectName, kept, rollsOut));
    }
    const begins = inSteps && former !== undefined;
    const serving = former?.objectName ?? (served ? objectName : undefined);
    const component = new Colour(
      `${objectName}-${slugOf(release.imageTag)}`,
      {
        ...args,
        workload,
        of: name,
        // What an autoscaler has found to be needed is needed by the next release, too; and what is
        // gone back to may have lost its pods to a canary.
        atLeast: !begins && (back || workload.autoscale !== undefined) ? serving : undefined,
        inSteps: begins,
      },
      unshares && former !== undefined ? comesUp : rollsOut,
    );
    return { name, workload, component, ready: component.ready };
  });
  const deployments = workloads
    .filter(({ workload }) => workload.kind === "Deployment")
    .map(({ component }) => component.objectName);
  const colours = workloads.flatMap((one) => {
    const { name, workload, component } = one;
    if (!(component instanceof Colour) || !standsBeside(config, workload)) return [];
    const stable = kept?.workloads[name]?.objectName;
    const legacy = served ? (workload.selector ?? selectorLabels(name)) : undefined;
    const to: Switch = {
      service: workload.name ?? name,
      to: selectorLabels(component.objectName),
      from: stable === undefined ? legacy : selectorLabels(stable),
      route: isRouted(config, workload) ? name : undefined,
    };
    return [{ one, name, workload, component, stable, to }];
  });
  const deployed = workloads.map(({ component }) => component.podTemplate);
  const shareable = colours.flatMap(({ name, stable, to }) =>
    unshares && stable !== undefined ? [{ ...to, both: { [COLOUR_OF]: name } }] : [],
  );
  if (shareable.length > 0) {
    const { context } = config.cluster;
    const { steps, analysis } = config.rollout;
    const release = { namespace, context, deployed, deployments, steps, analysis };
    const opts = { provider: promotion, dependsOn: [place] };
    unshared(unshare("unshared", { ...release, switches: shareable }, opts));
  }
  const expose = ({ name, workload }: (typeof workloads)[number], after?: pulumi.Resource) => {
    if (workload.exposure === undefined || config.entrances === undefined) return [];
    const args = {
      namespace,
      service: workload.name ?? name,
      exposure: workload.exposure,
      entrances: config.entrances,
      configSecrets: config.configSecrets,
      labels,
    };
    // Traffic waits for pods that can take it, and a failed rollout does not wait for traffic.
    return [
      new Exposure(name, args, {
        ...placed,
        dependsOn: [place, ...(after === undefined ? [] : [after])],
      }),
    ];
  };
  const exposures = workloads.flatMap((one) =>
    one.component instanceof Workload ? expose(one, one.component) : [],
  );
  if (config.monitoring.prometheusOperator && config.monitoring.level !== "none") {
    new Monitoring(
      "monitoring",
      {
        namespace,
        monitoring: config.monitoring,
        workloads: config.workloads,
        rollout: config.rollout,
        labels,
      },
      placed,
    );
  }

  // Going back runs the quick suite only: the release has passed all of them before.
  const run = back ? ["smoke"] : config.verification.run;
  const verification = new Verification(
    "verification",
    {
      namespace,
      context: config.cluster.context,
      serviceAccount: place.serviceAccount,
      suites: run.flatMap((name) => {
        const suite = config.verification.suites[name];
        return suite === undefined ? [] : [[name, suite] as const];
      }),
      registry: config.registry,
      release,
      image,
      targetUrl: ({ target, through }) =>
        target === undefined
          ? undefined
          : through === "exposure"
            ? exposureUrl(config, target)
            : serviceUrl(config, target, workloads.find(({ name }) => name === target)?.component),
      deployed,
      labels,
    },
    {
      ...promoted,
      dependsOn: [place, ...workloads.flatMap(({ ready }) => ready), ...exposures],
    },
  );

  const shared = colours.flatMap(({ name, workload, component, stable, to }): SharedSwitch[] => {
    if (!inSteps || stable === undefined) return [];
    const canary = component.objectName;
    const isAutoscaled = workload.autoscale !== undefined;
    const both = { [COLOUR_OF]: name };
    return [{ ...to, canary, stable, both, replicas: replicasOf(workload), isAutoscaled }];
  });
  const isShared = ({ to }: (typeof colours)[number]) =>
    shared.some(({ service }) => service === to.service);
  if (shared.length > 0) {
    const routes = colours.filter(isShared).flatMap(({ one }) => expose(one));
    const { steps, analysis } = config.rollout;
    // From here on, no autoscaler takes idle pods away from the release that serves.
    const after = [...keptColours, ...routes];
    verification.canary({ deployments, steps, analysis, switches: shared, inPlace, after });
  }
  const switched: pulumi.Resource[] = [];
  for (const colour of colours) {
    const { one, name, workload, component, to } = colour;
    const traffic = new Traffic(
      name,
      {
        namespace,
        service: to.service,
        port: workload.port,
        colour: component.objectName,
        labels,
      },
      { ...inCluster, dependsOn: [place, ...verification.passed] },
    );
    switched.push(traffic.service, ...component.autoscale([traffic.service]));
    if (!isShared(colour)) expose(one, traffic.service);
  }
  const switches = colours.map(({ to }) => to);
  verification.bake({
    deployments,
    bake: back ? undefined : config.rollout.bake,
    analysis: back ? undefined : config.rollout.analysis,
    // What is gone back to has held up before.
    switches: back ? switches.map((one) => ({ ...one, from: undefined })) : switches,
    irreversible,
    former: Object.values(kept?.workloads ?? {}).map(({ objectName }) => objectName),
    inPlace,
    after: switched,
  });
  const { earnedTag, suites } = verification.earnTag();
  // With what an autoscaler has become part of.
  const records = Object.fromEntries(colours.map((one) => [one.name, one.component.record]));

  await objects.check();
  const url = environmentUrl(config);
  return {
    // Known only after the tag: a failed `up` leaves the former release's outputs in place.
    release: earnedTag.apply(() => release),
    earnedTag,
    suites,
    ...(database?.isRecorded === true ? { schema: recordOf(database, earnedTag) } : {}),
    ...(beside
      ? {
          colours: pulumi.all([earnedTag, pulumi.all(records)]).apply(([, workloads]) => ({
            current: { settings: settings.record, workloads },
            ...(kept === undefined ? {} : { kept }),
          })),
        }
      : {}),
    namespace: place.namespace,
    ...(url === undefined ? {} : { url }),
  };
}

/** What happens to the database ahead of the rollout; nothing where there is none to change. */
function declareDatabase(
  config: StackConfig,
  plan: DatabasePlan | undefined,
  opts: pulumi.ComponentResourceOptions,
  deployed: {
    readonly release: Release;
    readonly settings: Settings;
    readonly serviceAccount: pulumi.Input<string>;
    readonly labels: Readonly<Record<string, string>>;
    readonly jobs: readonly DatabaseJob[];
  },
): Database | undefined {
  const { database, environment, registry, cluster } = config;
  if (database === undefined || plan === undefined) return undefined;
  const urlKey = deployed.settings.keyOf(database.url, config.settings);
  if (urlKey === undefined) return undefined;
  const { context } = cluster;
  const protect = asksApproval(config);
  const place = { environment, namespace: config.namespaceName, context };
  const args = { ...place, database, registry, plan, protect };
  const settings = deployed.settings.container;
  return new Database("database", { ...args, ...deployed, settings, urlKey }, opts);
}

/** Known only after the tag, as the release itself. */
function recordOf(
  { schema }: Database,
  earnedTag: pulumi.Output<string>,
): pulumi.Output<SchemaRecord | undefined> {
  return pulumi.all([schema, earnedTag]).apply(([record]) => record);
}

/** A release of an environment as the next one finds it. */
interface KeptRelease {
  readonly settings: KeptSettings;
  /** By workload. */
  readonly workloads: Readonly<Record<string, ColourRecord>>;
}

/** Set, it removes the release that stays beside the one that runs, when that is deployed again. */
const CLEANUP = "BATON_CLEANUP";

/** Which releases stand side by side. */
export interface Colours {
  readonly current: KeptRelease;
  readonly kept?: KeptRelease;
}

/**
 * What the stack's last successful `up` has left: the release that stays beside this one, and
 * whether there is one of another strategy.
 */
async function formerColours(
  state: StackState,
  imageTag: string,
): Promise<{ kept: KeptRelease | undefined; served: boolean }> {
  const colours = (await state.output("colours")) as Colours | undefined;
  const running = (await state.output("release")) as Release | undefined;
  const { current, kept } = colours ?? {};
  const isAgain = current?.settings.imageTag === imageTag;
  const stays = process.env[CLEANUP] ? undefined : kept;
  return {
    kept: isAgain ? stays : current,
    served: colours === undefined && running !== undefined,
  };
}

/** Of the release itself where it stands beside another one. */
function serviceUrl(config: StackConfig, workload: string, component?: Workload | Colour): string {
  if (component instanceof Colour) {
    return `http://${component.objectName}.${config.namespaceName}.svc`;
  }
  return `http://${config.workloads[workload]?.name ?? workload}.${config.namespaceName}.svc`;
}

/** Without a slash at its end, as a Service's: suites append their paths. */
function exposureUrl(config: StackConfig, workload: string): string | undefined {
  const exposure = config.workloads[workload]?.exposure;
  if (exposure === undefined) return undefined;
  const secure = config.entrances?.kind === "HTTPRoute" || exposure.tls !== undefined;
  return `${secure ? "https" : "http"}://${exposure.host}${exposure.path.replace(/\/$/, "")}`;
}

function environmentUrl(config: StackConfig): string | undefined {
  const names = Object.keys(config.workloads);
  const exposed = names.find((name) => config.workloads[name]?.exposure !== undefined);
  const called = names.find((name) => config.workloads[name]?.port !== undefined);
  return exposed !== undefined
    ? exposureUrl(config, exposed)
    : called === undefined
      ? undefined
      : serviceUrl(config, called);
}
