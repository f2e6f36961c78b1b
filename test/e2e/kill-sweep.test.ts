import * as assert from "node:assert/strict";
import { execa } from "execa";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { parseDocument } from "yaml";
import { STACK } from "../../components/internal/labels";
import { BIN, KUBECONFIG } from "../../sandbox/folder";
import { pushBuild, pushImage, targetsOf } from "../../sandbox/images";
import { databaseUrl, runSql } from "../../sandbox/postgres";
import { KillProxy } from "./kill-proxy";
import { onSandbox, Scene } from "./scene";

const DATABASE = "e2e_kills";
const CLIENT = "postgres-client:15";

/** Who is killed: the tool, Pulumi, or both. Without the tool, Pulumi is run by hand. */
const KILLED = ["tool", "pulumi", "both", "by hand"] as const;
type Killed = (typeof KILLED)[number];

/**
 * `KILLS=all` kills each of them at each change of each scene, `KILLS=spread` one of them at each
 * change, in turn, and `KILLS=3:both,7:tool` at these; otherwise there is a slice.
 */
const { KILLS = "slice" } = process.env;
const SLICE: Readonly<Record<string, readonly (readonly [number, Killed])[]>> = {
  first: [
    [1, "by hand"],
    [11, "both"],
  ],
  release: [[3, "tool"]],
};
/** More than any scene makes. */
const MOST_CHANGES = 99;

function killsOf(scene: string): readonly (readonly [number, Killed])[] {
  if (KILLS === "slice") return SLICE[scene] ?? [];
  if (KILLS.includes(":")) {
    return KILLS.split(",").map((kill) => {
      const [at, who] = kill.split(":");
      return [Number(at), KILLED.find((one) => one === who) ?? "both"] as const;
    });
  }
  const numbers = Array.from({ length: MOST_CHANGES }, (_, index) => index + 1);
  return numbers.flatMap((at) => {
    const inTurn = KILLED[at % KILLED.length] ?? "both";
    return (KILLS === "all" ? KILLED : [inTurn]).map((who) => [at, who] as const);
  });
}

interface State {
  readonly deployment: {
    readonly pending_operations?: readonly unknown[];
    readonly resources: readonly { readonly type: string; readonly id?: string }[];
  };
}

