import { AppsV1Api, CoreV1Api, type KubeConfig } from "@kubernetes/client-node";
import type { ListrTask } from "listr2";
import type { Release } from "../release/eligibility";
import { kubeconfigOf } from "./cluster";
import type { Place, Project } from "./engine";

/**
 * Carries a build through every environment the way a person would: copies the tag that one stack
 * has earned into the next stack's config, and runs `pulumi up`.
 */
export function walkPath(project: Project, build: string, version: string): ListrTask[] {
  return project.path.map((environment) => ({
    title: environment,
    task: async (_, task) => {
      const config = await project.config(environment);
      const upstream = config["baton:upstream"];
      const tag =
        upstream === undefined ? build : String((await project.outputs(upstream))["earnedTag"]);
      task.title = `${environment}: ${tag}`;
      await project.setConfig(environment, "imageTag", tag);
      if (config["baton:versioned"] === "true") {
        await project.setConfig(environment, "version", version);
      }
      // Whatever people have decided with the tool meanwhile.
      await project.up(environment, { BATON_BREAK_GLASS: "the sandbox starts anew" });
      const { earnedTag } = await project.outputs(environment);
      task.title = `${environment}: ${tag} has earned ${String(earnedTag)}`;
    },
  }));
}

/** What an environment runs; null where there is nothing. */
export interface EnvironmentStatus {
  readonly name: string;
  readonly tag: string | null;
  readonly digest: string | null;
  readonly version: string | null;
  readonly earnedTag: string | null;
  /** Ready and wanted pods, `2/3`. */
  readonly pods: string | null;
  readonly url: string | null;
}

/** Reads each environment's last release from its stack, and its pods from the cluster. */
export async function readEnvironments(
  project: Project,
  place: Place,
): Promise<EnvironmentStatus[]> {
  const kubeconfig = kubeconfigOf(place);
  return Promise.all(project.path.map((name) => readEnvironment(name, project, kubeconfig)));
}

async function readEnvironment(
  name: string,
  project: Project,
  kubeconfig: KubeConfig,
): Promise<EnvironmentStatus> {
  const outputs = await project.outputs(name);
  const release = outputs["release"] as Release | undefined;
  const namespace = outputs["namespace"];
  let pods: string | null = null;
  let url: string | null = null;
  if (release !== undefined && typeof namespace === "string") {
    const deployments = await kubeconfig.makeApiClient(AppsV1Api).listNamespacedDeployment({
      namespace,
    });
    const sum = (numbers: (number | undefined)[]) => numbers.reduce((a = 0, b = 0) => a + b, 0);
    const ready = sum(deployments.items.map(({ status }) => status?.readyReplicas));
    const wanted = sum(deployments.items.map(({ spec }) => spec?.replicas));
    pods = `${ready}/${wanted}`;
    // The stack's own URL is the host name users call; a Service's address needs no DNS.
    const services = await kubeconfig.makeApiClient(CoreV1Api).listNamespacedService({ namespace });
    const address = services.items[0]?.spec?.clusterIP;
    if (address !== undefined) url = `http://${address}`;
  }
  return {
    name,
    tag: release?.imageTag ?? null,
    digest: release?.digest ?? null,
    version: release?.version ?? null,
    earnedTag: release?.earnedTag ?? null,
    pods,
    url,
  };
}
