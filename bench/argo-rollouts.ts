import { AppsV1Api, CoreV1Api, CustomObjectsApi, type V1Deployment } from "@kubernetes/client-node";
import { MERGE } from "../provider/cluster";
import { kubeconfigOf, until } from "../sandbox/cluster";
import { startController } from "../sandbox/controller";
import { ARGO_ROLLOUTS } from "../sandbox/build";
import { KUBECONFIG, REGISTRY } from "../sandbox/folder";
import { PROMETHEUS } from "../sandbox/prometheus";
import { PATIENCE } from "./cluster";

const API = { group: "argoproj.io", version: "v1alpha1" };
const NAME = "argo";
const SELECTOR = { app: NAME };
/** Labels that Argo Rollouts puts on a release's pods, as Prometheus has them. */
const RELEASE = "rollouts_pod_template_hash";

interface Rollout {
  readonly metadata: { readonly generation: number };
  readonly status?: {
    readonly phase?: string;
    readonly observedGeneration?: string;
    /** Those of the release that was asked for last. */
    readonly updatedReplicas?: number;
  };
}

/**
 * The controller of Argo Rollouts, as a process beside the cluster, and one canary: 10, 50 and 100 %,
 * judged all along by what Prometheus says of its pods.
 */
export class ArgoRollouts {
  /** The Service that leads to it. */
  readonly service = NAME;
  private readonly kubeconfig = kubeconfigOf({});
  private readonly objects = this.kubeconfig.makeApiClient(CustomObjectsApi);
  private end: (() => Promise<void>) | undefined;

  constructor(
    private readonly namespace: string,
    /** For how long each step is watched, in seconds. */
    private readonly step: number,
  ) {}

  /** Starts the controller, which is built the first time. */
  async start(): Promise<void> {
    this.end = await startController({
      part: ARGO_ROLLOUTS,
      program: "rollouts-controller",
      args: ["--kubeconfig", KUBECONFIG, "--leader-elect=false", "--loglevel=warn"],
      definitions: { module: "github.com/argoproj/argo-rollouts", folder: "manifests/crds" },
    });
  }

  /** Ends it, and removes what it needs of the cluster. */
  async stop(): Promise<void> {
    await this.end?.();
  }

  /** Makes a canary of a Deployment's pods, which it has no more afterwards. */
  async takeOver(deployment: V1Deployment): Promise<void> {
    const { namespace } = this;
    const { replicas, template } = deployment.spec ?? {};
    const at = { ...API, namespace };
    const { annotations, labels } = template?.metadata ?? {};
    const metadata = {
      annotations,
      labels: { ...labels, "app.kubernetes.io/name": NAME, ...SELECTOR },
    };
    await this.objects.createNamespacedCustomObject({
      ...at,
      plural: "analysistemplates",
      body: analysisTemplate(namespace),
    });
    await this.objects.createNamespacedCustomObject({
      ...at,
      plural: "rollouts",
      body: {
        apiVersion: `${API.group}/${API.version}`,
        kind: "Rollout",
        metadata: { name: NAME },
        spec: {
          replicas,
          selector: { matchLabels: SELECTOR },
          template: { metadata, spec: template?.spec },
          strategy: { canary: canary(this.step) },
        },
      },
    });
    const core = this.kubeconfig.makeApiClient(CoreV1Api);
    const port = template?.spec?.containers[0]?.ports?.[0]?.containerPort ?? 9898;
    await core.createNamespacedService({
      namespace,
      body: {
        metadata: { name: NAME },
        spec: { selector: SELECTOR, ports: [{ port: 80, targetPort: port }] },
      },
    });
    await this.settle();
    const apps = this.kubeconfig.makeApiClient(AppsV1Api);
    const name = deployment.metadata?.name ?? "";
    await apps.patchNamespacedDeploymentScale(
      { namespace, name, body: { spec: { replicas: 0 } } },
      MERGE,
    );
  }

  /**
   * Changes the image and waits until it has been taken over or withdrawn.
   * @returns whether it was taken over.
   */
  async change(version: string): Promise<boolean> {
    const path = "/spec/template/spec/containers/0/image";
    await this.patch([{ op: "replace", path, value: `${REGISTRY}/podinfo:${version}` }]);
    return (await this.settle()) === "Healthy";
  }

  private async patch(body: object[]): Promise<void> {
    await this.objects.patchNamespacedCustomObject({ ...this.place, body });
  }

  private get place() {
    return { ...API, namespace: this.namespace, plural: "rollouts", name: NAME };
  }

  private async settle(): Promise<string> {
    let phase = "";
    const settled = async () => {
      const rollout = (await this.objects.getNamespacedCustomObject(this.place)) as Rollout;
      const { observedGeneration, updatedReplicas = 0 } = rollout.status ?? {};
      phase = rollout.status?.phase ?? "";
      if (observedGeneration !== String(rollout.metadata.generation)) return false;
      return phase === "Healthy" || (phase === "Degraded" && updatedReplicas === 0);
    };
    await until(`the rollout of ${NAME}`, settled, PATIENCE);
    return phase;
  }
}

/** https://argo-rollouts.readthedocs.io/en/stable/features/canary/ */
function canary(seconds: number) {
  const pause = { pause: { duration: `${seconds}s` } };
  return {
    maxSurge: "25%",
    maxUnavailable: 0,
    steps: [10, 50, 100].flatMap((setWeight) => [{ setWeight }, pause]),
    analysis: {
      startingStep: 1,
      templates: [{ templateName: NAME }],
      args: [{ name: "release", valueFrom: { podTemplateHashValue: "Latest" } }],
    },
  };
}

/** What Baton's analysis asks by default, as often, and failing after as many samples. */
function analysisTemplate(namespace: string) {
  const of = (status: string) =>
    `sum(rate(http_requests_total{namespace="${namespace}",${RELEASE}="{{args.release}}"${status}}[5s]))`;
  return {
    apiVersion: `${API.group}/${API.version}`,
    kind: "AnalysisTemplate",
    metadata: { name: NAME },
    spec: {
      args: [{ name: "release" }],
      metrics: [
        {
          name: "error-rate",
          interval: "1s",
          failureLimit: 1,
          successCondition: "len(result) == 0 || isNaN(result[0]) || result[0] <= 1",
          provider: {
            prometheus: {
              address: PROMETHEUS,
              query: `100 * (${of(',status=~"5.."')} or vector(0)) / ${of("")}`,
            },
          },
        },
      ],
    },
  };
}
