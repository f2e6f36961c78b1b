import { join } from "node:path";
import { Project } from "../../ledger/project";
import { checkBranches, readConfig } from "./config";
import { EnvironmentDeployments } from "./environment-deployments";
import { trustPolicyOf } from "./trust-policy";

export = async () => {
  const root = await Project.open(join(__dirname, "..", ".."));
  const environments = await root.path();
  const config = readConfig(environments);
  await checkBranches(root, config);
  const { organization } = config;
  const { name: project } = root;
  const trustPolicies: Record<string, unknown> = {};
  for (const environment of environments) {
    const { cluster } = await root.config(environment);
    const own = config.environments[environment];
    if (own === undefined) continue;
    const stack = { project, environment, context: cluster.context, config: own };
    new EnvironmentDeployments(environment, { config, stack });
    trustPolicies[environment] = trustPolicyOf(
      { organization, project, stack: environment },
      own.roleArn,
    );
  }
  return { trustPolicies };
};
