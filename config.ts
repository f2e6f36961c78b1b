import * as pulumi from "@pulumi/pulumi";
import * as runtimeConfig from "@pulumi/pulumi/runtime/config";
import { closest, distance } from "fastest-levenshtein";
import type { z } from "zod";
import { isRouted, standsBeside } from "./components/internal/beside";
import { quotaProblems } from "./components/internal/quota-check";
import { Config, MOVING_KEYS } from "./config-schema";
import { parseEcrHost } from "./registry/ecr";
import { splitRepository } from "./registry/reference";
import { MOST_BY_PODS } from "./release/canary";
import { freezeProblems } from "./release/freeze";
import type { ImagesByKey } from "./release/images";
import { jsonOrText } from "./release/json";
import { isTree, mergeTrees, type Tree } from "./release/merge";
import { formatProblems, type Problem } from "./release/problem";
import { SECRET_NAME, URL_WITH_PASSWORD } from "./release/settings-difference";
import { isEnvironmentName } from "./release/tags";

/** A stack's whole configuration: defaults and its own keys merged, checked and typed. */
export interface StackConfig extends Config {
  /** The stack's name. */
  readonly environment: string;
  /** Where everything of this environment lives. */
  readonly namespaceName: string;
  /** Whether the Slack provider has its token, `slack:token`. */
  readonly hasSlackToken: boolean;
  /** Values of Pulumi's encrypted config, by key, for every secret whose source is `config`. */
  readonly configSecrets: Readonly<Record<string, pulumi.Output<string>>>;
}

/** Whether people approve each deployment of an environment. */
export function asksApproval({ approval }: Pick<Config, "approval">): boolean {
  return approval.required > 0;
}

/** Stops the program before any resource; Pulumi shows the message alone. */
export class Refusal extends pulumi.RunError {
  /**
   * Nobody sees the stack, yet the SDK renders it, and with colours Node 20.20 takes twenty seconds
   * for a line such as `node_modules/@pulumi/resource.ts`, which the SDK's source maps produce.
   */
  override readonly stack = "";
}

/** Keys that are plain text, so that `pulumi config set imageTag qa-45` just works. */
export const TEXT_KEYS = new Set<string>([...MOVING_KEYS, "upstream"]);
const KEYS = Object.keys(Config.shape);

/**
 * Reads the stack's configuration, the one place that does.
 * @throws Refusal that lists every problem at once; no value of a secret is in it.
 */
export function readConfig(): StackConfig {
  const environment = pulumi.getStack();
  const problems: Problem[] = [];
  const raw = readKeys(environment, problems);
  const merged = mergeTrees(raw.defaults, raw.own);
  const parsed = Config.safeParse(merged);
  if (!parsed.success) {
    problems.push(...parsed.error.issues.flatMap((issue) => explain(issue, environment, raw)));
  }

  const declared = declaredSecrets(merged);
  const configSecrets = readSecrets(environment, declared, raw, problems);
  if (parsed.success) problems.push(...crossCheck(environment, parsed.data));
  if (!isEnvironmentName(environment)) {
    problems.push({
      where: environment,
      property: "the stack's name",
      value: environment,
      expected: "lower-case letters and digits, starting with a letter, and not build",
      fix: "Tags name environments up to their first dash: rename the stack",
    });
  }
  if (problems.length > 0 || !parsed.success) throw new Refusal(formatProblems(problems));
  const namespaceName = parsed.data.namespace.name ?? environment;
  const hasSlackToken = SLACK_TOKEN in pulumi.runtime.allConfig();
  return { ...parsed.data, environment, namespaceName, hasSlackToken, configSecrets };
}

/** The images that an environment runs beside the release's. */
export function imagesBeside({ verification, database }: Config): ImagesByKey {
  const suites = verification.run.map((name) => [
    `baton:verification.suites.${name}.image`,
    verification.suites[name]?.image,
  ]);
  const images = [
    ...suites,
    ["baton:database.client", database?.client],
    ["baton:database.migration.image", database?.migration.image],
    ["baton:database.integrity.image", database?.integrity?.image],
  ];
  return Object.fromEntries(images.filter(([, image]) => image !== undefined)) as ImagesByKey;
}

