import * as assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pipeline, type PipelineOptions } from "../../cli/pipeline";
import { preview, type Previewed } from "../../cli/preview";
import { publish } from "../../cli/publish";
import { approveLatest } from "../support/approve";
import { ToolScene } from "../support/tool";

const STACKS = {
  dev: "config:\n  baton:settings: { config: { LEVEL: debug } }\n",
  qa: "config:\n  baton:upstream: dev\n",
  prod: "config:\n  baton:upstream: qa\n  baton:versioned: true\n  baton:approval: { required: 1 }\n",
};
const FLOW = `application: app
protected: { dev: dev, qa: qa }
rows:
  - { branch: dev, build: true, promote: dev }
  - { branch: feature/*, build: true }
  - { branch: qa, promote: qa }
  - { tag: "v{version}", on: main, promote: prod, pullRequest: dev }
`;
const REVISION = "org.opencontainers.image.revision";

describe("baton pipeline", () => {
  let scene: ToolScene;
  let remote: string;
  let begun: () => void;
  before(async () => {
    scene = await ToolScene.open(STACKS);
    scene.registry.tags.clear();
    mkdirSync(join(scene.folder, "pipelines"));
    mkdirSync(join(scene.folder, "app"));
    scene.write("pipelines/flow.yaml", FLOW);
    change("one");
    remote = `${scene.folder}.git`;
    execFileSync("git", ["clone", "--quiet", "--bare", scene.folder, remote]);
    scene.as("ann", remote);
    for (const branch of ["dev", "qa"]) scene.git("branch", "--quiet", branch);
    scene.git("push", "--quiet", "origin", "dev", "qa", "main");
    begun = scene.keep(remote);
  });
  beforeEach(() => begun());
  after(async () => {
    rmSync(remote, { recursive: true, force: true });
    await scene.remove();
  });

  /** A commit of the application. */
  const change = (content: string): string => {
    scene.write("app/main.txt", content);
    return commit(content);
  };
  const commit = (message: string): string => {
    scene.git("add", ".");
    scene.git("commit", "--quiet", "--allow-empty", "-m", message);
    return scene.git("rev-parse", "HEAD");
  };
  /** Says that a build of a revision was pushed, or has come so far. */
  const image = (revision: string, ...tags: string[]) =>
    scene.registry.pushImage({ config: { Labels: { [REVISION]: revision } }, tags }, ...tags);
  const checkout = (branch: string) => scene.git("checkout", "--quiet", branch);
  const push = () => scene.git("push", "--quiet", "origin", "HEAD");
  const run = async (ref: string, options: PipelineOptions = {}) =>
    pipeline(await scene.context(), ref, options);
  const atRemote = (file: string, branch: string) =>
    execFileSync("git", ["show", `${branch}:${file}`], { cwd: remote, encoding: "utf8" });
  /** Carries what `dev` holds as far as qa has verified it; gives the revision. */
  const carried = (number: number): string => {
    const revision = scene.git("rev-parse", "dev");
    image(revision, `build-${number}`, `dev-${number}`, `qa-${number}`);
    return revision;
  };

  describe("of a branch that is built", () => {
    it("promotes the build it is given, and pushes the request before and the outcome after", async () => {
      checkout("dev");
      image(change("two"), "build-7");
      push();
      const report = await run("refs/heads/dev", { tag: "build-7" });
      assert.equal(report.outcome, "done", scene.printed.join("\n"));
      assert.equal(scene.runs("dev")?.["imageTag"], "build-7");
      assert.match(atRemote("Pulumi.dev.yaml", "dev"), /baton:imageTag: build-7/);
      assert.deepEqual(scene.results("dev"), ["deployed build-7"]);
    });

    it("does it once, and again for settings that have changed", async () => {
      checkout("dev");
      image(change("two"), "build-7");
      push();
      await run("refs/heads/dev", { tag: "build-7" });
      const head = scene.git("rev-parse", "HEAD");
      assert.equal((await run("refs/heads/dev", { tag: "build-7" })).outcome, "done");
      assert.equal(scene.git("rev-parse", "HEAD"), head);
      assert.match(scene.printed.at(-1) ?? "", /build-7 is deployed already/);
      scene.write("Pulumi.dev.yaml", scene.read("Pulumi.dev.yaml").replace("debug", "info"));
      commit("Quieter");
      push();
      await run("refs/heads/dev", { tag: "build-7" });
      assert.equal(scene.calls("up").length, 2);
    });

    it("does not go round in a circle: what was built of its own request is nothing new", async () => {
      checkout("dev");
      image(change("two"), "build-7");
      push();
      await run("refs/heads/dev", { tag: "build-7" });
      image(scene.git("rev-parse", "HEAD"), "build-8");
      const report = await run("refs/heads/dev", { tag: "build-8" });
      assert.equal(report.outcome, "done");
      assert.equal(scene.calls("up").length, 1);
      assert.match(scene.printed.at(-1) ?? "", /built of a request for dev itself/);
    });

    it("needs a build that is there", async () => {
      checkout("dev");
      await assert.rejects(
        run("refs/heads/dev"),
        /--tag is not set; expected the build of this push/,
      );
      await assert.rejects(run("refs/heads/dev", { tag: "build-9" }), /does not have/);
    });

    it("may promote nothing", async () => {
      const report = await run("refs/heads/feature/x", { tag: "build-7" });
      assert.equal(report.outcome, "done");
      assert.equal(scene.calls("preview").length, 0);
    });
  });

  describe("of a merge", () => {
    it("promotes the newest release whose revision it contains", async () => {
      checkout("dev");
      const contained = change("two");
      checkout("qa");
      scene.git("merge", "--quiet", "--no-ff", "-m", "Merge dev", "dev");
      push();
      checkout("dev");
      const later = change("three");
      checkout("qa");
      image(contained, "dev-9");
      image(contained, "dev-10");
      image(later, "dev-11");
      image("0".repeat(40), "dev-12");
      image("not a revision; --all", "dev-13");
      const report = await run("refs/heads/qa");
      assert.equal(report.outcome, "done", scene.printed.join("\n"));
      assert.equal(report["tag"], "dev-10");
    });

    it("says what it has passed over, and why, where there is none", async () => {
      checkout("dev");
      image(change("two"), "dev-11");
      image("0".repeat(40), "dev-12");
      checkout("qa");
      await assert.rejects(
        run("refs/heads/qa"),
        /nothing that dev has verified \(dev-12 is of 000000000, which is not in this repository; dev-11 is of \w{9}, which is not part of it\)/,
      );
    });

    it("is not told which", async () => {
      checkout("qa");
      await assert.rejects(run("refs/heads/qa", { tag: "dev-1" }), /--tag is dev-1; expected none/);
    });
  });

  describe("of a version", () => {
    const tag = (name: string, ...args: string[]) => {
      scene.git("tag", "-a", "-m", name, name, ...args);
      scene.git("push", "--quiet", "origin", name);
    };

    it("asks for the image of the tagged commit, and waits", async () => {
      carried(6);
      checkout("main");
      tag("v1.0.0");
      const report = await run("refs/tags/v1.0.0");
      assert.equal(report.outcome, "waiting", scene.printed.join("\n"));
      assert.deepEqual(report["pullRequest"], { from: "main", to: "dev" });
      assert.match(atRemote("Pulumi.prod.yaml", "main"), /imageTag: qa-6\n[^]*version: v1.0.0/);
      assert.match(scene.printed.at(-1) ?? "", /^prod: waiting\. The tag of the last approval/);
      assert.equal(scene.calls("up").length, 0);
    });

    it("takes an earlier commit with the same application, and never merely the newest", async () => {
      const built = carried(6);
      checkout("dev");
      const other = change("two");
      image(other, "qa-7");
      checkout("main");
      scene.write("README.md", "more");
      commit("Words only");
      push();
      tag("v1.0.0");
      const report = await run("refs/tags/v1.0.0");
      assert.equal(report["tag"], "qa-6", built);
    });

    it("is refused where nothing of its application is verified", async () => {
      carried(6);
      checkout("main");
      change("two");
      push();
      tag("v1.0.0");
      await assert.rejects(
        run("refs/tags/v1.0.0"),
        /nothing that qa has verified \(qa-6 is of \w{9}, whose application is another one\)/,
      );
      assert.equal(scene.calls("preview").length, 0);
    });

    it("is refused on a commit that is not on the branch", async () => {
      checkout("dev");
      change("two");
      carried(6);
      push();
      tag("v1.0.0");
      checkout("main");
      await assert.rejects(
        run("refs/tags/v1.0.0"),
        /which is not on main; expected a commit of main/,
      );
    });

    it("says who asks, whoever runs the pipeline", async () => {
      carried(6);
      checkout("main");
      scene.as("bob", remote);
      tag("v1.0.0");
      scene.as("robot", remote);
      await run("refs/tags/v1.0.0");
      assert.equal(scene.git("log", "-1", "--format=%ae %ce"), "bob@example.com robot@example.com");
    });

    it("is refused where a tag does not say who gave it, and others have to approve", async () => {
      carried(6);
      checkout("main");
      scene.git("tag", "v1.0.0");
      await assert.rejects(
        run("refs/tags/v1.0.0"),
        /expected an annotated tag, as nobody approves/,
      );
    });

    it("is deployed once it is approved, where the protected branch is checked out", async () => {
      carried(6);
      checkout("main");
      tag("v1.0.0");
      await run("refs/tags/v1.0.0");
      scene.as("bob", remote);
      const { ref } = await approveLatest(await scene.context(), "prod");
      const branch = /the checkout is .*; expected main, its protected branch\. Start the job on/;
      scene.git("checkout", "--quiet", "--detach", `refs/tags/${String(ref)}^{commit}`);
      await assert.rejects(run("prod"), branch);
      scene.git("checkout", "--quiet", "-b", "feature/x", "main");
      await assert.rejects(run("prod"), branch);
      checkout("main");
      const report = await run("prod");
      assert.equal(report.outcome, "done", scene.printed.join("\n"));
      assert.equal(scene.runs("prod")?.["version"], "v1.0.0");
      assert.match(
        execFileSync("git", ["tag"], { cwd: remote, encoding: "utf8" }),
        /^outcome\/baton\/prod\//m,
      );
    });
  });

  describe("refuses", () => {
    it("what the table has no row for", async () => {
      await assert.rejects(
        run("refs/heads/other"),
        /other: the branch is without a row in pipelines\/flow.yaml; expected branch dev, branch fe/,
      );
      await assert.rejects(
        run("heads/dev"),
        /REF is heads\/dev; expected refs\/heads\/ and a branch/,
      );
    });

    it("a checkout that could not keep the request", async () => {
      checkout("main");
      await assert.rejects(run("refs/heads/qa"), /the checkout is main; expected the branch qa/);
      scene.git("checkout", "--quiet", "--detach", "qa");
      await assert.rejects(run("refs/heads/qa"), /the checkout is of a commit by itself/);
    });

    it("to deploy what could not be pushed", async () => {
      carried(6);
      writeFileSync(join(remote, "hooks/pre-receive"), "#!/bin/sh\nexit 1\n", { mode: 0o755 });
      checkout("qa");
      await assert.rejects(run("refs/heads/qa"), /the request is not pushed \(.*pre-receive hook/);
      assert.equal(scene.calls("up").length, 0);
    });

    it("a table that is missing or is none", async () => {
      scene.write("pipelines/flow.yaml", "rows: [");
      await assert.rejects(
        run("refs/heads/qa"),
        /pipelines\/flow.yaml: the file is .*expected YAML/,
      );
      rmSync(join(scene.folder, "pipelines/flow.yaml"));
      await assert.rejects(run("refs/heads/qa"), /the file is missing or empty/);
    });
  });
});

describe("baton preview", () => {
  let scene: ToolScene;
  let begun: () => void;
  before(async () => {
    scene = await ToolScene.open(STACKS);
    scene.git("checkout", "--quiet", "-b", "change");
    begun = scene.keep();
  });
  beforeEach(() => begun());
  after(async () => scene.remove());

  const change = (file: string, text: string) => {
    scene.write(file, text);
    scene.git("add", file);
    scene.git("commit", "--quiet", "-m", file);
  };
  const run = async () => {
    const report = await preview(await scene.context(), undefined, { base: "main" });
    return { ...report, environments: report["environments"] as readonly Previewed[] };
  };

  it("shows what differs from the base, and writes nothing", async () => {
    change("Pulumi.dev.yaml", STACKS.dev.replace("debug", "info"));
    const head = scene.git("rev-parse", "HEAD");
    const { outcome, environments } = await run();
    assert.equal(outcome, "done");
    assert.deepEqual(
      environments.map(({ environment, card }) => [environment, card?.moved?.settings]),
      [["dev", [{ path: "settings.config.LEVEL", kind: "changed", from: "debug", to: "info" }]]],
    );
    assert.equal(scene.git("rev-parse", "HEAD"), head);
    assert.equal(scene.git("status", "--short"), "");
    assert.deepEqual(scene.git("tag"), "");
  });

  it("leaves alone what the base alone has changed, and shows all for what all share", async () => {
    scene.git("checkout", "--quiet", "main");
    change("Pulumi.qa.yaml", `${STACKS.qa}  baton:quota: { pods: 5 }\n`);
    scene.git("checkout", "--quiet", "change");
    assert.deepEqual((await run()).environments, []);
    change("Pulumi.yaml", scene.read("Pulumi.yaml").replace("podinfo", "orders"));
    const all = (await run()).environments.map(({ environment }) => environment);
    assert.deepEqual(all, ["dev", "qa", "prod"]);
  });

  it("says which previews fail, and shows the others", async () => {
    change("Pulumi.yaml", scene.read("Pulumi.yaml").replace("podinfo", "orders"));
    scene.pulumi("preview-fails", "baton:quota is too small");
    const { outcome, environments } = await run();
    assert.equal(outcome, "refused");
    assert.ok(environments.every(({ problem }) => problem === "baton:quota is too small"));
  });

  describe("of another commit", () => {
    const of = async (environment: string, commit: string) => {
      const report = await preview(await scene.context(), environment, { of: commit });
      const [previewed] = report["environments"] as readonly Previewed[];
      return { ...report, ...previewed };
    };
    const files = () => scene.calls("preview").length;
    beforeEach(() => scene.git("checkout", "--quiet", "main"));
    const onChange = (file: string, text: string) => {
      scene.git("checkout", "--quiet", "change");
      change(file, text);
      scene.git("checkout", "--quiet", "main");
    };

    it("takes the environment's stack file, and no other file", async () => {
      onChange("Pulumi.dev.yaml", STACKS.dev.replace("debug", "info"));
      const alone = await of("dev", "change");
      assert.equal(alone.card?.notes, "");
      onChange("Pulumi.yaml", scene.read("Pulumi.yaml").replace("podinfo", "orders"));
      onChange("package.json", '{ "scripts": { "preinstall": "touch ran" } }\n');
      const { outcome, card } = await of("dev", "change");
      assert.equal(outcome, "done");
      assert.deepEqual(card?.moved?.settings, [
        { path: "settings.config.LEVEL", kind: "changed", from: "debug", to: "info" },
      ]);
      assert.match(card.notes ?? "", /^Other files that the commit changes are not part of this/);
      const given = scene.calls("preview").at(-1)?.["baton:settings"];
      assert.deepEqual(given, { config: { LEVEL: "info" } });
      assert.equal(scene.git("status", "--short"), "");
    });

    it("shows what it would change on top of what the protected branch has by now", async () => {
      const lines =
        "config:\n  baton:upstream: dev\n  baton:soak: 1h\n  # as it was\n  # for long\n  baton:quota: { pods: 5 }\n";
      change("Pulumi.qa.yaml", lines);
      scene.git("branch", "--quiet", "--force", "change");
      onChange("Pulumi.qa.yaml", lines.replace("pods: 5", "pods: 6"));
      change("Pulumi.qa.yaml", lines.replace("1h", "2h"));
      const { card } = await of("qa", "change");
      assert.deepEqual(
        card?.moved?.settings.map(({ path }) => path),
        ["quota.pods"],
      );
      change("Pulumi.qa.yaml", lines.replace("pods: 5", "pods: 7"));
      assert.match((await of("qa", "change")).problem ?? "", /is in conflict with the branch/);
    });

    const FOREIGN = {
      "a provider's configuration": [
        "kubernetes:kubeconfig",
        (text: string) =>
          `${text}  kubernetes:kubeconfig: "users: [{ user: { exec: { command: sh } } }]"\n`,
      ],
      "a key that is not the environment's": [
        "secretsprovider",
        (text: string) => `secretsprovider: hashivault://evil.example.com\n${text}`,
      ],
      "an environment that Pulumi imports": [
        "environment",
        (text: string) => `environment: [evil]\n${text}`,
      ],
    } as const;
    for (const [what, [key, edit]] of Object.entries(FOREIGN)) {
      it(`is refused with ${what}, before Pulumi is started`, async () => {
        onChange("Pulumi.dev.yaml", edit(STACKS.dev));
        const before = files();
        const { outcome, problem = "" } = await of("dev", "change");
        assert.equal(outcome, "refused");
        assert.match(problem, new RegExp(`^dev: Pulumi.dev.yaml is different in ${key}; expected`));
        assert.equal(files(), before);
      });
    }

    it("is refused without the file, and for what is no commit", async () => {
      scene.git("checkout", "--quiet", "change");
      scene.git("rm", "--quiet", "Pulumi.dev.yaml");
      scene.git("commit", "--quiet", "-m", "Remove dev");
      scene.git("checkout", "--quiet", "main");
      assert.match((await of("dev", "change")).problem ?? "", /Pulumi.dev.yaml is removed/);
      await assert.rejects(of("dev", "--all"), /--of is --all; expected a commit/);
      const neither = preview(await scene.context(), "dev", {});
      await assert.rejects(neither, /preview is ambiguous; expected --base COMMIT, or ENV --of/);
    });
  });

  it("needs a base that it has a history with", async () => {
    const asked = preview(await scene.context(), undefined, { base: "--all" });
    await assert.rejects(asked, /--base is --all; expected a commit/);
  });
});

describe("baton publish", () => {
  let scene: ToolScene;
  let begun: () => void;
  before(async () => {
    scene = await ToolScene.open(STACKS);
    scene.registry.tags.clear();
    // Says what it was told, and pushes an image with the label it is asked for.
    writeFileSync(
      join(scene.folder, ".pulumi/bin/docker"),
      `#!/bin/sh
echo "$@" >> ${scene.folder}/docker.log
case $1 in image) cat ${scene.folder}/revision ;; push) curl -fsS -X PUT -H content-type:x -d '{}' http://\${3%%/*}/v2/podinfo/manifests/\${3##*:} ;; esac
`,
      { mode: 0o755 },
    );
    scene.write("revision", `${"a".repeat(40)}\n`);
    begun = scene.keep();
  });
  beforeEach(() => begun());
  after(async () => scene.remove());

  const run = async (tag: string) =>
    publish(await scene.context(), tag, { image: "app:candidate" });

  it("pushes a build once", async () => {
    const { digest, ...report } = await run("build-7");
    assert.deepEqual(report, {
      outcome: "done",
      tag: "build-7",
      revision: "a".repeat(40),
      pushed: true,
    });
    assert.equal(scene.registry.tags.get("build-7"), digest);
    const name = `${scene.registry.host}/podinfo:build-7`;
    const said = scene.read("docker.log").trim().split("\n").slice(1);
    assert.deepEqual(said, [`tag app:candidate ${name}`, `push --quiet ${name}`]);
  });

  it("leaves the same revision as it is, and refuses another", async () => {
    const Labels = (revision: string) => ({ config: { Labels: { [REVISION]: revision } } });
    scene.registry.pushImage(Labels("a".repeat(40)), "build-7");
    assert.equal((await run("build-7"))["pushed"], false);
    const name = `${scene.registry.host}/podinfo:build-7`;
    assert.deepEqual(scene.read("docker.log").trim().split("\n").slice(1), [
      `pull --quiet ${name}`,
      `tag ${name} app:candidate`,
    ]);
    scene.registry.pushImage(Labels("b".repeat(40)), "build-8");
    await assert.rejects(run("build-8"), /holding it already, built from b+; expected no such tag/);
    assert.doesNotMatch(scene.read("docker.log"), /^push/m);
  });

  it("needs an image that says what it was built of", async () => {
    scene.write("revision", "<no value>\n");
    await assert.rejects(
      run("build-7"),
      /its label org\.opencontainers.* is not set; expected the commit/,
    );
  });
});
