import * as assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parse } from "yaml";
import { approve, show } from "../../cli/approve";
import type { Context, Report } from "../../cli/context";
import { deploy } from "../../cli/deploy";
import { readFacts } from "../../cli/facts";
import { programOf } from "../../cli/former-program";
import { hold } from "../../cli/hold";
import { request } from "../../cli/request";
import { rollback } from "../../cli/rollback";
import { runProblems } from "../../ledger/caller";
import { stampOf } from "../../ledger/entries";
import type { LedgerOutcome } from "../../ledger/ledger";
import { unapproved } from "../../ledger/program-check";
import { Project } from "../../ledger/project";
import { parseStackConfig } from "../../ledger/stack-config";
import { imagesOf, labelsOf, REVISION } from "../../registry/images";
import { OciRegistry } from "../../registry/oci";
import type { ChangeCard } from "../../release/change-card";
import { formatParts } from "../../release/plan";
import { formatProblems } from "../../release/problem";
import { STATE_LAYOUT } from "../../release/state-layout";
import { RegistryServer } from "../support/registry";
import { digestOf, ToolScene } from "../support/tool";

const DEV = "config:\n  baton:imageTag: build-1\n";
const QA = "config:\n  baton:upstream: dev\n  baton:approval: { required: 1 }\n";
/** It follows qa, and asks for settings that are worth a look. */
const QB = `config:
  baton:upstream: qa
  baton:follows: true
  baton:approval: { required: 1 }
  baton:settings: { config: { ODD: "yes" } }
`;
const EVIL = { tag: "dev-9", digest: `sha256:${"e".repeat(64)}` };
const FUTURE = new Date("2099-01-01T00:00:00Z");

