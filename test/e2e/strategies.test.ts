import * as assert from "node:assert/strict";
import { execa } from "execa";
import { copyFile, readFile } from "node:fs/promises";
import { request as ask } from "node:http";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { BAKE, progressOf } from "../../provider/progress";
import { until } from "../../sandbox/cluster";
import { ROOT } from "../../sandbox/folder";
import { pushBuild, targetsOf } from "../../sandbox/images";
import { PATIENCE, Scene } from "./scene";
import { Proxy } from "./proxy";

const DEV = "dev";
/** Answers every ninth request with 500, as soon as anybody asks. */
const BROKEN = "--random-error";

/** Constant traffic on a URL, each request on a connection of its own, and how it was answered. */
class Traffic {
  private readonly timer: NodeJS.Timeout;
  readonly statuses = new Map<number, number>();

  constructor(url: () => string | undefined, perSecond = 50) {
    this.timer = setInterval(() => {
      const to = url();
      if (to === undefined) return;
      const count = (status: number) =>
        void this.statuses.set(status, (this.statuses.get(status) ?? 0) + 1);
      ask(to, { agent: false, timeout: 5000 }, (answer) => {
        answer.resume();
        count(answer.statusCode ?? 0);
      })
        .on("error", () => count(0))
        .end();
    }, 1000 / perSecond);
  }

  /** Requests that were answered with anything but success, or not at all. */
  get failed(): number {
    return [...this.statuses].reduce((sum, [status, n]) => (status === 200 ? sum : sum + n), 0);
  }

  stop(): void {
    clearInterval(this.timer);
  }
}

