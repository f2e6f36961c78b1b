import type { KnownBlock } from "@slack/web-api";
import * as assert from "node:assert/strict";
import * as fc from "fast-check";
import { cardBlocks, formatCard, type ChangeCard } from "../../release/change-card";

const digest = (letter: string) => `sha256:${letter.repeat(64)}`;

const card: ChangeCard = {
  environment: "prod",
  from: { tag: "stage-44", digest: digest("a"), version: "v1.3.0" },
  to: { tag: "stage-45", digest: digest("b"), version: "v1.4.0" },
  plan: "0123456789ab",
  requester: "ann@example.com",
  operations: [{ op: "delete", type: "a:b:C", names: ["x", "y"], routine: true, paths: [] }],
  scan: "not known",
  routine: false,
  missing: ["prod: nobody has approved."],
};

const full: ChangeCard = {
  ...card,
  commits: {
    from: "a".repeat(40),
    to: "c".repeat(40),
    state: "known",
    commits: [
      { id: "c".repeat(40), subject: "Take payments in yen", author: "Bob" },
      { id: "b".repeat(40), subject: "Say what is wrong with a card", author: "Ann" },
    ],
    behind: 1,
    total: 3,
  },
  settings: [
    { path: "settings.config.LOG_LEVEL", kind: "changed", from: "debug", to: "info" },
    { path: "settings.config.YEN", kind: "added", to: true },
    { path: "settings.secrets.SESSION_KEY", kind: "changed" },
  ],
  operations: [
    { op: "delete", type: "apps/v1:Deployment", names: ["worker"], routine: false, paths: [] },
    { op: "replace", type: "batch/v1:Job", names: ["smoke", "load"], routine: true, paths: [] },
    {
      op: "update",
      type: "kubernetes:apps/v1:Deployment",
      names: ["web", "api"],
      routine: false,
      paths: ["spec.replicas", "spec.template.spec.containers[0].resources.limits.memory"],
    },
  ],
  suites: [
    { name: "smoke", result: "passed", seconds: 3, log: "kubectl logs -n stage job/smoke-1" },
    { name: "load", result: "failed" },
  ],
  notes: "Payments in yen.\n\nNothing else.\n",
};

