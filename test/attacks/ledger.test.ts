import * as assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { rmSync } from "node:fs";
import { join } from "node:path";
import { check } from "../../cli/check";
import type { Context, Report } from "../../cli/context";
import { deploy } from "../../cli/deploy";
import { readFacts } from "../../cli/facts";
import { history } from "../../cli/history";
import { hold, resume, stop, unhold } from "../../cli/hold";
import { request } from "../../cli/request";
import { rollback } from "../../cli/rollback";
import { review } from "../../cli/sign-off";
import { status, type EnvironmentStatus } from "../../cli/status";
import { why } from "../../cli/why";
import { stampOf } from "../../ledger/entries";
import { Ledger, type LedgerOutcome, type Request } from "../../ledger/ledger";
import { Project } from "../../ledger/project";
import { unapproved } from "../../ledger/program-check";
import { formatParts } from "../../release/plan";
import { formatProblems } from "../../release/problem";
import { digestOf, ToolScene } from "../support/tool";

const DEV = "config:\n  baton:imageTag: build-1\n";
const QA = `config:
  baton:upstream: dev
  baton:approval: { required: 1, hotfix: { upstream: dev, required: 1, expiresAfter: 4h } }
`;
const STAGE = "config:\n  baton:upstream: qa\n  baton:soak: 2h\n";
const EVIL = { tag: "dev-9", digest: `sha256:${"e".repeat(64)}` };
const HOUR = 3600_000;

/** A former version of the tool has recorded entries like these, and people with push rights can. */
interface Forgery {
  readonly commit: string;
  readonly result: LedgerOutcome["result"];
  readonly tag: string;
  readonly digest: string;
  readonly request?: Request;
  readonly more?: Readonly<Record<string, string>>;
  /** The time in the ref; now unless given. */
  readonly at?: Date;
  /** The tagger's date; the same as `at` unless given. */
  readonly taggedAt?: Date;
}