/* What a rollout does beside what delivery.test.ts proves of each strategy under load. */
describe("a release in use (long)", () => {
  let scene: Scene;
  let stackFile: string;
  let traffic: Traffic;
  let build: number;
  let address: string | undefined;
  /** The Service that users call. */
  let callers: string;
  const proxy = new Proxy();

  const fresh = async () => {
    build += 1;
    await pushBuild(build, targetsOf({}));
    return `build-${build}`;
  };
  const set = (changes: Readonly<Record<string, unknown>>) => scene.project.edit(DEV, changes);
  const log = () => readFile(join(scene.project.folder, `up-${DEV}.log`), "utf8");
  const earned = () => scene.registry.resolve(`${DEV}-${build}`);
  const bakes = async () => {
    const namespace = scene.namespaceOf(DEV);
    const { items } = await scene.apps.listNamespacedDeployment({ namespace });
    return items.some(({ metadata }) => metadata?.annotations?.[BAKE]?.includes('"running"'));
  };

  /** Where the Service that users call leads to. */
  const live = async () => {
    const namespace = scene.namespaceOf(DEV);
    const { spec } = await scene.core.readNamespacedService({ namespace, name: "web" });
    return spec?.selector?.["app.kubernetes.io/name"];
  };
  const deployments = async () => {
    const namespace = scene.namespaceOf(DEV);
    const { items } = await scene.apps.listNamespacedDeployment({ namespace });
    return items.map(({ metadata }) => metadata?.name ?? "").sort();
  };
  /** Deploys under traffic. @returns how many requests were made, and how many failed. */
  const underTraffic = async (action: () => Promise<void>) => {
    traffic.statuses.clear();
    address = callers;
    await action();
    await setTimeout(2_000);
    address = undefined;
    await setTimeout(2_000);
    const { failed } = traffic;
    const all = [...traffic.statuses.values()].reduce((sum, n) => sum + n, 0);
    console.log(`      ${all} requests, of which ${failed} failed`);
    return { all, failed };
  };
  before(async () => {
    scene = await Scene.anew();
    stackFile = join(scene.project.folder, `Pulumi.${DEV}.yaml`);
    build = scene.builds[2] + 200;
    await proxy.start();
    // Probes that see no traffic do not see what fails under it.
    const probe = { path: null, command: ["/bin/podcli", "version"] };
    await set({
      "baton:monitoring": { level: "scrape" },
      "baton:verification": { run: ["smoke"] },
      "baton:workloads.web.probes": { startup: probe, readiness: probe, liveness: probe },
    });
    await scene.deploy(DEV, await fresh());
    const service = { namespace: scene.namespaceOf(DEV), name: "web" };
    callers = `http://${(await scene.core.readNamespacedService(service)).spec?.clusterIP ?? ""}/`;
    address = callers;
    traffic = new Traffic(() => address);
    const analysis = { prometheus: proxy.url, interval: "1s", window: "10s" };
    await set({ "baton:rollout": { bake: "10s", analysis } });
    await copyFile(stackFile, `${stackFile}.good`);
  });
  afterEach(() => copyFile(`${stackFile}.good`, stackFile));
  after(() => {
    traffic.stop();
    proxy.stop();
  });

  it("goes back where Prometheus is gone and the stack file says so", async () => {
    await set({ "baton:rollout.analysis.whenUnavailable": "goBack" });
    await set({ "baton:rollout.bake": "10m" });
    const up = scene.deploy(DEV, await fresh()).catch((error: unknown) => String(error));
    await until("the bake", bakes, PATIENCE);
    proxy.stop();
    assert.match(String(await up), /does not answer.*since .*whenUnavailable is goBack/);
    assert.equal(await earned(), undefined);
    await proxy.start();
  });

  it("never passes without traffic", async () => {
    address = undefined;
    await set({ "baton:rollout.analysis.whenTooLittleTraffic": "goBack" });
    await assert.rejects(
      scene.deploy(DEV, await fresh()),
      /too little traffic: .* expected at least 20, since .*whenTooLittleTraffic is goBack/,
    );
    assert.equal(await earned(), undefined);
  });

  describe("beside the former one", () => {
    let first: string;
    let second: string;

    before(async () => {
      await set({ "baton:rollout.strategy": "blueGreen" });
      await copyFile(stackFile, `${stackFile}.good`);
    });

    it("takes over from a rolling one without losing a request", async () => {
      first = await fresh();
      const { failed } = await underTraffic(() => scene.deploy(DEV, first));
      assert.equal(failed, 0);
      assert.equal(await live(), `web-${first}`);
      assert.deepEqual(await deployments(), [`web-${first}`]);
    });

    it("is switched to, and the former one stays, with nothing left to do", async () => {
      second = await fresh();
      await underTraffic(() => scene.deploy(DEV, second));
      assert.equal(await live(), `web-${second}`);
      assert.deepEqual(await deployments(), [`web-${first}`, `web-${second}`]);
      const { stdout } = await scene.project.pulumi("preview", "--json", "--stack", DEV);
      const { changeSummary } = JSON.parse(stdout) as { changeSummary: Record<string, number> };
      assert.deepEqual(Object.keys(changeSummary), ["same"]);
    });

    it("goes back by a switch, without losing a request", async () => {
      await scene.project.setConfig(DEV, "rollbackOf", second);
      const began = Date.now();
      const { failed } = await underTraffic(() => scene.deploy(DEV, first));
      console.log(`      back within ${Date.now() - began} ms`);
      assert.equal(failed, 0);
      assert.equal(await live(), `web-${first}`);
      assert.deepEqual(await deployments(), [`web-${first}`, `web-${second}`]);
    });

    it("goes forward and back at once to a Deployment just removed, and to the same tag twice", async () => {
      const { project } = scene;
      const forward = async (tag: string) => {
        await copyFile(`${stackFile}.good`, stackFile);
        await underTraffic(() => scene.deploy(DEV, tag));
        assert.equal(await live(), `web-${tag}`);
      };
      const third = await fresh();
      await forward(third);
      assert.deepEqual(await deployments(), [`web-${first}`, `web-${third}`], "it is gone");
      await project.setConfig(DEV, "rollbackOf", third);
      await scene.deploy(DEV, second);
      assert.equal(await live(), `web-${second}`);
      await forward(third);
      await scene.deploy(DEV, third);
      assert.deepEqual(await deployments(), [`web-${second}`, `web-${third}`]);
    });
  });

  describe("step by step", () => {
    let stable: string;
    const podsOf = async (tag: string) => {
      const name = { namespace: scene.namespaceOf(DEV), name: `web-${tag}` };
      return (await scene.apps.readNamespacedDeployment(name)).spec?.replicas ?? 0;
    };
    /** The autoscaler gives the stable release what it needs, and the other one follows. */
    const serveTogether = (tag: string) =>
      until(
        "both releases' pods",
        async () => {
          const [former = 0, next = 0] = await Promise.all([stable, tag].map(podsOf));
          const selected = await scene.pods(DEV, "baton/workload=web");
          return next >= former && selected.length === former + next;
        },
        PATIENCE,
      );
    const isInSecond = (tag: string) => async () => {
      const namespace = scene.namespaceOf(DEV);
      const read = scene.apps.readNamespacedDeployment({ namespace, name: `web-${tag}` });
      return progressOf(await read.catch(() => undefined))?.step === 1;
    };

    before(async () => {
      address = callers;
      await set({
        "baton:quota": { pods: 20, "limits.cpu": 16, "limits.memory": "8Gi" },
        "baton:workloads.web.autoscale": { minReplicas: 2, maxReplicas: 4, cpuUtilization: 90 },
        "baton:workloads.web.replicas": null,
        // So much that this traffic makes no autoscaler add a pod.
        "baton:workloads.web.resources": { requests: { cpu: "100m" } },
        "baton:rollout.strategy": "canary",
        "baton:rollout.steps": [
          { weight: 25, duration: "10s" },
          { weight: 50, duration: "10s" },
        ],
      });
      stable = await fresh();
      await scene.deploy(DEV, stable);
      address = undefined;
      await copyFile(stackFile, `${stackFile}.good`);
    });

    it("takes all traffic without losing a request", async () => {
      const next = await fresh();
      const { failed } = await underTraffic(async () => {
        const up = scene.deploy(DEV, next);
        const shared = until("the second step", isInSecond(next), PATIENCE).then(() =>
          serveTogether(next),
        );
        // Also where it is not as it should be, the next test must find the stack at rest.
        await Promise.allSettled([up, shared]);
        await Promise.all([up, shared]);
      });
      console.log((await log()).replace(/^/gm, "      | "));
      assert.equal(failed, 0);
      assert.match(
        await log(),
        /step 1 of 2, 25 % for 10 s: \d of \d pods of web, \d+ %; judged by/,
      );
      assert.equal(await live(), `web-${next}`);
      assert.deepEqual(await deployments(), [`web-${stable}`, `web-${next}`].sort());
      assert.ok((await podsOf(next)) >= (await podsOf(stable)), "as many as there were");
      assert.ok(await earned());
      const { stdout } = await scene.project.pulumi("preview", "--json", "--stack", DEV);
      const { changeSummary } = JSON.parse(stdout) as { changeSummary: Record<string, number> };
      assert.deepEqual(Object.keys(changeSummary), ["same"]);
      stable = next;
    });

    it("that fails only under load loses its share at once, and the stable one keeps its pods", async () => {
      await set({ "baton:workloads.web.args": ["--port=9898", BROKEN] });
      const bad = await fresh();
      const before = await podsOf(stable);
      await underTraffic(async () => {
        await assert.rejects(scene.deploy(DEV, bad), (error: Error) => {
          console.log(error.message.replace(/^/gm, "      | "));
          assert.match(error.message, /failed its step 1 of 2 \(25 %\), after \d+ s of 10 s:/);
          assert.match(error.message, /error-rate is [\d.]+ %; expected at most 1 %/);
          assert.match(error.message, /web leads to the former release again/);
          return true;
        });
        assert.equal(await live(), `web-${stable}`);
      });
      assert.equal(await earned(), undefined);
      assert.ok((await podsOf(stable)) >= before);
      const { failed, all } = await underTraffic(() => setTimeout(2_000));
      assert.ok(all > 0);
      assert.equal(failed, 0, "the stable release serves");
      await copyFile(`${stackFile}.good`, stackFile);
      await scene.project.setConfig(DEV, "rollbackOf", bad);
      await scene.deploy(DEV, stable);
      assert.ok(!(await deployments()).includes(`web-${bad}`));
    });

    it("is carried on with after a kill in the middle, without losing a request", async () => {
      await set({
        "baton:rollout.steps": [
          { weight: 25, duration: "10s" },
          { weight: 50, duration: "30s" },
        ],
      });
      const next = await fresh();
      await scene.project.setConfig(DEV, "imageTag", next);
      const { failed } = await underTraffic(async () => {
        const { folder, environment } = scene.project;
        const args = ["--non-interactive", "up", "--yes", "--skip-preview", "-s", DEV];
        const up = execa("pulumi", args, {
          cwd: folder,
          env: { ...environment, PWD: folder },
          detached: true,
          reject: false,
        });
        await until("the second step", isInSecond(next), PATIENCE);
        await serveTogether(next);
        process.kill(-(up.pid ?? 0), "SIGKILL");
        await up;
        const isGone = async () => (await execa("pgrep", provider, { reject: false })).failed;
        const provider = ["--full", join(ROOT, "provider/pulumi-resource-promotion")];
        await until("the end of the killed engine's provider", isGone, PATIENCE);
        assert.equal(await earned(), undefined);
        await serveTogether(next);
        await scene.project.pulumi("cancel", "--yes", "--stack", DEV);
        await scene.project.up(DEV);
      });
      console.log((await log()).replace(/^/gm, "      | "));
      assert.equal(failed, 0);
      assert.doesNotMatch(await log(), /step 1 of 2/);
      assert.match(await log(), /step 2 of 2, 50 % for 30 s/);
      assert.equal(await live(), `web-${next}`);
      assert.ok(await earned());
    });
  });
});