describe("what is written around the reviewed history", () => {
  let scene: ToolScene;
  let remote: string;
  /** dev-1 and dev-2 were deployed in qa, each with bob's approval. */
  let deployed: () => void;

  before(async () => {
    scene = await ToolScene.open({ dev: DEV, qa: QA });
    remote = join(scene.folder, ".pulumi/remote.git");
    execFileSync("git", ["init", "--quiet", "--bare", "--initial-branch=main", remote]);
    scene.as("ann", remote);
    scene.git("push", "--quiet", "origin", "main");
    for (const number of ["1", "2"]) {
      scene.hasDeployed("dev", `build-${number}`, `dev-${number}`);
      await run(request, "qa", {});
      await say("bob");
      await run(deploy, "qa", { yes: true });
    }
    scene.hasDeployed("dev", "build-3", "dev-3");
    deployed = scene.keep();
  });
  beforeEach(() => deployed());
  after(async () => scene.remove());

  async function run<Rest extends unknown[]>(
    command: (context: Context, ...rest: Rest) => Promise<Report>,
    ...rest: Rest
  ): Promise<Report> {
    return command(await scene.context(), ...rest);
  }
  const ledger = async () => (await scene.context()).ledger;
  const latest = async () => (await (await ledger()).request("qa")) ?? assert.fail("no request");
  const say = async (person: string) => {
    scene.as(person, remote);
    await (await ledger()).say(await latest(), "approve");
    scene.as("ann", remote);
  };
  const commit = (message: string, date?: string) => {
    const env = { ...process.env, ...(date !== undefined && { GIT_COMMITTER_DATE: date }) };
    const args = ["commit", "--quiet", "--allow-empty", "-am", message];
    execFileSync("git", args, { cwd: scene.folder, env });
  };
  const tag = (name: string, at: string, message: string, date: Date) => {
    const env = { ...process.env, GIT_COMMITTER_DATE: date.toISOString() };
    execFileSync("git", ["tag", "-a", "-m", message, name, at], { cwd: scene.folder, env });
  };
  /** An outcome's tag that repeats the latest request. */
  const retell = async (at: string, result: LedgerOutcome["result"], more = "") => {
    const { id, plan, parts, tag: name, digest } = await latest();
    const said = `Baton-Project: baton\nBaton-Result: ${result}\nBaton-Tag: ${name}\n`;
    const request = `Baton-Id: ${id}\nBaton-Plan: ${plan}\nBaton-Parts: ${formatParts(parts)}\n`;
    const now = new Date();
    const message = `qa\n\n${said}Baton-Digest: ${digest}\n${request}${more}`;
    tag(`outcome/baton/qa/${stampOf(now)}`, at, message, now);
  };
  /** A request as somebody may write one who does not use the tool. */
  const askFor = async (trailer: string, value: string) => {
    await run(request, "qa", {});
    const message = scene.git("log", "-1", "--format=%B");
    const other = message.replace(new RegExp(`^${trailer}: .*$`, "m"), `${trailer}: ${value}`);
    assert.notEqual(other, message);
    scene.git("commit", "--quiet", "--amend", "-m", other);
    scene.git("push", "--quiet", "--force", "origin", "main");
    await say("bob");
  };
  const going = async () =>
    run(deploy, "qa", { yes: true }).catch((error: unknown) => ({
      outcome: "refused",
      says: String(error),
    }));
  const required = (from: string, to: string) =>
    scene.write("Pulumi.qa.yaml", scene.read("Pulumi.qa.yaml").replace(from, to));

  it("by the date of a commit makes no entry of then count", async () => {
    await run(hold, "dev-3", { reason: "leaks" });
    commit("Merged", FUTURE.toISOString());
    const said = ["Baton-Action: unhold", "Baton-Project: baton", "Baton-Reason: fine"];
    const image = ["Baton-Tag: dev-3", `Baton-Digest: ${digestOf("dev-3")}`];
    const message = `unhold\n\n${[...said, ...image].join("\n")}\n`;
    tag(`hold/baton/${stampOf(FUTURE)}`, "HEAD", message, FUTURE);
    const { holds } = await readFacts(await scene.context());
    assert.ok(holds.byDigest.has(digestOf("dev-3")));
  });

  it("by an outcome on another commit brings no settings of that commit", async () => {
    const { tag: name, digest } = await latest();
    scene.git("checkout", "--quiet", "-b", "evil");
    const own = scene.read("Pulumi.qa.yaml");
    const text = `${own}  baton:settings: { config: { ODD: "yes" } }\n`;
    scene.write("Pulumi.qa.yaml", text);
    commit("Nothing to see here");
    await retell("evil", "deployed");
    scene.git("checkout", "--quiet", "main");
    const goesBack = async (stackFile: string) => {
      const project = await Project.open(scene.folder);
      const moving = { imageTag: name, imageDigest: digest, rollbackOf: "dev-1" };
      const back = project.edit("qa", stackFile, moving);
      scene.write("Pulumi.qa.yaml", back);
      const { config } = parse(back) as { config: Record<string, unknown> };
      const shared = parse(scene.read("Pulumi.yaml")) as { config: Record<string, unknown> };
      const defaults = shared.config["baton:defaults"] as { value: unknown };
      const all = Object.entries({ ...config, "baton:defaults": defaults.value });
      const given = all.map(([key, value]) => [
        key,
        typeof value === "string" ? value : JSON.stringify(value),
      ]);
      const problems = await unapproved({
        folder: scene.folder,
        environment: "qa",
        given: Object.fromEntries(given) as Record<string, string>,
        digest,
        now: new Date(),
        running: async () => Promise.resolve({ tag: name, digest }),
      });
      return formatProblems(problems);
    };
    assert.match(await goesBack(text), /others than that release has had here/);
    assert.equal(await goesBack(own), "");
  });

  it("by a request's claim of what ran before leads back to no such image", async () => {
    await askFor("Baton-Former", `${EVIL.tag} ${EVIL.digest}`);
    const claim = `Baton-Former: ${EVIL.tag} ${EVIL.digest}\nBaton-Returning-To: ${EVIL.tag}\n`;
    await retell("HEAD", "failed", claim);
    await going();
    assert.ok(scene.calls("up").every((config) => config["baton:imageDigest"] !== EVIL.digest));
  });

  it("by that claim, told again of its deployment, leads back to none either", async () => {
    const claim = `${EVIL.tag} ${EVIL.digest}`;
    await askFor("Baton-Former", claim);
    await run(deploy, "qa", { yes: true });
    await retell("HEAD", "deployed", `Baton-Former: ${claim}\n`);
    await run(rollback, "qa", {});
    assert.equal(scene.runs("qa")?.["imageTag"], "dev-2");
  });

  it("by a merge that leaves a raised policy out takes it back from nobody", async () => {
    scene.git("checkout", "--quiet", "-b", "side");
    commit("Aside");
    scene.git("checkout", "--quiet", "main");
    required("required: 1", "required: 2");
    commit("Ask two");
    scene.git("checkout", "--quiet", "side");
    scene.git("merge", "--quiet", "-s", "ours", "-m", "Merge main", "main");
    scene.git("checkout", "--quiet", "main");
    scene.git("merge", "--quiet", "--ff-only", "side");
    scene.git("push", "--quiet", "origin", "main");
    await run(request, "qa", {});
    await say("bob");
    assert.equal((await going()).outcome, "waiting");
  });

  it("by a start that is yet to come hides nothing that happens until then", async () => {
    await askFor("Baton-After", `outcome/baton/qa/${stampOf(FUTURE)}`);
    const by = await ledger();
    const [what, at] = [{ tag: "dev-2", digest: digestOf("dev-2") }, await by.head()];
    const hand = { environment: "qa", result: "unapproved", reason: "by hand" } as const;
    await by.record({ ...hand, ...what, commit: at }, new Date(Date.now() + 2000));
    const { outcome, ...more } = await going();
    assert.equal(outcome, "refused");
    assert.match(JSON.stringify(more), /made before dev-2 was deployed without approval/);
  });
});

