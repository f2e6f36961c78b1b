import * as assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { rmSync } from "node:fs";
import { PassThrough } from "node:stream";
import { approve, reject, show } from "../../cli/approve";
import type { Context, Report } from "../../cli/context";
import { deploy } from "../../cli/deploy";
import { history } from "../../cli/history";
import { hold, stop } from "../../cli/hold";
import { preview } from "../../cli/preview";
import { request } from "../../cli/request";
import { status } from "../../cli/status";
import { agrees } from "../../cli/terminal";
import { why } from "../../cli/why";
import { formatAnnouncement } from "../../release/announcement";
import { cardBlocks, formatCard, type ChangeCard } from "../../release/change-card";
import { formatParts } from "../../release/plan";
import { parseOperations, type Operation } from "../../release/operations";
import { mrkdwn, plainJson } from "../../release/plain-text";
import { ROOT } from "../support/program";
import { atTerminal } from "../support/terminal";
import { digestOf, ToolScene } from "../support/tool";

const DEV = "config:\n  baton:imageTag: build-1\n";
const LOCKFILE = (version: string, integrity = "sha512-one") =>
  JSON.stringify({ packages: { "node_modules/semver": { version, integrity } } });
const CIPHERTEXT = "v1:c2VjcmV0";
const QA = `config:
  baton:upstream: dev
  baton:approval: { required: 1 }
  baton:verification: { suites: { smoke: { image: "tests@sha256:1" } } }
  baton:settings:
    config: { LOG_LEVEL: info }
    secrets: { SESSION_KEY: { secure: "${CIPHERTEXT}" } }
`;
const PERF = "config:\n  baton:upstream: dev\n  baton:deployedBy: pulumi-deployments\n";
const TOOL = ["-r", "ts-node/register", "cli/main.ts"];
const UNSEEN = /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2066-\u2069]/;