interface RawConfig {
  /** `baton:defaults` of Pulumi.yaml. */
  readonly defaults: Tree;
  /** The stack file's own keys. */
  readonly own: Tree;
  /** Keys that are no part of the schema; declared secrets are among them. */
  readonly others: readonly string[];
}

function readKeys(where: string, problems: Problem[]): RawConfig {
  const prefix = `${pulumi.getProject()}:`;
  const own: Record<string, unknown> = {};
  const others: string[] = [];
  let defaults: Tree = {};
  for (const [fullKey, value] of Object.entries(pulumi.runtime.allConfig())) {
    if (!fullKey.startsWith(prefix)) continue;
    const key = fullKey.slice(prefix.length);
    if (key !== "defaults" && !KEYS.includes(key)) {
      others.push(key);
    } else if (isSecretKey(fullKey)) {
      problems.push({
        where,
        property: fullKey,
        value: "partly encrypted",
        expected: "plain values: only a key of its own can be a secret",
        fix: "Declare the secret under baton:settings.secrets and set it with `pulumi config set --secret NAME`",
      });
    } else if (TEXT_KEYS.has(key)) {
      own[key] = value;
    } else {
      const tree = jsonOrText(value);
      if (key === "defaults") defaults = isTree(tree) ? tree : {};
      else own[key] = tree;
    }
  }
  return { defaults, own, others };
}

/** Whether Pulumi keeps a key encrypted: the SDK knows, but leaves it out of its public types. */
export function isSecretKey(fullKey: string): boolean {
  const { isConfigSecret } = runtimeConfig as unknown as {
    isConfigSecret: (key: string) => boolean;
  };
  return isConfigSecret(fullKey);
}

interface DeclaredSecret {
  readonly key: string;
  /** Where the declaration stands, for the error. */
  readonly declaration: string;
  /** A certificate is config, but no secret. */
  readonly plain?: boolean;
}

/** Every key that the configuration says is to be found in Pulumi's encrypted config. */
function declaredSecrets(config: Tree): DeclaredSecret[] {
  const found: DeclaredSecret[] = [];
  const fromConfig = (tree: unknown) => isTree(tree) && tree["source"] === "config";
  const child = (tree: unknown, key: string) => (isTree(tree) ? tree[key] : undefined);
  const entries = (tree: unknown) => (isTree(tree) ? Object.entries(tree) : []);
  for (const [key, secret] of entries(child(config["settings"], "secrets"))) {
    if (fromConfig(secret)) found.push({ key, declaration: `settings.secrets.${key}` });
  }
  if (fromConfig(child(config["registry"], "pullSecret"))) {
    found.push({ key: "registryPassword", declaration: "registry.pullSecret" });
  }
  for (const [name, workload] of entries(config["workloads"])) {
    if (fromConfig(child(child(workload, "exposure"), "tls"))) {
      const declaration = `workloads.${name}.exposure.tls`;
      found.push({ key: "tlsCertificate", declaration, plain: true });
      found.push({ key: "tlsKey", declaration });
    }
  }
  return found;
}

function readSecrets(
  where: string,
  declared: readonly DeclaredSecret[],
  raw: RawConfig,
  problems: Problem[],
): Record<string, pulumi.Output<string>> {
  const config = new pulumi.Config();
  const secrets: Record<string, pulumi.Output<string>> = {};
  for (const { key, declaration, plain } of declared) {
    const secret = plain === true ? "" : "--secret ";
    const fix = `Set it with \`pulumi config set ${secret}${key} --stack ${where}\``;
    const property = `baton:${key}`;
    if (!raw.others.includes(key)) {
      const expected = `${plain === true ? "a" : "an encrypted"} value, as baton:${declaration} says`;
      problems.push({ where, property, value: "not set", expected, fix });
    } else if (plain !== true && !isSecretKey(`${pulumi.getProject()}:${key}`)) {
      problems.push({ where, property, value: "in plain text", expected: "a secret", fix });
    } else {
      secrets[key] = config.requireSecret(key);
    }
  }
  const known = declared.map(({ key }) => key);
  for (const key of raw.others.filter((other) => !known.includes(other))) {
    problems.push({
      where,
      property: `baton:${key}`,
      value: "not a key of this program",
      ...suggest(key, [...KEYS, ...known]),
    });
  }
  return secrets;
}

