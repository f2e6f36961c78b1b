import * as assert from "node:assert/strict";
import { parseTrailers } from "../../ledger/entries";
import { Ledger, type Request } from "../../ledger/ledger";
import { Project } from "../../ledger/project";
import { planOf, formatParts } from "../../release/plan";
import { ToolScene } from "../support/tool";

const plan = planOf({
  tag: "dev-45",
  digest: "",
  version: "",
  settings: "",
  secrets: "",
  policy: "",
  lockfile: "",
  program: "",
});
const target = { tag: "dev-45", digest: "sha256:aa", version: undefined };
const operations = ["update kubernetes:apps/v1:Deployment web spec.replicas"];

describe("the ledger", () => {
  let scene: ToolScene;
  let ledger: Ledger;
  beforeEach(async () => {
    scene = await ToolScene.open({ qa: "config:\n  baton:upstream: dev\n" });
    ledger = new Ledger(await Project.open(scene.folder));
  });
  afterEach(async () => scene.remove());

  const requested = async (): Promise<Request> => {
    const hashes = { hash: plan.hash, parts: formatParts(plan.parts) };
    const wish = { environment: "qa", file: "Pulumi.qa.yaml", target, plan: hashes };
    const starts = () => ["kubernetes:apps/v1:Deployment web = - spec.replicas~id"];
    await ledger.ask([{ ...wish, hotfix: false, operations, starts }], {
      notes: "Faster.\nBaton-Tag: dev-46",
    });
    return (await ledger.request("qa")) ?? assert.fail("no request");
  };

  it("finds the latest request of an environment, below other commits", async () => {
    assert.equal(await ledger.request("qa"), undefined);
    const request = await requested();
    scene.git("commit", "--quiet", "--allow-empty", "-m", "Something else");
    assert.deepEqual(await ledger.request("qa"), request);
    assert.equal(await ledger.request("q"), undefined);
    assert.deepEqual(
      { ...request, commit: "", id: "", at: new Date(0) },
      {
        environment: "qa",
        commit: "",
        id: "",
        at: new Date(0),
        hotfix: false,
        operations,
        after: "none",
        starts: ["kubernetes:apps/v1:Deployment web = - spec.replicas~id"],
        former: undefined,
        together: ["qa"],
        follows: undefined,
        notes: "Faster.\n Baton-Tag: dev-46",
        plan: plan.hash,
        parts: plan.parts,
        tag: "dev-45",
        digest: "sha256:aa",
        version: undefined,
        requesters: ["ann@example.com"],
      },
    );
  });

  it("commits the stack file, and nothing else that is staged", async () => {
    scene.write("Pulumi.qa.yaml", "config:\n  baton:upstream: dev\n  baton:imageTag: dev-45\n");
    scene.write("other", "staged\n");
    scene.git("add", "other");
    await requested();
    assert.equal(scene.git("show", "--format=", "--name-only", "HEAD"), "Pulumi.qa.yaml");
    assert.equal(scene.git("status", "--short"), "A  other");
  });

  it("keeps a person's word once, as an annotated tag on the request", async () => {
    const request = await requested();
    scene.as("bob");
    const ref = await ledger.say(request, "approve");
    assert.equal(ref, `approve/baton/qa/${plan.hash.slice(0, 12)}/bob-example-com`);
    assert.equal(await ledger.say(request, "approve"), ref);
    assert.equal(scene.git("rev-parse", `${ref}^{commit}`), request.commit);
    assert.deepEqual(
      (await ledger.words(request)).map(({ email, kind }) => [email, kind]),
      [["bob@example.com", "approve"]],
    );
  });

  it("takes no word from one request to another of the same plan", async () => {
    const first = await requested();
    await ledger.say(first, "approve");
    const second = await requested();
    assert.notEqual(second.commit, first.commit);
    assert.deepEqual(await ledger.words(second), []);
    const ref = await ledger.say(second, "approve");
    assert.match(ref, /\/ann-example-com\.2$/);
    assert.equal((await ledger.words(second)).length, 1);
    assert.equal((await ledger.words(first)).length, 1);
  });

  it("hears no word in a tag without a person", async () => {
    const request = await requested();
    scene.git("tag", `approve/baton/qa/${plan.hash.slice(0, 12)}/eve`, request.commit);
    assert.deepEqual(await ledger.words(request), []);
  });

  it("keeps a rejection with its reason, on one line", async () => {
    const request = await requested();
    await ledger.say(request, "reject", { reason: "wrong\nBaton-Tag: week" });
    assert.deepEqual(
      (await ledger.words(request)).map(({ email, kind, reason }) => [email, kind, reason]),
      [["ann@example.com", "reject", "wrong Baton-Tag: week"]],
    );
  });

  it("lists outcomes, the newest first", async () => {
    const commit = await ledger.head();
    const former = { tag: "dev-44", digest: "sha256:bb", version: undefined };
    const outcome = {
      environment: "qa",
      ...target,
      version: "v1.0.0",
      commit,
      former,
      request: "id",
      plan: plan.hash,
      parts: plan.parts,
      hotfix: true,
      approvedBy: ["ann@example.com", "bob@example.com"],
      left: former,
      returningTo: "dev-44",
      reason: "no pods",
      update: "2026-11-21T09:00:00.000Z",
      layout: 1,
      details: {
        revision: "a".repeat(40),
        commits: { total: 101, newest: [{ id: "a".repeat(40), at: "2026-11-20T09:00:00.000Z" }] },
        suites: [{ name: "smoke", seconds: 41 }],
        waited: { approvals: 3600, soak: 0 },
      },
    };
    const record = (result: "deployed" | "failed", time: string) =>
      ledger.record({ ...outcome, result }, new Date(time));
    await record("deployed", "2026-11-21T09:20:00.000Z");
    const ref = await record("failed", "2026-11-21T10:00:00.000Z");
    assert.equal(ref, "outcome/baton/qa/20261121T100000.000Z");
    const outcomes = await ledger.outcomes("qa");
    assert.deepEqual(
      outcomes.map(({ result }) => result),
      ["failed", "deployed"],
    );
    const at = new Date("2026-11-21T10:00:00.000Z");
    const who = "ann@example.com";
    assert.deepEqual(outcomes[0], { ...outcome, result: "failed", ref, at, taggedAt: at, who });
    assert.deepEqual(await ledger.outcomes("q"), []);
  });

  it("shows a file as it was, to the byte", async () => {
    const commit = await ledger.head();
    scene.write("Pulumi.qa.yaml", "");
    assert.equal(await ledger.show(commit, "Pulumi.qa.yaml"), "config:\n  baton:upstream: dev\n");
    assert.equal(await ledger.show(commit, "Pulumi.no.yaml"), undefined);
  });

  it("says so where there is no repository, or nobody", async () => {
    scene.git("config", "user.email", "");
    scene.git("config", "user.useConfigOnly", "true");
    await assert.rejects(ledger.person(), /git: user\.email is not set; expected your email/);
    await assert.rejects(
      new Ledger({ folder: "/", name: "baton", stackFile: String }).check(),
      /repository with at least one commit/,
    );
  });

  it("reads the first trailer of a name", () => {
    assert.deepEqual(parseTrailers("Subject\n\nBaton-Tag: one\nBaton-Tag: two\nOther: 3\n"), {
      "Baton-Tag": "one",
    });
  });
});
