import * as assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { approve } from "../../cli/approve";
import { commitsBetween } from "../../cli/commits";
import type { Context, Report } from "../../cli/context";
import { deploy } from "../../cli/deploy";
import { history } from "../../cli/history";
import { hold, unhold } from "../../cli/hold";
import { preview } from "../../cli/preview";
import { request } from "../../cli/request";
import { rollback } from "../../cli/rollback";
import { Ledger } from "../../ledger/ledger";
import { Project } from "../../ledger/project";
import { unapproved } from "../../ledger/program-check";
import { hashProgram } from "../../ledger/program-files";
import { REVISION } from "../../registry/images";
import { approveLatest } from "../support/approve";
import { ToolScene } from "../support/tool";

const DEV = "config:\n  baton:imageTag: build-1\n";
const QA = `config:
  baton:upstream: dev
  baton:approval: { required: 1 }
  baton:settings: { config: { LOG_LEVEL: info, CITY: Zürich } }
`;

/** In the user's own file, for all repositories. FOLDER has hooks, attributes and lists of names. */
const GLOBAL = String.raw`
[core]
  attributesFile = FOLDER/attributes
  commentChar = B
  excludesFile = FOLDER/everything
  ignoreStat = true
  quotePath = true
  safecrlf = true
  autocrlf = true
  editor = false
  pager = false
[filter "hostile"]
  clean = sed s/info/trace/
  required = true
[i18n]
  commitEncoding = ISO-8859-1
  logOutputEncoding = UTF-16
[log]
  showSignature = true
  follow = true
  date = format:never
  decorate = full
[format]
  pretty = oneline
[grep]
  patternType = fixed
[color]
  ui = always
  advice = always
  push = always
  remote = always
  status = always
  transport = always
[column]
  ui = always
[status]
  showUntrackedFiles = no
  short = true
  branch = true
[diff]
  external = false
  noprefix = true
  orderFile = FOLDER/nowhere
  renames = copies
[mailmap]
  file = FOLDER/mailmap
[alias]
  log = !false
  commit = !false
  tag = !false
[commit]
  gpgSign = true
  cleanup = strip
  template = FOLDER/nowhere
  verbose = true
[tag]
  gpgSign = true
  forceSignAnnotated = true
  sort = -creatordate
[push]
  gpgSign = true
  followTags = true
  default = nothing
  pushOption = ci.skip
  recurseSubmodules = only
[fetch]
  prune = true
  pruneTags = true
  output = compact
  recurseSubmodules = true
[submodule]
  recurse = true
[gpg]
  program = false
  minTrustLevel = ultimate
[init]
  templateDir = FOLDER
[gc]
  auto = 1
  autoDetach = false
  pruneExpire = now
[trace2]
  normalTarget = 1
[remote "phantom"]
  prune = true
`;

/** In the checkout's own file. */
const LOCAL = `
[core]
  hooksPath = FOLDER
  fsmonitor = FOLDER/fsmonitor
[remote "origin"]
  prune = true
  pruneTags = true
  tagOpt = --tags
  mirror = true
  push = refs/heads/*:refs/heads/copies/*
  fetch = +refs/tags/*:refs/tags/*
  fetch = +refs/heads/*:refs/heads/copies/*
`;

/** As in a hook of another repository, and as \`git -c\` gives its settings to what it starts. */
const VARIABLES = {
  GIT_DIR: "/nowhere",
  GIT_WORK_TREE: "/nowhere",
  GIT_INDEX_FILE: "/nowhere",
  GIT_OBJECT_DIRECTORY: "/nowhere",
  GIT_NAMESPACE: "elsewhere",
  GIT_SHALLOW_FILE: "/nowhere",
  GIT_EXTERNAL_DIFF: "false",
  GIT_EDITOR: "false",
  GIT_PAGER: "false",
  GIT_DEFAULT_HASH: "sha256",
  GIT_TRACE: "1",
  GIT_CONFIG_COUNT: "1",
  GIT_CONFIG_KEY_0: "grep.extendedRegexp",
  GIT_CONFIG_VALUE_0: "true",
  GIT_CONFIG_PARAMETERS: "'fetch.prune=true' 'grep.patterntype'='fixed' 'color.ui=always'",
};