describe("what people see and approve", () => {
  let scene: ToolScene;
  let remote: string;
  /** Other people's clones. */
  const clones: ToolScene[] = [];
  let begun: () => void;

  before(async () => {
    scene = await ToolScene.open({ dev: DEV, qa: QA, perf: PERF });
    scene.write("package-lock.json", LOCKFILE("7.0.0"));
    scene.git("commit", "--quiet", "-am", "Lock");
    remote = `${scene.folder}.git`;
    execFileSync("git", ["clone", "--quiet", "--bare", scene.folder, remote]);
    scene.as("ann", remote);
    scene.hasDeployed("dev", "build-1", "dev-1");
    await ask("qa");
    await approveAs("bob");
    assert.equal((await go()).outcome, "done", printed());
    scene.git("push", "--quiet", "origin", "main");
    scene.hasDeployed("dev", "build-2", "dev-2");
    begun = scene.keep(remote);
  });
  beforeEach(() => begun());
  afterEach(() => {
    for (const { folder } of clones.splice(0)) rmSync(folder, { recursive: true, force: true });
  });
  after(async () => {
    rmSync(remote, { recursive: true, force: true });
    await scene.remove();
  });

  const printed = () => scene.printed.join("\n");
  /** As if no line had been too long. */
  const text = () => printed().replace(/\n {12}/g, " ");
  const ask = async (environment = "qa", options = {}) => {
    scene.as("ann", remote);
    return request(await scene.context(), environment, options);
  };
  const planOf = async (environment = "qa") =>
    (await (await scene.context()).ledger.request(environment))?.plan ?? assert.fail();
  const approveAs = async (person: string, plan?: string) => {
    scene.as(person, remote);
    return approve(await scene.context(), "qa", plan ?? (await planOf()));
  };
  const go = async () => {
    scene.as("ann", remote);
    return deploy(await scene.context(), "qa", { yes: true });
  };
  const words = () => scene.tags("approve/baton/qa").length;
  /** A person in another clone, by what the remote has. */
  const other = async (person: string): Promise<Context> => {
    const clone = scene.copy();
    clones.push(clone);
    clone.as(person, remote);
    return clone.context();
  };
  const elsewhere = () => clones.at(-1) ?? assert.fail("no other clone");
  const edit = (file: string, from: string | RegExp, to: string) => {
    const former = scene.read(file);
    assert.notEqual(former.replace(from, to), former, file);
    scene.write(file, former.replace(from, to));
  };
  const commit = () => {
    scene.git("add", ".");
    scene.git("commit", "--quiet", "-m", "Change");
  };
  /** A request as somebody may write one who does not use the tool. */
  const askByHand = async (changes: {
    plan?: string;
    tag?: string;
    operations?: readonly string[];
  }) => {
    await ask();
    const { ledger } = await scene.context();
    const made = (await ledger.request("qa")) ?? assert.fail();
    const { tag, digest, version, plan, parts, operations, after } = made;
    const wish = {
      environment: "qa",
      file: "Pulumi.qa.yaml",
      target: { tag: changes.tag ?? tag, digest, version },
      plan: { hash: changes.plan ?? plan, parts: formatParts(parts) },
      hotfix: false,
      operations: changes.operations ?? operations,
      after,
    };
    await ledger.ask([wish], { notes: "" });
    scene.git("push", "--quiet", "origin", "main");
  };

  describe("a word", () => {
    it("is on the plan that was read, not on the request that came meanwhile", async () => {
      await ask();
      const read = await planOf();
      edit("index.ts", "{}", "{ evil }");
      commit();
      await ask();
      const present = await planOf();
      assert.notEqual(read, present);
      const before = words();
      for (const plan of [read, read.slice(0, 12)]) {
        await assert.rejects(
          approveAs("bob", plan),
          new RegExp(`PLAN is ${plan}; expected ${present.slice(0, 12)}, the plan of the latest`),
        );
      }
      assert.equal(words(), before);
      assert.equal((await go()).outcome, "waiting");
      await approveAs("bob", present.slice(0, 12));
      assert.equal((await go()).outcome, "done");
    });

    it("is not given to less than what a card shows of a plan, or to more", async () => {
      await ask();
      const plan = await planOf();
      const before = words();
      const others = ["", " ", plan.slice(0, 11), plan.slice(1), `${plan}0`, "0".repeat(12), ".*"];
      for (const given of others) {
        await assert.rejects(approveAs("bob", given), /qa: PLAN is /, given);
      }
      assert.equal(words(), before);
      await approveAs("bob", plan.slice(0, 20).toUpperCase());
      assert.equal(words(), before + 1);
    });

    it("needs the whole plan where two begin alike", async () => {
      await ask();
      const plan = await planOf();
      const alike = plan.slice(0, 12) + "0".repeat(52);
      await askByHand({ plan: alike });
      await ask();
      assert.equal(await planOf(), plan);
      await assert.rejects(approveAs("bob", plan.slice(0, 12)), /another request's plan begins/);
      await approveAs("bob", plan);
    });

    it("is refused without a plan where nobody can be shown the card", async () => {
      await ask();
      const plan = await planOf();
      scene.as("bob", remote);
      const context = await scene.context();
      const refused = /qa: PLAN is not given; expected the plan that you have read/;
      await assert.rejects(approve(context, "qa", undefined), refused);
      const quiet = { ...context, isQuiet: true };
      await assert.rejects(
        atTerminal(
          () => "y",
          () => approve(quiet, "qa", undefined),
        ),
        refused,
      );
      const printedBefore = scene.printed.length;
      const said = async (answer: string) =>
        atTerminal(
          () => answer,
          () => approve(context, "qa", undefined),
        );
      const before = words();
      assert.equal((await said("")).outcome, "refused");
      assert.equal(words(), before);
      assert.match(scene.printed.slice(printedBefore).join("\n"), /^qa: dev-1 → dev-2\n/);
      assert.equal((await said("y")).outcome, "done");
      assert.match(scene.tags("approve/baton/qa").join(), new RegExp(plan.slice(0, 12)));
    });

    it("is on the request whose card was shown, also when another comes during the question", async () => {
      await ask();
      const [shown, context] = [await planOf(), await other("bob")];
      const answer = async () => {
        edit("index.ts", "{}", "{ evil }");
        commit();
        await ask();
        return "y";
      };
      await atTerminal(answer, () => approve(context, "qa", undefined));
      assert.notEqual(await planOf(), shown);
      assert.match(elsewhere().tags("approve/baton/qa").join(), new RegExp(shown.slice(0, 12)));
      assert.equal((await go()).outcome, "waiting");
    });

    it("of one's own request is refused, and nothing is recorded", async () => {
      await ask();
      const before = words();
      const told = await other("ann");
      for (const context of [await scene.context(), told]) {
        await assert.rejects(approve(context, "qa", await planOf()), /whose own request for dev-2/);
      }
      assert.equal(words(), before);
      assert.equal(elsewhere().tags("approve/baton/qa").length, before);
    });

    it("is refused where the plan is of files that nobody can be shown", async () => {
      // What is asked for with a file that is not committed is deployed once the file is merged.
      scene.write("evil.ts", "evil();\n");
      await ask();
      scene.git("push", "--quiet", "origin", "main");
      const context = await other("bob");
      rmSync(`${elsewhere().folder}/evil.ts`);
      const plan = await planOf();
      await assert.rejects(
        approve(context, "qa", plan),
        /qa: the request's plan is not of what its commit \w+ holds \(program\)/,
      );
      const { card } = (await show(context, "qa")) as unknown as { card: ChangeCard };
      assert.equal(card.moved, undefined);
      assert.equal(card.routine, false);
      assert.match(card.missing.join(), /not of what its commit/);
      // Where the file is, it is named.
      await approveAs("bob", plan);
      assert.match(text(), /program +1 file: evil\.ts \(added\)/);
    });

    it("against a request names what it rejects", async () => {
      await ask();
      scene.as("eve", remote);
      await reject(await scene.context(), "qa", { reason: "not today" });
      const plan = (await planOf()).slice(0, 12);
      const named = `qa: dev-2 rejected under plan ${plan}, which ann@example.com asked for at`;
      assert.ok(printed().includes(named), printed());
    });
  });

  describe("an operation that no card shows", () => {
    const DEPLOYMENT = "a:b:C$kubernetes:apps/v1:Deployment web";
    for (const op of [
      "create-replacement",
      "delete-replaced",
      "something-new",
      "remove-pending-replace",
    ]) {
      it(`covers nothing, and is shown: ${op}`, async () => {
        await askByHand({ operations: [`${op} ${DEPLOYMENT}`] });
        await approveAs("bob");
        assert.match(
          printed(),
          new RegExp(`\n! ${op.padEnd(9)} unexpected: 1 kubernetes:apps/v1:D`),
        );
        await assert.rejects(
          go(),
          /the preview is update kubernetes:apps\/v1:Deployment web, which/,
        );
      });
    }

    it("covers nothing where its line is not whole or of another kind", async () => {
      const lines = ["update", `update ${DEPLOYMENT.split(" ")[0] ?? ""}`, `same ${DEPLOYMENT}`];
      await askByHand({ operations: lines });
      await approveAs("bob");
      await assert.rejects(go(), /the preview is update kubernetes:apps\/v1:Deployment web, which/);
    });

    it("is shown as what was asked for, where a later preview shows less", async () => {
      await askByHand({ operations: [`delete ${DEPLOYMENT}`, `update ${DEPLOYMENT}`] });
      // The same request again: its operations stand, whatever is previewed by now.
      const { card } = await ask();
      assert.deepEqual(
        card.operations.map(({ op }) => op),
        ["delete", "update"],
      );
    });
  });

  describe("a card", () => {
    const previewing = async (operations: readonly Operation[]) => {
      scene.as("ann", remote);
      const context = await scene.context();
      context.pulumi.preview = () => Promise.resolve({ operations, next: new Map() });
      return request(context, "qa", {});
    };
    const CHANGES: Readonly<Record<string, [() => void, RegExp]>> = {
      "a file of the program": [
        () => edit("index.ts", "{}", "{ evil }"),
        /program +1 file: index\.ts/,
      ],
      "a file that is new": [
        () => scene.write("approvals", "evil()\n"),
        /program +1 file: approvals \(added\)/,
      ],
      "a file that is gone": [
        () => rmSync(`${scene.folder}/.gitignore`),
        /program +1 file: \.gitignore \(removed\)/,
      ],
      "the runtime in Pulumi.yaml": [
        () =>
          edit("Pulumi.yaml", "runtime: nodejs", "runtime: { name: nodejs, options: { a: 1 } }"),
        /program +Pulumi\.yaml: runtime: removed, nodejs .*runtime\.name: added, nodejs .*runtime\.options\.a: added, 1/,
      ],
      "a package's version": [
        () => scene.write("package-lock.json", LOCKFILE("7.0.1")),
        /packages +1 package: semver 7\.0\.0 → 7\.0\.1/,
      ],
      "a package's contents under the same version": [
        () => scene.write("package-lock.json", LOCKFILE("7.0.0", "sha512-two")),
        /packages +1 package: semver 7\.0\.0 \(the same version with other contents\)/,
      ],
      "a lockfile without its packages": [
        () => scene.write("package-lock.json", `${LOCKFILE("7.0.0")} `),
        /! unnamed +lockfile moved, and comparing with/,
      ],
      "a secret": [
        () => edit("Pulumi.qa.yaml", CIPHERTEXT, "v1:b3RoZXI="),
        /secrets +settings\.secrets\.SESSION_KEY: changed/,
      ],
      "the key of the secrets": [
        () =>
          scene.write(
            "Pulumi.qa.yaml",
            `encryptionsalt: v1:c2FsdA==\n${scene.read("Pulumi.qa.yaml")}`,
          ),
        /secrets +encryptionsalt: added/,
      ],
      "an imported environment": [
        () =>
          scene.write(
            "Pulumi.qa.yaml",
            `environment: [team/aws@12]\n${scene.read("Pulumi.qa.yaml")}`,
          ),
        /settings +environment\[0\]: added, team\/aws@12/,
      ],
      "the policy": [
        () => edit("Pulumi.qa.yaml", "required: 1", "required: 0"),
        /policy +approval\.required: 1 → 0/,
      ],
      "a suite": [
        () => edit("Pulumi.qa.yaml", "tests@sha256:1", "tests@sha256:2"),
        /verifies +verification\.suites\.smoke\.image: tests@sha256:1 → tests@sha256:2/,
      ],
      "a setting": [
        () => edit("Pulumi.qa.yaml", "LOG_LEVEL: info", "LOG_LEVEL: debug"),
        /settings +settings\.config\.LOG_LEVEL: info → debug/,
      ],
    };
    for (const [title, [change, expected]] of Object.entries(CHANGES)) {
      it(`names ${title}, and is not routine`, async () => {
        change();
        commit();
        const { card } = await previewing([]);
        assert.match(text(), expected);
        assert.match(text(), /since +dev-1, deployed from [0-9a-f]{9}\n/);
        assert.equal(card.routine, false);
        const texts = [JSON.stringify(card), JSON.stringify(cardBlocks(card)), formatCard(card)];
        for (const one of texts) assert.doesNotMatch(one, /c2VjcmV0|b3RoZXI|c2FsdA/);
        const approveRow = `baton approve qa ${(await planOf()).slice(0, 12)}`;
        assert.ok(JSON.stringify(cardBlocks(card)).includes(`\`${approveRow}\``));
        // Again, on another machine, and from git alone.
        scene.printed.length = 0;
        const context = await other("bob");
        await show(context, "qa");
        await approve(context, "qa", await planOf());
        const again = elsewhere().printed.map((one) => one.replace(/\n {12}/g, " "));
        assert.match(again[0] ?? "", expected);
        assert.match(again[1] ?? "", expected);
      });
    }

    it("says of nothing but another image that it is routine", async () => {
      const { card } = await previewing([]);
      assert.equal(card.routine, true);
      assert.match(text(), /settings +unchanged\n/);
      assert.doesNotMatch(text(), /program|packages|unnamed|secrets|policy|verifies/);
      assert.match(text(), /way back +dev-1, with `baton rollback qa`\n/);
    });

    it("shows the release that the stack file asks for, whatever the message says", async () => {
      await askByHand({ tag: "dev-7" });
      scene.as("bob", remote);
      const { card } = (await show(await scene.context(), "qa")) as unknown as { card: ChangeCard };
      assert.equal(card.to.tag, "dev-2");
    });

    it("says of the first deployment that everything is new", async () => {
      scene.git("tag", "--delete", ...scene.tags("outcome"));
      execFileSync("git", ["tag", "--delete", ...scene.tags("approve")], { cwd: remote });
      for (const tag of execFileSync("git", ["tag", "--list", "outcome/*"], {
        cwd: remote,
        encoding: "utf8",
      })
        .split("\n")
        .filter(Boolean)) {
        execFileSync("git", ["tag", "--delete", tag], { cwd: remote });
      }
      scene.pulumi("qa.json", undefined);
      const lines = Array.from(
        { length: 25 },
        (_, index) => `create t:kubernetes:core/v1:Secret s${index}`,
      );
      const { card } = await previewing(
        parseOperations(["create baton:components:Workload w", ...lines]),
      );
      assert.match(text(), /new +everything, 25 objects: nothing was deployed before\n/);
      assert.equal(card.routine, false);
    });

    it("of a pull request names the files that its commit changes, and no code of it runs", async () => {
      scene.git("checkout", "--quiet", "-b", "change");
      scene.write("evil.ts", "evil();\n");
      edit("Pulumi.qa.yaml", "LOG_LEVEL: info", "LOG_LEVEL: debug");
      commit();
      scene.git("checkout", "--quiet", "main");
      scene.printed.length = 0;
      await preview(await scene.context(), "qa", { of: "change" });
      assert.match(text(), /program +1 file: evil\.ts \(added\)/);
      assert.match(text(), /LOG_LEVEL: info → debug/);
      assert.match(text(), /by `baton approve qa PLAN`/);
    });
  });

  describe("right before a deployment", () => {
    const ARRIVALS: Readonly<Record<string, [() => unknown, RegExp]>> = {
      "a rejection": [
        async () => reject(await other("eve"), "qa", { reason: "wrong week" }),
        /rejected by eve@example\.com \(wrong week\)/,
      ],
      "a hold": [
        async () => hold(await other("eve"), "dev-2", { reason: "it loses orders" }),
        /dev-2 is held by eve@example\.com/,
      ],
      "a stop": [
        async () => stop(await other("eve"), { reason: "all hands" }),
        /the line is stopped by eve@example\.com/,
      ],
      "a moved tag": [
        () => scene.registry.tags.set("dev-2", digestOf("build-3")),
        /baton:imageDigest is .*which dev-2 names in the registry/,
      ],
      "another program": [
        () => scene.write("index.ts", "evil();\n"),
        /program moved since the request/,
      ],
      "another request": [
        async () => {
          const context = await other("eve");
          elsewhere().hasDeployed("dev", "build-3", "dev-3");
          await request(context, "qa", {});
        },
        /the request is another since then, of eve@example\.com for dev-3/,
      ],
    };
    for (const [title, [arrive, expected]] of Object.entries(ARRIVALS)) {
      for (const when of ["preview", "question"] as const) {
        it(`${title} that arrives during the ${when} counts`, async () => {
          await ask();
          await approveAs("bob");
          scene.as("ann", remote);
          const context = await scene.context();
          const ups = scene.calls("up").length;
          const shown = context.pulumi.preview.bind(context.pulumi);
          context.pulumi.preview = async (...args) => {
            const result = await shown(...args);
            if (when === "preview") await arrive();
            return result;
          };
          const answer = async () => {
            if (when === "question") await arrive();
            return "y";
          };
          await assert.rejects(
            atTerminal(answer, () => deploy(context, "qa", { yes: when === "preview" })),
            expected,
          );
          assert.equal(scene.calls("up").length, ups);
        });
      }
    }

    it("a deployment by another person during the question is found, and not made again", async () => {
      await ask();
      await approveAs("bob");
      scene.as("ann", remote);
      const context = await scene.context();
      const ups = scene.calls("up").length;
      let answers = 0;
      const answer = async () => {
        answers += 1;
        if (answers === 1) assert.equal((await go()).outcome, "done");
        return "y";
      };
      const report = await atTerminal(answer, () => deploy(context, "qa", {}));
      assert.equal(report.outcome, "done");
      assert.match(printed(), /qa: dev-2 is deployed already/);
      assert.equal(scene.calls("up").length, ups + 1);
      assert.equal(answers, 1);
    });

    it("a freeze that begins during the question counts", async () => {
      const window = {
        name: "night",
        from: "2040-01-01T00:00",
        until: "2040-01-02T00:00",
        timeZone: "UTC",
      };
      edit(
        "Pulumi.qa.yaml",
        "  baton:approval",
        `  baton:freeze: ${JSON.stringify([window])}\n  baton:approval`,
      );
      commit();
      await ask();
      await approveAs("bob");
      scene.as("ann", remote);
      const context = { ...(await scene.context()) };
      const answer = () => {
        Object.assign(context, { now: () => new Date("2040-01-01T12:00:00Z") });
        return "y";
      };
      const report: Report = await atTerminal(answer, () => deploy(context, "qa", {}));
      assert.equal(report.outcome, "waiting");
      assert.match(printed(), /baton:freeze is on until .*night/);
    });

    it("a rejection counts that arrives before Pulumi Deployments is started", async () => {
      await ask("perf");
      scene.git("push", "--quiet", "origin", "main");
      const context = await scene.context();
      const push = context.ledger.push.bind(context.ledger);
      context.ledger.push = async () => {
        const said = await push();
        await reject(await other("eve"), "perf", { reason: "not now" });
        return said;
      };
      await assert.rejects(deploy(context, "perf", { yes: true }), /rejected by eve@example\.com/);
      const started = execFileSync("git", ["tag", "--list", "deploy/*"], { cwd: remote });
      assert.equal(started.toString(), "");
    });
  });

  describe("text of others", () => {
    const hostile = (of: string) => `${of}\u001b[2J\u0007\u202eevil\u2066\u200b\u009b1m\r${of}`;
    const seen = (of: string) => `${of}�[2J��evil���1m ${of}`;
    const image = (revision: string) => ({
      config: { Labels: { "org.opencontainers.image.revision": revision } },
    });
    const deployedTo = (stack: string, imageTag: string, earnedTag: string, revision: string) => {
      const digest = scene.registry.pushImage(image(revision), imageTag, earnedTag);
      const release = { imageTag, digest, earnedTag };
      scene.pulumi(`${stack}.json`, JSON.stringify({ release, earnedTag }));
    };

    it("cannot act on a terminal, whoever wrote it", async () => {
      const former = scene.git("rev-parse", "HEAD");
      scene.write("a\u202ets.b", "evil();\n");
      scene.git("add", ".");
      const author = `${hostile("author").replace("\r", "")} <eve@example.com>`;
      scene.git("commit", "--quiet", `--author=${author}`, "-m", hostile("subject"));
      deployedTo("qa", "dev-1", "qa-1", former);
      deployedTo("dev", "build-2", "dev-2", scene.git("rev-parse", "HEAD"));
      await ask("qa", { notes: `${hostile("notes")}\nqa: approved by everyone` });
      await approveAs("bob");
      scene.pulumi("up-refused", hostile("cluster"));
      await go();
      scene.pulumi("up-refused", undefined);
      scene.as("eve", remote);
      await reject(await scene.context(), "qa", { reason: hostile("rejection") });
      await hold(await scene.context(), "dev-2", { reason: hostile("hold") });
      for (const see of [status, history]) await see(await scene.context());
      await why(await scene.context(), "qa");
      deployedTo("dev", "build-3", "dev-3", hostile("label"));
      await ask();
      scene.pulumi("preview-fails", hostile("preview"));
      await preview(await scene.context(), undefined, { base: `${former}~1` });
      const subjects = ["author", "subject", "notes", "cluster", "rejection", "hold", "label"];
      for (const of of [...subjects, "preview"]) {
        assert.match(text(), new RegExp(`${of}\\S*�+evil`));
      }
      assert.ok(text().includes("a�ts.b (added)"), text());
      assert.doesNotMatch(printed(), UNSEEN);
      assert.doesNotMatch(printed(), /^qa: approved by everyone/m);
    });

    it("cannot act on a terminal from a question, a refusal or progress, nor from JSON", async () => {
      const asked = new PassThrough();
      let question = "";
      asked.on("data", (chunk: Buffer) => (question += chunk.toString()));
      await atTerminal(
        () => "n",
        () => agrees(hostile("question")),
        asked,
      );
      assert.ok(question.includes(seen("question")), question);
      const json = JSON.stringify({ reason: hostile("json"), tag: "\u{e0041}" }, undefined, 2);
      assert.doesNotMatch(plainJson(json).replaceAll("\n", ""), UNSEEN);
      assert.deepEqual(JSON.parse(plainJson(json)), JSON.parse(json));
      const run = spawnSync("node", [...TOOL, "--cwd", scene.folder, "show", hostile("env")], {
        cwd: ROOT,
        encoding: "utf8",
      });
      assert.equal(run.status, 1);
      assert.ok(run.stderr.includes(`ENV is ${seen("env")}`), run.stderr);
    });

    it("cannot mention, link or look like the tool's own in Slack and in pull requests", async () => {
      const markup =
        "<!channel> <@U7> <https://a.example|prod> https://b.example `baton approve prod 0` " +
        "*approval* _routine_ ~no~ :white_check_mark: @here\u202e";
      const shown = mrkdwn(markup);
      assert.doesNotMatch(shown, /[<>`*~\u202e]|(^|\s)_|:white/);
      assert.ok(
        mrkdwn("LOG_LEVEL at 10:15, kubernetes:apps/v1:Deployment").includes("LOG_LEVEL at"),
      );
      const { card } = await ask("qa", { notes: markup });
      const blocks = cardBlocks({ ...card, requester: markup, missing: [markup] });
      const release = { environment: "qa", tag: "dev-2", digest: "sha256:0", who: markup };
      const announced = [
        formatAnnouncement({ kind: "failed", ...release, reason: markup }),
        formatAnnouncement({
          ...{ kind: "requested", ...release, requestId: "1", plan: "0".repeat(64) },
          ...{ requester: markup, approvals: [markup], missing: [markup] },
        }),
      ];
      for (const block of [...blocks, ...announced.flatMap((one) => one.blocks)]) {
        if (block.type !== "section" || block.text?.type !== "mrkdwn") continue;
        assert.equal(block.text.verbatim, true, "no links where none are written");
        // The tool's own marks are whole lines, labels and commands.
        const text = block.text.text
          .replace(/^> |^\*[^*]+\*/gm, "")
          .replace(/`baton (approve|deploy|rollback) [a-z]+( [0-9a-f]{12})?`/g, "");
        assert.doesNotMatch(text, /[<>`*~\u202e]/, text);
      }
    });
  });
});
