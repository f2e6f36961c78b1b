import type { Config } from "../../config-schema";

/** https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_grammar.html */
export interface PolicyDocument {
  readonly Version: "2012-10-17";
  readonly Statement: readonly Statement[];
}

export interface Statement {
  readonly Sid: string;
  readonly Effect: "Allow";
  readonly Action: readonly string[];
  readonly Resource?: readonly string[];
  readonly Principal?: Readonly<Record<string, string | readonly string[]>>;
  readonly Condition?: Readonly<Record<string, Readonly<Record<string, readonly string[]>>>>;
}

export type RolesConfig = NonNullable<Config["roles"]>;

/** Where the images are. */
export interface EcrPlace {
  readonly account: string;
  readonly name: string;
  /** The repository's own region first, then those it is replicated to. */
  readonly regions: readonly string[];
}

const GITHUB = "token.actions.githubusercontent.com";

const document = (...Statement: Statement[]): PolicyDocument => ({
  Version: "2012-10-17",
  Statement,
});
const allow = (Sid: string, Action: readonly string[], Resource: readonly string[]): Statement => ({
  Sid,
  Effect: "Allow",
  Action,
  Resource,
});

/** China and GovCloud are apart from all other regions. */
export function partitionOf(region: string): string {
  if (region.startsWith("cn-")) return "aws-cn";
  return region.startsWith("us-gov-") ? "aws-us-gov" : "aws";
}

function repositoryArn({ account, name }: EcrPlace, region: string): string {
  return `arn:${partitionOf(region)}:ecr:${region}:${account}:repository/${name}`;
}

const PULL = [
  "ecr:BatchCheckLayerAvailability",
  "ecr:BatchGetImage",
  "ecr:GetDownloadUrlForLayer",
] as const;
/** What the program and the tool read. */
const READ = [
  "ecr:BatchGetImage",
  "ecr:DescribeImageScanFindings",
  "ecr:GetDownloadUrlForLayer",
  "ecr:ListImageReferrers",
  "ecr:ListImages",
] as const;
const PUSH = [
  "ecr:BatchCheckLayerAvailability",
  "ecr:BatchGetImage",
  "ecr:CompleteLayerUpload",
  "ecr:GetDownloadUrlForLayer",
  "ecr:InitiateLayerUpload",
  "ecr:ListImages",
  "ecr:PutImage",
  "ecr:UploadLayerPart",
] as const;
/** Has no resource to be limited to. */
const LOGIN = allow("LogIn", ["ecr:GetAuthorizationToken"], ["*"]);

/**
 * The `sub` of GitHub's token for a job, with the keys `repo`, `ref` and `context` in this order: the
 * branch comes first, as no branch has a colon in its name, and an environment may.
 * https://docs.github.com/en/actions/reference/security/oidc#customizing-the-token-claims
 * @param branch that the job runs on, `*` standing for any text
 * @param environment of GitHub, that the job names
 */
function subjectOf(repository: string, branch: string, environment?: string): string {
  const ref = `ref:refs/heads/${branch}`;
  const context = environment === undefined ? ref : `environment:${environment}`;
  return `repo:${repository}:${ref}:${context}`;
}

/** A job that may assume a role: the branch that it runs on, and GitHub's environment. */
export interface TrustedJob {
  readonly branch: string;
  readonly environment?: string;
}

/**
 * Lets jobs of one GitHub repository assume a role
 * (https://docs.github.com/en/actions/how-tos/secure-your-work/security-harden-deployments/oidc-in-aws).
 */
export function githubTrust(
  provider: string,
  repository: string,
  jobs: readonly TrustedJob[],
): PolicyDocument {
  const full = jobs.map(({ branch, environment }) => subjectOf(repository, branch, environment));
  const exact = full.filter((subject) => !subject.includes("*"));
  const match = full.length === exact.length ? "StringEquals" : "StringLike";
  const aud = { [`${GITHUB}:aud`]: ["sts.amazonaws.com"] };
  const sub = { [`${GITHUB}:sub`]: full };
  return document({
    Sid: "GitHub",
    Effect: "Allow",
    Action: ["sts:AssumeRoleWithWebIdentity"],
    Principal: { Federated: provider },
    Condition:
      match === "StringEquals"
        ? { StringEquals: { ...aud, ...sub } }
        : { StringEquals: aud, StringLike: sub },
  });
}

/** Pushes images, in the repository's own region. */
export function buildPolicy(place: EcrPlace): PolicyDocument {
  return document(LOGIN, allow("Push", PUSH, [repositoryArn(place, place.regions[0] ?? "")]));
}