describe("the change card", () => {
  it("says from what to what, and what is missing", () => {
    assert.equal(
      formatCard(card),
      `prod: stage-44 → stage-45
  digest    sha256:aaaaaaaaaaaa → sha256:bbbbbbbbbbbb
  version   v1.3.0 → v1.4.0
  plan      0123456789ab
  asked by  ann@example.com
  delete    2 a:b:C: x, y
  scan      not known
  approval  not routine
  missing   prod: nobody has approved.`,
    );
  });

  it("says all that is known, what no release deletes first and marked", () => {
    assert.equal(
      formatCard(full),
      `prod: stage-44 → stage-45
  digest    sha256:aaaaaaaaaaaa → sha256:bbbbbbbbbbbb
  version   v1.3.0 → v1.4.0
  plan      0123456789ab
  asked by  ann@example.com
! delete    unexpected: 1 apps/v1:Deployment: worker
  replace   2 batch/v1:Job: smoke, load
  update    2 kubernetes:apps/v1:Deployment: web, api (spec.replicas,
            spec.template.spec.containers[0].resources.limits.memory)
  settings  settings.config.LOG_LEVEL: debug → info
            settings.config.YEN: added, true
            settings.secrets.SESSION_KEY: changed
  commits   1 commit of aaaaaaaaa is left
            3 commits from aaaaaaaaa to ccccccccc
            ccccccccc Take payments in yen (Bob)
            bbbbbbbbb Say what is wrong with a card (Ann)
            and 1 more
  suites    smoke: passed in 3 s
            kubectl logs -n stage job/smoke-1
            load: failed
  scan      not known
  notes     Payments in yen.

            Nothing else.
  approval  not routine
  missing   prod: nobody has approved.`,
    );
  });

  it("says so where nothing ran before, and where nothing changes", () => {
    const { commits, ...first } = full;
    assert.ok(commits);
    const text = formatCard({
      ...first,
      from: {},
      to: { tag: "build-1", digest: digest("a") },
      commits: { state: "unknown", why: "nothing ran before", commits: [], behind: 0, total: 0 },
      operations: [],
      settings: [],
      suites: [],
      routine: true,
      missing: [],
    });
    assert.match(text, /^prod: nothing → build-1\n/);
    assert.match(text, /\n {2}changes {3}none\n/);
    assert.match(
      text,
      /\n {2}settings {2}unchanged\n {2}commits {3}not known: nothing ran before\n/,
    );
    assert.match(text, /\n {2}suites {4}not known\n/);
    assert.match(text, /\n {2}approval {2}routine$/);
    assert.doesNotMatch(text, /version|missing/);
    const same = formatCard({
      ...card,
      to: card.from,
      commits: { ...commits, total: 0, behind: 0, commits: [] },
    });
    assert.match(same, /sha256:aaaaaaaaaaaa \(unchanged\)/);
    assert.match(same, /commits {3}none, both are ccccccccc/);
  });

  it("wraps long lists below where they begin, and breaks no command", () => {
    const names = Array.from({ length: 30 }, (_, index) => `settings-dev-${index}`);
    const log = `kubectl logs --context ${"c".repeat(60)} -n stage job/smoke-1`;
    const text = formatCard({
      ...full,
      operations: [{ op: "create", type: "core/v1:ConfigMap", names, routine: true, paths: [] }],
      suites: [{ name: "smoke", result: "passed", log }],
    });
    const lines = text.split("\n");
    assert.ok(lines.includes(`            ${log}`));
    for (const line of lines.filter((one) => !one.includes(log))) {
      assert.ok(line.length <= 80, line);
    }
    const begin = lines.findIndex((line) => line.startsWith("  create    30 core/v1:ConfigMap: "));
    assert.match(lines[begin + 1] ?? "", /^ {12}settings-dev-/);
    for (const line of formatCard(full, 60).split("\n")) {
      assert.ok(line.length <= 60 || !line.trim().includes(" "), line);
    }
  });

  it("lets nobody's words act on a terminal", () => {
    const subject = "Harmless\u001b[2J\r\nprod: approved\u202e";
    const commit = { id: "c".repeat(40), subject, author: "Eve\u0007" };
    const commits = { state: "known", commits: [commit], behind: 0, total: 1 } as const;
    const text = formatCard({ ...full, commits, notes: "One\u001b[1m\nTwo\u2028Three" });
    assert.match(text, /ccccccccc Harmless \[2J prod: approved {2}\(Eve \)/);
    assert.doesNotMatch(text, /[\u0000-\u0009\u000b-\u001f\u2028\u202e]/);
  });

  describe("for Slack", () => {
    it("says the same, in blocks", () => {
      const blocks: KnownBlock[] = cardBlocks(full);
      assert.deepEqual(blocks[0], {
        type: "header",
        text: { type: "plain_text", text: "prod: stage-44 → stage-45", emoji: false },
      });
      const text = JSON.stringify(blocks);
      assert.match(text, /\*! delete\* unexpected: 1 apps\/v1:Deployment: worker/);
      assert.match(text, /\*commits\*\\n• 1 commit of aaaaaaaaa is left\\n/);
      assert.match(text, /\*approval\* not routine/);
    });

    it("lets nobody's words mention, link or end a block", () => {
      const commit = { id: "c".repeat(40), subject: "<!channel> & <https://a|b>", author: "Eve" };
      const commits = { state: "known", commits: [commit], behind: 0, total: 1 } as const;
      const text = JSON.stringify(cardBlocks({ ...full, commits }));
      assert.match(text, /&lt;!channel&gt; &amp; &lt;https:\/\/a\|b&gt; \(Eve\)/);
      assert.doesNotMatch(text, /[<>]/);
    });

    it("keeps to Slack's limits, and says where it was cut", () => {
      const long = fc.array(fc.string({ unit: "binary", maxLength: 4000 }), { maxLength: 80 });
      fc.assert(
        fc.property(long, fc.constantFrom("x", "&", "word "), (missing, filler) => {
          const subject = filler.repeat(4000);
          const commit = { id: "c".repeat(40), subject, author: "Eve" };
          const commits = { state: "known", commits: [commit], behind: 0, total: 1 } as const;
          const to = { tag: filler.repeat(200) };
          const blocks = cardBlocks({ ...full, to, commits, missing });
          assert.ok(blocks.length <= 50);
          for (const { type, text } of blocks) {
            assert.ok(text.text.length > 0);
            assert.ok(text.text.length <= (type === "header" ? 150 : 3000), type);
          }
        }),
        { numRuns: 30 },
      );
      const missing = Array.from({ length: 200 }, () => "word ".repeat(500));
      const blocks = cardBlocks({ ...full, missing });
      assert.equal(blocks.length, 50);
      assert.match(blocks.at(-1)?.text.text ?? "", /and more/);
    });
  });
});