/** What to expect, and to do, where a key is not known. */
function suggest(key: string, known: readonly string[]): { expected: string; fix: string } {
  const nearest = known.length === 0 ? undefined : closest(key, known);
  const near = nearest !== undefined && distance(key, nearest) <= Math.max(2, key.length / 3);
  return near
    ? { expected: nearest, fix: `Did you mean ${nearest}? Correct or remove it` }
    : { expected: `one of ${known.join(", ")}`, fix: "Correct or remove it" };
}

/** Turns what the schema found into problems that name the key as it stands in the file. */
function explain(issue: z.core.$ZodIssue, where: string, raw: RawConfig): Problem[] {
  const path = issue.path.map(String);
  if (issue.code === "unrecognized_keys") {
    return issue.keys.map((key) => ({
      where,
      property: propertyName([...path, key], raw),
      value: "not a key of this program",
      ...suggest(key, keysAt(path)),
    }));
  }
  const key = issue.code === "invalid_key";
  const message = key ? (issue.issues[0]?.message ?? issue.message) : issue.message;
  return [
    {
      where,
      property: propertyName(path, raw),
      value: key ? "not a valid name" : display(path, mergeTrees(raw.defaults, raw.own)),
      expected: issue.code === "invalid_value" ? oneOf(issue.values) : expectation(issue, message),
      fix: key ? "Rename it" : "Correct it",
    },
  ];
}

function oneOf(values: readonly unknown[]): string {
  return values.length === 1 ? String(values[0]) : `one of ${values.map(String).join(", ")}`;
}

function expectation(issue: z.core.$ZodIssue, message: string): string {
  if (issue.code === "invalid_union" && "options" in issue && Array.isArray(issue.options)) {
    return oneOf(issue.options);
  }
  if (issue.code !== "invalid_type" || !message.startsWith("Invalid input")) return message;
  const words: Record<string, string> = { object: "a map", record: "a map", array: "a list" };
  return words[issue.expected] ?? `a ${issue.expected}`;
}

/** `baton:workloads.web.port`, and for a value that Pulumi.yaml gives, where that stands. */
function propertyName(path: readonly string[], raw: RawConfig): string {
  const inOwn = lookUp(path, raw.own) !== undefined;
  const inDefaults = lookUp(path, raw.defaults) !== undefined;
  const name = path.join(".");
  return !inOwn && inDefaults ? `baton:defaults.${name} (Pulumi.yaml)` : `baton:${name}`;
}

function lookUp(path: readonly string[], tree: unknown): unknown {
  return path.reduce<unknown>(
    (value, key) =>
      isTree(value) ? value[key] : Array.isArray(value) ? value[Number(key)] : undefined,
    tree,
  );
}

/** A value as the error shows it. What stands where a secret belongs may be one: never shown. */
function display(path: readonly string[], tree: Tree): string {
  const value = lookUp(path, tree);
  if (value === undefined) return "not set";
  if (path.includes("secrets") || path.includes("pullSecret") || path.includes("tls")) {
    return isTree(value) ? "incomplete" : "not shown, as it may be secret";
  }
  if (typeof value === "string" && URL_WITH_PASSWORD.test(value))
    return "not shown, as it holds a password";
  const text = JSON.stringify(value);
  return text.length > 80 ? `${text.slice(0, 77)}…` : text;
}

/** The keys the schema knows at a path, for suggestions. */
function keysAt(path: readonly string[]): string[] {
  let schema: unknown = Config;
  for (const key of path) {
    schema = shapeOf(schema)?.[key] ?? (unwrap(schema) as { valueType?: unknown }).valueType;
    if (schema === undefined) return [];
  }
  return Object.keys(shapeOf(schema) ?? {});
}

function shapeOf(schema: unknown): Record<string, unknown> | undefined {
  return (unwrap(schema) as { shape?: Record<string, unknown> }).shape;
}

/** The schema behind `.optional()`, `.default()` and `.prefault()`. */
function unwrap(schema: unknown): object {
  const inner = (schema as { def?: { innerType?: unknown } }).def?.innerType;
  return inner === undefined ? (schema as object) : unwrap(inner);
}

const SLACK_TOKEN = "slack:token";
/** Keys that a secret of the settings cannot have: they mean something else. */
const RESERVED_KEYS = [...KEYS, "defaults", "registryPassword", "tlsCertificate", "tlsKey"];
/** The component that runs for the database. */
const RESERVED_WORKLOAD = "database";
/** Names of network policies that every namespace has, or may have. */
const RESERVED_POLICIES = ["default", "verification"];

