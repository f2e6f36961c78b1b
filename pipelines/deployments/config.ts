import * as pulumi from "@pulumi/pulumi";
import { CronExpressionParser } from "cron-parser";
import { z } from "zod";
import { readFlow } from "../../cli/flow";
import { isSecretKey, Refusal } from "../../config";
import type { Project } from "../../ledger/project";
import { FLOW_FILE, protectedBranch } from "../../release/flow";
import { jsonOrText } from "../../release/json";
import { isTree } from "../../release/merge";
import { formatProblems, type Problem } from "../../release/problem";

const Environment = z.strictObject({
  roleArn: z
    .string()
    .regex(/^arn:aws[\w-]*:iam::\d{12}:role\/\S+$/, "an IAM role's ARN")
    .describe("What a run assumes by OIDC"),
  cluster: z
    .strictObject({
      name: z.string().regex(/^[A-Za-z0-9][\w-]*$/, "an EKS cluster's name"),
      region: z.string().regex(/^[a-z]{2}(-[a-z]+)+-\d$/, "an AWS region"),
    })
    .describe("Whose kubeconfig a run gets, under the context that the stack file names"),
  drift: z
    .string()
    .refine(isCron, "a schedule in cron's five fields")
    .describe("When drift is looked for, in UTC"),
});

const Config = z.strictObject({
  organization: z
    .string()
    // AWS compares it with the token's audience, letter by letter.
    .regex(/^[a-z0-9][a-z0-9_-]*$/, "a Pulumi Cloud organisation's name, in lower case"),
  repository: z.string().regex(/^[\w.-]+\/[\w.-]+$/, "a GitHub repository, OWNER/NAME"),
  branch: z.string().min(1).default("main"),
  directory: z
    .string()
    .regex(/^[^/].*[^/]$|^[^/]$/, "a folder of the repository, without slashes at its ends")
    .optional(),
  executorImage: z
    .string()
    // A digest or a tag: what runs today runs tomorrow.
    .regex(/^\S+(:[\w.-]+|@sha256:[0-9a-f]{64})$/, "an image with its tag or digest"),
  environments: z.record(z.string(), Environment),
});

/** What is configured of one environment. */
export type EnvironmentConfig = z.infer<typeof Environment>;

/** This program's configuration, checked and typed. */
export interface DeploymentsConfig extends z.infer<typeof Config> {
  /** Whoever has this URL may write to the channel. */
  readonly slackWebhook: pulumi.Output<string>;
}

const SECRET = "slackWebhook";
const STRUCTURED = ["environments"];
const KEYS = [...Object.keys(Config.shape), SECRET];

/**
 * Reads the configuration, the one place that does.
 * @param stacks the environments that have a stack file
 * @throws Refusal that lists every problem at once.
 */
export function readConfig(stacks: readonly string[]): DeploymentsConfig {
  const prefix = `${pulumi.getProject()}:`;
  const where = pulumi.getStack();
  const problems: Problem[] = [];
  const own: Record<string, unknown> = {};
  for (const [fullKey, text] of Object.entries(pulumi.runtime.allConfig())) {
    if (!fullKey.startsWith(prefix)) continue;
    const key = fullKey.slice(prefix.length);
    if (key === SECRET) continue;
    own[key] = STRUCTURED.includes(key) ? jsonOrText(text) : text;
  }
  const parsed = Config.safeParse(own);
  for (const issue of parsed.error?.issues ?? []) problems.push(...explain(issue, where, own));
  problems.push(...secretProblems(where, prefix));
  const named = isTree(own["environments"]) ? Object.keys(own["environments"]) : undefined;
  for (const name of named === undefined ? [] : stacks) {
    if (named?.includes(name) === true) continue;
    problems.push({
      where,
      property: `environments.${name}`,
      value: "missing",
      expected: `an entry, as there is a Pulumi.${name}.yaml`,
      fix: "Add its role, cluster and drift schedule",
    });
  }
  for (const name of named?.filter((each) => !stacks.includes(each)) ?? []) {
    problems.push({
      where,
      property: `environments.${name}`,
      value: "no environment",
      expected: `one of ${stacks.join(", ")}`,
      fix: `Remove it, or add Pulumi.${name}.yaml`,
    });
  }
  if (problems.length > 0 || !parsed.success) throw new Refusal(formatProblems(problems));
  return { ...parsed.data, slackWebhook: new pulumi.Config().requireSecret(SECRET) };
}

/**
 * Pulumi Deployments and the pipelines that record its runs go by one protected branch.
 * @throws Refusal where `pipelines/flow.yaml` names another for an environment that it deploys.
 */
export async function checkBranches(
  root: Project,
  { branch }: Pick<DeploymentsConfig, "branch">,
): Promise<void> {
  const flow = await readFlow(root);
  const problems: Problem[] = [];
  for (const environment of await root.path()) {
    const { deployedBy } = await root.config(environment);
    const other = protectedBranch(flow, environment);
    if (deployedBy !== "pulumi-deployments" || other === branch) continue;
    problems.push({
      where: FLOW_FILE,
      property: `protected.${environment}`,
      value: other,
      expected: `${branch}, the branch of these settings`,
      fix: "Let both name one branch",
    });
  }
  if (problems.length > 0) throw new Refusal(formatProblems(problems));
}

function explain(issue: z.core.$ZodIssue, where: string, own: unknown): Problem[] {
  const fix = "docs/deployments.md has an example";
  if (issue.code === "unrecognized_keys") {
    return issue.keys.map((key) => ({
      where,
      property: [...issue.path, key].join("."),
      value: "not a key of this program",
      expected: issue.path.length === 0 ? `one of ${KEYS.join(", ")}` : "no such key",
      fix: "Correct or remove it",
    }));
  }
  const found = issue.path.reduce<unknown>(
    (tree, key) => (tree as Record<PropertyKey, unknown> | undefined)?.[key],
    own,
  );
  const value = found === undefined ? "not set" : JSON.stringify(found);
  const expected = issue.message.startsWith("Invalid input") ? "a value" : issue.message;
  return [{ where, property: issue.path.join("."), value, expected, fix }];
}

function secretProblems(where: string, prefix: string): Problem[] {
  const fix = `Set it with \`pulumi config set --secret ${SECRET}\``;
  const property = SECRET;
  const text = pulumi.runtime.allConfig()[`${prefix}${SECRET}`];
  if (text === undefined) {
    return [{ where, property, value: "not set", expected: "an incoming webhook of Slack", fix }];
  }
  const problems: Problem[] = [];
  if (!isSecretKey(`${prefix}${SECRET}`)) {
    problems.push({ where, property, value: "in plain text", expected: "a secret", fix });
  }
  if (!/^https:\/\/[^\s/]+\/\S+$/.test(text)) {
    problems.push({
      where,
      property,
      value: "not a URL",
      expected: "one that begins https://",
      fix,
    });
  }
  return problems;
}

function isCron(text: string): boolean {
  if (text.trim().split(/\s+/).length !== 5) return false;
  try {
    CronExpressionParser.parse(text);
    return true;
  } catch {
    return false;
  }
}
