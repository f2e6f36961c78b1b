import { join } from "node:path";
import { readFlow } from "../../cli/flow";
import { Refusal } from "../../config";
import { Project } from "../../ledger/project";
import { FLOW_FILE, protectedBranch } from "../../release/flow";
import { formatProblems, type Problem } from "../../release/problem";
import { readConfig, type DeploymentsConfig } from "./config";
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

/**
 * Pulumi Deployments and the pipelines that record its runs go by one protected branch.
 * @throws Refusal where `pipelines/flow.yaml` names another for an environment that it deploys.
 */
async function checkBranches(root: Project, { branch }: DeploymentsConfig): Promise<void> {
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