describe("what is forged in the ledger", () => {
  let scene: ToolScene;
  let remote: string;
  /** dev-1 and dev-2 were deployed in qa, each with bob's approval. */
  let deployed: () => void;

  before(async () => {
    scene = await ToolScene.open({ dev: DEV, qa: QA, stage: STAGE });
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
  const say = async (person: string) => {
    scene.as(person, remote);
    const ledger = (await scene.context()).ledger;
    const made = (await ledger.request("qa")) ?? assert.fail("no request");
    await ledger.say(made, "approve");
    scene.as("ann", remote);
  };
  const ledger = async () => (await scene.context()).ledger;
  const latest = async () => (await (await ledger()).request("qa")) ?? assert.fail("no request");
  const tag = (name: string, commit: string, message: string, at: Date) => {
    const env = { ...process.env, GIT_COMMITTER_DATE: `@${Math.floor(at.getTime() / 1000)} +0000` };
    const args = ["tag", "-a", "-m", message, name, commit];
    execFileSync("git", args, { cwd: scene.folder, env });
  };
  /** Gives an outcome's tag, here and at the remote. */
  const forge = (forgery: Forgery) => {
    const { commit, result, request: repeated, more = {}, at = new Date() } = forgery;
    const trailers = {
      "Baton-Project": "baton",
      "Baton-Result": result,
      "Baton-Tag": forgery.tag,
      "Baton-Digest": forgery.digest,
      "Baton-Who": "ann@example.com",
      ...(repeated && {
        "Baton-Id": repeated.id,
        "Baton-Plan": repeated.plan,
        "Baton-Parts": formatParts(repeated.parts),
      }),
      ...more,
    };
    const lines = Object.entries(trailers).map(([name, value]) => `${name}: ${value}`);
    const ref = `outcome/baton/qa/${stampOf(at)}`;
    tag(ref, commit, `qa: forged\n\n${lines.join("\n")}\n`, forgery.taggedAt ?? at);
    scene.git("push", "--quiet", "origin", `refs/tags/${ref}`);
    return ref;
  };
  const unmerged = () => {
    scene.git("checkout", "--quiet", "-b", "evil");
    scene.write("Pulumi.qa.yaml", QA.replace("required: 1", "required: 0"));
    scene.git("commit", "--quiet", "--allow-empty", "-am", "Nothing to see here");
    const commit = scene.git("rev-parse", "HEAD");
    scene.git("push", "--quiet", "origin", "evil");
    scene.git("checkout", "--quiet", "main");
    return commit;
  };
  const facts = async () => (await readFacts(await scene.context())).of("qa");
  const digests = () => scene.calls("up").map((config) => config["baton:imageDigest"]);
  const evil = (commit: string, more: Partial<Forgery> = {}): Forgery => ({
    commit,
    result: "deployed",
    ...EVIL,
    ...more,
  });

  describe("as an outcome", () => {
    /** Each leaves forged tags behind; none may count. */
    const FORGERIES: Readonly<Record<string, () => Promise<string[]>>> = {
      "on a commit that is not merged": async () => Promise.resolve([forge(evil(unmerged()))]),
      "on a merged commit that asks for nothing": async () => {
        scene.git("commit", "--quiet", "--allow-empty", "-m", "Merged");
        scene.git("push", "--quiet", "origin", "main");
        return Promise.resolve([forge(evil(scene.git("rev-parse", "HEAD")))]);
      },
      "on a request for another image": async () => {
        const made = await latest();
        return [forge(evil(made.commit, { request: made }))];
      },
      "on a request with another plan or other parts": async () => {
        const made = await latest();
        const { tag, digest, commit } = made;
        const other = { ...made, plan: "0".repeat(64) };
        const parts = { ...made, parts: { ...made.parts, policy: "0".repeat(64) } };
        return [other, parts].map((request, index) =>
          forge({
            commit,
            result: "deployed",
            tag,
            digest,
            request,
            at: new Date(Date.now() + index),
          }),
        );
      },
      "for a request that nobody has approved": async () => {
        scene.hasDeployed("dev", "build-3", "dev-3");
        scene.write(
          "Pulumi.qa.yaml",
          scene.read("Pulumi.qa.yaml").replace("required: 1", "required: 0"),
        );
        await run(request, "qa", {});
        const made = await latest();
        const { commit, tag, digest } = made;
        return [forge({ commit, result: "deployed", tag, digest, request: made })];
      },
      "for a request that was deployed long before": async () => {
        const old = (await facts()).proven.find(({ tag }) => tag === "dev-1");
        const made = await (await ledger()).requestAt("qa", old?.commit ?? "");
        assert.ok(old !== undefined && made?.tag === "dev-1");
        const { commit, tag, digest } = made;
        return [forge({ commit, result: "deployed", tag, digest, request: made })];
      },
      "of a time that is yet to come, or long before its tag": async () => {
        const made = await latest();
        const { commit, tag, digest } = made;
        const one = { commit, result: "deployed", tag, digest, request: made } as const;
        const late = new Date("9999-01-01T00:00:00Z");
        const early = new Date(Date.now() - 10 * HOUR);
        return [
          forge({ ...one, at: late }),
          forge({ ...one, at: new Date(late.getTime() + 1), taggedAt: new Date() }),
          forge({ ...one, at: early, taggedAt: new Date() }),
          forge({ ...one, at: new Date(early.getTime() + 1), taggedAt: early }),
        ];
      },
      "in the words of a former version": async () => {
        const at = new Date();
        const ref = `outcome/qa/${stampOf(at)}`;
        const said = `Baton-Result: deployed\nBaton-Tag: ${EVIL.tag}\nBaton-Digest: ${EVIL.digest}\n`;
        tag(ref, (await latest()).commit, `qa\n\n${said}`, at);
        return [ref];
      },
      "as a way back to what never ran": async () => [
        forge(evil((await latest()).commit, { result: "rolled-back" })),
      ],
    };

    for (const [what, forging] of Object.entries(FORGERIES)) {
      it(`${what} decides nothing`, async () => {
        const { allowedSigners, ...before } = (await facts()).lastDeployed ?? assert.fail();
        const refs = await forging();
        const { proven, doubted, lastDeployed } = await facts();
        assert.deepEqual(
          refs.filter((ref) => proven.some((outcome) => outcome.ref === ref)),
          [],
          "it counts",
        );
        assert.deepEqual(
          [...new Set(refs)].sort(),
          doubted.map(({ outcome }) => outcome.ref).sort(),
          "it is named",
        );
        assert.equal(lastDeployed?.outcome.ref, before.outcome.ref, "what was deployed last");
        assert.equal(lastDeployed.config.approval.required, 1, "the policy in force");
        assert.equal(allowedSigners, "");
      });
    }

    it("all together lead no way back to another image, and history names each", async () => {
      const refs: string[] = [];
      for (const forging of Object.values(FORGERIES)) refs.push(...(await forging()));
      await assert.rejects(run(rollback, "qa", { to: EVIL.tag }), /--to is dev-9; expected a rel/);
      await run(rollback, "qa", {});
      assert.equal(scene.runs("qa")?.["imageTag"], "dev-1");
      assert.ok(!digests().includes(EVIL.digest));
      const { entries } = await run(history, { environment: "qa" });
      const counted = (entries as { doubt?: string }[]).filter(({ doubt }) => doubt === undefined);
      assert.equal(counted.length, 3, "two deployments and the way back");
      const said = scene.printed.join("\n").replace(/\n +/g, " ");
      assert.equal([...said.matchAll(/does not count: \w/g)].length, refs.length);
    });

    it("of a failure is no reason to go back to what it names", async () => {
      scene.hasDeployed("dev", "build-3", "dev-3");
      await run(request, "qa", {});
      await say("bob");
      const made = await latest();
      const { commit, tag, digest } = made;
      const former = `${EVIL.tag} ${EVIL.digest}`;
      const more = { "Baton-Former": former, "Baton-Returning-To": EVIL.tag };
      forge({ commit, result: "failed", tag, digest, request: made, more });
      await run(deploy, "qa", { yes: true });
      assert.ok(!digests().includes(EVIL.digest), "another image was deployed");
      assert.equal(scene.runs("qa")?.["imageTag"], "dev-3");
    });

    it("about a request that was deployed does not change what ran before it", async () => {
      const made = await latest();
      const { commit, tag, digest } = made;
      const more = { "Baton-Former": `${EVIL.tag} ${EVIL.digest}` };
      forge({ commit, result: "deployed", tag, digest, request: made, more });
      await run(rollback, "qa", {});
      assert.ok(!digests().includes(EVIL.digest));
      assert.equal(scene.runs("qa")?.["imageTag"], "dev-1");
    });

    it("does not let a plain `pulumi up` go back without approvals", async () => {
      forge(evil(unmerged()));
      forge(
        evil((await latest()).commit, { request: await latest(), at: new Date(Date.now() + 1) }),
      );
      scene.registry.pushImage({ evil: true }, "dev-9", "qa-9");
      const project = await Project.open(scene.folder);
      const back = project.edit("qa", scene.read("Pulumi.qa.yaml"), {
        imageTag: EVIL.tag,
        imageDigest: EVIL.digest,
        rollbackOf: "dev-2",
      });
      scene.write("Pulumi.qa.yaml", back);
      const { config } = project.parse("qa", back).settings as { config?: unknown };
      assert.equal(config, undefined);
      const given = {
        "baton:upstream": "dev",
        "baton:approval": '{"required":1}',
        "baton:imageTag": EVIL.tag,
        "baton:imageDigest": EVIL.digest,
        "baton:rollbackOf": "dev-2",
        "baton:registry": `{"kind":"oci","repository":"${scene.registry.host}/podinfo","plainHttp":true}`,
      };
      const problems = await unapproved({
        folder: scene.folder,
        environment: "qa",
        given,
        digest: EVIL.digest,
        now: new Date(),
        running: async () => Promise.resolve({ tag: "dev-2", digest: digestOf("dev-2") }),
      });
      assert.match(formatProblems(problems), /others than that release has had here/);
    });

    it("does not end a soak before its time", async () => {
      await run(request, "stage", {});
      const soak = async () => {
        const { terms } = await run(why, "stage");
        return (terms as { name: string; state: string }[]).find(({ name }) => name === "soak");
      };
      assert.equal((await soak())?.state, "waits");
      const made = await latest();
      const { commit, tag, digest } = made;
      const at = new Date(Date.now() - 3 * HOUR);
      forge({ commit, result: "deployed", tag, digest, request: made, at });
      assert.equal((await soak())?.state, "waits");
    });

    it("hides nothing of what really happened", async () => {
      forge(evil(unmerged(), { result: "failed" }));
      const { environments } = await run(status);
      const qa = (environments as EnvironmentStatus[]).find(
        ({ environment }) => environment === "qa",
      );
      assert.deepEqual([qa?.failed, qa?.deployedByHand], [undefined, false]);
    });
  });

  describe("as the end of a hold or a stop", () => {
    const end = (action: "unhold" | "resume", at: Date, commit = "HEAD", taggedAt = at) => {
      const said = [`Baton-Action: ${action}`, `Baton-Project: baton`, "Baton-Reason: fine"];
      const image = [`Baton-Tag: dev-3`, `Baton-Digest: ${digestOf("dev-3")}`];
      const message = `${action}\n\n${[...said, ...image].join("\n")}\n`;
      tag(`hold/baton/${stampOf(at)}`, commit, message, taggedAt);
    };
    const soon = (minutes: number) => new Date(Date.now() + minutes * 60_000);

    for (const [what, forging] of Object.entries({
      "dated 9999": () => end("unhold", new Date("9999-01-01T00:00:00Z")),
      "dated an hour ahead": () => end("unhold", soon(60)),
      "dated a little ahead": () => end("unhold", soon(9)),
      "dated otherwise than its tag": () => end("unhold", soon(9), "HEAD", soon(-60)),
      "on a commit that is not merged": () => end("unhold", soon(0), unmerged()),
    })) {
      it(`${what} takes back no hold, before or after it`, async () => {
        scene.hasDeployed("dev", "build-3", "dev-3");
        if (what.includes("merged")) await run(hold, "dev-3", { reason: "leaks" });
        forging();
        if (!what.includes("merged")) await run(hold, "dev-3", { reason: "leaks" });
        await run(request, "qa", {});
        await say("bob");
        await assert.rejects(run(deploy, "qa", { yes: true }), /dev-3 is held by ann/);
        await run(unhold, "dev-3", { reason: "mended" });
        assert.equal((await run(deploy, "qa", { yes: true })).outcome, "done");
      });
    }

    it("dated 9999 takes back no stop, and history says so", async () => {
      end("resume", new Date("9999-01-01T00:00:00Z"));
      await run(stop, { reason: "audit" });
      scene.hasDeployed("dev", "build-3", "dev-3");
      await run(request, "qa", {});
      await say("bob");
      await assert.rejects(run(deploy, "qa", { yes: true }), /stopped by ann/);
      await run(history);
      assert.match(
        scene.printed.join(" ").replace(/\s+/g, " "),
        /hold\/baton\/99990101T000000.000Z: resume by ann@example.com does not count: dated 9999/,
      );
      await run(resume, { reason: "over" });
      assert.equal((await run(deploy, "qa", { yes: true })).outcome, "done");
    });

    it("and a hold that is dated ahead still holds", async () => {
      const at = new Date("9999-01-01T00:00:00Z");
      const said = `Baton-Action: hold\nBaton-Project: baton\nBaton-Reason: x\nBaton-Digest: ${digestOf("dev-3")}\n`;
      tag(`hold/baton/${stampOf(at)}`, "HEAD", `hold\n\n${said}`, at);
      scene.hasDeployed("dev", "build-3", "dev-3");
      await run(request, "qa", {});
      await say("bob");
      await assert.rejects(run(deploy, "qa", { yes: true }), /dev-3 is held by ann/);
      await assert.rejects(
        run(unhold, "dev-3", { reason: "mended" }),
        /is recorded, and without effect on dev-3; expected an entry that is in force/,
      );
    });
  });

  describe("as a word", () => {
    it("that is older than its request does not count", async () => {
      scene.hasDeployed("dev", "build-3", "dev-3");
      await run(request, "qa", {});
      const made = await latest();
      const said = [`Baton-Project: baton`, `Baton-Id: ${made.id}`, `Baton-Plan: ${made.plan}`];
      scene.as("bob", remote);
      const ref = `approve/baton/qa/${made.plan.slice(0, 12)}/bob-example-com`;
      tag(ref, made.commit, `approve\n\n${said.join("\n")}\n`, new Date(Date.now() - 10 * HOUR));
      scene.as("ann", remote);
      assert.equal((await run(deploy, "qa", { yes: true })).outcome, "waiting");
      assert.match(scene.printed.join("\n"), /bob@example.com \(dated .*, before the request\)/);
    });

    it("signed by a key that has expired does not count, whatever its date", async () => {
      const key = join(scene.folder, ".pulumi/key");
      execFileSync("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-C", "bob", "-f", key]);
      const [type = "", body = ""] = scene.read(".pulumi/key.pub").split(" ");
      const until = stampOf(new Date(Date.now() - 2 * HOUR))
        .replace(/[T]|\..*$/g, "")
        .slice(0, 12);
      scene.write(
        "allowed-signers",
        `bob@example.com namespaces="git",valid-before="${until}Z" ${type} ${body}\n`,
      );
      scene.write(
        "Pulumi.qa.yaml",
        scene.read("Pulumi.qa.yaml").replace("required: 1,", "required: 1, signed: true,"),
      );
      scene.git("add", "allowed-signers");
      scene.git("commit", "--quiet", "-am", "Sign words");
      scene.hasDeployed("dev", "build-3", "dev-3");
      await run(request, "qa", {});
      const made = await latest();
      scene.as("bob", remote);
      scene.git("config", "gpg.format", "ssh");
      scene.git("config", "user.signingKey", key);
      const said = [`Baton-Project: baton`, `Baton-Id: ${made.id}`, `Baton-Plan: ${made.plan}`];
      const env = {
        ...process.env,
        GIT_COMMITTER_DATE: new Date(Date.now() - 3 * HOUR).toISOString(),
      };
      const ref = `approve/baton/qa/${made.plan.slice(0, 12)}/bob-example-com`;
      const args = ["tag", "-s", "-m", `approve\n\n${said.join("\n")}\n`, ref, made.commit];
      execFileSync("git", args, { cwd: scene.folder, env });
      const ledgerNow = new Ledger(await Project.open(scene.folder));
      const check = { signers: [scene.read("allowed-signers")], at: new Date() };
      const [word] = await ledgerNow.words(made, check);
      assert.equal(word?.signature, "bad");
      const then = { ...check, at: new Date(Date.now() - 3 * HOUR) };
      assert.equal((await ledgerNow.words(made, then))[0]?.signature, "good");
    });

    it("in a merge's title is no request", async () => {
      const message = scene.git("log", "-1", "--format=%B", (await latest()).commit);
      scene.git("checkout", "--quiet", "-b", "side", "HEAD~1");
      scene.git("commit", "--quiet", "--allow-empty", "-m", "Work");
      scene.git("checkout", "--quiet", "main");
      const before = (await latest()).commit;
      scene.git("merge", "--quiet", "--no-ff", "-m", message.replaceAll("dev-2", "dev-9"), "side");
      assert.equal((await latest()).commit, before);
    });

    it("of the person who asked for a hotfix is no review of it", async () => {
      scene.hasDeployed("dev", "build-3", "dev-3");
      await run(request, "qa", { hotfix: true });
      await say("bob");
      scene.as("bob", remote);
      await run(deploy, "qa", { yes: true });
      const [hotfix] = (await facts()).proven;
      const stamp = stampOf(hotfix?.at ?? new Date(0));
      for (const person of ["ann", "bob"]) {
        scene.as(person, remote);
        await assert.rejects(run(review, "qa"), /who asked for it or deployed it/);
        // By hand, past the command.
        await (await ledger()).sayNamed("review", "qa", [stamp]);
      }
      const open = async () => {
        const { environments } = await run(status);
        return (environments as EnvironmentStatus[]).find(({ environment }) => environment === "qa")
          ?.unreviewed.length;
      };
      assert.equal(await open(), 1);
      scene.as("eve", remote);
      await run(review, "qa");
      assert.equal(await open(), 0);
    });
  });

  describe("by a change to the policy", () => {
    const policy = (from: string | RegExp, to: string) => {
      const text = scene.read("Pulumi.qa.yaml");
      assert.notEqual(text.replace(from, to), text);
      scene.write("Pulumi.qa.yaml", text.replace(from, to));
      scene.git("commit", "--quiet", "-am", "Another policy");
      scene.git("push", "--quiet", "origin", "main");
    };
    const next = async () => {
      scene.hasDeployed("dev", "build-3", "dev-3");
      await run(request, "qa", {});
    };

    it("that asks for nobody's word, the former number is still asked for", async () => {
      policy("required: 1,", "required: 0,");
      await next();
      assert.equal((await run(deploy, "qa", { yes: true })).outcome, "waiting");
      await say("bob");
      assert.equal((await run(deploy, "qa", { yes: true })).outcome, "done");
    });

    it("that asks for more, more is asked for at once", async () => {
      policy("required: 1,", "required: 2,");
      await next();
      await say("bob");
      assert.equal((await run(deploy, "qa", { yes: true })).outcome, "waiting");
      await say("eve");
      assert.equal((await run(deploy, "qa", { yes: true })).outcome, "done");
    });

    it("that names people, only those count whom no commit has removed since", async () => {
      policy("required: 1,", "required: 1, from: [bob@example.com, eve@example.com],");
      await next();
      await say("bob");
      assert.equal((await run(deploy, "qa", { yes: true })).outcome, "done");
      // Bob has left, and is put back by a later commit.
      policy("[bob@example.com, eve@example.com]", "[eve@example.com]");
      policy("[eve@example.com]", "[bob@example.com, eve@example.com, mia@example.com]");
      scene.hasDeployed("dev", "build-4", "dev-4");
      await run(request, "qa", {});
      for (const person of ["bob", "mia"]) {
        await say(person);
        assert.equal((await run(deploy, "qa", { yes: true })).outcome, "waiting", person);
      }
      await say("eve");
      assert.equal((await run(deploy, "qa", { yes: true })).outcome, "done");
    });

    it("that removes a scan, the scan is still asked for", async () => {
      policy("config:\n", "config:\n  baton:scan: { refuse: high }\n");
      await next();
      await say("bob");
      await assert.rejects(run(check, "qa"), /the image's scan is/);
      // As if it had been deployed with a scan that is fine; then the scan is taken out.
      const made = await latest();
      const { commit, tag, digest, id, plan, parts, hotfix } = made;
      const said = { environment: "qa", commit, tag, digest, request: id, plan, parts, hotfix };
      await (await ledger()).record({ ...said, result: "deployed" }, new Date());
      policy("  baton:scan: { refuse: high }\n", "");
      scene.hasDeployed("dev", "build-4", "dev-4");
      await run(request, "qa", {});
      await say("bob");
      await assert.rejects(run(deploy, "qa", { yes: true }), /the image's scan is/);
    });
  });

  it("cannot be told apart where the history is cut off, so nothing goes forward", async () => {
    const clone = join(scene.folder, ".pulumi/shallow");
    rmSync(clone, { recursive: true, force: true });
    scene.git("push", "--quiet", "origin", "--tags");
    scene.git("commit", "--quiet", "--allow-empty", "-m", "Later");
    scene.git("push", "--quiet", "origin", "main");
    execFileSync("git", ["clone", "--quiet", "--depth=1", `file://${remote}`, clone]);
    execFileSync("git", ["fetch", "--quiet", "origin", "refs/tags/outcome/*:refs/tags/outcome/*"], {
      cwd: clone,
    });
    execFileSync("git", ["fetch", "--quiet", "--depth=1", "origin", "main"], { cwd: clone });
    const shallow = execFileSync("git", ["rev-parse", "--is-shallow-repository"], { cwd: clone });
    assert.equal(String(shallow).trim(), "true");
    const given = { "baton:upstream": "dev", "baton:approval": '{"required":0}' };
    const registry = `{"kind":"oci","repository":"${scene.registry.host}/podinfo","plainHttp":true}`;
    const checked = unapproved({
      folder: clone,
      environment: "qa",
      given: { ...given, "baton:registry": registry },
      digest: EVIL.digest,
      now: new Date(),
      running: async () => Promise.resolve(undefined),
    });
    await assert.rejects(checked, /the git history is cut off before what was deployed last/);
  });
});
