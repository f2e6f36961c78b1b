import { triggerFilter } from "../../release/trigger";
import type { DeploymentsConfig, EnvironmentConfig } from "./config";

/** A stack as Pulumi Deployments runs it. */
export interface DeployedStack {
  /** The Pulumi project of the environments. */
  readonly project: string;
  readonly environment: string;
  /** The kubeconfig's context that its stack file names. */
  readonly context: string | undefined;
  readonly config: EnvironmentConfig;
}

/**
 * The body of a request for a stack's settings, as the API takes it:
 * https://www.pulumi.com/docs/reference/cloud-rest-api/deployments/#patch-settings
 */
export function settingsOf(
  { repository, branch, directory, executorImage }: DeploymentsConfig,
  stack: DeployedStack,
) {
  const { project, environment, config } = stack;
  return {
    executorContext: { executorImage: { reference: executorImage } },
    // For runs that no tag has started: drift, and those that are started by hand.
    sourceContext: {
      git: {
        branch: `refs/heads/${branch}`,
        ...(directory === undefined ? {} : { repoDir: directory }),
      },
    },
    vcs: {
      provider: "github",
      repository,
      // A push of the branch deploys nothing: a request is merged before people have approved it.
      deployCommits: false,
      deployTags: true,
      tagFilters: [triggerFilter(project, environment)],
      previewPullRequests: false,
      pullRequestTemplate: false,
    },
    operationContext: {
      oidc: {
        aws: {
          roleArn: config.roleArn,
          // Pulumi's own names, filled in for each run: they are in every line of CloudTrail.
          sessionName: "${stack.name}-${deployment.version}",
        },
      },
      preRunCommands: preRunCommands(branch, stack),
      // `npm ci` has done it, by the lockfile that was approved.
      options: { skipInstallDependencies: true },
    },
  };
}

/**
 * Each runs in a shell of its own, before `pulumi`; the first that fails ends the run. A tag may name
 * any commit, so the first ones let nothing of a commit run that is no part of the protected branch:
 * they are a part of the settings, which the commit cannot change.
 */
function preRunCommands(branch: string, { environment, context, config }: DeployedStack): string[] {
  const { name, region } = config.cluster;
  const helper = `!f() { echo username=x-access-token; echo "password=$GITHUB_TOKEN"; }; f`;
  const tip = quote(`refs/remotes/origin/${branch}`);
  const refused = quote(
    `${environment}: the commit is no part of ${branch}; expected one that was merged. Merge it first.`,
  );
  return [
    // The ledger is fetched from the remote. The token is read when git asks, and kept nowhere.
    `git config --global credential.https://github.com.helper '${helper}'`,
    'if [ "$(git rev-parse --is-shallow-repository)" = true ]; then git fetch --quiet --unshallow origin; fi',
    `git fetch --quiet --no-tags origin ${quote(`+refs/heads/${branch}:refs/remotes/origin/${branch}`)}`,
    `git --no-replace-objects merge-base --is-ancestor HEAD ${tip} || { echo ${refused} >&2; exit 1; }`,
    "npm ci",
    // Stacks are named without their organisation.
    'pulumi org set-default "$PULUMI_CI_ORGANIZATION"',
    `aws eks update-kubeconfig --name ${name} --region ${region}${
      context === undefined ? "" : ` --alias ${quote(context)}`
    }`,
    // Freezes, holds and the comparison of previews are the tool's to check; approvals the program
    // checks, too. Looking for drift needs none of it.
    `case "$PULUMI_CI_OPERATION" in update | remediate-drift) npm run --silent baton -- check ${environment} ;; esac`,
  ];
}

function quote(text: string): string {
  return /^[\w.:/@-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}
