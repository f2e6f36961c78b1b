import * as assert from "node:assert/strict";
import { Scene } from "./scene";

describe("`pulumi destroy` of an environment", () => {
  let scene: Scene;
  let digest: string | undefined;
  before(async () => (scene = await Scene.open()));

  it("leaves nothing behind, and loses no tag", async () => {
    const earned = String((await scene.project.outputs("qa"))["earnedTag"]);
    digest = await scene.registry.resolve(earned);
    assert.ok(digest);
    await scene.project.pulumi("destroy", "--yes", "--skip-preview", "--stack", "qa");

    const { items } = await scene.core.listNamespace();
    const names = items.map(({ metadata }) => metadata?.name);
    assert.ok(!names.includes(scene.namespaceOf("qa")), "the namespace itself is gone");
    assert.ok(names.includes(scene.namespaceOf("stage")));
    assert.equal(await scene.registry.resolve(earned), digest);
  });

  it("can be undone by an `up`", async () => {
    await scene.project.up("qa");
    assert.deepEqual(await scene.runningDigests("qa"), [digest]);
  });

  it("takes every environment away", async () => {
    const unprotect = ["state", "unprotect", "--all", "--yes", "--stack"];
    const destroy = ["destroy", "--yes", "--skip-preview", "--stack"];
    await assert.rejects(scene.project.pulumi(...destroy, "prod"), /protect/);
    for (const stack of ["prod", "dr"]) await scene.project.pulumi(...unprotect, stack);
    await Promise.all(scene.project.path.map((stack) => scene.project.pulumi(...destroy, stack)));
    const { items } = await scene.core.listNamespace();
    const left = scene.project.path.map((environment) => scene.namespaceOf(environment));
    assert.ok(!items.some(({ metadata }) => left.includes(metadata?.name ?? "")));
  });
});
