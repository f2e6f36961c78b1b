import * as assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { notify } from "../../cli/notify";
import { Slack } from "../../cli/slack";
import {
  cardOf,
  formatAnnouncement,
  headline,
  type Announcement,
  type Message,
} from "../../release/announcement";
import { SlackServer, TOKEN } from "../support/slack";
import { ToolScene } from "../support/tool";

/** Of machines that must not meet their deadline, in milliseconds. */
const NO_DEADLINE = 3_600_000;
const DIGEST = "sha256:aa";
const REVISION = "0123456789abcdef0123456789abcdef01234567";

const requested = {
  kind: "requested",
  environment: "prod",
  tag: "stage-45",
  digest: DIGEST,
  version: "v1.4.0",
  requestId: "c0ffee",
  plan: "0123456789abcdef",
  requester: "ann@example.com",
  card: "prod: stage-44 → stage-45\n  update    1 Deployment: web",
  approvals: [],
  missing: ["prod: the request is approved by nobody; expected the word of 1 person. Approve it."],
} satisfies Announcement;
const deployed = {
  kind: "deployed",
  environment: "dev",
  tag: "build-45",
  digest: DIGEST,
  who: "ann@example.com",
  earnedTag: "dev-45",
  readyForTesting: true,
} satisfies Announcement;
const failed = {
  kind: "failed",
  environment: "prod",
  tag: "stage-45",
  digest: DIGEST,
  who: "ann@example.com",
  back: { tag: "stage-44", succeeded: true },
  reason: "web: ImagePullBackOff",
} satisfies Announcement;
const buildFailed = {
  kind: "build-failed",
  gate: "unit tests",
  revision: REVISION,
  build: "build-46",
  committer: "bob@example.com",
  url: "https://ci.example.com/46",
} satisfies Announcement;

/** What the sections of a message say. */
const read = ({ blocks }: Pick<Message, "blocks">) =>
  blocks.map((block) => (block.type === "section" ? block.text?.text : block.type));