/** What no single value shows: keys that must agree with each other. */
function crossCheck(where: string, config: Config): Problem[] {
  const problems: Problem[] = [];
  const add = (key: string, value: string, expected: string, fix: string) =>
    problems.push({ where, property: `baton:${key}`, value, expected, fix });

  if (config.imageTag === undefined) {
    for (const key of ["imageDigest", "version", "rollbackOf", "hotfixFrom"] as const) {
      if (config[key] !== undefined) {
        add(key, config[key], "no value while baton:imageTag is not set", "Set baton:imageTag too");
      }
    }
  }
  if (config.upstream === where) {
    add("upstream", where, "another environment", "An environment cannot be its own upstream");
  }
  if (config.follows && config.upstream === undefined) {
    add("follows", "true", "false without baton:upstream", "Set baton:upstream to what it follows");
  }
  const lane = config.approval.hotfix?.upstream;
  if (lane !== undefined && (lane === where || !isEnvironmentName(lane))) {
    const fix = "A hotfix, too, comes from an environment that has verified it: correct it";
    add("approval.hotfix.upstream", lane, "another environment", fix);
  }
  // The way back to one stays open, whatever the policy says by now.
  if (
    config.hotfixFrom !== undefined &&
    config.hotfixFrom !== lane &&
    config.rollbackOf === undefined
  ) {
    const policy = "baton:approval.hotfix.upstream";
    const expected =
      lane === undefined ? `no value while ${policy} is not set` : `${lane}, as ${policy} says`;
    add(
      "hotfixFrom",
      config.hotfixFrom,
      expected,
      "Correct it, or remove it to take the upstream's tags",
    );
  }
  problems.push(...freezeProblems(where, config.freeze));
  if (SLACK_TOKEN in pulumi.runtime.allConfig() && !isSecretKey(SLACK_TOKEN)) {
    const fix = `Set it with \`pulumi config set --secret ${SLACK_TOKEN} --stack ${where}\``;
    problems.push({
      where,
      property: SLACK_TOKEN,
      value: "in plain text",
      expected: "a secret",
      fix,
    });
  }
  for (const [index, { cidr, except, namespace }] of config.network.egress.entries()) {
    const key = `network.egress[${index}]`;
    if ((cidr === undefined) === (namespace === undefined)) {
      add(key, "ambiguous", "either cidr or namespace", "Give exactly one");
    } else if (except !== undefined && cidr === undefined) {
      add(`${key}.except`, except.join(", "), "no value without cidr", "Remove it");
    }
  }
  if (config.scan?.source === "ecr" && config.registry.kind !== "ecr") {
    const fix = "ECR scans its own images only: remove it, and let the build attach its report";
    add("scan.source", "ecr", "report with registry.kind oci", fix);
  }
  problems.push(...awsProblems(where, config));
  const { maxSurge, maxUnavailable } = config.rollout;
  if (Number.parseInt(maxSurge) === 0 && Number.parseInt(maxUnavailable) === 0) {
    const fix = "With neither, no pod could ever be replaced: raise one";
    add("rollout.maxSurge", maxSurge, "more than 0 while maxUnavailable is 0", fix);
  }
  problems.push(...analysisProblems(where, config.rollout));
  problems.push(...stepProblems(where, config));
  for (const [name, { source }] of Object.entries(config.settings.secrets)) {
    if (source === "config" && RESERVED_KEYS.includes(name)) {
      const fix = "Call it something else; settings are usually in capitals";
      add(`settings.secrets.${name}`, "a key of this program", "a name of its own", fix);
    }
  }
  for (const [name, value] of Object.entries(config.settings.config)) {
    if (SECRET_NAME.test(name) || URL_WITH_PASSWORD.test(value)) {
      add(
        `settings.config.${name}`,
        "in plain text",
        "a secret",
        `Move it to baton:settings.secrets.${name} with source: config, and set it with \`pulumi config set --secret ${name} --stack ${where}\``,
      );
    }
    if (name in config.settings.secrets) {
      add(`settings.config.${name}`, "also a secret", "one of the two", "Remove one");
    }
  }
  if (config.monitoring.level === "alerts" && !config.monitoring.prometheusOperator) {
    add(
      "monitoring.level",
      "alerts",
      "none or scrape without the Prometheus operator",
      "Alert rules need its PrometheusRule: set baton:monitoring.prometheusOperator to true, or lower the level",
    );
  }
  problems.push(...workloadProblems(where, config), ...suiteProblems(where, config));
  problems.push(...databaseProblems(where, config));
  problems.push(...quotaProblems(where, config));
  return problems;
}