const HOOKS = [
  ...["applypatch-msg", "commit-msg", "pre-commit", "prepare-commit-msg", "pre-push"],
  ...["fsmonitor", "post-commit", "reference-transaction"],
];

/** Undoes what a test has set in the environment of this process. */
async function within<T>(
  variables: Readonly<Record<string, string>>,
  action: () => Promise<T>,
): Promise<T> {
  const before = process.env;
  process.env = { ...before, ...variables };
  try {
    return await action();
  } finally {
    process.env = before;
  }
}

/** A scene with a remote, in which the tool meets a user's own git configuration. */
class UserScene {
  readonly seen: unknown[] = [];
  private readonly folder = mkdtempSync(join(tmpdir(), "baton-test-"));
  private readonly remote = join(this.folder, "remote.git");
  private readonly variables: Readonly<Record<string, string>>;

  constructor(
    readonly scene: ToolScene,
    private readonly hostile: boolean,
  ) {
    for (const name of HOOKS) {
      // The one says that no file has changed; the others refuse.
      const does = name === "fsmonitor" ? String.raw`printf 'token\0'` : "exit 1";
      writeFileSync(join(this.folder, name), `#!/bin/sh\n${does}\n`);
      chmodSync(join(this.folder, name), 0o755);
    }
    writeFileSync(join(this.folder, "attributes"), "* filter=hostile\n");
    writeFileSync(join(this.folder, "everything"), "*\n");
    writeFileSync(join(this.folder, "mailmap"), "Nobody <nobody@example.com> <ann@example.com>\n");
    const config = join(this.folder, "gitconfig");
    writeFileSync(config, hostile ? GLOBAL.replaceAll("FOLDER", this.folder) : "");
    this.variables = { GIT_CONFIG_GLOBAL: config, ...(hostile ? VARIABLES : {}) };
    scene.git("init", "--quiet", "--bare", "--initial-branch=main", this.remote);
    this.as("ann");
    this.git("push", "--quiet", "origin", "main:main");
  }

  remove(): void {
    rmSync(this.folder, { recursive: true });
  }

  as(person: string): void {
    this.scene.as(person, this.remote);
    const config = this.scene.read(".git/config");
    const local = this.hostile ? LOCAL.replaceAll("FOLDER", this.folder) : "";
    this.scene.write(".git/config", config + local);
  }

  /** Git without any configuration but that of the repository's remote. */
  git(...args: string[]): string {
    const local = ["-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false"];
    const mirror = ["-c", "remote.origin.mirror=false"];
    const env = { ...process.env, GIT_CONFIG_GLOBAL: "/dev/null" };
    const options = { cwd: this.scene.folder, env, encoding: "utf8" } as const;
    return execFileSync("git", [...local, ...mirror, ...args], options).trim();
  }

  /** Runs a command under the user's configuration; sees how it ended, and all that it said. */
  async run(command: (context: Context) => Promise<Report>): Promise<void> {
    const { scene } = this;
    scene.printed.length = 0;
    await within(this.variables, async () => {
      const context = await scene.context();
      const ended = await command(context).then(({ outcome }) => outcome, String);
      this.seen.push(plain([ended, ...scene.printed, ...context.notes].join("\n")));
    });
  }

  async away(action: () => Promise<void>): Promise<void> {
    renameSync(this.remote, `${this.remote}.away`);
    await action();
    renameSync(`${this.remote}.away`, this.remote);
  }

  /** Sees all refs, here and at the remote, and what the commits and tags hold. */
  look(): void {
    const format = "--format=%(refname) %(objecttype) %(objectname)";
    const own = this.git("for-each-ref", format).split("\n");
    const there = this.git("--git-dir", this.remote, "for-each-ref", format);
    const objects = own.map((line) => {
      const [ref = "", type = "", id = ""] = line.split(" ");
      return `${ref} ${type}\n${type === "tag" ? this.git("cat-file", "tag", id) : ""}`;
    });
    const commits = this.git("rev-list", "--topo-order", "HEAD")
      .split("\n")
      .flatMap((id) => [this.git("cat-file", "commit", id), this.git("ls-tree", "-r", id)]);
    // A plan's hash differs from run to run, and with it the order of refs.
    const refs = [objects, there.split("\n")].flatMap((texts) => texts.map(plain).sort());
    this.seen.push([...refs, ...commits.map(plain)].join("\n"));
    this.seen.push(this.git("status", "--porcelain"));
  }
}

