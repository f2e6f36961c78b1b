import * as assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { reject } from "../../cli/approve";
import { deploy } from "../../cli/deploy";
import { readFacts } from "../../cli/facts";
import { gateOf } from "../../cli/gate";
import { request, type RequestOptions } from "../../cli/request";
import { rollback } from "../../cli/rollback";
import { parseTrailers } from "../../ledger/entries";
import { Ledger, type Request } from "../../ledger/ledger";
import { Project } from "../../ledger/project";
import { problemsOf } from "../../release/gate";
import { formatOperations } from "../../release/operations";
import { formatParts } from "../../release/plan";
import { formatProblems } from "../../release/problem";
import { approveLatest } from "../support/approve";
import { digestOf, ToolScene } from "../support/tool";

const runs = (release: string, more: string) =>
  `config:\n  baton:imageTag: ${release}\n  baton:imageDigest: ${digestOf(release)}\n${more}`;
/** Each runs what an approved deployment has brought; but for `dev`, under an approval policy. */
const STACKS = {
  dev: runs("build-1", ""),
  qa: runs(
    "dev-1",
    `  baton:upstream: dev
  baton:settings: { config: { LOG_LEVEL: info } }
  baton:SESSION_KEY: { secure: AAAB1234 }
  baton:approval: { required: 1 }
  baton:signOffs: { uat: [carol@example.com] }
`,
  ),
  // All that a policy can ask for.
  prod: runs(
    "dev-1",
    `  baton:upstream: dev
  baton:settings: { config: { LOG_LEVEL: info, LIMIT: 10 } }
  baton:approval:
    required: 1
    from: [bob@example.com, carol@example.com, dan@example.com]
    expiresAfter: 4h
    signed: true
  baton:freeze: [{ name: year-end, from: 2026-12-20T00:00, until: 2027-01-03T00:00 }]
  baton:soak: 1h
`,
  ),
  perf: runs("qa-1", "  baton:upstream: qa\n"),
  lane: runs(
    "dev-1",
    `  baton:upstream: dev
  baton:settings: { config: { LOG_LEVEL: info, LIMIT: 10 } }
  baton:SESSION_KEY: { secure: AAAB1234 }
  baton:approval: { required: 1, unattended: { settings: [LOG_LEVEL] }, hotfix: { required: 0 } }
`,
  ),
};
/** A preview of what every release does. */
const ROUTINE = {
  op: "update",
  urn: "urn:pulumi:lane::baton::baton:components:Workload$kubernetes:apps/v1:Deployment::web",
  detailedDiff: { "spec.template.spec.containers[0].image": {} },
};
const ROUTINE_OPERATION = {
  op: "update",
  urn: ROUTINE.urn,
  paths: Object.keys(ROUTINE.detailedDiff),
};
const DELETE = { op: "delete", urn: "urn:pulumi:qa::baton::kubernetes:core/v1:Namespace::qa" };

/** Keys by which people sign, made once. */
class Keys {
  readonly folder = mkdtempSync(join(tmpdir(), "baton-test-"));
  private readonly former = process.env["GNUPGHOME"];

  constructor(...people: readonly string[]) {
    for (const person of people) {
      const args = ["-q", "-t", "ed25519", "-N", "", "-C", person, "-f", this.private(person)];
      execFileSync("ssh-keygen", args);
    }
    process.env["GNUPGHOME"] = this.folder;
    const make = ["--batch", "--quiet", "--passphrase", "", "--quick-gen-key"];
    for (const person of ["dan", "eve"]) {
      gpg(...make, `${person} <${person}@example.com>`, "ed25519", "sign", "never");
    }
  }

  remove(): void {
    execFileSync("gpgconf", ["--kill", "all"]);
    if (this.former === undefined) delete process.env["GNUPGHOME"];
    else process.env["GNUPGHOME"] = this.former;
    rmSync(this.folder, { recursive: true });
  }

  private(person: string): string {
    return join(this.folder, person);
  }

  /** A line of the allowed signers. */
  line(person: string, key = person): string {
    const text = readFileSync(`${this.private(key)}.pub`, "utf8").split(" ");
    return `${person}@example.com ${text.slice(0, 2).join(" ")}\n`;
  }

  fingerprint(person: string): string {
    const list = gpg("--list-keys", "--with-colons", `${person}@example.com`);
    return /^fpr:+([0-9A-F]+):/m.exec(list)?.[1] ?? assert.fail(list);
  }
}

