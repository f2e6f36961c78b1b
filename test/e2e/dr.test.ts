import * as assert from "node:assert/strict";
import { appendFile, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { parse, stringify } from "yaml";
import { until } from "../../sandbox/cluster";
import { CONTEXT, DR_REGISTRY, KUBECONFIG } from "../../sandbox/folder";
import { setRegistry } from "../../sandbox/host";
import { latestPlan } from "../support/approve";
import { PATIENCE, Scene } from "./scene";

/** prod's cluster, by a name of its own: a region that can be away. */
const PROD_CONTEXT = "prod-region";

interface Kubeconfig {
  clusters: { name: string; cluster: Record<string, unknown> }[];
  contexts: { name: string; context: { cluster: string; user: string } }[];
}

describe("disaster recovery (long)", () => {
  let scene: Scene;
  let first: number;
  let second: number;
  let kubeconfig: string;
  before(async () => {
    scene = await Scene.anew();
    const { project } = scene;
    [, first, second] = scene.builds;
    kubeconfig = join(project.folder, "regions.kubeconfig");
    await writeRegions("up");
    for (const [index, environment] of project.path.entries()) {
      const upstream = project.path[index - 1];
      const tag = upstream && String((await project.outputs(upstream))["earnedTag"]);
      await scene.deploy(environment, tag ?? `build-${first}`, index > 2 ? version(1) : undefined);
    }
    await project.setConfig("prod", "baton:approval.required", "1");
    await project.setConfig("dr", "baton:approval.required", "1");
    await project.setConfig("prod", "baton:cluster.context", PROD_CONTEXT);
    await rm(join(project.folder, ".git"), { recursive: true, force: true });
    await project.commit("Begin");
    await appendFile(join(project.folder, ".git/info/exclude"), "regions.kubeconfig\n*.away\n");
    // A next build, as far as stage.
    for (const [index, environment] of ["dev", "qa", "stage"].entries()) {
      const upstream = project.path[index - 1];
      const tag = upstream && String((await project.outputs(upstream))["earnedTag"]);
      await scene.deploy(environment, tag ?? `build-${second}`);
    }
    await project.commit("Carry a build to stage");
  });
  after(async () => {
    await setRegistry("registry", true);
  });

  const version = (major: number) => `v${major}.1.${second}`;

  /** The sandbox's own kubeconfig, with a second way to its cluster; `down`: that leads nowhere. */
  async function writeRegions(prod: "up" | "down"): Promise<void> {
    const config = parse(await readFile(KUBECONFIG, "utf8")) as Kubeconfig;
    const [cluster] = config.clusters;
    const [context] = config.contexts;
    assert.ok(cluster && context);
    const server = prod === "up" ? cluster.cluster["server"] : "https://127.0.0.1:1";
    config.clusters.push({ name: PROD_CONTEXT, cluster: { ...cluster.cluster, server } });
    config.contexts.push({
      name: PROD_CONTEXT,
      context: { ...context.context, cluster: PROD_CONTEXT },
    });
    await writeFile(kubeconfig, stringify(config), { mode: 0o600 });
  }

  /** Runs the tool as a person would; prints what it said, as the documentation shows it. */
  const baton = async (exitCode: number, person: string, ...args: string[]): Promise<string> => {
    const text = await scene.ends(exitCode, person, args, {
      variables: { KUBECONFIG: kubeconfig },
    });
    if (process.env["SHOW"] !== undefined) console.log(`\n$ baton ${args.join(" ")}\n${text}`);
    return text;
  };
  const approve = async (environment: string) =>
    baton(0, "bob", "approve", environment, await latestPlan(scene.project.folder, environment));
  const edit = async (from: string | RegExp, to: string) => {
    const path = join(scene.project.folder, "Pulumi.dr.yaml");
    const text = await readFile(path, "utf8");
    assert.match(text, new RegExp(from));
    await writeFile(path, text.replace(from, to));
  };
  const prodsState = () => {
    const state = join(scene.project.folder, "state/.pulumi/stacks/baton");
    return [join(state, "prod.json"), join(state, "prod.json.away")] as const;
  };

  after(async () => {
    const { project } = scene;
    await project.setConfig("prod", "baton:cluster.context", CONTEXT);
    await project.up("prod", { BATON_BREAK_GLASS: "The drill is over" });
  });

  it("takes what prod has taken, under the same words, from its own registry", async () => {
    const digest = await scene.registry.resolve(`build-${second}`);
    assert.ok(digest);
    const card = await baton(0, "ann", "request", "prod", "--version", version(2));
    assert.match(card, /dr +prod-\S+ → prod-v2\S+, once that has/);
    await approve("prod");
    const text = await baton(0, "ann", "deploy", "prod", "--yes");
    assert.match(
      text,
      /prod: stage-\d+ is deployed and verified[^]*dr: prod-v2\S+ is deployed and/,
    );
    for (const name of ["prod", "dr"]) {
      assert.deepEqual(await scene.runningDigests(name), [digest], name);
    }
    const [pod] = await scene.pods("dr");
    assert.ok(pod?.spec?.containers[0]?.image?.startsWith(`${DR_REGISTRY}/podinfo@`));
    for (const tag of [`prod-${version(2)}`, `dr-${version(2)}`]) {
      assert.equal(await scene.drRegistry.resolve(tag), digest, tag);
    }
    assert.equal(await scene.registry.resolve(`dr-${version(2)}`), undefined);
  });

  it("is as prod", async () => {
    const text = await baton(0, "ann", "drift", "dr");
    assert.match(
      text,
      /✔ dr: as prod: prod-v2\S+ \(sha256:\w+\),\s+0\s+s\s+behind;\s+it\s+followed\s+after/,
    );
    assert.match(text, /✔ dr: nothing would break if it took over now/);
    const { environments } = JSON.parse(await baton(0, "ann", "drift", "dr", "--json")) as {
      environments: { parity: { same: boolean; secondsBehind: number; breaks: string[] } }[];
    };
    assert.deepEqual(environments[0]?.parity.breaks, []);
    assert.equal(environments[0].parity.secondsBehind, 0);
  });

  it("goes back with prod, and forward again", async () => {
    await baton(0, "ann", "rollback", "prod");
    const digest = await scene.registry.resolve(`build-${first}`);
    for (const name of ["prod", "dr"]) {
      assert.deepEqual(await scene.runningDigests(name), [digest], name);
    }
    await baton(0, "ann", "unhold", `stage-${second}`, "--reason", "only a drill");
    await baton(0, "ann", "request", "prod", "--version", version(2));
    await approve("prod");
    await baton(0, "ann", "deploy", "prod", "--yes");
  });

  it("takes over while prod's region, state and registry are off, and gives back", async () => {
    const [there, away] = prodsState();
    await setRegistry("registry", false);
    await rename(there, away);
    await writeRegions("down");
    const behind = await baton(0, "ann", "drift", "dr");
    assert.match(behind, /dr: as prod, by the ledger: prod-v2/);
    await baton(1, "ann", "drift", "prod");
    await baton(0, "ann", "status");

    // What it takes to be prod: more room, and the users' address.
    await edit("minReplicas: 5", "minReplicas: 6");
    await edit("podinfo.dr.example.com", "podinfo.example.com");
    const tag = `prod-${version(2)}`;
    await baton(0, "ann", "request", "dr", "--tag", tag);
    await approve("dr");
    await baton(0, "ann", "deploy", "dr", "--yes");
    await until("a sixth pod", async () => (await scene.pods("dr")).length >= 6, PATIENCE);
    // Also back from there, with nothing else than its own region.
    await baton(0, "ann", "rollback", "dr", "--to", tag);

    await rename(away, there);
    await writeRegions("up");
    await setRegistry("registry", true);
    await edit("minReplicas: 6", "minReplicas: 5");
    await edit("podinfo.example.com", "podinfo.dr.example.com");
    await baton(0, "ann", "request", "dr", "--tag", tag);
    await approve("dr");
    await baton(0, "ann", "deploy", "dr", "--yes");
    await baton(0, "ann", "drift", "dr");
    await baton(0, "ann", "drift", "prod");
  });
});