function analysisProblems(where: string, { bake, analysis }: Config["rollout"]): Problem[] {
  // Without a Prometheus it says only how one would be asked.
  if (analysis?.prometheus === undefined) return [];
  const problem = (key: string, expected: string, fix: string): Problem => {
    return { where, property: `baton:rollout.${key}`, value: "not set", expected, fix };
  };
  const why = "baton:rollout.analysis.prometheus is set";
  return [
    ...(bake === undefined
      ? [
          problem(
            "bake",
            `a duration, as ${why}`,
            "Say for how long a release is judged, or set analysis to null",
          ),
        ]
      : []),
    ...(analysis.traffic === undefined
      ? [problem("analysis.traffic", `a query and its min, as ${why}`, "Say what counts requests")]
      : []),
    ...(Object.keys(analysis.queries).length === 0
      ? [problem("analysis.queries", `at least one query, as ${why}`, "Describe one")]
      : []),
  ];
}

function stepProblems(where: string, config: Config): Problem[] {
  const { strategy, steps } = config.rollout;
  if (strategy !== "canary") return [];
  const byPods = Object.entries(config.workloads).find(
    ([, workload]) => standsBeside(config, workload) && !isRouted(config, workload),
  );
  return steps.flatMap(({ weight }, index) => {
    const add = (expected: string, fix: string): Problem => {
      const property = `baton:rollout.steps[${index}].weight`;
      return { where, property, value: String(weight), expected, fix };
    };
    const before = steps[index - 1]?.weight ?? 0;
    const byName = byPods?.[0] ?? "";
    return [
      ...(weight <= before ? [add(`more than ${before}`, "Put the steps in order")] : []),
      ...(byPods !== undefined && weight > MOST_BY_PODS
        ? [
            add(
              `at most ${MOST_BY_PODS}, as ${byName} has no HTTPRoute and its share is one of pods`,
              "The former release keeps its pods, so a larger share would need more of them than it has: lower it",
            ),
          ]
        : []),
    ];
  });
}

/** What only an ECR repository has. */
function awsProblems(where: string, { registry, owns, roles }: Config): Problem[] {
  const problems: Problem[] = [];
  const add = (key: string, value: string, expected: string, fix: string) =>
    problems.push({ where, property: `baton:${key}`, value, expected, fix });
  const { kind, repository, replication, kmsKey, pullAccounts, scanning } = registry;
  if (owns.includes("roles")) {
    if (roles === undefined) {
      add("owns", "roles", "roles that baton:roles describes", "Describe them, or remove it");
    } else if (kind !== "ecr") {
      add("owns", "roles", "registry.kind ecr", "They are AWS's roles for an ECR repository");
    }
  }
  if (kind !== "ecr") {
    const given = {
      kmsKey: kmsKey !== undefined,
      replication: replication.length > 0,
      pullAccounts: pullAccounts.length > 0,
      scanning: scanning !== "basic",
    };
    for (const [key, isGiven] of Object.entries(given)) {
      if (isGiven) add(`registry.${key}`, "set", "no value with registry.kind oci", "Remove it");
    }
    return problems;
  }
  const home = parseEcrHost(splitRepository(repository).host)?.region;
  const regions = replication.map(({ region }) => region);
  for (const [index, region] of regions.entries()) {
    if (region === home || regions.indexOf(region) !== index) {
      const key = `registry.replication[${index}].region`;
      add(key, region, "each other region once", "Remove it");
    }
  }
  const places = [home, ...regions];
  const deploy = owns.includes("roles") ? Object.entries(roles?.deploy ?? {}) : [];
  for (const [environment, { region, upstream, followers, kmsKey }] of deploy) {
    const key = `roles.deploy.${environment}`;
    if (region !== undefined && !places.includes(region)) {
      const fix = "Correct it, or replicate the repository to it";
      add(`${key}.region`, region, places.join(" or "), fix);
    }
    for (const other of followers) {
      if (other !== environment && roles?.deploy[other] !== undefined) continue;
      const expected = "another environment under baton:roles.deploy";
      add(`${key}.followers`, other, expected, "Describe it there, or remove it here");
    }
    if (upstream === environment) {
      add(`${key}.upstream`, upstream, "another environment", "Correct it, or remove it");
    }
    const twin = deploy.find(([name, each]) => name !== environment && each.kmsKey === kmsKey);
    if (kmsKey !== undefined && twin !== undefined) {
      const expected = `a key of its own, as it is that of ${twin[0]}, too`;
      add(`${key}.kmsKey`, kmsKey, expected, "Make one for each environment");
    }
  }
  return problems;
}