/** Reads one environment's images, state and secrets, and writes nothing: previews and drift. */
export function previewPolicy(
  place: EcrPlace,
  roles: RolesConfig,
  environment: string,
  project: string,
): PolicyDocument {
  return document(...read(place, roles, environment, project));
}

/** One environment's deployments: its tags, its state, its cluster. */
export function deployPolicy(
  place: EcrPlace,
  roles: RolesConfig,
  environment: string,
  project: string,
  isOwner: boolean,
): PolicyDocument {
  const { state } = roles;
  return document(
    ...read(place, roles, environment, project),
    // Its earned tag; IAM knows no tags, so it may write any.
    allow("Tag", ["ecr:PutImage"], [imagesOf(place, roles, environment)]),
    // What it has made for all environments; only an administrator may change that.
    ...(isOwner ? [OWN] : []),
    ...(state === undefined ? [] : [writeState(state, project, environment)]),
  );
}

/**
 * The reading that a preview of an environment needs, and of those that follow it, as they are asked
 * for together. The upstream's state, which says what was earned there, is read and not decrypted.
 */
function read(
  place: EcrPlace,
  roles: RolesConfig,
  environment: string,
  project: string,
): Statement[] {
  const { state, deploy } = roles;
  const { upstream, followers = [] } = deploy[environment] ?? {};
  const previewed = [environment, ...followers];
  const valuesOf = (key: "kmsKey" | "cluster") =>
    previewed.flatMap((name) => deploy[name]?.[key] ?? []);
  const images = [...new Set(previewed.map((name) => imagesOf(place, roles, name)))];
  const [keys, clusters] = [valuesOf("kmsKey"), valuesOf("cluster")];
  return [
    allow("ReadImages", READ, images),
    ...(state === undefined ? [] : readState(state, project, previewed, upstream)),
    ...(keys.length === 0 ? [] : [allow("ReadSecrets", ["kms:Decrypt"], keys)]),
    ...(clusters.length === 0 ? [] : [allow("FindCluster", ["eks:DescribeCluster"], clusters)]),
  ];
}

/** The repository that an environment takes its images from. */
function imagesOf(place: EcrPlace, { deploy }: RolesConfig, environment: string): string {
  const [home = ""] = place.regions;
  return repositoryArn(place, deploy[environment]?.region ?? home);
}

/** None of these has a resource to be limited to but the registry as a whole. */
const OWN = allow(
  "ReadSettings",
  ["ecr:DescribeRegistry", "ecr:DescribeRepositories", "ecr:GetRegistryScanningConfiguration"],
  ["*"],
);

/** Pulls images, as a cluster's nodes do. */
export function pullPolicy(place: EcrPlace): PolicyDocument {
  const images = place.regions.map((region) => repositoryArn(place, region));
  return document(LOGIN, allow("Pull", PULL, images));
}

/** Lets other accounts pull; a repository's own policy, so it names no resource. */
export function pullFromAccounts(region: string, accounts: readonly string[]): PolicyDocument {
  const AWS = accounts.map((account) => `arn:${partitionOf(region)}:iam::${account}:root`);
  return document({ Sid: "Pull", Effect: "Allow", Action: PULL, Principal: { AWS } });
}

type State = NonNullable<RolesConfig["state"]>;

/** Stacks' files, and of the upstream's the state alone. */
function readState(
  { bucket }: State,
  project: string,
  stacks: readonly string[],
  upstream: string | undefined,
): Statement[] {
  const files = [
    "meta.yaml",
    ...stacks.flatMap((stack) => filesOf(project, stack)),
    ...(upstream === undefined ? [] : [stateFile(project, upstream)]),
  ];
  return [
    allow("ListState", ["s3:ListBucket"], [bucket]),
    allow(
      "ReadState",
      ["s3:GetObject"],
      files.map((file) => `${bucket}/.pulumi/${file}`),
    ),
  ];
}

function writeState({ bucket }: State, project: string, stack: string): Statement {
  return allow(
    "WriteState",
    ["s3:DeleteObject", "s3:PutObject"],
    filesOf(project, stack).map((file) => `${bucket}/.pulumi/${file}`),
  );
}

/**
 * One stack's files, as Pulumi's backend for object stores lays them out
 * (https://github.com/pulumi/pulumi/blob/master/pkg/backend/diy/store.go).
 */
function filesOf(project: string, stack: string): string[] {
  return [
    stateFile(project, stack),
    ...["history", "backups"].map((folder) => `${folder}/${project}/${stack}/*`),
    `locks/organization/${project}/${stack}/*`,
  ];
}

function stateFile(project: string, stack: string): string {
  return `stacks/${project}/${stack}.json*`;
}
