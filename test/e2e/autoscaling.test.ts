import * as assert from "node:assert/strict";
import { setTimeout } from "node:timers/promises";
import { until } from "../../sandbox/cluster";
import { STRATEGIES } from "../../sandbox/delivery";
import { pushBuild, targetsOf } from "../../sandbox/images";
import { startLoad, type RunningLoad } from "../../sandbox/load";
import { onSandbox, PATIENCE, Scene } from "./scene";

const DEV = "dev";
const MOST = 3;

describe("an autoscaled workload, called all the time", () => {
  let scene: Scene;
  let build: number;
  let load: RunningLoad | undefined;

  const configure = (config: Readonly<Record<string, unknown>>) => scene.project.edit(DEV, config);
  /** How many pods are asked for of what the Service leads to. */
  const asked = async () => {
    const namespace = scene.namespaceOf(DEV);
    const { spec } = await scene.core.readNamespacedService({ namespace, name: "web" });
    const { items } = await scene.apps.listNamespacedDeployment({ namespace });
    return items
      .filter((deployment) => {
        const labels = deployment.spec?.template.metadata?.labels ?? {};
        return Object.entries(spec?.selector ?? {}).every(([key, value]) => labels[key] === value);
      })
      .reduce((sum, deployment) => sum + (deployment.spec?.replicas ?? 0), 0);
  };
  /** Nothing is left to fight about. */
  const nothingLeft = async () => {
    const { stdout } = await scene.project.pulumi("preview", "--json", "--stack", DEV);
    const { changeSummary } = JSON.parse(stdout) as { changeSummary: Record<string, number> };
    assert.deepEqual(Object.keys(changeSummary), ["same"]);
  };

  before(async function () {
    // A load from outside reaches no Service of another cluster.
    if (!onSandbox) this.skip();
    scene = await Scene.anew();
    build = scene.builds[2] + 400;
    await configure({
      "baton:verification": { run: ["smoke"] },
      "baton:quota": { pods: 20 },
      "baton:rollout": { strategy: "rolling" },
      "baton:workloads.web.replicas": null,
      "baton:workloads.web.autoscale": { minReplicas: 1, maxReplicas: MOST, cpuUtilization: 10 },
    });
    await pushBuild(build, targetsOf({}));
    await scene.deploy(DEV, `build-${build}`);
    const service = { namespace: scene.namespaceOf(DEV), name: "web" };
    const { spec } = await scene.core.readNamespacedService(service);
    const url = `http://${spec?.clusterIP ?? ""}/`;
    load = startLoad({ url, perSecond: 100, seconds: 3600, versions: [] });
    await until("the autoscaler", async () => (await asked()) === MOST, PATIENCE);
  });
  after(async () => {
    if (load === undefined) return;
    load.stop();
    const { requests, failures } = await load.result;
    console.log(`      ${requests} requests, of which ${failures} failed`);
    assert.equal(failures, 0);
  });

  for (const strategy of STRATEGIES) {
    it(`keeps as many pods as it needs: ${strategy} (long)`, async () => {
      const steps = [{ weight: 50, duration: "5s" }];
      await configure({ "baton:rollout": { strategy, steps } });
      for (const time of ["taking over", "again"]) {
        build += 1;
        await pushBuild(build, targetsOf({}));
        let fewest = Infinity;
        const ended = new AbortController();
        const watch = (async () => {
          while (!ended.signal.aborted) {
            fewest = Math.min(fewest, await asked());
            await setTimeout(200);
          }
        })();
        await scene.deploy(DEV, `build-${build}`).finally(() => {
          ended.abort();
        });
        await watch;
        assert.ok(fewest >= MOST, `${time}: ${fewest} pods`);
      }
      await nothingLeft();
    });
  }

  it("has as many pods as its stack file says, once it is not autoscaled any more", async () => {
    await configure({
      "baton:workloads.web.autoscale": null,
      "baton:workloads.web.replicas": 2,
    });
    build += 1;
    await pushBuild(build, targetsOf({}));
    await scene.deploy(DEV, `build-${build}`);
    assert.equal(await asked(), 2);
    await nothingLeft();
  });
});
