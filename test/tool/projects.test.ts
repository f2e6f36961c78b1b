import * as assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { check } from "../../cli/check";
import type { Context, Report } from "../../cli/context";
import { deploy } from "../../cli/deploy";
import { history } from "../../cli/history";
import { hold, resume, stop, unhold } from "../../cli/hold";
import { request } from "../../cli/request";
import { rollback } from "../../cli/rollback";
import { review, signOff } from "../../cli/sign-off";
import { status, type EnvironmentStatus } from "../../cli/status";
import { Project } from "../../ledger/project";
import { approveLatest } from "../support/approve";
import { digestOf, ToolScene } from "../support/tool";

const FILES = (project: string) => ({
  dev: `config:
  ${project}:imageTag: build-1
`,
  qa: `config:
  ${project}:upstream: dev
  ${project}:approval: { required: 1, hotfix: { upstream: dev, required: 1, expiresAfter: 4h } }
`,
  stage: `config:
  ${project}:upstream: qa
`,
});

describe("two projects in one repository", () => {
  let shop: ToolScene;
  let cart: ToolScene;
  let asked: () => Promise<void>;
  let deployed: () => Promise<void>;

  before(async () => {
    shop = await ToolScene.open(FILES("shop"), "shop");
    cart = shop.beside("cart", FILES("cart"));
    for (const project of [shop, cart]) project.hasDeployed("dev", "build-1", "dev-1");
    asked = shop.once(async () => {
      for (const project of [shop, cart]) await run(project, request, "qa", {});
    });
    deployed = shop.once(async () => {
      await asked();
      shop.as("bob");
      for (const project of [shop, cart]) await run(project, approveLatest, "qa");
      shop.as("ann");
      for (const project of [shop, cart]) await run(project, deploy, "qa", { yes: true });
      for (const project of [shop, cart]) project.hasDeployed("dev", "build-2", "dev-2");
    });
  });
  after(async () => shop.remove());

  async function run<Rest extends unknown[]>(
    project: ToolScene,
    command: (context: Context, ...rest: Rest) => Promise<Report>,
    ...rest: Rest
  ): Promise<Report> {
    return command(await project.context(), ...rest);
  }
  const outcome = async (...args: Parameters<typeof run>) => (await run(...args)).outcome;
  const qaOf = async (project: ToolScene) => {
    const { environments } = await run(project, status);
    return (environments as EnvironmentStatus[]).find(({ environment }) => environment === "qa");
  };
  const takesNext = async (project: ToolScene) => {
    await run(project, request, "qa", {});
    shop.as("bob");
    await run(project, approveLatest, "qa");
    shop.as("ann");
    return run(project, deploy, "qa", { yes: true });
  };

  it("are approved one by one, also where they ask for the same", async () => {
    await asked();
    shop.as("bob");
    await run(shop, approveLatest, "qa");
    shop.as("ann");
    assert.deepEqual(shop.tags("approve").length, 1);
    assert.match(shop.tags("approve")[0] ?? "", /^approve\/shop\/qa\/\w+\/bob-example-com$/);
    assert.equal(await outcome(cart, deploy as never, "qa", { yes: true }), "waiting");
    assert.equal(cart.runs("qa"), undefined);
    assert.equal(await outcome(shop, check as never, "qa"), "done");
    assert.equal(await outcome(shop, deploy as never, "qa", { yes: true }), "done");
    assert.deepEqual([shop.results("qa"), cart.results("qa")], [["deployed dev-1"], []]);
    assert.equal((await run(cart, history))["total"], 0);
    assert.equal((await qaOf(cart))?.request?.tag, "dev-1", "its own request still stands");
  });

  it("take no word that was copied from the other", async () => {
    await asked();
    shop.as("bob");
    await run(cart, approveLatest, "qa");
    shop.as("ann");
    const [word = ""] = cart.tags("approve/cart");
    const ledger = (await shop.context()).ledger;
    const request = await ledger.request("qa");
    const message = shop.git("tag", "--list", "--format=%(contents)", word);
    const ref = `approve/shop/qa/${request?.plan.slice(0, 12) ?? ""}/bob-example-com`;
    shop.git("tag", "-a", "-m", message, ref, request?.commit ?? "");
    assert.equal(await outcome(shop, deploy as never, "qa", { yes: true }), "waiting");
  });

  it("fail, are held and go back by themselves", async () => {
    await deployed();
    shop.pulumi("up-fails", "dev-2\n");
    assert.equal((await takesNext(shop)).outcome, "went-back");
    assert.equal(shop.runs("qa")?.["imageTag"], "dev-1");
    assert.equal((await takesNext(cart)).outcome, "done", "the image is held in the other only");
    assert.equal(cart.runs("qa")?.["imageTag"], "dev-2");
    assert.equal((await run(cart, rollback, "qa", {})).outcome, "done");
    assert.equal(cart.runs("qa")?.["imageTag"], "dev-1");
    assert.deepEqual(shop.results("qa"), ["deployed dev-1", "failed dev-2", "went-back dev-2"]);
    assert.deepEqual(cart.results("qa"), ["deployed dev-1", "deployed dev-2", "rolled-back dev-1"]);
    for (const project of [shop, cart]) {
      const { entries } = await run(project, history);
      const refs = (entries as { ref: string }[]).map(({ ref }) => ref.split("/")[1]);
      assert.deepEqual([...new Set(refs)], [project.project]);
    }
  });

  it("are held, stopped and resumed one by one, or all together", async () => {
    await deployed();
    await run(shop, hold, "dev-2", { reason: "leaks" });
    await run(shop, stop, { reason: "audit" });
    await assert.rejects(
      takesNext(shop),
      /dev-2 is held by .*the line is stopped by .*`baton resume`/s,
    );
    assert.equal((await takesNext(cart)).outcome, "done");
    await run(shop, unhold, "dev-2", { reason: "mended" });
    await run(shop, resume, { reason: "done" });
    assert.equal((await run(shop, deploy, "qa", { yes: true })).outcome, "done");

    await deployed();
    await run(shop, stop, { reason: "outage", all: true });
    for (const project of [shop, cart]) {
      await assert.rejects(takesNext(project), /stopped by .*\(outage\).*`baton resume --all`/);
    }
    await run(cart, resume, { reason: "not mine" });
    assert.match(cart.printed.join("\n"), /cart is not stopped\.\n.*`baton resume --all`/);
    await assert.rejects(run(cart, deploy, "qa", { yes: true }), /stopped/);
    await run(cart, resume, { reason: "over", all: true });
    for (const project of [shop, cart]) {
      assert.equal((await run(project, deploy, "qa", { yes: true })).outcome, "done");
    }
  });

  it("are signed off and reviewed by their own entries", async () => {
    await deployed();
    for (const project of [shop, cart]) {
      const file = project.read("Pulumi.qa.yaml");
      project.write("Pulumi.qa.yaml", `${file}  ${project.project}:signOffs: { uat: [] }\n`);
      shop.git("commit", "--quiet", "-am", "Sign off");
    }
    await run(shop, signOff, "qa", "uat", {});
    await run(cart, request, "stage", {});
    assert.equal((await run(cart, deploy, "stage", { yes: true })).outcome, "waiting");
    assert.match(cart.printed.join("\n"), /uat/);
    await run(shop, request, "stage", {});
    assert.equal((await run(shop, deploy, "stage", { yes: true })).outcome, "done");

    await deployed();
    for (const project of [shop, cart]) {
      await run(project, request, "qa", { hotfix: true });
      shop.as("bob");
      await run(project, approveLatest, "qa");
      shop.as("ann");
      await run(project, deploy, "qa", { yes: true });
    }
    shop.as("eve");
    await run(shop, review, "qa");
    assert.deepEqual((await qaOf(shop))?.unreviewed, []);
    assert.equal((await qaOf(cart))?.unreviewed.length, 1);
  });

  it("keep runs apart, and take entries of a former version by stack file", async () => {
    await deployed();
    const ledger = (await shop.context()).ledger;
    const folder = join(await ledger.git.privateFolder(), "shop");
    assert.ok(existsSync(folder), "runs are kept below the project's name");
    const request = await ledger.request("qa");
    if (request === undefined) assert.fail("no request");
    // As a former version wrote them: without a project.
    const message = shop.git("log", "-1", "--format=%B", request.commit);
    shop.write("Pulumi.qa.yaml", shop.read("Pulumi.qa.yaml") + "# again\n");
    shop.git("commit", "--quiet", "-am", message.replaceAll(/Baton-(Project|Id): .*\n/g, ""));
    const commit = shop.git("rev-parse", "HEAD");
    assert.equal((await (await shop.context()).ledger.request("qa"))?.commit, commit);
    assert.notEqual((await (await cart.context()).ledger.request("qa"))?.commit, commit);
    shop.git(
      "tag",
      "-a",
      "-m",
      `stop everything\n\nBaton-Action: stop\nBaton-Reason: old\n`,
      "hold/20201121T100000.000Z",
    );
    for (const project of [shop, cart]) {
      assert.match(JSON.stringify((await run(project, status))["stopped"]), /old/);
    }
  });

  it("have names that may stand in a tag", async () => {
    for (const name of ["a..b", ".a", "a.lock", "a b", "a/b", "a.", "~a"]) {
      shop.write("Pulumi.yaml", `name: "${name}"\nruntime: nodejs\n`);
      await assert.rejects(Project.open(shop.folder), /Pulumi.yaml: name is .*expected letters/);
    }
    for (const name of ["shop", "Shop_2", "a.b-c"]) {
      shop.write("Pulumi.yaml", `name: "${name}"\nruntime: nodejs\n`);
      assert.equal((await Project.open(shop.folder)).name, name);
    }
    assert.equal(digestOf("dev-1"), digestOf("build-1"));
  });
});
