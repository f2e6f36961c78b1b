import type { V1Pod } from "@kubernetes/client-node";
import * as assert from "node:assert/strict";
import { copyFile } from "node:fs/promises";
import { join } from "node:path";
import { BIN } from "../../sandbox/folder";
import { pushImage } from "../../sandbox/images";
import { Scene } from "./scene";

/** In seconds. */
const DEADLINE = 30;

describe("a release that fails", () => {
  let scene: Scene;
  let stackFile: string;
  before(async () => {
    scene = await Scene.open();
    // As after the path's own tests, where this runs by itself.
    if ((await scene.project.outputs("dev"))["release"] === undefined) {
      await scene.deploy("dev", `build-${scene.builds[1]}`);
    }
    stackFile = join(scene.project.folder, "Pulumi.dev.yaml");
    await scene.project.setConfig("dev", "baton:rollout.progressDeadlineSeconds", `${DEADLINE}`);
    await copyFile(stackFile, `${stackFile}.good`);
  });
  afterEach(() => copyFile(`${stackFile}.good`, stackFile));

  /** The next build number that nobody has used. */
  const fresh = () => (nextBuild ??= scene.builds[2]) && ++nextBuild;
  let nextBuild: number | undefined;

  describe("its verification", () => {
    it("fails the `up` with the end of the suite's log, and earns no tag", async () => {
      const { project, builds } = scene;
      const url = `http://dependency.${scene.namespaceOf("dev")}.svc/readyz`;
      // A suite that needs something which is not there yet.
      const args = ["check", "http", url, "--retry=1", "--timeout=2s"];
      for (const [index, arg] of args.entries()) {
        await project.setConfig("dev", `baton:verification.suites.smoke.args[${index}]`, arg);
      }
      await copyFile(stackFile, `${stackFile}.suite`);
      await assert.rejects(
        scene.deploy("dev", `build-${builds[2]}`),
        /verification-smoke[^]*dependency/,
      );
      assert.equal(await scene.registry.resolve(`dev-${builds[2]}`), undefined);
      assert.equal((await project.outputs("dev"))["earnedTag"], `dev-${builds[1]}`);
    });

    it("runs again on the next `up`, and then earns it", async () => {
      const { builds } = scene;
      await copyFile(`${stackFile}.suite`, stackFile);
      const namespace = scene.namespaceOf("dev");
      await scene.core.createNamespacedService({
        namespace,
        body: {
          metadata: { name: "dependency" },
          spec: {
            selector: { "app.kubernetes.io/name": "web" },
            ports: [{ port: 80, targetPort: 9898 }],
          },
        },
      });
      await scene.deploy("dev", `build-${builds[2]}`);
      assert.equal(
        await scene.registry.resolve(`dev-${builds[2]}`),
        await scene.registry.resolve(`build-${builds[2]}`),
      );
      await scene.core.deleteNamespacedService({ namespace, name: "dependency" });
    });
  });

  describe("its rollout", () => {
    const podinfo = { entrypoint: ["/bin/podinfo"] };
    const cases: {
      readonly what: string;
      /** The build's files, where it is another image than the good one. */
      readonly files?: Record<string, string>;
      readonly layer?: Buffer;
      readonly config?: Record<string, string>;
      readonly reason: RegExp;
    }[] = [
      {
        what: "as its image crashes",
        files: { "bin/podinfo": join(BIN, "podcli") },
        reason: /container web ended .*with exit code 1; its last words:[^]*unknown flag/,
      },
      {
        what: "as its image cannot be pulled (long)",
        files: { "bin/podinfo": join(BIN, "podinfo") },
        layer: Buffer.alloc(4096, "not a tar archive"),
        reason: /container web: (ErrImagePull|ImagePullBackOff): .*/,
      },
      {
        what: "as it runs out of memory (long)",
        config: { "baton:workloads.web.args[0]": "--stress-memory=600" },
        reason: /container web was killed for using more memory than its limit \(OOMKilled\)/,
      },
      {
        what: "as no node fits it",
        config: { "baton:workloads.web.nodeSelector.disk": "golden" },
        reason: /cannot be scheduled: 0\/\d+ nodes are available/,
      },
      {
        what: "in an init container (long)",
        config: {
          "baton:workloads.web.initContainers[0].name": "warm-up",
          "baton:workloads.web.initContainers[0].command[0]": "/bin/podcli",
          "baton:workloads.web.initContainers[0].args[0]": "no-such-command",
        },
        reason: /init container warm-up ended .*with exit code 1/,
      },
    ];
    for (const { what, files, layer, config, reason } of cases) {
      it(`${what}: ends at the deadline, with the pod's reason`, async () => {
        let build = scene.builds[1];
        if (files !== undefined) {
          build = fresh();
          await pushImage(`build-${build}`, scene.target, {
            files,
            ...podinfo,
            ...(layer === undefined ? {} : { layer }),
          });
        }
        for (const [key, value] of Object.entries(config ?? {})) {
          await scene.project.setConfig("dev", key, value);
        }
        const began = Date.now();
        await assert.rejects(scene.deploy("dev", `build-${build}`), (error: Error) => {
          assert.match(error.message, new RegExp(`made no progress for ${DEADLINE} s`));
          assert.match(error.message, reason);
          return true;
        });
        // Far from the ten minutes that Kubernetes and its provider would take by themselves.
        assert.ok(Date.now() - began < 300_000);
        if (files !== undefined) {
          assert.equal(await scene.registry.resolve(`dev-${build}`), undefined);
        }
        // The former release goes on serving all the while.
        assert.match(await scene.get("dev", "version"), new RegExp(`build-${scene.builds[2]}`));
      });
    }

    it("is undone by the former tag", async () => {
      await scene.deploy("dev", `build-${scene.builds[2]}`);
      const good = await scene.registry.resolve(`build-${scene.builds[2]}`);
      assert.deepEqual(await scene.runningDigests("dev"), [good]);
    });
  });
});

describe("an environment's namespace", () => {
  let scene: Scene;
  before(async () => (scene = await Scene.open()));

  const pod = (container: NonNullable<V1Pod["spec"]>["containers"][number]): V1Pod => ({
    metadata: { name: "intruder" },
    spec: {
      securityContext: { runAsNonRoot: true, seccompProfile: { type: "RuntimeDefault" } },
      containers: [container],
    },
  });
  const good = {
    name: "intruder",
    image: "intruder:1",
    securityContext: {
      allowPrivilegeEscalation: false,
      runAsUser: 65532,
      capabilities: { drop: ["ALL"] },
    },
  };
  const create = (body: V1Pod) =>
    scene.core.createNamespacedPod({
      namespace: scene.namespaceOf("dev"),
      body,
      dryRun: "All",
    });

  it("takes a pod that keeps to the rules", async () => {
    assert.ok(await create(pod(good)));
  });

  it("refuses a privileged pod", async () => {
    const privileged = { ...good, securityContext: { privileged: true } };
    await assert.rejects(create(pod(privileged)), /violates PodSecurity \\*"restricted:/);
  });

  it("refuses a pod beyond its quota", async () => {
    const greedy = {
      ...good,
      resources: {
        requests: { cpu: "1", memory: "64Gi" },
        limits: { cpu: "1", memory: "64Gi" },
      },
    };
    await assert.rejects(create(pod(greedy)), /exceeded quota/);
  });
});