/** Without what differs from run to run. */
function plain(text: string): string {
  return text
    .replace(/\/\S*baton-test-\w+/g, "FOLDER")
    .replace(/\d{8}T\d{6}\.\d{3}Z/g, "TIME")
    .replace(/\b\d{10} \+\d{4}/g, "DATE")
    .replace(/\d{4}-\d\d-\d\d \d\d:\d\d/g, "TIME")
    .replace(/127\.0\.0\.1:\d+/g, "HOST")
    .replace(/\b(?=[0-9a-f]*\d)[0-9a-f]{7,64}\b/g, "HASH")
    .replace(/HASH-[0-9a-f-]+/g, "ID")
    .replace(/^(Baton-Waited: \S+) \d+$/gm, "$1 SECONDS")
    .replace(/\(\d+ s\)/g, "");
}

/** What people do with the tool from the first release to the way back from the second. */
async function journey(user: UserScene): Promise<void> {
  const { scene } = user;
  const ask = async () => user.run(async (context) => request(context, "qa", {}));
  const go = async () => user.run(async (context) => deploy(context, "qa", { yes: true }));
  const sayYes = async () => {
    user.as("bob");
    await user.run(async (context) => approveLatest(context, "qa"));
    user.as("ann");
  };
  scene.hasDeployed("dev", "build-1", "dev-1");
  scene.write("unrelated", "not the tool's\n");
  await ask();
  await user.away(sayYes);
  user.look();
  await go();
  user.look();
  scene.hasDeployed("dev", "build-2", "dev-2");
  await user.run(async (context) =>
    request(context, "qa", { notes: "Grüezi.\n# It is faster.\n\nBetter, too.  " }),
  );
  await sayYes();
  await go();
  const reason = { reason: "it is slow" };
  await user.run(async (context) => hold(context, "dev-3", reason));
  await user.away(async () => user.run(async (context) => rollback(context, "qa", {})));
  await user.run(async (context) => unhold(context, "dev-3", reason));
  await user.run(async (context) => history(context, {}));
  await user.run(async (context) => preview(context, undefined, { base: "HEAD~1" }));
  user.look();
}

