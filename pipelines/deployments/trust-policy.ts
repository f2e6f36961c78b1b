/** Pulumi Cloud as an identity provider of AWS. */
const ISSUER = "api.pulumi.com/oidc";

/**
 * Who may assume the role of an environment: runs of its own stack, and nobody else.
 * https://www.pulumi.com/docs/deployments/guides/oidc/#custom-claims has the subject's form.
 */
export function trustPolicyOf(
  { organization, project, stack }: { organization: string; project: string; stack: string },
  roleArn: string,
) {
  const [, partition = "", , , account = ""] = roleArn.split(":");
  const subject = `pulumi:deploy:org:${organization}:project:${project}:stack:${stack}:*`;
  return {
    Version: "2012-10-17",
    Statement: [
      {
        Effect: "Allow",
        Principal: { Federated: `arn:${partition}:iam::${account}:oidc-provider/${ISSUER}` },
        Action: "sts:AssumeRoleWithWebIdentity",
        Condition: {
          StringEquals: { [`${ISSUER}:aud`]: organization },
          StringLike: { [`${ISSUER}:sub`]: subject },
        },
      },
    ],
  };
}