function workloadProblems(where: string, config: Config): Problem[] {
  const problems: Problem[] = [];
  for (const [name, workload] of Object.entries(config.workloads)) {
    const add = (key: string, value: string, expected: string, fix: string) =>
      problems.push({ where, property: `baton:workloads.${name}.${key}`, value, expected, fix });

    if (RESERVED_POLICIES.includes(name)) {
      problems.push({
        where,
        property: `baton:workloads.${name}`,
        value: "the name of a network policy of the namespace",
        expected: "another name",
        fix: "Rename the workload",
      });
    }
    if (workload.kind === "CronJob") {
      if (workload.schedule === undefined) {
        add("schedule", "not set", "a cron expression, such as 0 3 * * *", "Set it");
      }
      for (const key of ["port", "replicas", "autoscale", "exposure"] as const) {
        if (workload[key] !== undefined) add(key, "set", "no value on a CronJob", "Remove it");
      }
    } else if (workload.schedule !== undefined) {
      add("schedule", workload.schedule, "no value on a Deployment", "Remove it, or set its kind");
    }
    if (workload.autoscale !== undefined) {
      const { minReplicas, maxReplicas } = workload.autoscale;
      if (workload.replicas !== undefined) {
        const fix = "The autoscaler owns the number: remove replicas, or set it to null here";
        add("replicas", String(workload.replicas), "no value beside autoscale", fix);
      }
      if (maxReplicas < minReplicas) {
        const fix = "Correct one of the two";
        add("autoscale.maxReplicas", String(maxReplicas), `at least ${minReplicas}`, fix);
      }
    }
    for (const [kind, probe] of Object.entries(workload.probes)) {
      if (probe === undefined) continue;
      if ((probe.path === undefined) === (probe.command === undefined)) {
        add(`probes.${kind}`, "ambiguous", "either path or command", "Give exactly one");
      } else if (probe.path !== undefined && (probe.port ?? workload.port) === undefined) {
        add(`probes.${kind}.path`, probe.path, "a port to call it on", "Set the workload's port");
      }
    }
    problems.push(...exposureProblems(where, name, config));
  }
  return problems;
}

function exposureProblems(where: string, name: string, config: Config): Problem[] {
  const problems: Problem[] = [];
  const { entrances, workloads } = config;
  const exposure = workloads[name]?.exposure;
  if (exposure === undefined) return [];
  const add = (key: string, value: string, expected: string, fix: string) =>
    problems.push({ where, property: `baton:workloads.${name}.${key}`, value, expected, fix });

  if (workloads[name]?.port === undefined) {
    add("port", "not set", "the port that the exposure leads to", "Set it");
  }
  if (entrances?.[exposure.scope] === undefined) {
    const expected = `an entrance that baton:entrances.${exposure.scope} describes`;
    add("exposure.scope", exposure.scope, expected, `Describe it there, or choose the other scope`);
  }
  if (entrances?.kind === "HTTPRoute" && exposure.tls !== undefined) {
    const fix = "With Gateway API the Gateway's listener holds the certificate: remove it";
    add("exposure.tls", exposure.tls.source, "no value with kind HTTPRoute", fix);
  }
  const entrance = entrances?.[exposure.scope];
  if (
    entrance !== undefined &&
    (entrance.namespace === undefined) === (entrance.cidr === undefined)
  ) {
    problems.push({
      where,
      property: `baton:entrances.${exposure.scope}`,
      value: "ambiguous",
      expected: "either namespace or cidr: where the entrance's proxies call from",
      fix: "Give exactly one",
    });
  }
  if (
    entrances?.kind === "HTTPRoute" &&
    entrance !== undefined &&
    entrance.namespace === undefined
  ) {
    add("exposure.scope", exposure.scope, "an entrance with the Gateway's namespace", "Set it");
  }
  const kinds: Record<string, string> = {
    alb: "Ingress",
    nginx: "Ingress",
    envoyGateway: "HTTPRoute",
  };
  const needed = kinds[entrances?.controller ?? ""];
  if (entrances !== undefined && needed !== undefined && entrances.kind !== needed) {
    problems.push({
      where,
      property: "baton:entrances.kind",
      value: entrances.kind,
      expected: `${needed}, which ${entrances.controller} serves`,
      fix: "Correct the kind or the controller",
    });
  }
  return problems;
}