/** @throws Error that says so where GnuPG is not installed: these tests need it. */
function gpg(...args: string[]): string {
  try {
    return execFileSync("gpg", args, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    throw new Error("gpg is missing; expected GnuPG 2 on PATH, as approvals may be signed by it");
  }
}

describe("around the approvals", () => {
  let scene: ToolScene;
  let keys: Keys;
  let ledger: Ledger;
  /** To where everything is deployed, and to where qa's next release is asked for and approved. */
  let deployed: () => void;
  let asked: () => void;
  let approved: () => void;

  before(async function () {
    this.timeout(60_000);
    keys = new Keys("ann", "bob", "carol", "eve");
    scene = await ToolScene.open(STACKS);
    ledger = new Ledger(await Project.open(scene.folder));
    const steps = `echo '{"steps":'"$(cat steps-$stack 2>/dev/null || echo '[${JSON.stringify(ROUTINE)}]')"'}'`;
    scene.write(
      ".pulumi/bin/pulumi",
      scene.read(".pulumi/bin/pulumi").replace(/^ {2}echo '\{"steps":\[\{.*$/m, () => `  ${steps}`),
    );
    const dan = `dan@example.com pgp ${keys.fingerprint("dan")}\n`;
    scene.write("allowed-signers", keys.line("ann") + keys.line("bob") + dan);
    scene.git("add", ".");
    scene.git("commit", "--quiet", "-m", "Name who signs");
    for (const name of Object.keys(STACKS)) await hasDeployed(name);
    scene.hasDeployed("dev", "build-2", "dev-2");
    scene.hasDeployed("qa", "dev-2", "qa-2");
    deployed = scene.keep();
    await askProperly("qa");
    asked = scene.keep();
    scene.as("bob");
    await approveLatest(await scene.context(), "qa");
    scene.as("ann");
    approved = scene.keep();
  });
  after(async () => {
    keys.remove();
    await scene.remove();
  });

  /** As if the tool had deployed what is committed, hours ago; of dev, the next release. */
  const hasDeployed = async (environment: string) => {
    const project = await Project.open(scene.folder);
    const { approval, imageTag = "" } = await project.config(environment);
    const tag = environment === "dev" ? "build-2" : imageTag;
    const target = { tag, digest: digestOf(tag), version: undefined };
    const moving = { imageTag: tag, imageDigest: target.digest };
    const file = project.stackFile(environment);
    const text = project.edit(environment, scene.read(file), moving);
    scene.write(file, text);
    const { hash, parts } = await project.plan(environment, text);
    const wish = { environment, file, target, plan: { hash, parts: formatParts(parts) } };
    const at = new Date(Date.now() - 5 * 3600_000);
    process.env["GIT_AUTHOR_DATE"] = process.env["GIT_COMMITTER_DATE"] = at.toISOString();
    try {
      await ledger.ask([{ ...wish, hotfix: false, operations: [] }], { notes: "" });
      const made = await latest(environment);
      if (approval.required > 0) {
        signs("bob", "bob");
        const bob = new Ledger(await Project.open(scene.folder));
        await bob.say(made, "approve", { signed: approval.signed });
        scene.as("ann");
      }
      const deployed = { environment, ...target, commit: made.commit, request: made.id };
      const outcome = { ...deployed, plan: hash, parts, result: "deployed" } as const;
      await ledger.record(outcome, at);
    } finally {
      delete process.env["GIT_AUTHOR_DATE"];
      delete process.env["GIT_COMMITTER_DATE"];
    }
    scene.hasDeployed(environment, tag, `${environment}-1`);
  };
  /** As people do, with a preview and a card. */
  const askProperly = async (environment: string, options: RequestOptions = {}) =>
    request(await scene.context(), environment, options);
  /** The same in its result, in less time. */
  const ask = async (environment: string, hotfix = false) => {
    const project = await Project.open(scene.folder);
    const former = await project.read(environment);
    const tag = environment === "perf" ? "qa-2" : "dev-2";
    const target = { tag, digest: digestOf(tag), version: undefined };
    const moving = { imageTag: tag, imageDigest: target.digest };
    const text = project.edit(environment, former, moving);
    const plan = await project.plan(environment, text);
    scene.write(project.stackFile(environment), text);
    const said = { hash: plan.hash, parts: formatParts(plan.parts) };
    const operations = formatOperations([ROUTINE_OPERATION]);
    const file = project.stackFile(environment);
    const after = (await ledger.outcomes(environment))[0]?.ref;
    const wish = { environment, file, target, plan: said, hotfix, operations, after };
    await ledger.ask([wish], { notes: "" });
  };
  const say = async (person: string, environment: string) => {
    scene.as(person);
    await new Ledger(await Project.open(scene.folder)).say(await latest(environment), "approve");
    scene.as("ann");
  };
  const go = async (environment: string) =>
    deploy(await scene.context(), environment, { yes: true });
  /** What the gate says against the latest request. */
  const gate = async (environment: string): Promise<string> => {
    const context = await scene.context();
    const made = await latest(environment);
    const facts = await readFacts(context);
    const { terms } = await gateOf(context, made, await context.project.read(environment), facts);
    return formatProblems(problemsOf(terms));
  };
  const latest = async (environment: string): Promise<Request> =>
    (await ledger.request(environment)) ?? assert.fail("no request");
  const edit = (file: string, from: string | RegExp, to: string) => {
    const text = scene.read(file);
    assert.notEqual(text.replace(from, to), text, file);
    scene.write(file, text.replace(from, to));
  };
  /** Signs the words that follow with a key of somebody's; with GnuPG's where `format` says so. */
  const signs = (person: string, key: string, format = "ssh") => {
    scene.as(person);
    const name = format === "ssh" ? keys.private(key) : `${key}@example.com`;
    const config = `[gpg]\n\tformat = ${format}\n[user]\n\tsigningkey = ${name}\n`;
    scene.write(".git/config", scene.read(".git/config") + config);
  };
  /** Makes a tag object by hand, of which nothing needs to be true; gives its id. */
  const forge = (name: string, email: string, target: string, message: string, type = "commit") =>
    execFileSync("git", ["hash-object", "-t", "tag", "-w", "--stdin", "--literally"], {
      cwd: scene.folder,
      encoding: "utf8",
      input: `object ${target}\ntype ${type}\ntag ${name}\ntagger x <${email}> ${Math.floor(Date.now() / 1000)} +0000\n\n${message}`,
    }).trim();
  const point = (ref: string, id: string) => scene.git("update-ref", `refs/tags/${ref}`, id);
  /** What a word on a request says. */
  const wordOn = ({ id, plan }: Request) =>
    `x\n\nBaton-Project: baton\nBaton-Id: ${id}\nBaton-Plan: ${plan}\n`;
  const folderOf = ({ environment, plan }: Request) =>
    `approve/baton/${environment}/${plan.slice(0, 12)}`;

  it("there is a way: what is asked for, approved and unchanged is deployed", async () => {
    approved();
    assert.equal(await gate("qa"), "");
    assert.equal((await go("qa")).outcome, "done");
    assert.equal(scene.runs("qa")?.["imageTag"], "dev-2");
  });

  describe("a change after the approval is refused", () => {
    before(() => approved());
    const moved = async (file: string, text: string, part: string) => {
      const former = scene.read(file);
      scene.write(file, text);
      assert.match(
        await gate("qa"),
        new RegExp(`^qa: the plan is another one: ${part} moved`),
        file,
      );
      scene.write(file, former);
    };
    const added = async (file: string, text: string) => {
      scene.write(file, text);
      assert.match(await gate("qa"), /another one: program moved/, file);
      rmSync(join(scene.folder, file));
    };

    it("in the stack file, by `deploy` itself", async () => {
      const former = scene.read("Pulumi.qa.yaml");
      edit("Pulumi.qa.yaml", "info", "debug");
      await assert.rejects(go("qa"), /^Refusal: qa: the plan is another one: settings moved/);
      scene.write("Pulumi.qa.yaml", former);
    });

    it("in a secret, in the policy, or beside the stack's configuration", async () => {
      const text = scene.read("Pulumi.qa.yaml");
      await moved("Pulumi.qa.yaml", text.replace("AAAB1234", "AAAB1235"), "secrets");
      await moved("Pulumi.qa.yaml", text.replace("required: 1", "required: 0"), "policy");
      await moved("Pulumi.qa.yaml", `${text}environment: [others]\n`, "secrets");
    });

    it("in the defaults, wherever they are said", async () => {
      const project = scene.read("Pulumi.yaml");
      const more = project.replace("registry:", "quota: { pods: 9 }\n      registry:");
      await moved("Pulumi.yaml", more, "settings");
      const defaults = "  baton:defaults: { settings: { config: { LIMIT: 1 } }, registry: ";
      const registry = `{ kind: oci, repository: ${scene.registry.host}/podinfo, plainHttp: true } }\n`;
      await moved("Pulumi.qa.yaml", scene.read("Pulumi.qa.yaml") + defaults + registry, "settings");
      await moved("Pulumi.yaml", project.replace("nodejs", "nodejs\nmain: ./"), "program");
    });

    it("in the program or its packages", async () => {
      await moved("index.ts", "export const changed = true;\n", "program");
      await moved("package-lock.json", "[]\n", "lockfile");
      // An import finds them before the program's own files.
      await added("config.js", "");
      await added("package.json", '{ "main": "cli/main.ts" }');
    });

    it("in the registry", async () => {
      scene.registry.tags.set("dev-2", digestOf("dev-3"));
      await assert.rejects(go("qa"), /imageDigest is sha256:.*The tag was moved/);
      scene.registry.tags.set("dev-2", digestOf("dev-2"));
    });
  });

  describe("a word counts for one request only", () => {
    beforeEach(() => approved());

    it("not for the next, nor for what is deployed in its place", async () => {
      edit("Pulumi.qa.yaml", "info", "debug");
      await ask("qa");
      assert.match(await gate("qa"), /^qa: the request is approved by nobody/);
      assert.equal((await go("qa")).outcome, "waiting");
    });

    it("not against a rejection, whoever gives it", async () => {
      scene.as("eve");
      await reject(await scene.context(), "qa", { reason: "not today" });
      await assert.rejects(go("qa"), /rejected by eve@example.com \(not today\)/);
      await ask("qa");
      assert.match(await gate("qa"), /approved by nobody/);
    });

    it("not for a commit that was made anew under its id and says something else", async () => {
      const message = scene.git("log", "-1", "--format=%B");
      const amend = (text: string, ...options: string[]) => {
        scene.git("commit", "--quiet", "--amend", "--only", ...options, "-m", text);
      };
      // Through the fast lane, and with more than was previewed.
      amend(message.replace("Baton-Plan", "Baton-Hotfix: yes\nBaton-Plan"));
      assert.match(await gate("qa"), /approved by nobody/);
      amend(`${message}\nBaton-Operation: delete kubernetes:core/v1:Namespace qa`);
      assert.match(await gate("qa"), /approved by nobody/);
    });

    it("but for one that a merge made anew, whose requester is whoever asked at first", async () => {
      await say("ann", "qa");
      scene.as("eve");
      scene.git("commit", "--quiet", "--amend", "--no-edit", "--reset-author");
      assert.equal(await gate("qa"), "");
      scene.git(
        "tag",
        "--delete",
        ...scene.tags("approve/baton/qa").filter((tag) => tag.includes("bob")),
      );
      assert.match(await gate("qa"), /not counting ann@example.com \(own request\)/);
      await say("bob", "qa");
      // Its outcome stays on the former commit; the next one goes on from the present.
      assert.equal((await go("qa")).outcome, "done");
      edit("Pulumi.qa.yaml", "info", "debug");
      scene.git("commit", "--quiet", "--amend", "-a", "--no-edit");
      await ask("qa");
      await say("bob", "qa");
      assert.equal(await gate("qa"), "");
    });

    it("not for the same one once it was deployed and left", async () => {
      assert.equal((await go("qa")).outcome, "done");
      const commit = await ledger.head();
      await rollback(await scene.context(), "qa", {});
      scene.git("cherry-pick", "--allow-empty", "-X", "theirs", commit);
      assert.match(await gate("qa"), /the request is deployed already, and left since/);
      // Nor from a checkout that knows nothing of the way back.
      scene.git("checkout", "--quiet", commit);
      assert.match(await gate("qa"), /the request is deployed already, and left since/);
    });

    it("not on another branch, and not from an older checkout", async () => {
      const begin = "HEAD~1";
      // The history that is reviewed is that of the remote's protected branch.
      scene.git("clone", "--quiet", "--bare", ".", ".pulumi/remote.git");
      scene.as("ann", join(scene.folder, ".pulumi/remote.git"));
      scene.git("branch", "side");
      scene.git("reset", "--hard", "--quiet", begin);
      scene.git("push", "--quiet", "--force", "origin", "main");
      // While it waited, another one was asked for, approved and deployed.
      edit("Pulumi.qa.yaml", "info", "debug");
      await ask("qa");
      await say("bob", "qa");
      scene.as("ann", join(scene.folder, ".pulumi/remote.git"));
      assert.equal((await go("qa")).outcome, "done");
      scene.git("checkout", "--quiet", "side");
      await assert.rejects(
        go("qa"),
        /the request is without what was deployed last \(outcome\/baton\/qa/,
      );
    });
  });

  describe("a request", () => {
    const other = digestOf("dev-3");
    /** One made by hand, which says of itself what it likes. */
    const claim = async (
      environment: string,
      changes: Readonly<Record<string, string>>,
      file = scene.read(`Pulumi.${environment}.yaml`),
    ) => {
      const project = await Project.open(scene.folder);
      const plan = await project.plan(environment, scene.read(`Pulumi.${environment}.yaml`));
      const { imageTag = "", imageDigest = "" } = await project.config(environment);
      const trailers = Object.entries({
        "Baton-Request": environment,
        "Baton-Id": "mine",
        "Baton-Tag": imageTag,
        "Baton-Digest": imageDigest,
        "Baton-Plan": plan.hash,
        "Baton-Parts": formatParts(plan.parts),
        "Baton-After": (await ledger.outcomes(environment))[0]?.ref ?? "none",
        ...changes,
      }).map(([name, value]) => `${name}: ${value}\n`);
      const now = scene.read(`Pulumi.${environment}.yaml`);
      scene.write(`Pulumi.${environment}.yaml`, file);
      scene.git("commit", "--quiet", "--allow-empty", "-am", `Ask\n\n${trailers.join("")}`);
      scene.write(`Pulumi.${environment}.yaml`, now);
    };
    const asks = (environment: string, number: string) => {
      edit(`Pulumi.${environment}.yaml`, "dev-1", `dev-${number}`);
      edit(`Pulumi.${environment}.yaml`, digestOf("dev-1"), digestOf(`dev-${number}`));
    };
    beforeEach(() => deployed());

    it("names the image that it is for: else it would pass by holds and soaks", async () => {
      asks("qa", "2");
      await claim("qa", { "Baton-Digest": other });
      assert.match(await gate("qa"), /not what its stack file asks for: imageDigest; expected/);
      await claim("qa", { "Baton-Tag": "dev-3" });
      assert.match(await gate("qa"), /not what its stack file asks for: imageTag; expected/);
    });

    it("goes forward: a way back would run fewer suites", async () => {
      asks("qa", "2");
      edit("Pulumi.qa.yaml", "config:\n", "config:\n  baton:rollbackOf: dev-3\n");
      await claim("qa", {});
      assert.match(await gate("qa"), /not what its stack file asks for: rollbackOf; expected/);
    });

    it("holds what it asks for: its policy is in force afterwards", async () => {
      asks("qa", "2");
      const text = scene.read("Pulumi.qa.yaml");
      await claim("qa", {}, text.replace("required: 1", "required: 0"));
      assert.match(await gate("qa"), /the request's commit is without policy that were asked for/);
      await claim("qa", {}, text.replace("info", "debug"));
      await assert.rejects(
        go("qa"),
        /the request's commit is without settings that were asked for/,
      );
    });

    it("of which `baton request` makes a new one where it does not", async () => {
      const more = scene
        .read("Pulumi.yaml")
        .replace("registry:", "quota: { pods: 9 }\n      registry:");
      scene.write("Pulumi.yaml", more);
      await askProperly("qa");
      assert.match(
        await gate("qa"),
        /commit is without settings that were asked for; .*Commit what/,
      );
      scene.git("commit", "--quiet", "-am", "A quota");
      await askProperly("qa");
      assert.match(await gate("qa"), /^qa: the request is approved by nobody[^\n]*$/);
    });

    it("waits for approval however it counts its parts, where others need none", async () => {
      asks("lane", "2");
      scene.write("index.ts", "export const changed = true;\n");
      const project = await Project.open(scene.folder);
      const { parts } = await project.plan("lane", scene.read("Pulumi.lane.yaml"));
      const [last] = await ledger.outcomes("lane");
      const untrue = formatParts({ ...parts, program: last?.parts.program ?? "" });
      await claim("lane", { "Baton-Parts": untrue });
      assert.match(await gate("lane"), /the plan is another one: program moved/);
    });

    it("takes a hotfix from nowhere else than its policy says", async () => {
      edit(
        "Pulumi.lane.yaml",
        "hotfix: { required: 0 }",
        "hotfix: { required: 0, upstream: build }",
      );
      edit("Pulumi.lane.yaml", "baton:imageTag: dev-1", "baton:imageTag: build-2");
      edit("Pulumi.lane.yaml", "config:\n", "config:\n  baton:hotfixFrom: build\n");
      await claim("lane", { "Baton-Hotfix": "yes" });
      assert.match(
        await gate("lane"),
        /--hotfix is not open here from build; expected baton:approv/,
      );
      await claim("lane", {});
      assert.match(await gate("lane"), /baton:hotfixFrom is not open here from build/);
    });
  });

  describe("without signatures, a word", () => {
    beforeEach(() => asked());

    it("counts by whatever address it gives: nobody can tell", async () => {
      const made = await latest("qa");
      const ref = `${folderOf(made)}/bob-example-com`;
      point(ref, forge(ref, "bob@example.com", made.commit, wordOn(made)));
      assert.equal(await gate("qa"), "");
    });

    it("of one's own does not count, in whatever case one writes", async () => {
      await say("ann", "qa");
      assert.match(await gate("qa"), /not counting ann@example.com \(own request\)/);
      scene.git("tag", "--delete", ...scene.tags("approve/baton/qa"));
      await say("Ann", "qa");
      assert.match(await gate("qa"), /not counting ann@example.com \(own request\)/);
    });

    it("does not count as a lightweight tag, a copy or a tag of a tag", async () => {
      const made = await latest("qa");
      const folder = folderOf(made);
      point(`${folder}/bob-example-com`, made.commit);
      assert.match(await gate("qa"), /approved by nobody;/, "lightweight");

      const name = "approve/baton/qa/other/bob-example-com";
      const bobs = forge(name, "bob@example.com", made.commit, wordOn(made));
      point(`${folder}/bob-example-com`, bobs);
      assert.match(await gate("qa"), /approved by nobody;/, "of another plan");
      const rejection = `reject/baton/qa/${made.plan.slice(0, 12)}/bob-example-com`;
      point(
        `${folder}/bob-example-com`,
        forge(rejection, "bob@example.com", made.commit, wordOn(made)),
      );
      assert.match(await gate("qa"), /approved by nobody;/, "a rejection");
      const elsewhere = folder.replace("/qa/", "/prod/");
      point(
        `${folder}/bob-example-com`,
        forge(`${elsewhere}/bob-example-com`, "bob@example.com", made.commit, wordOn(made)),
      );
      assert.match(await gate("qa"), /approved by nobody;/, "of another environment");

      const ref = `${folder}/bob-example-com`;
      point(ref, forge(ref, "bob@example.com", bobs, wordOn(made), "tag"));
      assert.match(await gate("qa"), /approved by nobody;/, "of a tag");
      point(ref, forge(ref, "bob@example.com", scene.git("rev-parse", "HEAD~1"), wordOn(made)));
      assert.match(await gate("qa"), /approved by nobody;/, "of another commit");
    });
  });

  describe("what was deployed last", () => {
    beforeEach(() => deployed());
    /** An outcome as somebody would record it to have another policy in force. */
    const claimDeployed = async (commit: string) => {
      const [last] = await ledger.outcomes("qa");
      if (last === undefined) assert.fail("no outcome");
      await ledger.record({ ...last, commit }, new Date());
    };

    it("is by the history, not by when a tag was given", async () => {
      const [real] = await ledger.outcomes("qa");
      edit("Pulumi.qa.yaml", "required: 1", "required: 0");
      scene.git("commit", "--quiet", "-am", "An older policy");
      const older = await ledger.head();
      edit("Pulumi.qa.yaml", "required: 0", "required: 1");
      scene.git("commit", "--quiet", "-am", "The present one");
      await claimDeployed(await ledger.head());
      await claimDeployed(older);
      await ask("qa");
      assert.match(await gate("qa"), /^qa: the request is approved by nobody/);
      assert.ok(real);
    });

    it("is no older one, even where a commit names its request", async () => {
      const [first] = await ledger.outcomes("qa");
      if (first === undefined) assert.fail("no outcome");
      edit("Pulumi.qa.yaml", "required: 1", "required: 0");
      scene.git("commit", "--quiet", "-am", "At first, no approvals");
      const older = new Date(first.at.getTime() - 3600_000);
      await ledger.record({ ...first, request: "old", commit: await ledger.head() }, older);
      edit("Pulumi.qa.yaml", "required: 0", "required: 1");
      scene.git("commit", "--quiet", "-am", "Approvals");
      await claimDeployed(await ledger.head());
      edit("Pulumi.qa.yaml", "required: 1", "required: 0");
      scene.git("commit", "--quiet", "-am", "No approvals again\n\nBaton-Id: old");
      await ask("qa");
      assert.match(await gate("qa"), /^qa: the request is approved by nobody[^\n]*$/);
    });

    it("is none that is on no branch at hand, or on a commit without the project", async () => {
      const keep = scene.read("Pulumi.qa.yaml");
      edit("Pulumi.qa.yaml", "required: 1", "required: 0");
      scene.git("commit", "--quiet", "-am", "Another policy");
      await claimDeployed(await ledger.head());
      scene.git("reset", "--hard", "--quiet", "HEAD~1");
      await ask("qa");
      assert.match(await gate("qa"), /^qa: the request is approved by nobody[^\n]*$/);

      deployed();
      scene.git("rm", "--quiet", "Pulumi.qa.yaml");
      scene.git("commit", "--quiet", "-m", "Nothing here");
      await claimDeployed(await ledger.head());
      scene.write("Pulumi.qa.yaml", keep);
      await askProperly("qa");
      assert.match(await gate("qa"), /^qa: the request is approved by nobody[^\n]*$/);
    });
  });

  describe("a policy does not lower the bar for its own deployment", () => {
    before(() => deployed());
    const lower = (from: string | RegExp, to: string) => edit("Pulumi.prod.yaml", from, to);

    it("whatever it lowers", async () => {
      scene.now = new Date("2026-12-24T12:00:00Z");
      const open =
        "required: 0\n    notOwnRequest: false\n    unattended: { settings: [LOG_LEVEL] }";
      lower("required: 1", `${open}\n    hotfix: { required: 0 }\n    allowedSigners: others`);
      lower(/ {4}from: .*\n {4}expiresAfter: .*\n {4}signed: true\n/, "");
      lower(/ {2}baton:freeze: .*\n {2}baton:soak: .*\n/, "");
      lower("LOG_LEVEL: info", "LOG_LEVEL: debug");
      scene.write("others", keys.line("ann") + keys.line("eve"));
      scene.git("add", ".");
      scene.git("commit", "--quiet", "-m", "An easy policy");
      const [dev] = await ledger.outcomes("dev");
      if (dev === undefined) assert.fail("no outcome");
      await ledger.record({ ...dev, environment: "dev" }, new Date("2026-12-24T11:30:00Z"));
      scene.git("tag", "--delete", dev.ref);
      await askProperly("prod");
      const card = scene.printed.join("\n");
      assert.match(card, /approval.required: 1 → 0/);
      assert.match(card, /approval.signed: true → false/);
      assert.match(card, /soak: removed, 3600/);
      const [approvals, freeze, soak, ...more] = (await gate("prod")).split("\n");
      assert.match(
        approvals ?? "",
        /expected the signed word of 1 person of bob@example.com, carol/,
      );
      assert.match(freeze ?? "", /baton:freeze is on until 2027-01-03/);
      assert.match(soak ?? "", /the soak in dev is not over until/);
      assert.deepEqual(more, []);
      assert.equal((await go("prod")).outcome, "waiting");
    });

    it("nor is anybody's word worth more by it", async () => {
      const waits = async (person: string, key: string, why: RegExp) => {
        signs(person, key);
        await new Ledger(await Project.open(scene.folder)).say(await latest("prod"), "approve", {
          signed: true,
        });
        scene.as("ann");
        assert.match(await gate("prod"), why);
      };
      scene.now = new Date();
      await waits("eve", "eve", /eve@example.com \(not in baton:approval.from\)/);
      await waits("bob", "eve", /bob@example.com \(not signed by a key of baton:approval.allowedS/);
    });

    it("nor does it open a lane", async () => {
      await askProperly("prod", { hotfix: true });
      assert.match(await gate("prod"), /--hotfix is not open here; expected .* deployed last/);
      await assert.rejects(go("prod"), /--hotfix is not open here/);
    });

    it("nor by a way back, nor by a deployment elsewhere", async () => {
      deployed();
      edit("Pulumi.yaml", "registry:", "approval: { required: 0 }\n      registry:");
      lower(/ {2}baton:approval:\n(?: {4}.*\n)+/, "");
      edit("Pulumi.qa.yaml", / {2}baton:approval: .*\n/, "");
      scene.git("commit", "--quiet", "-am", "No approvals");
      await rollback(await scene.context(), "qa", { to: "dev-1" });
      await ask("qa");
      assert.match(await gate("qa"), /approved by nobody/);
      await hasDeployed("perf");
      await ask("prod");
      assert.match(await gate("prod"), /expected the signed word of 1 person of bob/);
    });

    it("nor is a sign-off dropped by a deployment of the upstream", async () => {
      deployed();
      edit("Pulumi.qa.yaml", / {2}baton:signOffs: .*\n/, "");
      scene.git("commit", "--quiet", "-am", "No sign-offs");
      await hasDeployed("qa");
      scene.hasDeployed("qa", "dev-2", "qa-2");
      await ask("perf");
      assert.match(
        await gate("perf"),
        /the sign-off of qa-2 in qa is uat missing; expected uat by carol/,
      );
      assert.equal((await go("perf")).outcome, "waiting");
    });
  });

  describe("where words are signed", () => {
    let base: () => void;
    before(async () => {
      deployed();
      await ask("prod");
      base = scene.keep();
    });
    beforeEach(() => base());
    const signed = async (person: string, key: string, format?: string) => {
      signs(person, key, format);
      await new Ledger(await Project.open(scene.folder)).say(await latest("prod"), "approve", {
        signed: true,
      });
      scene.as("ann");
      return gate("prod");
    };

    it("counts one by ssh, and one by OpenPGP", async () => {
      assert.equal(await signed("bob", "bob"), "");
      base();
      assert.equal(await signed("dan", "dan", "openpgp"), "");
    });

    it("counts none that is not signed, or names another", async () => {
      const made = await latest("prod");
      const ref = `${folderOf(made)}/bob-example-com`;
      point(ref, forge(ref, "bob@example.com", made.commit, wordOn(made)));
      assert.match(await gate("prod"), /not counting bob@example.com \(not signed\)/);
      const bad = /bob@example.com \(not signed by a key of baton:approval.allowedSigners\)/;
      base();
      assert.match(await signed("bob", "ann"), bad, "a key that is listed for another");
      base();
      assert.match(await signed("bob", "eve"), bad, "a key that is not listed");
      base();
      assert.match(await signed("bob", "dan", "openpgp"), bad, "a key that is listed for another");
      base();
      assert.match(await signed("bob", "eve", "openpgp"), bad, "a key that is not listed");
    });

    it("counts none of which anything was changed", async () => {
      assert.equal(await signed("bob", "bob"), "");
      const made = await latest("prod");
      const ref = `${folderOf(made)}/bob-example-com`;
      const object = scene.git("cat-file", "tag", ref);
      const put = (text: string) => {
        const args = ["hash-object", "-t", "tag", "-w", "--stdin"];
        const options = { cwd: scene.folder, encoding: "utf8", input: `${text}\n` } as const;
        point(ref, execFileSync("git", args, options).trim());
      };
      put(object.replace(/Baton-Digest: .*\n/, ""));
      assert.match(await gate("prod"), /bob@example.com \(not signed by a key/);
      put(object.replace("bob@example.com", "carol@example.com"));
      assert.match(await gate("prod"), /carol@example.com \(not signed by a key/);
      put(object.replace("tagger bob <bob", "tagger bob <Bob"));
      assert.match(await gate("prod"), /bob@example.com \(not signed by a key/);
    });

    it("takes no word from one request to the next by a tag that passes for two", async () => {
      assert.equal(await signed("bob", "bob"), "");
      const [bobs = ""] = scene.tags("approve/baton/prod");
      edit("Pulumi.prod.yaml", "LIMIT: 10", "LIMIT: 11");
      await ask("prod");
      const made = await latest("prod");
      const time = "2026-11-21T10:00:00Z";
      for (const [field, end] of [
        ["\x1f", "\x1e"],
        ["\x1f", "\x1f\n"],
        ["\0", "\0\n"],
      ] as const) {
        const entry = [
          bobs,
          scene.git("rev-parse", bobs),
          bobs,
          made.commit,
          "bob@example.com",
          time,
        ];
        const older = [bobs, bobs, made.commit, "bob@example.com", time];
        for (const fields of [entry, older]) {
          const message = `x${end}${[...fields, wordOn(made)].join(field)}${end}`;
          const ref = `${folderOf(made)}/eve-example-com`;
          point(ref, forge(ref, "eve@example.com", made.commit, message));
          assert.match(await gate("prod"), /^prod: the request is approved by nobody/);
        }
      }
    });

    it("counts none by a key that was revoked, or whose name pretends to be an answer", async () => {
      const name = `Good "git" signature for dan@example.com with x`;
      const make = ["--batch", "--quiet", "--passphrase", "", "--quick-gen-key"];
      gpg(...make, `${name} <mallory@example.com>`, "ed25519", "sign", "never");
      assert.match(
        await signed("dan", "mallory", "openpgp"),
        /dan@example.com \(not signed by a key/,
      );
      base();
      assert.equal(await signed("dan", "dan", "openpgp"), "");
      const file = join(keys.folder, "openpgp-revocs.d", `${keys.fingerprint("dan")}.rev`);
      const revocation = readFileSync(file, "utf8").replace(":-----BEGIN", "-----BEGIN");
      execFileSync("gpg", ["--batch", "--quiet", "--import"], { input: revocation });
      assert.match(await gate("prod"), /dan@example.com \(not signed by a key/);
    });

    it("counts none that is over, or that will never be", async () => {
      assert.equal(await signed("bob", "bob"), "");
      scene.now = new Date(Date.now() + 5 * 3600_000);
      assert.match(await gate("prod"), /bob@example.com \(expired at/);
      scene.now = undefined;
      base();
      signs("bob", "bob");
      process.env["GIT_COMMITTER_DATE"] = "2030-01-01T00:00:00Z";
      try {
        await new Ledger(await Project.open(scene.folder)).say(await latest("prod"), "approve", {
          signed: true,
        });
      } finally {
        delete process.env["GIT_COMMITTER_DATE"];
      }
      assert.match(await gate("prod"), /bob@example.com \(dated 2030-01-01 00:00 UTC\)/);
    });

    it("takes the list of keys as it was deployed, and as it was asked for", async () => {
      edit("allowed-signers", keys.line("bob"), keys.line("bob", "eve"));
      assert.match(await gate("prod"), /the plan is another one: policy, program moved/);
      scene.git("commit", "--quiet", "-am", "Another key for bob");
      await askProperly("prod");
      assert.match(
        scene.printed.join("\n"),
        /allowed-signers: added, bob@\S+ ssh-ed25519[^]*allowed-signers: removed, bob@/,
      );
      assert.match(await signed("bob", "eve"), /bob@example.com \(not signed by a key/);
    });
  });

  describe("the lanes that need fewer words", () => {
    beforeEach(() => deployed());
    const waits = async (what: RegExp) => {
      await ask("lane");
      assert.equal((await go("lane")).outcome, "waiting");
      assert.match(scene.printed.join("\n"), what);
    };

    it("are open for what every release does", async () => {
      edit("Pulumi.lane.yaml", "LOG_LEVEL: info", "LOG_LEVEL: debug");
      await ask("lane");
      assert.equal((await go("lane")).outcome, "done");
    });

    it("are closed for another setting, a secret, the program or the policy", async () => {
      edit("Pulumi.lane.yaml", "LIMIT: 10", "LIMIT: 11");
      await waits(/lane: the request is approved by nobody/);
      deployed();
      edit("Pulumi.lane.yaml", "AAAB1234", "AAAB1235");
      await waits(/lane: the request is approved by nobody/);
      deployed();
      scene.write("index.ts", "export const changed = true;\n");
      scene.git("commit", "--quiet", "-am", "Another program");
      await waits(/lane: the request is approved by nobody/);
    });

    it("are closed for what not every release does", async () => {
      scene.pulumi("steps-lane", JSON.stringify([ROUTINE, DELETE]));
      await waits(/delete kubernetes:core\/v1:Namespace qa is more than what every release does/);
    });

    it("are over with their time, which the request's own date does not lengthen", async () => {
      await ask("lane", true);
      assert.equal(await gate("lane"), "");
      scene.now = new Date(Date.now() + 5 * 3600_000);
      await assert.rejects(go("lane"), /lane: the request is expired at/);
      scene.now = undefined;
      const { commit } = await latest("lane");
      process.env["GIT_COMMITTER_DATE"] = "2030-01-01T00:00:00Z";
      try {
        scene.git("commit", "--quiet", "--amend", "--no-edit");
      } finally {
        delete process.env["GIT_COMMITTER_DATE"];
      }
      assert.notEqual((await latest("lane")).commit, commit);
      await assert.rejects(go("lane"), /lane: the request is dated 2030-01-01/);
    });
  });

  describe("what is previewed again", () => {
    beforeEach(() => approved());
    const beyond = async (step: object, what: RegExp) => {
      scene.pulumi("steps-qa", JSON.stringify([ROUTINE, step]));
      await assert.rejects(go("qa"), what);
      assert.equal(scene.calls("up").length, 0);
    };

    it("is no more than what was asked for, and nothing stronger", async () => {
      await beyond(
        DELETE,
        /the preview is delete kubernetes:core\/v1:Namespace qa, which it was not/,
      );
      await beyond({ ...ROUTINE, op: "replace" }, /the preview is replace .*Deployment web/);
      const paths = { "spec.replicas": {} };
      await beyond({ ...ROUTINE, detailedDiff: paths }, /Deployment web \(spec.replicas\), which/);
    });
  });

  it("knows which request a word is on by what is in it, not by how its tag is called", async () => {
    approved();
    const [ref = ""] = scene.tags(folderOf(await latest("qa")));
    const message = scene.git("tag", "--list", "--format=%(contents)", ref);
    assert.equal(parseTrailers(message)["Baton-Id"], (await latest("qa")).id);
  });
});