describe("what is approved together, and what runs before it is compared", () => {
  let scene: ToolScene;
  afterEach(async () => scene.remove());

  it("is on the card though it follows by no file that is checked out", async () => {
    scene = await ToolScene.open({ dev: DEV, qa: QA, qb: QB });
    scene.hasDeployed("dev", "build-1", "dev-1");
    await request(await scene.context(), "qa", {});
    scene.write("Pulumi.qb.yaml", QB.replace("  baton:follows: true\n", ""));
    scene.git("commit", "--quiet", "-am", "Tidy up");
    scene.as("bob");
    const { card, plan } = await show(await scene.context(), "qa");
    const { followers = [] } = card as ChangeCard;
    assert.deepEqual(
      followers.map(({ environment }) => environment),
      ["qb"],
    );
    scene.printed.length = 0;
    await approve(await scene.context(), "qa", String(plan));
    assert.match(scene.printed.join("\n"), /\bqb\b/);
  });

  it("is no install script of a commit with another program than was approved", async () => {
    scene = await ToolScene.open({ dev: DEV, qa: QA });
    const [ran, name] = [join(scene.folder, ".pulumi/ran"), { name: "odd", version: "1.0.0" }];
    const scripts = { preinstall: `touch ${ran}` };
    const packages = { "": name };
    scene.write("package.json", JSON.stringify({ ...name, scripts }));
    scene.write("package-lock.json", JSON.stringify({ ...name, lockfileVersion: 3, packages }));
    scene.git("add", ".");
    scene.git("commit", "--quiet", "-m", "Try");
    const commit = scene.git("rev-parse", "HEAD");
    scene.write("package.json", "{}\n");
    scene.write("package-lock.json", "{}\n");
    scene.git("commit", "--quiet", "-am", "Undo");
    mkdirSync(join(scene.folder, "node_modules"));
    scene.pulumi("qa.json", JSON.stringify({ layout: STATE_LAYOUT }));
    const parts = { program: "a".repeat(64), lockfile: "b".repeat(64) };
    const outcome = { tag: "dev-1", parts, layout: STATE_LAYOUT } as LedgerOutcome;
    const found = await programOf(await scene.context(), "qa", outcome, commit);
    assert.equal(found.kind, "missing");
    assert.ok(!existsSync(ran), "it has run");
  });
});