function suiteProblems(where: string, config: Config): Problem[] {
  const { suites, run } = config.verification;
  const problems: Problem[] = [];
  const add = (key: string, value: string, expected: string, fix: string) =>
    problems.push({ where, property: `baton:verification.${key}`, value, expected, fix });

  if (run[0] !== "smoke") {
    const fix = "Every environment has a quick smoke suite, and it runs first: add it to the list";
    add("run", run.length === 0 ? "empty" : run.join(", "), "smoke and whatever follows it", fix);
  }
  if (new Set(run).size !== run.length) {
    add("run", run.join(", "), "each suite once", "Remove the repetition");
  }
  for (const name of run) {
    const suite = suites[name];
    if (suite === undefined) {
      const known = Object.keys(suites).join(", ");
      const fix = "Describe it under baton:verification.suites, or remove it from the list";
      add("run", name, `suites that are described: ${known}`, fix);
      continue;
    }
    if (suite.target === undefined) continue;
    const target = config.workloads[suite.target];
    if (target?.port === undefined) {
      add(`suites.${name}.target`, suite.target, "a workload with a port", "Correct it");
    } else if (suite.through === "exposure" && standsBeside(config, target)) {
      const fix = "Through the exposure it would meet the former release: set through to service";
      const expected = `service while the strategy is ${config.rollout.strategy}`;
      add(`suites.${name}.through`, "exposure", expected, fix);
    } else if (suite.through === "exposure" && target.exposure === undefined) {
      const fix = `Give ${suite.target} an exposure, or set through to service`;
      add(`suites.${name}.through`, "exposure", "a target with an exposure", fix);
    }
  }
  return problems;
}

function databaseProblems(where: string, config: Config): Problem[] {
  const { database, settings, approval, workloads } = config;
  if (database === undefined) return [];
  const problems: Problem[] = [];
  const add = (key: string, value: string, expected: string, fix: string) =>
    problems.push({ where, property: `baton:database.${key}`, value, expected, fix });

  const source = settings.secrets[database.url]?.source;
  if (source === undefined || source === "random") {
    const expected = "the name of a secret setting that holds the database's URL";
    const fix = `Declare it under baton:settings.secrets with source: config, and set it with \`pulumi config set --secret NAME --stack ${where}\``;
    const isName = /^\w+$/.test(database.url);
    add("url", isName ? database.url : "not shown, as it may be secret", expected, fix);
  }
  if (RESERVED_WORKLOAD in workloads) {
    problems.push({
      where,
      property: `baton:workloads.${RESERVED_WORKLOAD}`,
      value: "the name of what runs for the database",
      expected: "another name",
      fix: "Rename the workload",
    });
  }
  if (database.policy.allowDown && database.migration.down === undefined) {
    const fix = "Give the command that migrates down, or set allowDown to false";
    add("policy.allowDown", "true", "baton:database.migration.down beside it", fix);
  }
  const { refresh, follower } = database;
  if (refresh !== undefined) {
    if (refresh.dump === undefined && refresh.seed === undefined) {
      add("refresh", "empty", "dump, seed or both", "Say what the data is, or remove it");
    }
    if (approval.required > 0) {
      const expected = "no value where baton:approval.required is more than 0";
      const fix =
        "What people have to approve is not for data to be thrown away in: remove it, or set it to null here";
      add("refresh", "set", expected, fix);
    }
    if (follower) {
      add("refresh", "set", "no value for a follower", "Its data are the other's: remove it");
    }
  }
  if (follower && database.backup.schedule !== undefined) {
    const fix = "Back up the database that feeds it, and set it to null here";
    add("backup.schedule", database.backup.schedule, "no value for a follower", fix);
  }
  return problems;
}