describe("an announcement", () => {
  it("says what happened", () => {
    const cases: [Announcement, string][] = [
      [buildFailed, "unit tests failed at 0123456789ab (build-46)"],
      [requested, "ann@example.com asks for stage-45 as v1.4.0 in prod"],
      [deployed, "dev runs build-45 (verified) – ready for testing as dev-45"],
      [
        { ...deployed, readyForTesting: false },
        "dev runs build-45 (verified) – it has earned dev-45",
      ],
      [failed, "stage-45 failed in prod; stage-44 runs again"],
      [
        { ...failed, back: { tag: "stage-44", succeeded: false } },
        "stage-45 failed in prod, and so did the way back to stage-44",
      ],
      [{ ...failed, back: undefined }, "stage-45 failed in prod"],
      [
        { ...failed, kind: "rolled-back", tag: "prod-v1.3.0", version: "v1.3.0", left: "stage-45" },
        "prod is back on prod-v1.3.0; stage-45 was left",
      ],
      [{ kind: "resumed", environment: "qa", who: "ann" }, "qa is resumed"],
      [{ kind: "stopped", environment: "qa", tag: "dev-4", who: "ann" }, "dev-4 is stopped in qa"],
      [
        { ...failed, kind: "break-glass" },
        "prod takes stage-45 without what it needs (break-glass)",
      ],
    ];
    for (const [announcement, text] of cases) {
      assert.equal(headline(announcement), text);
      assert.equal(formatAnnouncement(announcement).text.split("\n")[0], text);
    }
  });

  it("has the card, who has approved, what is missing and the command", () => {
    assert.deepEqual(read(formatAnnouncement(requested)), [
      "*ann@example.com asks for stage-45 as v1.4.0 in prod*\nPlan 0123456789ab",
      "```\nprod: stage-44 → stage-45\n  update    1 Deployment: web\n```",
      "Approved by nobody yet\n• prod: the request is approved by nobody; expected the word of 1 " +
        "person. Approve it.\nApprove with `baton approve prod 0123456789ab`",
    ]);
    const approved = { ...requested, approvals: ["bob@example.com"], missing: [] };
    assert.equal(
      read(formatAnnouncement(approved)).at(-1),
      "Approved by bob@example.com\nGo on with `baton deploy prod`",
    );
  });

  it("cannot be made to mention people, to hide a link or to show an address's password", () => {
    const reason = "<!channel> & <https://evil.example.com|ok>\npostgres://app:hunter2@db:5432/x";
    const { text, blocks } = formatAnnouncement({ ...failed, reason });
    const safe =
      "&gt; &lt;!channel&gt; &amp; &lt;https://evil.example.com|ok&gt; postgres://[secret]@db:5432/x";
    assert.ok(text.endsWith(safe.replace("&gt; ", "> ")), text);
    assert.ok(read({ blocks })[0]?.endsWith(safe.replace("&gt; ", "> ")));
    const link = (url: string) =>
      formatAnnouncement({ ...buildFailed, url })
        .text.split("\n")
        .at(-1);
    assert.equal(link("https://ci/46?a=1&b=2|x>"), "<https://ci/46?a=1&amp;b=2%7Cx&gt;|Log>");
    assert.equal(link("javascript:alert(1)"), "javascript:alert(1)");
  });

  it("keeps to Slack's limits, whatever the card's length", () => {
    const lines = Array.from({ length: 2000 }, (_, index) => `${index} ${"<&>".repeat(20)}`);
    for (const card of [lines.join("\n"), "<".repeat(50_000), "😀".repeat(9000)]) {
      const message = formatAnnouncement({ ...requested, card, missing: lines });
      const texts = read(message);
      for (const text of texts) {
        assert.ok(text !== undefined && text.length <= 3000 && !/\p{Surrogate}/u.test(text));
        assert.doesNotMatch(text, /&(?!(amp|lt|gt);)/);
      }
      assert.match(texts.at(-2) ?? "", /…\n```$/);
      assert.ok(texts.join("").length <= 13_000);
    }
    const block = { type: "divider" as const };
    const blocks = Array.from({ length: 200 }, () => block);
    assert.equal(formatAnnouncement({ ...requested, card: blocks }).blocks.length, 50);
  });
});

describe("Slack", () => {
  let server: SlackServer;
  let environment: NodeJS.ProcessEnv;
  const channel = (name: string) => ({ name, topic: "", private: false });
  const config = {
    slack: {
      channels: {
        dev: channel("podinfo-dev"),
        qa: channel("podinfo-qa"),
        release: channel("podinfo-release"),
        oncall: channel("podinfo-oncall"),
        same: channel("podinfo-release"),
      },
    },
    announce: {
      builds: ["dev"],
      requests: ["dev", "release"],
      outcomes: ["dev", "qa"],
      failures: ["qa", "oncall"],
    },
  };

  /** As on a machine of its own. */
  const machine = (deadline = NO_DEADLINE, announce = {}) =>
    new Slack(
      { ...config, announce: { ...config.announce, ...announce } },
      { environment, deadline },
    );
  /** Announces on one more machine. */
  async function say(...announcements: Announcement[]): Promise<string[]> {
    const slack = machine();
    for (const announcement of announcements) slack.announce(announcement);
    return slack.settle();
  }
  const texts = (name: string) => server.in(name).map(({ text }) => text.split("\n")[0]);

  beforeEach(async () => {
    server = await SlackServer.start();
    ["podinfo-dev", "podinfo-qa", "podinfo-release", "podinfo-oncall"].forEach((name, index) =>
      server.channels.set(name, `C${index}`),
    );
    server.people.set("bob@example.com", "U7");
    environment = server.environment;
  });
  afterEach(() => server.stop());

  it("tells each channel that is to hear of it, once", async () => {
    assert.deepEqual(await say(deployed), []);
    assert.deepEqual(texts("podinfo-dev"), [headline(deployed)]);
    assert.deepEqual(texts("podinfo-qa"), [headline(deployed)]);
    assert.equal(server.messages.length, 2);

    assert.deepEqual(await say(failed), []);
    assert.deepEqual(texts("podinfo-qa"), [headline(deployed), headline(failed)]);
    assert.deepEqual(texts("podinfo-oncall"), [headline(failed)]);
    assert.deepEqual(texts("podinfo-release"), []);

    const slack = machine(NO_DEADLINE, { requests: ["release", "same"] });
    slack.announce(requested);
    assert.deepEqual(await slack.settle(), []);
    assert.deepEqual(slack.told, ["#podinfo-release"]);
  });

  it("keeps one thread per release in each channel, from any machine", async () => {
    await say(requested);
    await say(deployed);
    await say({ ...deployed, digest: "sha256:bb", tag: "build-46" });
    // Found behind pages of other messages, too.
    server.pageSize = 1;
    await say(failed);

    const [root, second, other, last] = server.in("podinfo-dev");
    assert.ok(root && second && other && last);
    assert.equal(root.thread_ts, undefined);
    assert.equal(second.thread_ts, root.ts);
    assert.equal(other.thread_ts, undefined);
    assert.equal(last.thread_ts, root.ts);
    const [rootInQa, , lastInQa] = server.in("podinfo-qa");
    assert.equal(lastInQa?.thread_ts, rootInQa?.ts);
  });

  it("begins one thread for announcements that follow at once, in their order", async () => {
    server.delay = 15;
    assert.deepEqual(await say(requested, deployed, failed), []);
    const [root, ...replies] = server.in("podinfo-dev");
    assert.deepEqual(texts("podinfo-dev"), [requested, deployed, failed].map(headline));
    assert.deepEqual(
      replies.map(({ thread_ts }) => thread_ts),
      [root?.ts, root?.ts],
    );
  });

  it("shows in the channel what failed, and finds the thread by that", async () => {
    await say(deployed, failed);
    const [root, reply] = server.in("podinfo-dev");
    assert.equal(reply?.reply_broadcast, true);
    assert.equal(root?.reply_broadcast, undefined);
    // Newest first, the reply comes before the message that it replies to.
    server.pageSize = 1;
    await say({ ...deployed, environment: "qa" });
    assert.equal(server.in("podinfo-dev")[2]?.thread_ts, root?.ts);
  });

  it("gives up its search for a thread after some pages", async () => {
    await say(deployed);
    for (let number = 0; number < 6; number++) {
      await say({ ...deployed, digest: `sha256:${number}` });
    }
    server.pageSize = 1;
    server.calls.length = 0;
    assert.deepEqual(await say(deployed), []);
    assert.equal(server.in("podinfo-dev").at(-1)?.thread_ts, undefined);
    const reads = server.calls.filter((method) => method === "conversations.history");
    assert.equal(reads.length, 2 * 5);
  });

  it("changes the message of a request as approvals come, from any machine", async () => {
    await say(requested);
    await say(deployed);
    // Whoever approves has no card at hand.
    const approvals = ["bob@example.com"];
    const approved = { ...requested, card: undefined, approvals, missing: [] };
    assert.deepEqual(await say(approved), []);

    const [message, ...others] = server.in("podinfo-release");
    assert.deepEqual(others, []);
    assert.deepEqual(read(message ?? { blocks: [] }), [
      ...read({ blocks: formatAnnouncement(requested).blocks.slice(0, 2) }),
      "Approved by bob@example.com\nGo on with `baton deploy prod`",
    ]);
    assert.deepEqual(
      cardOf(message?.blocks ?? []),
      formatAnnouncement(requested).blocks.slice(1, 2),
    );
    assert.equal(server.in("podinfo-dev").length, 2);

    // Another request for the same release is another message in its thread, and is found there.
    const again = { ...requested, requestId: "decade" };
    await say(again);
    await say({ ...again, missing: [] });
    const [first, second, ...rest] = server.in("podinfo-release");
    assert.deepEqual(rest, []);
    assert.deepEqual(first, message);
    assert.equal(second?.thread_ts, first?.ts);
    assert.match(read(second ?? { blocks: [] }).at(-1) ?? "", /baton deploy prod/);
  });

  it("tells the committer of a failed build in person", async () => {
    assert.deepEqual(await say(buildFailed), []);
    assert.deepEqual(
      server.messages.map(({ channel, text }) => [channel, text]).sort(),
      ["C0", "DU7"].map((channel) => [
        channel,
        "unit tests failed at 0123456789ab (build-46)\nCommitted by bob@example.com\n" +
          "<https://ci.example.com/46|Log>",
      ]),
    );
    assert.deepEqual(await say({ ...buildFailed, committer: "eve@example.com" }), [
      `Slack: eve@example.com was not told that ${headline(buildFailed)}: users_not_found.`,
    ]);
  });

  it("sends failures to the webhook as well, with or without a token", async () => {
    environment = { ...environment, BATON_ONCALL_WEBHOOK: server.webhook };
    await say(failed, deployed);
    assert.deepEqual(server.hooked, [formatAnnouncement(failed)]);
    assert.equal(server.in("podinfo-oncall").length, 1);

    environment = { BATON_ONCALL_WEBHOOK: server.webhook };
    assert.deepEqual(await say({ ...failed, kind: "break-glass" }, deployed, buildFailed), []);
    assert.equal(server.hooked.length, 2);
    assert.equal(server.in("podinfo-oncall").length, 1);
  });

  it("sends nothing and says nothing without a token and webhook", async () => {
    environment = { SLACK_API_URL: server.environment.SLACK_API_URL, SLACK_TOKEN: "" };
    assert.deepEqual(await say(failed, buildFailed), []);
    assert.deepEqual(server.calls, []);
  });

  it("waits no longer than its deadline, and leaves nothing running", async () => {
    environment = { ...environment, BATON_ONCALL_WEBHOOK: server.webhook };
    server.troubles.set("*", "hang");
    const slack = machine(150);
    slack.announce(failed);
    slack.announce(deployed);
    assert.equal(server.calls.length, 0, "announcing waits for nothing");
    const unsent = await slack.settle();
    const why = "no answer within 0.15 s";
    assert.deepEqual(unsent.sort(), [
      `Slack: #podinfo-dev was not told that ${headline(deployed)}: ${why}.`,
      `Slack: #podinfo-dev was not told that ${headline(failed)}: ${why}.`,
      `Slack: #podinfo-oncall was not told that ${headline(failed)}: ${why}.`,
      `Slack: #podinfo-qa was not told that ${headline(deployed)}: ${why}.`,
      `Slack: #podinfo-qa was not told that ${headline(failed)}: ${why}.`,
      `Slack: the on-call webhook was not told that ${headline(failed)}: ${why}.`,
    ]);
    const { length } = server.calls;
    await server.left();
    // Longer than the client's pause before it would try again.
    await new Promise((resolve) => setTimeout(resolve, 300));
    assert.equal(server.calls.length, length);
  });

  it("says in one sentence each what could not be sent, and why", async () => {
    const alone = machine(NO_DEADLINE, { outcomes: ["release"] });
    const reasons: [Parameters<typeof server.troubles.set>[1], string][] = [
      [{ status: 429, retryAfter: 30 }, "ratelimited (for 30 s)"],
      [{ status: 500 }, "HTTP 500"],
      [{ status: 200, body: `<html>${TOKEN}` }, "no answer of Slack's"],
      [{ error: "channel_not_found" }, "channel_not_found"],
      [{ error: "missing_scope", needed: "chat:write" }, "missing_scope (chat:write)"],
    ];
    for (const [trouble, reason] of reasons) {
      server.troubles.set("*", trouble);
      alone.announce(deployed);
      const text = `Slack: #podinfo-release was not told that ${headline(deployed)}: ${reason}.`;
      assert.deepEqual(await alone.settle(), [text]);
    }
    assert.deepEqual(await alone.settle(), []);
    assert.deepEqual(alone.told, []);

    // When it is back, all is well.
    server.troubles.clear();
    alone.announce(deployed);
    assert.deepEqual(await alone.settle(), []);
    assert.deepEqual(texts("podinfo-release"), [headline(deployed)]);
  });

  it("does not wait until a limit is over", async () => {
    server.troubles.set("*", { status: 429, retryAfter: 3600 });
    const unsent = await say(deployed);
    assert.equal(unsent.length, 2);
    for (const text of unsent) assert.match(text, /: ratelimited \(for 3600 s\)\.$/);
  });

  it("says so where there is no connection, and where a channel is not configured", async () => {
    const slack = machine(NO_DEADLINE, { outcomes: ["nowhere"] });
    slack.announce(deployed);
    assert.deepEqual(await slack.settle(), [
      `Slack: #nowhere was not told that ${headline(deployed)}: baton:slack.channels does not have it.`,
    ]);
    const gone = await SlackServer.start();
    environment = gone.environment;
    await gone.stop();
    assert.match((await say(deployed))[0] ?? "", /: ECONNREFUSED\.$/);
  });

  it("tells it outside the thread rather than not at all, and says so", async () => {
    server.troubles.set("conversations.history", {
      error: "missing_scope",
      needed: "channels:history",
    });
    const [sentence, ...others] = await say({ ...requested, environment: "prod" });
    assert.equal(others.length, 1);
    assert.equal(
      sentence,
      `Slack: #podinfo-dev was told that ${headline(requested)}, but not in its thread: ` +
        "missing_scope (channels:history).",
    );
    assert.deepEqual(texts("podinfo-dev"), [headline(requested)]);
    // What is about no release has no thread.
    server.troubles.set("users.conversations", { status: 429, retryAfter: 30 });
    assert.deepEqual(await say({ kind: "stopped", environment: "qa", who: "ann" }), []);
  });

  it("puts no secret into a message or a sentence", async () => {
    environment = {
      ...environment,
      BATON_ONCALL_WEBHOOK: server.webhook,
      PULUMI_CONFIG_PASSPHRASE: "correct horse",
      NAME: "ImagePullBackOff",
    };
    const reason = `ImagePullBackOff: ${TOKEN} ${server.webhook} correct horse`;
    await say({ ...failed, reason });
    const told = JSON.stringify([server.messages, server.hooked]);
    assert.doesNotMatch(told, /hunter|correct horse/);
    assert.match(told, /ImagePullBackOff: \[secret\] \[secret\] \[secret\]/);

    // A token that is no header's value, and a webhook that is no address, are in no error.
    environment = {
      ...environment,
      SLACK_TOKEN: "xoxb-hunter2\nx",
      BATON_ONCALL_WEBHOOK: "hunter3",
    };
    const unsent = await say({ ...failed, digest: "sha256:cc" });
    assert.equal(unsent.length, 4);
    assert.doesNotMatch(unsent.join("\n"), /hunter/);
  });
});