describe("a run that is killed at any change", () => {
  let scene: Scene;
  let proxy: KillProxy;
  let variables: Record<string, string>;
  let build: number;
  let stacks = 0;
  before(async function () {
    if (!onSandbox) this.skip();
    scene = await Scene.anew();
    build = scene.builds[2] + 400;
    const kubeconfig = join(scene.project.folder, "kubeconfig-killing");
    proxy = await KillProxy.start(scene.kubeconfig, KUBECONFIG, kubeconfig);
    variables = { KUBECONFIG: kubeconfig };
    await scene.project.edit("dev", { "baton:verification": { run: ["smoke"] } });
    await scene.project.commit("Begin");
  });
  after(() => {
    if (onSandbox) proxy.stop();
  });

  const fresh = async () => {
    build += 1;
    await pushBuild(build, targetsOf({}));
    return `build-${build}`;
  };

  /** An environment of its own, as dev is. */
  const environment = async (changes: Readonly<Record<string, unknown>> = {}) => {
    stacks += 1;
    const name = `kill${stacks}`;
    const { folder } = scene.project;
    const document = parseDocument(await readFile(join(folder, "Pulumi.dev.yaml"), "utf8"));
    document.delete("encryptionsalt");
    for (const key of ["imageTag", "imageDigest", "owns"]) {
      document.deleteIn(["config", `baton:${key}`]);
    }
    document.setIn(["config", "baton:namespace"], { name: scene.namespaceOf(name) });
    await writeFile(join(folder, `Pulumi.${name}.yaml`), document.toString());
    await scene.project.pulumi("stack", "init", name);
    await scene.project.edit(name, changes);
    await scene.project.commit(`Begin ${name}`);
    return name;
  };

  const pulumiOf = async (name: string): Promise<number[]> => {
    const found = await execa("pgrep", ["-f", `^pulumi .*--stack ${name}( |$)`], { reject: false });
    return found.stdout.split("\n").filter(Boolean).map(Number);
  };
  const toolOf = async (name: string): Promise<number[]> => {
    const pattern = `^node .*cli/main.ts --cwd .* ${name} `;
    const found = await execa("pgrep", ["-f", pattern], { reject: false });
    return found.stdout.split("\n").filter(Boolean).map(Number);
  };

  /** Runs a command of the tool or by hand; kills it at a change where it gets that far. */
  const run = async (name: string, args: readonly string[], who: Killed, at: number) => {
    const byHand = who === "by hand";
    let killed: Promise<void> | undefined;
    proxy.arm(at, () => {
      const kill = async () => {
        const pids = [
          ...(who === "pulumi" ? [] : byHand ? [] : await toolOf(name)),
          ...(who === "tool" ? [] : await pulumiOf(name)),
        ];
        for (const pid of pids) {
          try {
            process.kill(pid, "SIGKILL");
          } catch {
            // It has ended by itself meanwhile.
          }
        }
      };
      killed = kill();
    });
    const command = byHand
      ? execa("pulumi", ["up", "--yes", "--skip-preview", "--stack", name], {
          cwd: scene.project.folder,
          env: { ...scene.project.environment, ...variables, PWD: scene.project.folder },
          reject: false,
          all: true,
        })
      : scene.tool("ann", args, { variables });
    const { exitCode, all } = await command;
    await killed;
    return { exitCode, text: all, isKilled: killed !== undefined };
  };

  /** Whether the environment is as if nobody had been killed. */
  const isWhole = async (name: string, tag: string, where: string) => {
    const outputs = await scene.project.outputs(name);
    assert.equal((outputs["release"] as { imageTag: string }).imageTag, tag, where);
    const digest = await scene.registry.resolve(tag);
    const released = `baton/image-tag=${tag},app.kubernetes.io/component notin (verification,database)`;
    const statuses = (await scene.pods(name, released)).flatMap(
      ({ status }) => status?.containerStatuses ?? [],
    );
    const digests = statuses.map(({ imageID }) => imageID.slice(imageID.indexOf("sha256:")));
    assert.deepEqual([...new Set(digests)], [digest], where);
    const { deployment } = JSON.parse(await scene.state(name)) as State;
    const ids = deployment.resources.flatMap(({ type, id }) =>
      type === "kubernetes:core/v1:ConfigMap" || type === "kubernetes:batch/v1:Job" ? [id] : [],
    );
    const namespace = scene.namespaceOf(name);
    const [maps, jobs] = await Promise.all([
      scene.core.listNamespacedConfigMap({ namespace }),
      scene.batch.listNamespacedJob({ namespace }),
    ]);
    const there = [...maps.items, ...jobs.items]
      .filter(({ metadata }) => metadata?.annotations?.[STACK] !== undefined)
      .map(({ metadata }) => `${namespace}/${metadata?.name ?? ""}`);
    return { pending: deployment.pending_operations ?? [], ids, there };
  };

  /**
   * Runs a command, kills it and runs it again, for each kill of a scene.
   * @param prepare makes what the command needs. @returns the tag that it deploys, and its arguments.
   */
  const sweep = async (
    title: string,
    prepare: () => Promise<{ name: string; tag: string; args: readonly string[] }>,
  ) => {
    const results: string[] = [];
    let changes = Infinity;
    for (const [at, who] of killsOf(title)) {
      if (at > changes) break;
      const { name, tag, args } = await prepare();
      const where = `${title}, ${who} killed at change ${at}`;
      const killed = await run(name, args, who, at);
      if (!killed.isKilled) {
        assert.equal(killed.exitCode, 0, `${where}\n${killed.text}`);
        changes = proxy.seen.length;
        continue;
      }
      const last = proxy.seen.at(-1) ?? "";
      // By hand, the lock of a run that is dead is removed as Pulumi says.
      if (who === "by hand") await scene.project.pulumi("cancel", "--yes", "--stack", name);
      const again = await run(name, args, who, 0);
      const ended = `${where} (${last})\n${killed.text}\n--- again\n${again.text}`;
      assert.equal(again.exitCode, 0, ended);
      const { pending, ids, there } = await isWhole(name, tag, ended);
      if (who !== "by hand") {
        assert.deepEqual(pending, [], ended);
        assert.deepEqual(there.sort(), ids.sort(), `${ended}\nevery object is recorded`);
      }
      const clean = await scene.project.pulumi("preview", "--stack", name, "--json");
      const { changeSummary } = JSON.parse(clean.stdout) as { changeSummary: object };
      assert.deepEqual(Object.keys(changeSummary), ["same"], `${ended}\nthe preview is clean`);
      results.push(`${String(at).padStart(3)} ${who.padEnd(8)} ${last}`);
      console.log(`      ${results.at(-1) ?? ""}`);
    }
  };

  /** Declares the test of a scene, unless there is no kill to try in it. */
  const carriesOn = (title: string, name: string, body: () => Promise<void>) => {
    if (killsOf(name).length > 0) it(`is carried on from ${title}`, body);
  };

  carriesOn("a first `up`", "first", async () => {
    await sweep("first", async () => {
      const name = await environment();
      const tag = await fresh();
      const args = ["promote", name, "--tag", tag, "--yes"];
      await scene.project.setConfig(name, "imageTag", tag);
      return { name, tag, args };
    });
  });

  /** An environment that goes from one build to the next. */
  const releases = async (title: string, changes: Readonly<Record<string, unknown>> = {}) => {
    let name: string | undefined;
    await sweep(title, async () => {
      if (name === undefined) {
        name = await environment(changes);
        await scene.deploy(name, await fresh());
      }
      const tag = await fresh();
      await scene.project.setConfig(name, "imageTag", tag);
      return { name, tag, args: ["promote", name, "--tag", tag, "--yes"] };
    });
  };

  carriesOn("a release", "release", () => releases("release"));

  carriesOn("a release beside the former one", "blueGreen", () =>
    releases("blueGreen", { "baton:rollout": { strategy: "blueGreen" } }),
  );

  carriesOn("a canary", "canary", () =>
    releases("canary", {
      "baton:rollout": { strategy: "canary", steps: [{ weight: 50, duration: "1s" }] },
    }),
  );

  carriesOn("a way back", "back", async () => {
    let name: string | undefined;
    await sweep("back", async () => {
      name ??= await environment();
      const tag = await fresh();
      const left = await fresh();
      for (const one of [tag, left]) {
        await scene.ends(0, "ann", ["promote", name, "--tag", one, "--yes"]);
      }
      await scene.project.edit(name, { "baton:imageTag": tag, "baton:rollbackOf": left });
      await scene.project.pulumi("config", "rm", "imageDigest", "--stack", name);
      return { name, tag, args: ["rollback", name] };
    });
  });

  carriesOn("a release that changes a database", "database", async () => {
    const url = await databaseUrl(DATABASE);
    let name: string | undefined;
    let head = 0;
    await sweep("database", async () => {
      if (name === undefined) {
        await runSql(url, "DROP SCHEMA public CASCADE; CREATE SCHEMA public");
        await runSql(url, "CREATE TABLE migrations (version int)");
        name = await environment();
        await scene.makeVolume(name, "database-backups");
        await scene.project.setSecret(name, "baton:DATABASE_URL", url);
      }
      head += 1;
      build += 1;
      const tag = `build-${build}`;
      await pushImage(tag, scene.target, {
        files: { "bin/podinfo": join(BIN, "podinfo"), "bin/podcli": join(BIN, "podcli") },
        entrypoint: ["/bin/podinfo"],
        labels: {
          "baton.schema-head": String(head),
          "baton.schema-kind": "expand",
          "org.opencontainers.image.version": tag,
        },
      });
      const migrate = `psql -q -v ON_ERROR_STOP=1 "$DATABASE_URL" -c "INSERT INTO migrations
        SELECT $TARGET WHERE NOT EXISTS (SELECT FROM migrations WHERE version = $TARGET)"`;
      await scene.project.edit(name, {
        "baton:settings": {
          config: { TARGET: head, LOG_LEVEL: "info" },
          secrets: { DATABASE_URL: { source: "config" } },
        },
        "baton:database": {
          url: "DATABASE_URL",
          client: CLIENT,
          version: "SELECT max(version) FROM migrations",
          migration: { image: CLIENT, command: ["/bin/sh", "-c", migrate], timeoutSeconds: 60 },
          backup: { volume: { size: "1Gi", storageClass: "sandbox" }, timeoutSeconds: 120 },
        },
        "baton:imageTag": tag,
      });
      await scene.project.commit(`Bring schema ${head}`);
      return { name, tag, args: ["promote", name, "--tag", tag, "--yes"] };
    });
  });
});
