import type * as k8s from "@pulumi/kubernetes";
import type * as pulumi from "@pulumi/pulumi";
import type { ProbeConfig, ResourcesConfig, WorkloadConfig } from "../../config-schema";
import type { ContainerSettings } from "../settings";

type PodSpec = k8s.types.input.core.v1.PodSpec;
type Container = k8s.types.input.core.v1.Container;

/** What Pod Security `restricted` asks of a container, and a read-only root on top. */
const CONTAINER_SECURITY = {
  allowPrivilegeEscalation: false,
  readOnlyRootFilesystem: true,
  capabilities: { drop: ["ALL"] },
};

/** The user of distroless and k6 images alike; no Job needs a particular one. */
export const JOB_USER = 65532;

function podSecurity(runAsUser: number) {
  return {
    runAsNonRoot: true,
    runAsUser,
    runAsGroup: runAsUser,
    fsGroup: runAsUser,
    seccompProfile: { type: "RuntimeDefault" },
  };
}

function container(
  name: string,
  image: string,
  resources: ResourcesConfig,
  words: { readonly command?: string[] | undefined; readonly args?: string[] | undefined },
): Container {
  return {
    name,
    image,
    // The image is named by digest: what is on the node is what was asked for.
    imagePullPolicy: "IfNotPresent",
    ...(words.command === undefined ? {} : { command: words.command }),
    ...(words.args === undefined ? {} : { args: words.args }),
    resources,
    // The last lines of the log become the reason that `pulumi up` shows.
    terminationMessagePolicy: "FallbackToLogsOnError",
    securityContext: CONTAINER_SECURITY,
  };
}

function probe(
  config: ProbeConfig,
  defaultPort: number | undefined,
): k8s.types.input.core.v1.Probe {
  const { path, port, command, ...timing } = config;
  const check =
    command === undefined
      ? { httpGet: { path: path ?? "/", port: port ?? defaultPort ?? 80 } }
      : { exec: { command } };
  return { ...check, ...timing };
}

export interface WorkloadPodArgs {
  readonly name: string;
  readonly image: string;
  readonly workload: WorkloadConfig;
  readonly settings: ContainerSettings;
  readonly serviceAccount: pulumi.Input<string>;
  readonly selector: Readonly<Record<string, string>>;
}

/** The pod of a Deployment or CronJob. */
export function workloadPod(args: WorkloadPodArgs): PodSpec {
  const { name, image, workload, settings, selector } = args;
  const scratch = workload.writablePaths.map((mountPath, index) => ({
    volume: { name: `writable-${index}`, emptyDir: {} },
    mount: { name: `writable-${index}`, mountPath },
  }));
  const shared = {
    env: settings.env,
    envFrom: settings.envFrom,
    volumeMounts: [...settings.volumeMounts, ...scratch.map(({ mount }) => mount)],
  };
  const { startup, readiness, liveness } = workload.probes;
  const { port, topologySpread } = workload;
  return {
    serviceAccountName: args.serviceAccount,
    automountServiceAccountToken: false,
    securityContext: podSecurity(workload.runAsUser),
    terminationGracePeriodSeconds: workload.terminationGracePeriodSeconds,
    ...(workload.kind === "CronJob" ? { restartPolicy: "Never" } : {}),
    ...(workload.nodeSelector === undefined ? {} : { nodeSelector: workload.nodeSelector }),
    ...(workload.tolerations === undefined ? {} : { tolerations: workload.tolerations }),
    ...(topologySpread === undefined
      ? {}
      : {
          topologySpreadConstraints: [
            {
              maxSkew: 1,
              ...topologySpread,
              labelSelector: { matchLabels: selector },
              // The skew of one revision: old pods do not push new ones aside.
              matchLabelKeys: ["pod-template-hash"],
            },
          ],
        }),
    initContainers: workload.initContainers.map((init) => ({
      ...container(init.name, image, workload.resources, init),
      ...shared,
    })),
    containers: [
      {
        ...container(name, image, workload.resources, workload),
        ...shared,
        ...(port === undefined ? {} : { ports: [{ name: "http", containerPort: port }] }),
        ...(startup === undefined ? {} : { startupProbe: probe(startup, port) }),
        ...(readiness === undefined ? {} : { readinessProbe: probe(readiness, port) }),
        ...(liveness === undefined ? {} : { livenessProbe: probe(liveness, port) }),
        ...(port === undefined || workload.preStopSeconds === 0
          ? {}
          : { lifecycle: { preStop: { sleep: { seconds: workload.preStopSeconds } } } }),
      },
    ],
    volumes: [...settings.volumes, ...scratch.map(({ volume }) => volume)],
  };
}

export interface SuitePodArgs {
  readonly name: string;
  readonly image: string;
  readonly command: string[] | undefined;
  readonly args: string[] | undefined;
  readonly env: Readonly<Record<string, string>>;
  readonly resources: ResourcesConfig;
  readonly runAsUser: number;
  readonly serviceAccount: pulumi.Input<string>;
}

/** The pod of a verification Job: it runs once. */
export function suitePod(args: SuitePodArgs): PodSpec {
  const env = Object.entries(args.env).map(([name, value]) => ({ name, value }));
  return jobPod({ ...args, containers: [{ ...args, env }] });
}

/** One of a Job's containers. */
export interface JobContainer {
  readonly name: string;
  readonly image: string;
  readonly command?: string[] | undefined;
  readonly args?: string[] | undefined;
  readonly env: k8s.types.input.core.v1.EnvVar[];
  readonly envFrom?: k8s.types.input.core.v1.EnvFromSource[];
  readonly volumeMounts?: k8s.types.input.core.v1.VolumeMount[];
  readonly resources: ResourcesConfig;
}

export interface JobPodArgs {
  /** Run to their end one after another, the last one as the pod's own. */
  readonly containers: readonly JobContainer[];
  readonly volumes?: k8s.types.input.core.v1.Volume[];
  /** Of all containers together. */
  readonly activeDeadlineSeconds?: number;
  readonly runAsUser: number;
  readonly serviceAccount: pulumi.Input<string>;
}

/** The pod of a Job: each container runs once. */
export function jobPod(args: JobPodArgs): PodSpec {
  const containers = args.containers.map((one) => ({
    ...container(one.name, one.image, one.resources, one),
    env: one.env,
    ...(one.envFrom === undefined ? {} : { envFrom: one.envFrom }),
    ...(one.volumeMounts === undefined ? {} : { volumeMounts: one.volumeMounts }),
  }));
  const { volumes, activeDeadlineSeconds } = args;
  return {
    serviceAccountName: args.serviceAccount,
    automountServiceAccountToken: false,
    securityContext: podSecurity(args.runAsUser),
    restartPolicy: "Never",
    ...(activeDeadlineSeconds === undefined ? {} : { activeDeadlineSeconds }),
    ...(containers.length === 1 ? {} : { initContainers: containers.slice(0, -1) }),
    containers: containers.slice(-1),
    ...(volumes === undefined ? {} : { volumes }),
  };
}
