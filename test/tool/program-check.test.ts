import * as assert from "node:assert/strict";
import { mkdirSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { parse } from "yaml";
import { planTerm } from "../../ledger/gate";
import { Ledger } from "../../ledger/ledger";
import { unapproved } from "../../ledger/program-check";
import { targetOf, type Running } from "../../release/way-back";
import { Project } from "../../ledger/project";
import {
  parseGivenConfig,
  parseProjectFile,
  parseStackConfig,
  POLICY_KEYS,
  splitSecrets,
} from "../../ledger/stack-config";
import { isCiphertext, type Tree } from "../../release/merge";
import { formatParts, type Plan } from "../../release/plan";
import { formatProblems } from "../../release/problem";
import type { Result } from "../../release/way-back";
import { ROOT, STACKS } from "../support/program";
import { digestOf, ToolScene } from "../support/tool";

const asks = (tag: string, more = "") =>
  `config:\n  baton:imageTag: ${tag}\n  baton:imageDigest: ${digestOf(tag)}\n${more}`;
const QA = asks(
  "dev-2",
  `  baton:upstream: dev
  baton:settings: { config: { LOG_LEVEL: info, LIMIT: 10 } }
  baton:SESSION_KEY: { secure: AAAB1234 }
  baton:approval: { required: 1, unattended: { settings: [LIMIT] } }
  aws:skipCredentialsValidation: true
`,
);

/** What Pulumi gives a program of these files: texts, structures as JSON, and no secret's value. */
function given(projectFile: string, stackFile: string): Record<string, string | undefined> {
  const project = parse(projectFile) as { config: Record<string, { value: unknown }> };
  const { config } = parse(stackFile) as { config: Tree };
  const defaults = Object.entries(project.config).map(([key, { value }]) => [key, value] as const);
  const entries = [...defaults, ...Object.entries(config)].map(([key, value]) => [
    key,
    isCiphertext(value)
      ? undefined
      : typeof value === "object"
        ? JSON.stringify(value)
        : String(value as string | number | boolean),
  ]);
  return Object.fromEntries(entries) as Record<string, string | undefined>;
}

describe("what Pulumi gives a program", () => {
  it("means the same as the files that it comes from", () => {
    const projectFile = readFileSync(join(ROOT, "Pulumi.yaml"), "utf8");
    const project = parseProjectFile(projectFile);
    for (const stack of STACKS) {
      const file = readFileSync(join(ROOT, `Pulumi.${stack}.yaml`), "utf8");
      const text = file.replace("config:\n", "config:\n  aws:retries: 3\n  aws:debug: true\n");
      const [one, other] = [
        parseStackConfig(project, text, stack),
        parseGivenConfig(project, given(projectFile, text), stack),
      ];
      const plain = (config: typeof one) => splitSecrets(config.settings).settings;
      assert.deepEqual(plain(other), plain(one), stack);
      for (const key of [...POLICY_KEYS, "imageTag", "upstream"] as const) {
        assert.deepEqual(other[key], one[key], `${stack} ${key}`);
      }
    }
  });

  it("is read in place of the project's defaults", () => {
    const project = parseProjectFile(
      "name: baton\nruntime: nodejs\nconfig:\n  aws:region: { default: one }\n  baton:versioned: true\n",
    );
    const registry = "{ kind: oci, repository: example.com/podinfo }";
    const text = `config:\n  aws:region: two\n  baton:defaults: { registry: ${registry} }\n`;
    const { settings, versioned } = parseStackConfig(project, text, "qa");
    assert.equal(versioned, true);
    assert.deepEqual(settings["others"], { "aws:region": "two" });
  });

  it("hides nothing that stands beside a key called secure", () => {
    const { settings, secrets } = splitSecrets({ a: { secure: "x", b: 1 }, c: { secure: "y" } });
    assert.deepEqual(settings, { a: { secure: "x", b: 1 }, c: {} });
    assert.ok(isDeepStrictEqual(Object.values(secrets), ["y"]));
  });
});

describe("the program's own look at the approvals", () => {
  let scene: ToolScene;
  let ledger: Ledger;
  let committed: () => void;
  const environment = { ...process.env };
  before(async () => {
    process.env["NPM_CONFIG_USERCONFIG"] = "/dev/null";
    scene = await ToolScene.open({ dev: asks("build-2"), qa: QA });
    ledger = new Ledger(await Project.open(scene.folder));
    committed = scene.keep();
  });
  beforeEach(() => committed());
  after(async () => {
    process.env["NPM_CONFIG_USERCONFIG"] = environment["NPM_CONFIG_USERCONFIG"];
    if (environment["NPM_CONFIG_USERCONFIG"] === undefined) {
      delete process.env["NPM_CONFIG_USERCONFIG"];
    }
    await scene.remove();
  });

  /** What stands in the way of `pulumi up`, with other configuration where it is given. */
  const check = async (
    changes: Record<string, string | undefined> = {},
    digest?: string,
    images: Record<string, string> = {},
  ) => {
    const stackFile = scene.read("Pulumi.qa.yaml");
    const all = { ...given(scene.read("Pulumi.yaml"), stackFile), ...changes };
    const problems = await unapproved({
      folder: scene.folder,
      environment: "qa",
      given: Object.fromEntries(Object.entries(all).filter(([, value]) => value !== "")),
      digest: digest ?? all["baton:imageDigest"] ?? "",
      images,
      now: new Date(),
      running: () => {
        const release = scene.runs("qa") as Running | undefined;
        return Promise.resolve(release && targetOf(release));
      },
    });
    return formatProblems(problems);
  };
  const planNow = async () =>
    (await Project.open(scene.folder)).plan("qa", scene.read("Pulumi.qa.yaml"));
  const ask = async (tag = "dev-2", kept?: Plan["parts"]) => {
    const { hash, parts: whole } = await planNow();
    const parts = kept ?? whole;
    const target = { tag, digest: digestOf(tag), version: undefined };
    const runs = scene.runs("qa") as Running | undefined;
    const former = runs && targetOf(runs);
    const said = { hash, parts: formatParts(parts) };
    const after = (await ledger.outcomes("qa"))[0]?.ref;
    const wish = {
      environment: "qa",
      file: "Pulumi.qa.yaml",
      target,
      former,
      plan: said,
      after,
    };
    await ledger.ask([{ ...wish, hotfix: false, operations: [] }], { notes: "" });
    return (await ledger.request("qa")) ?? assert.fail("no request");
  };
  const say = async (person: string, kind: "approve" | "reject" = "approve") => {
    scene.as(person);
    await new Ledger(await Project.open(scene.folder)).say(
      (await ledger.request("qa")) ?? assert.fail("no request"),
      kind,
      {},
    );
    scene.as("ann");
  };
  /** As if what is in the stack file had been deployed by the tool. */
  const record = async (tag: string, result: Result = "deployed") => {
    const { id, commit, digest, plan, parts, former } = await ask(tag);
    await say("bob");
    const outcome = { environment: "qa", tag, digest, former, result, request: id };
    await ledger.record({ ...outcome, commit, plan, parts }, new Date());
    scene.hasDeployed("qa", tag, `qa-${tag}`);
  };
  const edit = (from: string | RegExp, to: string) => {
    const text = scene.read("Pulumi.qa.yaml").replace(from, to);
    assert.notEqual(text, scene.read("Pulumi.qa.yaml"));
    scene.write("Pulumi.qa.yaml", text);
  };
  const takes = (tag: string, former = "dev-2") => {
    edit(`baton:imageTag: ${former}`, `baton:imageTag: ${tag}`);
    edit(digestOf(former), digestOf(tag));
  };

  it("asks for nothing where nobody needs to approve", async () => {
    edit("required: 1", "required: 0");
    scene.git("commit", "--quiet", "-am", "No approvals");
    assert.equal(await check(), "");
    assert.equal(await check({ "baton:settings": "{}" }), "");
  });

  it("asks for a request, and for people's words on it", async () => {
    assert.match(await check(), /^qa: the request is missing; .* the word of 1 on it/);
    await ask();
    assert.match(await check(), /^qa: the request is approved by nobody/);
    await say("ann");
    assert.match(await check(), /not counting ann@example.com \(own request\)/);
    await say("bob");
    assert.equal(await check(), "");
    await say("eve", "reject");
    assert.match(await check(), /rejected by eve@example.com/);
  });

  it("goes by what is committed, not by the policy that it is given", async () => {
    const approval = '{"required":0}';
    assert.match(await check({ "baton:approval": approval }), /the request is missing/);
    edit("required: 1", "required: 0");
    assert.match(await check(), /the request is missing/);
    scene.git("commit", "--quiet", "-am", "No approvals");
    await record("dev-2");
    edit("required: 0", "required: 1");
    scene.git("commit", "--quiet", "-am", "Approvals");
    assert.match(await check(), /policy moved since the request/, "it counts at once");
  });

  it("takes no other configuration than the stack file's, however Pulumi got it", async () => {
    await ask();
    await say("bob");
    const refused = async (changes: Record<string, string>, part: string) =>
      assert.match(
        await check(changes),
        new RegExp(`the configuration is another one than Pulumi.qa.yaml: ${part} differ`),
      );
    await refused({ "baton:settings": '{"config":{"LOG_LEVEL":"debug","LIMIT":10}}' }, "settings");
    await refused({ "baton:imageDigest": digestOf("dev-3") }, "digest");
    await refused({ "baton:approval": '{"required":1}' }, "policy");
    await refused({ "aws:region": "eu-west-1" }, "settings");
    // Not what Pulumi.yaml says either.
    const defaults = given(scene.read("Pulumi.yaml"), QA)["baton:defaults"] ?? "";
    const more = defaults.replace("{", '{"settings":{"config":{"MORE":"1"}},');
    await refused({ "baton:defaults": more }, "settings");
  });

  it("takes no other program, and no request that is not what it says", async () => {
    await ask();
    await say("bob");
    scene.write("index.js", "");
    assert.match(
      await check(),
      /the plan is another one: program moved since the request \(compared with its commit, index\.js is not in it\)/,
    );
    rmSync(join(scene.folder, "index.js"));
    scene.write("index.ts", "export {};\r\n");
    assert.match(await check(), /index\.ts has other line endings, which `\* text=auto eol=lf` in/);
    scene.write("index.ts", "export {};\n");
    mkdirSync(join(scene.folder, "release/node_modules/semver"), { recursive: true });
    assert.match(await check(), /^the program: release\/node_modules is none of the lockfile's/);
    rmSync(join(scene.folder, "release"), { recursive: true });
    assert.equal(await check(), "");
    await ask("dev-3");
    await say("bob");
    assert.match(await check(), /not what its stack file asks for: imageTag, imageDigest/);
  });

  it("takes no request and no word that has only the first digits of a plan", async () => {
    const { hash, parts } = await planNow();
    const short = Object.fromEntries(
      Object.entries(parts).map(([part, whole]) => [part, whole.slice(0, 12)]),
    ) as typeof parts;
    await ask("dev-2", short);
    await say("bob");
    assert.match(
      await check(),
      /^qa: the request is kept with shortened hashes, .* Ask anew with `baton request qa`/,
    );
    // In its other parts, another plan would have the same first digits.
    await ask("dev-2", { ...parts, program: parts.program.slice(0, 12) + "0".repeat(52) });
    await say("bob");
    assert.match(await check(), /^qa: the plan is another one: program moved since the request/);

    await ask();
    await say("bob");
    assert.equal(await check(), "");
    const ref = scene.tags("approve/baton/qa").at(-1) ?? assert.fail("no word");
    const message = scene.git("tag", "--list", "--format=%(contents)", ref);
    const tagged = scene.git("rev-parse", `${ref}^{commit}`);
    scene.git("tag", "--delete", ref);
    assert.match(message, new RegExp(`Baton-Plan: ${hash}`));
    scene.as("bob");
    scene.git("tag", "-a", "-m", message.replace(hash, hash.slice(0, 12)), ref, tagged);
    assert.match(await check(), /^qa: the request is approved by nobody/);
    scene.git("tag", "--force", "-a", "-m", message, ref, tagged);
    assert.equal(await check(), "");
    scene.as("ann");
  });

  it("says in the tool's gate, too, that no plan covers a program", async () => {
    const request = await ask();
    const project = await Project.open(scene.folder);
    symlinkSync("index.ts", join(scene.folder, "link.ts"));
    const stackFile = scene.read("Pulumi.qa.yaml");
    const term = await planTerm(project, ledger, request, stackFile);
    rmSync(join(scene.folder, "link.ts"));
    assert.equal(term.state, "fails");
    assert.match(term.problem?.property ?? "", /^link\.ts$/);
    const { state } = await planTerm(project, ledger, request, stackFile);
    assert.equal(state, "passes");
  });

  it("takes no image by a name that may come to mean another", async () => {
    await ask();
    await say("bob");
    const key = "baton:database.client";
    assert.match(
      await check({}, undefined, { [key]: "postgres:18" }),
      /^qa: baton:database\.client is postgres:18; expected an image with its digest/,
    );
    assert.equal(await check({}, undefined, { [key]: `postgres@sha256:${"a".repeat(64)}` }), "");
  });

  it("takes nothing that decides what runs beside the plan, and says so with all else", async () => {
    process.env["NODE_OPTIONS"] = "--require ./evil.js";
    try {
      const message = await check();
      assert.match(message, /^qa: NODE_OPTIONS is set; .*\nqa: the request is missing/);
      edit("required: 1", "required: 0");
      scene.git("commit", "--quiet", "-am", "No approvals");
      assert.equal(await check(), "");
    } finally {
      delete process.env["NODE_OPTIONS"];
    }
  });

  it("advises where imported environments have set what the stack file does not say", async () => {
    edit("config:\n", "environment: [team/aws@12]\nconfig:\n");
    await ask();
    await say("bob");
    assert.equal(await check(), "");
    assert.match(
      await check({ "aws:region": "eu-west-1" }),
      /settings differ; .* write into Pulumi\.qa\.yaml what the imported environments set as/,
    );
    edit("team/aws@12", "team/aws@13");
    assert.match(await check(), /the plan is another one: secrets moved since the request/);
    edit("team/aws@13", "team/aws");
    assert.match(await check(), /the imported environment team\/aws is not pinned; expected a rev/);
  });

  it("asks nobody where only what the policy names has changed", async () => {
    await record("dev-2");
    takes("dev-3");
    edit("LIMIT: 10", "LIMIT: 11");
    await ask("dev-3");
    assert.equal(await check(), "");
    edit("LOG_LEVEL: info", "LOG_LEVEL: debug");
    await ask("dev-3");
    assert.match(await check(), /the request is approved by nobody/);
  });

  describe("on a way back", () => {
    const back = (tag: string, left: string) => {
      takes(tag, left);
      edit("config:\n", `config:\n  baton:rollbackOf: ${left}\n`);
    };

    it("asks nobody for settings that were deployed with that release", async () => {
      await record("dev-2");
      edit("LOG_LEVEL: info", "LOG_LEVEL: debug");
      takes("dev-3");
      await record("dev-3");
      back("dev-2", "dev-3");
      assert.match(
        await check(),
        /the settings is others than that release has had here; .*rollback/,
      );
      edit("LOG_LEVEL: debug", "LOG_LEVEL: info");
      assert.equal(await check(), "");
      // Nothing beside the settings stands in its way.
      process.env["NODE_OPTIONS"] = "--enable-source-maps";
      symlinkSync("index.ts", join(scene.folder, "link.ts"));
      try {
        assert.equal(await check({}, undefined, { "baton:database.client": "postgres" }), "");
      } finally {
        delete process.env["NODE_OPTIONS"];
        rmSync(join(scene.folder, "link.ts"));
      }
      // Another policy does no harm: it does not come into force.
      edit("required: 1", "required: 0");
      assert.equal(await check(), "");
    });

    it("goes with the present defaults, as the tool does", async () => {
      await record("dev-2");
      takes("dev-3");
      await record("dev-3");
      const project = scene
        .read("Pulumi.yaml")
        .replace("registry:", "quota: { pods: 9 }\n      registry:");
      scene.write("Pulumi.yaml", project);
      back("dev-2", "dev-3");
      assert.equal(await check(), "");
    });

    it("to what was deployed by hand takes settings that some deployment has had", async () => {
      back("dev-1", "dev-2");
      assert.match(await check(), /the settings is others than/, "nothing says that it ran here");
      scene.hasDeployed("qa", "dev-1", "qa-1");
      assert.equal(await check(), "", "the stack's state says that it runs");
      committed();
      scene.hasDeployed("qa", "dev-1", "qa-1");
      await record("dev-2");
      back("dev-1", "dev-2");
      assert.equal(await check(), "");
      edit("LIMIT: 10", "LIMIT: 11");
      assert.match(await check(), /the settings is others than/);
    });

    it("takes no unapproved deployment for one that was approved", async () => {
      await record("dev-2");
      edit("LIMIT: 10", "LIMIT: 11");
      takes("dev-3");
      await record("dev-3", "unapproved");
      edit("config:\n", "config:\n  baton:rollbackOf: dev-4\n");
      assert.match(await check(), /the settings is others than/);
    });

    it("takes no outcome that its request does not bear out", async () => {
      await record("dev-2");
      scene.git("commit", "--quiet", "--allow-empty", "-m", "Not a request");
      const [last] = await ledger.outcomes("qa");
      if (last === undefined) assert.fail("no outcome");
      const forged = { ...last, tag: "dev-9", digest: digestOf("dev-9") };
      await ledger.record(forged, new Date());
      await ledger.record({ ...forged, commit: await ledger.head() }, new Date());
      back("dev-9", "dev-2");
      assert.match(await check(), /the settings is others than/);
    });
  });

  it("asks for a request where there is no repository", async () => {
    rmSync(join(scene.folder, ".git"), { recursive: true });
    assert.match(await check(), /^qa: the request is missing/);
    edit("required: 1", "required: 0");
    assert.equal(await check(), "");
  });
});