describe("a user's own git configuration", () => {
  const opened: { scene: ToolScene; user: UserScene }[] = [];
  const open = async (hostile: boolean): Promise<UserScene> => {
    const scene = await ToolScene.open({ dev: DEV, qa: QA });
    const user = new UserScene(scene, hostile);
    opened.push({ scene, user });
    return user;
  };
  afterEach(async () => {
    for (const { scene, user } of opened.splice(0).reverse()) {
      user.remove();
      await scene.remove();
    }
  });

  it("changes nothing of what the tool does, says or leaves", async () => {
    const plainUser = await open(false);
    await journey(plainUser);
    const [asked, approved] = plainUser.seen;
    assert.match(String(asked), /^done/);
    assert.match(String(approved), /^done/);
    const hostileUser = await open(true);
    await journey(hostileUser);
    assert.deepEqual(hostileUser.seen, plainUser.seen);
  });

  it("leaves the person, and the settings that git is given for one command, the user's", async () => {
    const { scene } = await open(false);
    const named = {
      GIT_CONFIG_COUNT: "1",
      GIT_CONFIG_KEY_0: "user.email",
      GIT_CONFIG_VALUE_0: "dora@example.com",
    };
    const email = await within(named, async () =>
      new Ledger(await Project.open(scene.folder)).person(),
    );
    assert.equal(email, "dora@example.com");
    const given = { GIT_CONFIG_PARAMETERS: "'user.email'='carol@example.com'" };
    const other = await within(given, async () =>
      new Ledger(await Project.open(scene.folder)).person(),
    );
    assert.equal(other, "carol@example.com");
  });

  it("shows no other history than the one that was made", async () => {
    const user = await open(false);
    const { scene } = user;
    scene.hasDeployed("dev", "build-1", "dev-1");
    await user.run(async (context) => request(context, "qa", {}));
    const made = await new Ledger(await Project.open(scene.folder)).request("qa");
    const head = scene.git("rev-parse", "HEAD");
    const other = scene.git("commit-tree", "-m", "Nothing was asked for", "HEAD^{tree}");
    scene.git("replace", head, other);
    assert.deepEqual(await new Ledger(await Project.open(scene.folder)).request("qa"), made);
    scene.git("replace", "-d", head);
    scene.write("unrelated", "");
    scene.git("add", ".");
    scene.git("commit", "--quiet", "-m", "Something else");
    mkdirSync(join(scene.folder, ".git/info"), { recursive: true });
    scene.write(".git/info/grafts", `${scene.git("rev-parse", "HEAD")}\n`);
    assert.deepEqual(await new Ledger(await Project.open(scene.folder)).request("qa"), made);
  });

  it("does not change the hash of a program's files", async () => {
    const { scene } = await open(false);
    scene.write("index.ts", "export {};\r\n");
    const before = await hashProgram(scene.folder);
    scene.git("config", "core.autocrlf", "true");
    mkdirSync(join(scene.folder, ".git/info"), { recursive: true });
    scene.write(".git/info/attributes", "*.ts text\n");
    assert.deepEqual(await hashProgram(scene.folder), before);
  });

  it("may sign commits, and where that is not possible they are made without", async () => {
    const { scene } = await open(false);
    const key = join(scene.folder, ".pulumi/key");
    execFileSync("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-C", "ann", "-f", key]);
    for (const [name, value] of [
      ["gpg.format", "ssh"],
      ["user.signingKey", key],
      ["commit.gpgSign", "true"],
    ] as const) {
      scene.git("config", name, value);
    }
    scene.hasDeployed("dev", "build-1", "dev-1");
    await request(await scene.context(), "qa", {});
    assert.match(scene.git("cat-file", "commit", "HEAD"), /^gpgsig /m);
    scene.git("config", "user.signingKey", "/nowhere");
    scene.hasDeployed("dev", "build-2", "dev-2");
    await request(await scene.context(), "qa", {});
    assert.match(scene.git("log", "-1", "--format=%s"), /^Request dev-2/);
    assert.doesNotMatch(scene.git("cat-file", "commit", "HEAD"), /^gpgsig /m);
  });
});

describe("a checkout that git does not read", () => {
  let scene: ToolScene;
  beforeEach(async () => {
    scene = await ToolScene.open({ dev: DEV, qa: QA });
    scene.hasDeployed("dev", "build-1", "dev-1");
  });
  afterEach(async () => scene.remove());
  const another = { GIT_TEST_ASSUME_DIFFERENT_OWNER: "1" };
  const words =
    /its git repository is not readable \(fatal: detected dubious ownership in repository at '[^']+' To add an exception for this directory, call: git config --global --add safe\.directory /;

  it("is refused by every command in git's own words, with the way out", async () => {
    for (const command of [
      async (context: Context) => request(context, "qa", {}),
      async (context: Context) => deploy(context, "qa", { yes: true }),
      async (context: Context) => approve(context, "qa", "0".repeat(64)),
      async (context: Context) => rollback(context, "qa", {}),
      async (context: Context) => history(context, {}),
      async (context: Context) => preview(context, undefined, { base: "HEAD" }),
    ]) {
      const run = within(another, async () => command(await scene.context()));
      await assert.rejects(run, words);
    }
  });

  it("lets no program pass without approvals", async () => {
    const registry = JSON.stringify({ kind: "oci", repository: `${scene.registry.host}/podinfo` });
    const given = {
      "baton:upstream": "dev",
      "baton:approval": '{"required":0}',
      "baton:registry": registry,
    };
    const deployment = { folder: scene.folder, environment: "qa", given };
    const running = async () => Promise.resolve(undefined);
    const check = async () =>
      unapproved({ ...deployment, digest: "sha256:aa", now: new Date(), running });
    await assert.rejects(within(another, check), words);
  });

  it("is named on the change card where it has the application's history", async () => {
    const label = { [REVISION]: scene.git("rev-parse", "HEAD") };
    const read = async () => commitsBetween(scene.folder, label, label);
    const { why } = await within(another, read);
    assert.match(why ?? "", /no git history at hand \(fatal: detected dubious ownership .* safe\./);
  });
});
