import * as assert from "node:assert/strict";
import type { Context } from "../../cli/context";
import { deploy } from "../../cli/deploy";
import { request } from "../../cli/request";
import { rollback } from "../../cli/rollback";
import { readFacts } from "../../cli/facts";
import type { Announcement } from "../../release/announcement";
import { digestOf, ToolScene } from "../support/tool";

describe("a deployment without approval", () => {
  let scene: ToolScene;
  let announced: Announcement[];
  let deployed: () => void;
  before(async () => {
    scene = await ToolScene.open({
      dev: "config:\n  baton:imageTag: build-1\n",
      qa: "config:\n  baton:upstream: dev\n",
    });
    scene.hasDeployed("dev", "build-1", "dev-1");
    await request(await scene.context(), "qa", {});
    await deploy(await scene.context(), "qa", { yes: true });
    deployed = scene.keep();
  });
  beforeEach(() => {
    deployed();
    announced = [];
  });
  after(async () => scene.remove());

  const context = async (): Promise<Context> => {
    const announce = async (_: string, said: Announcement) => {
      announced.push(said);
      return Promise.resolve();
    };
    return { ...(await scene.context()), announce };
  };
  /** As `pulumi up` leaves it that went past the approvals. */
  const breaksGlass = (tag: string, reason: string) => {
    const release = { imageTag: tag, digest: digestOf(tag), earnedTag: tag };
    scene.pulumi("qa.json", JSON.stringify({ release, earnedTag: tag, breakGlass: reason }));
  };
  const kinds = () => announced.map(({ kind }) => kind);

  it("is recorded and announced by whichever command finds it, once", async () => {
    breaksGlass("dev-3", "nobody was\nthere");
    scene.hasDeployed("dev", "build-2", "dev-2");
    await request(await context(), "qa", {});
    assert.deepEqual(scene.results("qa"), ["deployed dev-1", "unapproved dev-3"]);
    assert.match(
      scene.printed[0] ?? "",
      /dev-3 was deployed without approval, for the reason “nobody/,
    );
    assert.deepEqual(announced[0], {
      kind: "break-glass",
      environment: "qa",
      tag: "dev-3",
      digest: digestOf("dev-3"),
      version: undefined,
      who: "somebody; found by ann@example.com",
      reason: "nobody was\nthere",
    });
    await request(await context(), "qa", {});
    await deploy(await context(), "qa", { yes: true });
    assert.equal(kinds().filter((kind) => kind === "break-glass").length, 1);
    assert.equal(scene.results("qa").at(-1), "deployed dev-2");
  });

  it("is found by `deploy`, and again where the reason is another", async () => {
    scene.hasDeployed("dev", "build-2", "dev-2");
    await request(await context(), "qa", {});
    breaksGlass("dev-3", "one");
    scene.pulumi("up-refused", "the stack is on fire");
    await deploy(await context(), "qa", { yes: true });
    breaksGlass("dev-3", "two");
    await deploy(await context(), "qa", { yes: true });
    assert.deepEqual(kinds(), ["requested", "break-glass", "break-glass"]);
  });

  it("is found by `rollback`, which leaves it for what was approved", async () => {
    breaksGlass("dev-3", "nobody was there");
    await rollback(await context(), "qa", {});
    assert.deepEqual(kinds(), ["break-glass", "rolled-back"]);
    assert.equal(scene.runs("qa")?.["imageTag"], "dev-1");
  });

  it("brings no policy into force", async () => {
    const text = scene.read("Pulumi.qa.yaml");
    scene.write("Pulumi.qa.yaml", `${text}  baton:approval: { required: 2 }\n`);
    scene.git("commit", "--quiet", "-am", "Another policy");
    breaksGlass("dev-1", "nobody was there");
    await request(await context(), "qa", {});
    const last = await (await readFacts(await context())).lastDeployed("qa");
    assert.deepEqual([last?.config.approval.required, last?.isNewest], [0, false]);
  });
});