describe("what two programs read in two ways", () => {
  const LINUX = { os: "linux", architecture: "amd64" };
  let server: RegistryServer;
  let registry: OciRegistry;
  before(async () => {
    server = await RegistryServer.start();
    const repository = `${server.host}/team/podinfo`;
    registry = new OciRegistry({ kind: "oci", repository, plainHttp: true });
  });
  after(async () => server.stop());
  const image = (revision: string) =>
    server.pushImage({ ...LINUX, config: { Labels: { [REVISION]: revision } } });
  const refused = async (manifest: object, reason: RegExp) => {
    const digest = server.push(JSON.stringify(manifest));
    await assert.rejects(imagesOf(registry, digest), reason);
    await assert.rejects(labelsOf(registry, digest), reason);
  };

  it("is refused as a manifest that is an index and an image", async () => {
    const manifests = [{ digest: image("clean"), platform: LINUX }];
    const config = { digest: image("hostile") };
    await refused({ manifests, config }, /it is an index and an image in one/);
    await refused({ manifests, layers: [] }, /it is an index and an image in one/);
  });

  it("is refused as a key in other letters, which runtimes in Go read all the same", async () => {
    const [clean, hostile] = [image("clean"), image("hostile")];
    const entry = { digest: clean, platform: LINUX };
    const other = { digest: hostile, platform: LINUX };
    await refused({ manifests: [entry], Manifests: [other] }, /it has "Manifests" for manifests/);
    await refused({ manifests: [{ ...entry, Digest: hostile }] }, /it has "Digest" for digest/);
    await refused({ manifests: [entry], "manife\u017ft\u017f": [other] }, /for manifests/);
  });

  it("is refused as an index that cannot be read, and not taken for an image", async () => {
    const entry = { digest: image("hostile"), platform: LINUX };
    await refused({ manifests: [{ ...entry, annotations: { one: 1 } }] }, /annotations/);
    const nulls = { ...entry, annotations: null, platform: { ...LINUX, variant: null } };
    const made = server.push(JSON.stringify({ manifests: [nulls], config: null }));
    const found = await imagesOf(registry, made);
    assert.deepEqual(
      found.map(({ digest }) => digest),
      [entry.digest],
    );
  });

  it("is read as Pulumi reads it where a stack file merges maps", () => {
    const registry = "{ kind: oci, repository: registry.example.com/team/podinfo }";
    const text = `odd: &odd { environment: [team/evil] }\n<<: *odd\nconfig: { "baton:registry": ${registry} }\n`;
    const caller = { environment: {}, given: {}, args: ["up"], folder: tmpdir() };
    const problems = runProblems("prod", { name: "Pulumi.prod.yaml", text }, undefined, caller);
    assert.match(formatProblems(problems), /the imported environment team\/evil is not pinned/);
    const file = { name: "baton", main: ".", config: {}, others: {} };
    const { beside } = parseStackConfig(file, text, "prod");
    assert.deepEqual(beside["environment"], ["team/evil"]);
  });

  it("is refused as a stack file in which only a secret is another", () => {
    const folder = mkdtempSync(join(tmpdir(), "baton-test-"));
    try {
      const text = "config:\n  baton:settings: { secrets: { KEY: { secure: v1:one } } }\n";
      writeFileSync(join(folder, "same.yaml"), `# A draft.\n${text}`);
      writeFileSync(join(folder, "other.yaml"), text.replace("v1:one", "v1:two"));
      const problems = (name: string) => {
        const args = ["up", "--config-file", name];
        const caller = { environment: {}, given: {}, args, folder };
        const file = { name: "Pulumi.prod.yaml", text };
        return formatProblems(runProblems("prod", file, undefined, caller));
      };
      assert.equal(/--config-file/.test(problems("same.yaml")), false);
      assert.match(problems("other.yaml"), /--config-file is another file than Pulumi.prod.yaml/);
      assert.match(problems("missing.yaml"), /--config-file is another file/);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it("is asked without credentials where a stack file asks for plain HTTP", async () => {
    const environment = { ...process.env };
    const host = server.host.replace(/^[^:]+/, "0.0.0.0");
    Object.assign(process.env, {
      BATON_REGISTRY_HOST: host,
      BATON_REGISTRY_USERNAME: "robot",
      BATON_REGISTRY_PASSWORD: "hunter2",
    });
    server.authentication = "basic";
    try {
      const location = {
        kind: "oci" as const,
        repository: `${host}/team/podinfo`,
        plainHttp: true,
      };
      await assert.rejects(
        new OciRegistry(location).resolve("build-1"),
        /plainHttp is set, and credentials go over HTTPS only/,
      );
      assert.ok(server.authorizations.every((header) => header === undefined));
    } finally {
      server.authentication = "none";
      process.env = environment;
    }
  });
});
