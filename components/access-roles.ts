import * as aws from "@pulumi/aws";
import * as pulumi from "@pulumi/pulumi";
import {
  buildPolicy,
  deployPolicy,
  githubTrust,
  previewPolicy,
  pullPolicy,
  type EcrPlace,
  type PolicyDocument,
  type RolesConfig,
  type TrustedJob,
} from "./internal/iam";

export interface AccessRolesArgs {
  readonly roles: RolesConfig;
  readonly place: EcrPlace;
  /** The Pulumi project's name. */
  readonly project: string;
  /** The environment whose stack makes what all environments share. */
  readonly owner: string;
}

/**
 * Roles in AWS that jobs of the GitHub repository assume by their tokens: one to build, and for each
 * environment one to preview and one to deploy, on its protected branch alone; and the right of the
 * clusters' nodes to pull. Made once, in the stack that owns them.
 */
export class AccessRoles extends pulumi.ComponentResource {
  /** ARNs by what the roles are for: `build`, `preview-prod`, `deploy-prod` … */
  readonly arns: Readonly<Record<string, pulumi.Output<string>>>;

  constructor(name: string, args: AccessRolesArgs, opts?: pulumi.ComponentResourceOptions) {
    super("baton:components:AccessRoles", name, args, opts);
    const { roles, place, project, owner } = args;
    const image = place.name.split("/").at(-1) ?? place.name;
    const provider =
      roles.github.provider ??
      new aws.iam.OpenIdConnectProvider(
        `${name}-github`,
        {
          url: "https://token.actions.githubusercontent.com",
          clientIdLists: ["sts.amazonaws.com"],
        },
        // One an account: others may have come to use it.
        { parent: this, retainOnDelete: true },
      ).arn;

    const arns: Record<string, pulumi.Output<string>> = {};
    const create = (purpose: string, jobs: readonly TrustedJob[], policy: PolicyDocument) => {
      const { repository } = roles.github;
      const role = new aws.iam.Role(
        `${name}-${purpose}`,
        {
          name: `${image}-${purpose}`,
          assumeRolePolicy: pulumi
            .output(provider)
            .apply((arn) => JSON.stringify(githubTrust(arn, repository, jobs))),
        },
        { parent: this },
      );
      new aws.iam.RolePolicy(
        `${name}-${purpose}`,
        { role: role.name, policy: JSON.stringify(policy) },
        { parent: this },
      );
      arns[purpose] = role.arn;
    };
    create(
      "build",
      roles.build.branches.map((branch) => ({ branch })),
      buildPolicy(place),
    );
    for (const [environment, { branch }] of Object.entries(roles.deploy)) {
      const reads = previewPolicy(place, roles, environment, project);
      create(`preview-${environment}`, [{ branch }], reads);
      const writes = deployPolicy(place, roles, environment, project, environment === owner);
      create(`deploy-${environment}`, [{ branch, environment }], writes);
    }
    for (const node of roles.pull) {
      new aws.iam.RolePolicy(
        `${name}-pull-${node}`,
        { name: `${image}-pull`, role: node, policy: JSON.stringify(pullPolicy(place)) },
        { parent: this },
      );
    }

    this.arns = arns;
    this.registerOutputs({ arns });
  }
}