describe("baton notify", () => {
  const STACK_FILE = `config:
  baton:announce: { builds: [dev] }
  baton:slack: { channels: { dev: { name: podinfo-dev, topic: Builds } } }
`;
  const names = ["SLACK_TOKEN", "SLACK_API_URL", "BATON_ONCALL_WEBHOOK"];
  const former = names.map((name) => [name, process.env[name]] as const);
  let server: SlackServer;
  let scene: ToolScene;

  beforeEach(async () => {
    server = await SlackServer.start();
    server.channels.set("podinfo-dev", "C0");
    server.people.set("ann@example.com", "U1");
    scene = await ToolScene.open({ dev: STACK_FILE });
    for (const name of names) Reflect.deleteProperty(process.env, name);
    Object.assign(process.env, server.environment);
  });
  afterEach(async () => {
    for (const [name, value] of former) {
      if (value === undefined) Reflect.deleteProperty(process.env, name);
      else process.env[name] = value;
    }
    scene.remove();
    await server.stop();
  });

  it("tells the channels and the committer that git knows", async () => {
    await notify(await scene.context(), "dev", { failed: "lint", revision: "HEAD" });
    assert.deepEqual(server.messages.map(({ channel }) => channel).sort(), ["C0", "DU1"]);
    assert.deepEqual(scene.printed.sort(), [
      "Slack: #podinfo-dev was told that lint failed.",
      "Slack: ann@example.com was told that lint failed.",
    ]);
  });

  it("tells only the channels of a revision that git does not know", async () => {
    const file = join(scene.folder, "written");
    const revision = `--output=${file}`;
    await notify(await scene.context(), "dev", { failed: "gitleaks", revision });
    assert.ok(!existsSync(file));
    assert.deepEqual(scene.printed, ["Slack: #podinfo-dev was told that gitleaks failed."]);
  });

  it("fails nothing when Slack is away, or not set up", async () => {
    server.troubles.set("*", { status: 503 });
    const options = { failed: "lint", revision: REVISION, committer: "ann@example.com" };
    await notify(await scene.context(), "dev", options);
    assert.deepEqual(scene.printed.sort(), [
      "Slack: #podinfo-dev was not told that lint failed at 0123456789ab: HTTP 503.",
      "Slack: ann@example.com was not told that lint failed at 0123456789ab: HTTP 503.",
    ]);
    delete process.env["SLACK_TOKEN"];
    await notify(await scene.context(), "dev", options);
    assert.match(scene.printed.at(-1) ?? "", /^Slack: nobody was told: without SLACK_TOKEN/);
  });
});
