import * as assert from "node:assert/strict";
import { execa } from "execa";
import { copyFile, readFile, writeFile } from "node:fs/promises";
import { createServer, request as ask, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { parseDocument } from "yaml";
import { BAKE, progressOf } from "../../../provider/progress";
import { until } from "../../../sandbox/cluster";
import { ROOT } from "../../../sandbox/folder";
import { pushBuild, targetsOf } from "../../../sandbox/images";
import { PROMETHEUS } from "../../../sandbox/prometheus";
import { PATIENCE, Scene } from "../scene";

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

/** Prometheus as it can be taken away. */
class Proxy {
  private server: Server | undefined;
  private port = 0;

  async start(): Promise<void> {
    const server = createServer((request, response) => {
      const { method, headers, url = "/" } = request;
      const onward = ask(`${PROMETHEUS}${url}`, { method, headers }, (answer) => {
        response.writeHead(answer.statusCode ?? 502, answer.headers);
        answer.pipe(response);
      });
      onward.on("error", () => response.destroy());
      request.pipe(onward);
    });
    await new Promise<void>((resolve) => server.listen(this.port, "127.0.0.1", resolve));
    this.port = (server.address() as AddressInfo).port;
    this.server = server;
  }

  stop(): void {
    this.server?.closeAllConnections();
    this.server?.close();
    this.server = undefined;
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }
}

describe("a release in use", () => {
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
  /** Changes keys of the stack file, which may hold null. */
  const set = async (changes: Readonly<Record<string, unknown>>) => {
    const document = parseDocument(await readFile(stackFile, "utf8"));
    for (const [key, value] of Object.entries(changes)) {
      const path = ["config", ...key.split(".")];
      path.slice(0, -1).forEach((_, index) => {
        const parent = path.slice(0, index + 1);
        if (!document.hasIn(parent)) document.setIn(parent, document.createNode({}));
      });
      document.setIn(path, document.createNode(value));
    }
    await writeFile(stackFile, document.toString());
  };
  const earned = () => scene.registry.resolve(`${DEV}-${build}`);
  const log = () => readFile(join(scene.project.folder, `up-${DEV}.log`), "utf8");
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
    scene = await Scene.open();
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

  it("earns its tag when it holds up", async () => {
    await scene.deploy(DEV, await fresh());
    assert.match(await log(), /baking for 10 s, judged by http/);
    assert.ok(await earned());
  });

  it("that fails only under load is found out, and earns nothing", async () => {
    await set({ "baton:workloads.web.args": ["--port=9898", BROKEN] });
    await assert.rejects(scene.deploy(DEV, await fresh()), (error: Error) => {
      assert.match(error.message, /failed its bake, after \d+ s of 10 s:/);
      assert.match(error.message, /error-rate is [\d.]+ %; expected at most 1 %; so since 2\d{3}-/);
      return true;
    });
    assert.equal(await earned(), undefined);
  });

  it("is aborted from another process", async () => {
    await set({ "baton:rollout.bake": "10m" });
    const up = scene.deploy(DEV, await fresh()).then(
      () => "it went on",
      (error: unknown) => String(error),
    );
    await until("the bake", bakes, PATIENCE);
    const { folder, environment } = scene.project;
    await scene.project.commit("Begin");
    const person = { GIT_COMMITTER_NAME: "bob", GIT_COMMITTER_EMAIL: "bob@example.com" };
    const args = ["cli/main.ts", "--cwd", folder, "abort", DEV, "--reason", "orders are missing"];
    const began = Date.now();
    const { all } = await execa("node", ["-r", "ts-node/register", ...args], {
      cwd: ROOT,
      env: { ...environment, ...person, NO_COLOR: "1" },
      all: true,
    });
    assert.match(all, /the bake of web stopped; whoever deploys goes back now/);
    assert.match(await up, /aborted by bob@example\.com: orders are missing/);
    console.log(`      stopped after ${Date.now() - began} ms`);
    assert.equal(await earned(), undefined);
  });

  it("is carried on with after a kill, from where it stood", async () => {
    await set({ "baton:rollout.bake": "30s" });
    await scene.project.setConfig(DEV, "imageTag", await fresh());
    const { folder, environment } = scene.project;
    const up = execa("pulumi", ["--non-interactive", "up", "--yes", "--skip-preview", "-s", DEV], {
      cwd: folder,
      env: { ...environment, PWD: folder },
      detached: true,
      reject: false,
    });
    await until("the bake", bakes, PATIENCE);
    await setTimeout(15_000);
    process.kill(-(up.pid ?? 0), "SIGKILL");
    await up;
    assert.equal(await earned(), undefined);
    await scene.project.pulumi("cancel", "--yes", "--stack", DEV);
    await scene.project.up(DEV);
    assert.match(await log(), /baking for 30 s, carried on after \d+ s/);
    assert.ok(await earned());
  });

  it("waits while Prometheus is gone, and goes on when it is back", async () => {
    await set({ "baton:rollout.bake": "20s" });
    const up = scene.deploy(DEV, await fresh());
    await until("the bake", bakes, PATIENCE);
    await setTimeout(8_000);
    proxy.stop();
    await setTimeout(10_000);
    assert.equal(await earned(), undefined);
    await proxy.start();
    await up;
    assert.match(await log(), /held: http.* does not answer: ECONNREFUSED, since/);
    assert.ok(await earned());
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

    it("is switched to without losing a request, and the former one stays", async () => {
      second = await fresh();
      const { failed } = await underTraffic(() => scene.deploy(DEV, second));
      assert.equal(failed, 0);
      assert.equal(await live(), `web-${second}`);
      assert.deepEqual(await deployments(), [`web-${first}`, `web-${second}`]);
      // Nothing is left to do.
      const { stdout } = await scene.project.pulumi("preview", "--json", "--stack", DEV);
      const { changeSummary } = JSON.parse(stdout) as { changeSummary: Record<string, number> };
      // A stack reference, to its own last outputs, is read each time.
      assert.deepEqual(Object.keys(changeSummary).sort(), ["read", "same"]);
    });

    it("that fails only under load loses its traffic at once", async () => {
      await set({ "baton:workloads.web.args": ["--port=9898", BROKEN] });
      const third = await fresh();
      await underTraffic(async () => {
        await assert.rejects(scene.deploy(DEV, third), (error: Error) => {
          console.log(error.message.replace(/^/gm, "      | "));
          assert.match(error.message, /error-rate is [\d.]+ %; expected at most 1 %/);
          assert.match(error.message, /web leads to the former release again/);
          return true;
        });
        assert.equal(await live(), `web-${second}`);
      });
      assert.equal(await earned(), undefined);
      traffic.statuses.clear();
      address = callers;
      await setTimeout(3_000);
      address = undefined;
      await setTimeout(1_000);
      assert.equal(traffic.failed, 0, "the former release serves");
      assert.ok(traffic.statuses.size > 0);
      await copyFile(`${stackFile}.good`, stackFile);
      await scene.project.setConfig(DEV, "rollbackOf", third);
      await scene.deploy(DEV, second);
      assert.deepEqual(await deployments(), [`web-${first}`, `web-${second}`]);
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
  });

  describe("step by step", () => {
    let stable: string;
    const replicasOf = async (name: string) => {
      const namespace = scene.namespaceOf(DEV);
      return (await scene.apps.readNamespacedDeployment({ namespace, name })).spec?.replicas;
    };
    const readyIn = async (selector: Record<string, string>) => {
      const text = Object.entries(selector).map(([key, value]) => `${key}=${value}`);
      return (await scene.pods(DEV, text.join(","))).length;
    };
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
        await until("the second step", isInSecond(next), PATIENCE);
        await setTimeout(5_000);
        assert.equal(await readyIn({ "baton/workload": "web" }), 4, "what the Service selects");
        await up;
      });
      console.log((await log()).replace(/^/gm, "      | "));
      assert.equal(failed, 0);
      assert.match(await log(), /step 1 of 2, 25 % for 10 s: 1 of 3 pods of web, 33 %; judged by/);
      assert.equal(await live(), `web-${next}`);
      assert.deepEqual(await deployments(), [`web-${stable}`, `web-${next}`].sort());
      assert.deepEqual(
        [await replicasOf(`web-${stable}`), await replicasOf(`web-${next}`)],
        [2, 2],
      );
      assert.ok(await earned());
      const { stdout } = await scene.project.pulumi("preview", "--json", "--stack", DEV);
      const { changeSummary } = JSON.parse(stdout) as { changeSummary: Record<string, number> };
      assert.deepEqual(Object.keys(changeSummary).sort(), ["read", "same"]);
      stable = next;
    });

    it("that fails only under load loses its share at once, and the stable one keeps its pods", async () => {
      await set({ "baton:workloads.web.args": ["--port=9898", BROKEN] });
      const bad = await fresh();
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
      assert.equal(await replicasOf(`web-${stable}`), 2);
      const { failed, all } = await underTraffic(() => setTimeout(2_000));
      assert.ok(all > 0);
      assert.equal(failed, 0, "the stable release serves");
      await copyFile(`${stackFile}.good`, stackFile);
      await scene.project.setConfig(DEV, "rollbackOf", bad);
      await scene.deploy(DEV, stable);
      assert.ok(!(await deployments()).includes(`web-${bad}`));
    });

    it("is carried on with after a kill in the middle, without losing a request", async () => {
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
        await setTimeout(5_000);
        process.kill(-(up.pid ?? 0), "SIGKILL");
        await up;
        assert.equal(await earned(), undefined);
        assert.equal(await readyIn({ "baton/workload": "web" }), 4, "both go on serving");
        await scene.project.pulumi("cancel", "--yes", "--stack", DEV);
        await scene.project.up(DEV);
      });
      console.log((await log()).replace(/^/gm, "      | "));
      assert.equal(failed, 0);
      assert.match(await log(), /waiting for another run, .*, to end or to give no sign of life/);
      assert.doesNotMatch(await log(), /step 1 of 2/);
      assert.match(await log(), /step 2 of 2, 50 % for 10 s/);
      assert.equal(await live(), `web-${next}`);
      assert.ok(await earned());
    });
  });
});
