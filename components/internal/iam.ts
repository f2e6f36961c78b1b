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
 * Lets jobs of one GitHub repository assume a role
 * (https://docs.github.com/en/actions/how-tos/secure-your-work/security-harden-deployments/oidc-in-aws).
 * @param subjects what follows the repository in the token's `sub`, `*` standing for any text
 */
export function githubTrust(
  provider: string,
  repository: string,
  subjects: readonly string[],
): PolicyDocument {
  const full = subjects.map((subject) => `repo:${repository}:${subject}`);
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

/** Reads images and state, and writes neither: previews and requests. */
export function promotePolicy(place: EcrPlace, { state }: RolesConfig): PolicyDocument {
  const images = place.regions.map((region) => repositoryArn(place, region));
  return document(
    allow("ReadImages", READ, images),
    ...(state === undefined ? [] : [...readState(state), ...decrypt(state)]),
  );
}

/** One environment's deployments: its tags, its state, its cluster. */
export function deployPolicy(
  place: EcrPlace,
  { state, deploy }: RolesConfig,
  environment: string,
  project: string,
  isOwner: boolean,
): PolicyDocument {
  const [home = ""] = place.regions;
  const { region = home, cluster } = deploy[environment] ?? {};
  return document(
    allow("ReadImages", READ, [repositoryArn(place, region)]),
    // Its earned tag; IAM knows no tags, so it may write any.
    allow("Tag", ["ecr:PutImage"], [repositoryArn(place, region)]),
    // What it has made for all environments; only an administrator may change that.
    ...(isOwner ? [OWN] : []),
    ...(state === undefined
      ? []
      : [...readState(state), writeState(state, project, environment), ...decrypt(state)]),
    ...(cluster === undefined ? [] : [allow("FindCluster", ["eks:DescribeCluster"], [cluster])]),
  );
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

/** All stacks: an environment asks its upstream's for what it has earned. */
function readState({ bucket }: State): Statement[] {
  return [
    allow("ListState", ["s3:ListBucket"], [bucket]),
    allow("ReadState", ["s3:GetObject"], [`${bucket}/.pulumi/*`]),
  ];
}

/**
 * One stack's files, as Pulumi's backend for object stores lays them out
 * (https://github.com/pulumi/pulumi/blob/master/pkg/backend/diy/store.go).
 */
function writeState({ bucket }: State, project: string, stack: string): Statement {
  const files = [
    `stacks/${project}/${stack}.json*`,
    ...["history", "backups"].map((folder) => `${folder}/${project}/${stack}/*`),
    `locks/organization/${project}/${stack}/*`,
  ];
  return allow(
    "WriteState",
    ["s3:DeleteObject", "s3:PutObject"],
    files.map((file) => `${bucket}/.pulumi/${file}`),
  );
}

function decrypt({ kmsKey }: State): Statement[] {
  return kmsKey === undefined ? [] : [allow("ReadSecrets", ["kms:Decrypt"], [kmsKey])];
}
