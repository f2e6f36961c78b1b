/** Pulumi Cloud as an identity provider of AWS. */
const ISSUER = "api.pulumi.com/oidc";

/** Operations that run from the protected branch's commits: a preview runs those of pull requests. */
const OPERATIONS = ["update", "refresh", "detect-drift"];

/**
 * Lets runs of an environment's own stack alone assume its role. Which commit they run is not in the
 * subject: `settings.ts` checks that, before anything of the commit runs.
 * https://www.pulumi.com/docs/deployments/guides/oidc/#custom-claims has the subject's form.
 */
export function trustPolicyOf(
  { organization, project, stack }: { organization: string; project: string; stack: string },
  roleArn: string,
) {
  const [, partition = "", , , account = ""] = roleArn.split(":");
  const subject = `pulumi:deploy:org:${organization}:project:${project}:stack:${stack}`;
  const subjects = OPERATIONS.map((operation) => `${subject}:operation:${operation}:*`);
  return {
    Version: "2012-10-17",
    Statement: [
      {
        Effect: "Allow",
        Principal: { Federated: `arn:${partition}:iam::${account}:oidc-provider/${ISSUER}` },
        Action: "sts:AssumeRoleWithWebIdentity",
        Condition: {
          StringEquals: { [`${ISSUER}:aud`]: organization },
          StringLike: { [`${ISSUER}:sub`]: subjects },
        },
      },
    ],
  };
}
