/** The folder of the tags that start a run of Pulumi Deployments. */
export const TRIGGERS = "deploy";

/**
 * The name of such a tag.
 * @param stamp when it was given, as a ref may have it
 */
export function triggerOf(project: string, environment: string, stamp: string): string {
  return `${TRIGGERS}/${project}/${environment}/${stamp}`;
}

/**
 * The glob that matches an environment's, and no other's, whether or not `*` stands for a slash too:
 * https://www.pulumi.com/docs/deployments/concepts/settings/tag-filtering/ does not say.
 */
export function triggerFilter(project: string, environment: string): string {
  return triggerOf(project, environment, "*");
}
