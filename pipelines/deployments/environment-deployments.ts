import * as pulumi from "@pulumi/pulumi";
import * as pulumiservice from "@pulumi/pulumiservice";
import type { DeploymentsConfig } from "./config";
import { settingsOf, type DeployedStack } from "./settings";

export interface EnvironmentDeploymentsArgs {
  readonly config: DeploymentsConfig;
  readonly stack: DeployedStack;
}

/** What the people who watch an environment hear of, from Pulumi Cloud itself. */
const HEARD = [
  pulumiservice.WebhookFilters.UpdateSucceeded,
  pulumiservice.WebhookFilters.UpdateFailed,
  // A run that ended before its update: refused by what is checked first, or out of reach.
  pulumiservice.WebhookFilters.DeploymentFailed,
  pulumiservice.WebhookFilters.DriftDetected,
  pulumiservice.WebhookFilters.DriftDetectionFailed,
];

/** How Pulumi Deployments runs one environment's stack: when, as whom, and who hears of it. */
export class EnvironmentDeployments extends pulumi.ComponentResource {
  constructor(
    name: string,
    args: EnvironmentDeploymentsArgs,
    opts: pulumi.ComponentResourceOptions = {},
  ) {
    super("baton:pipelines:EnvironmentDeployments", name, args, opts);
    const { config, stack } = args;
    const { organization, slackWebhook } = config;
    const { project, environment } = stack;

    // The typed `pulumiservice.DeploymentSettings` has no `deployTags` and no `tagFilters` (1.3.0);
    // this one passes the API's own body on. It may change its name before it is stable: then its
    // type gets an alias here.
    const settings = new pulumiservice.api.deployments.Settings(
      `${name}-settings`,
      {
        orgName: organization,
        projectName: project,
        stackName: environment,
        ...settingsOf(config, stack),
      },
      { parent: this },
    );
    new pulumiservice.DriftSchedule(
      `${name}-drift`,
      {
        organization,
        project,
        stack: environment,
        scheduleCron: stack.config.drift,
        // Putting it right runs `pulumi up` on what is merged, approved or not.
        autoRemediate: false,
      },
      // The API refuses a schedule for a stack without settings.
      { parent: this, dependsOn: settings },
    );
    new pulumiservice.Webhook(
      `${name}-slack`,
      {
        organizationName: organization,
        projectName: project,
        stackName: environment,
        active: true,
        displayName: "Slack",
        format: pulumiservice.WebhookFormat.Slack,
        payloadUrl: slackWebhook,
        filters: HEARD,
      },
      { parent: this },
    );
    this.registerOutputs();
  }
}
