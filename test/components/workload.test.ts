import * as assert from "node:assert/strict";
import { ProgramHarness, type Registered } from "../support/program";
import { release } from "../support/releases";

const amount = { cpu: "10m", memory: "16Mi" };
const resources = { requests: amount, limits: amount };

describe("Workload", () => {
  let harness: ProgramHarness;
  before(async () => (harness = await ProgramHarness.start()));
  after(() => harness.stop());

  async function declare(
    workloads: Record<string, unknown>,
  ): Promise<(type: string, name: string) => Registered | undefined> {
    const run = await harness.run(release(harness, "qa", { config: { workloads } }));
    return (type, name) => run.resources.find((one) => one.type === type && one.name === name);
  }

  interface Spec {
    replicas: number;
    selector: { matchLabels: Record<string, string> };
    template: {
      metadata: { labels: Record<string, string> };
      spec: Record<string, unknown> & {
        containers: Record<string, unknown>[];
        initContainers: Record<string, unknown>[];
      };
    };
  }
  const spec = (resource: Registered | undefined) => resource?.inputs["spec"] as Spec;
  const annotations = (resource: Registered | undefined) =>
    (resource?.inputs["metadata"] as { annotations: Record<string, string> }).annotations;

  it("is a Deployment and a Service on port 80", async () => {
    const find = await declare({});
    assert.equal(spec(find("kubernetes:apps/v1:Deployment", "web")).replicas, 2);
    const service = find("kubernetes:core/v1:Service", "web")?.inputs["spec"];
    assert.deepEqual(service, {
      selector: { "app.kubernetes.io/name": "web" },
      ports: [{ name: "http", port: 80, targetPort: 9898 }],
    });
  });

  it("has a disruption budget from two pods on", async () => {
    const budget = "kubernetes:policy/v1:PodDisruptionBudget";
    assert.ok((await declare({ web: { replicas: 2 } }))(budget, "web"));
    assert.equal((await declare({ web: { replicas: 1 } }))(budget, "web"), undefined);
  });

  it("starts at the autoscaler's minimum, and is left alone from then on", async () => {
    const autoscale = { minReplicas: 2, maxReplicas: 4, cpuUtilization: 70 };
    const find = await declare({ web: { replicas: null, autoscale } });
    const deployment = find("kubernetes:apps/v1:Deployment", "web");
    assert.ok(!("replicas" in spec(deployment)), "an update would take the autoscaler's back");
    assert.equal(find("promotion:index:Rollout", "web-rollout")?.inputs["pods"], 2);
    assert.deepEqual(deployment?.options.ignoreChanges, ["spec.replicas"]);
    const autoscaler = find("kubernetes:autoscaling/v2:HorizontalPodAutoscaler", "web");
    assert.ok(autoscaler?.dependsOn.includes("web-autoscaled"), "it goes before that");
    assert.ok(find("promotion:index:Autoscaled", "web-autoscaled")?.dependsOn.includes("web"));
    assert.ok(!("baton/replicas" in annotations(deployment)));
    const plain = (await declare({}))("kubernetes:apps/v1:Deployment", "web");
    assert.deepEqual(plain?.options.ignoreChanges, []);
  });

  it("has as many pods as the stack file says, also where an autoscaler had another number", async () => {
    const find = await declare({});
    const declared = annotations(find("kubernetes:apps/v1:Deployment", "web"));
    assert.equal(declared["baton/replicas"], "2");
    assert.equal(find("promotion:index:Autoscaled", "web-autoscaled"), undefined);
  });

  it("makes way for the release before when it fails, but not for the one that is left", async () => {
    const rollout = async (config: Readonly<Record<string, unknown>>) => {
      harness.registry.push("build 45", "qa-45");
      const { resources } = await harness.run(release(harness, "qa", { config }));
      return resources.find(({ name }) => name === "web-rollout")?.inputs;
    };
    const forward = await rollout({});
    assert.equal(forward?.["inPlace"], "web");
    assert.equal(forward["isLookedFor"], true);
    assert.equal(forward["irreversible"], undefined);
    const back = await rollout({ rollbackOf: "dev-46" });
    assert.equal(back?.["irreversible"], "dev-46, which ran before, is being left");
  });

  it("is awaited again when anything of its pods changes", async () => {
    const rollout = async (web: object) =>
      (await declare({ web }))("promotion:index:Rollout", "web-rollout")?.inputs["spec"];
    assert.equal(await rollout({}), await rollout({}));
    assert.notEqual(await rollout({}), await rollout({ preStopSeconds: 7 }));
    assert.notEqual(await rollout({}), await rollout({ replicas: 3 }));
  });

  it("can be a worker: no port, no Service, no pause before it stops", async () => {
    const worker = { args: ["work"], resources };
    const find = await declare({ worker });
    assert.equal(find("kubernetes:core/v1:Service", "worker"), undefined);
    const [container] = spec(find("kubernetes:apps/v1:Deployment", "worker")).template.spec
      .containers;
    assert.equal(container?.["lifecycle"], undefined);
    assert.deepEqual(container?.["args"], ["work"]);
    assert.ok(find("promotion:index:Rollout", "worker-rollout"));
  });

  it("can be a CronJob of the same image and settings", async () => {
    const night = { kind: "CronJob", schedule: "0 3 * * *", args: ["clean"], resources };
    const find = await declare({ night });
    const cronJob = find("kubernetes:batch/v1:CronJob", "night")?.inputs["spec"] as {
      schedule: string;
      jobTemplate: { spec: { template: Spec["template"] } };
    };
    assert.equal(cronJob.schedule, "0 3 * * *");
    const pod = cronJob.jobTemplate.spec.template.spec;
    assert.equal(pod["restartPolicy"], "Never");
    assert.match(String(pod.containers[0]?.["image"]), /@sha256:/);
    assert.ok((pod.containers[0]?.["envFrom"] as unknown[]).length > 0);
    assert.equal(find("promotion:index:Rollout", "night-rollout"), undefined);
  });

  it("runs its init containers from the same image, with the same settings", async () => {
    const find = await declare({
      web: { initContainers: [{ name: "warm-up", command: ["/bin/podcli", "version"] }] },
    });
    const { containers, initContainers } = spec(find("kubernetes:apps/v1:Deployment", "web"))
      .template.spec;
    assert.equal(initContainers[0]?.["name"], "warm-up");
    for (const key of ["image", "envFrom", "resources", "securityContext"]) {
      assert.deepEqual(initContainers[0][key], containers[0]?.[key], key);
    }
  });

  it("goes where it is told to", async () => {
    const find = await declare({
      web: {
        nodeSelector: { disk: "ssd" },
        tolerations: [{ key: "dedicated", operator: "Exists", effect: "NoSchedule" }],
        topologySpread: { topologyKey: "zone", whenUnsatisfiable: "DoNotSchedule" },
      },
    });
    const pod = spec(find("kubernetes:apps/v1:Deployment", "web")).template.spec;
    assert.deepEqual(pod["nodeSelector"], { disk: "ssd" });
    assert.deepEqual(pod["tolerations"], [
      { key: "dedicated", operator: "Exists", effect: "NoSchedule" },
    ]);
    const [constraint] = pod["topologySpreadConstraints"] as Record<string, unknown>[];
    assert.equal(constraint?.["whenUnsatisfiable"], "DoNotSchedule");
    assert.deepEqual(constraint["matchLabelKeys"], ["pod-template-hash"]);
  });

  it("probes by command where it is told to", async () => {
    const liveness = { command: ["/bin/podcli", "check"], periodSeconds: 5 };
    const find = await declare({ worker: { resources, probes: { liveness } } });
    const [container] = spec(find("kubernetes:apps/v1:Deployment", "worker")).template.spec
      .containers;
    assert.deepEqual(container?.["livenessProbe"], {
      exec: { command: ["/bin/podcli", "check"] },
      periodSeconds: 5,
    });
  });

  it("fits a Deployment that ran before: its name and its selector", async () => {
    const find = await declare({ web: { name: "shop", selector: { app: "shop" } } });
    const deployment = find("kubernetes:apps/v1:Deployment", "web");
    assert.equal((deployment?.inputs["metadata"] as { name: string }).name, "shop");
    assert.deepEqual(spec(deployment).selector.matchLabels, { app: "shop" });
    const { labels } = spec(deployment).template.metadata;
    assert.equal(labels["app"], "shop");
    assert.equal(labels["baton/image-tag"], "dev-45");
    const service = find("kubernetes:core/v1:Service", "web")?.inputs["spec"];
    assert.deepEqual((service as { selector: unknown }).selector, { app: "shop" });
  });
});
