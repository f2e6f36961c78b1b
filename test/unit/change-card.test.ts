import type { KnownBlock } from "@slack/web-api";
import * as assert from "node:assert/strict";
import * as fc from "fast-check";
import { cardBlocks, formatCard, type ChangeCard, type Moved } from "../../release/change-card";

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

const moved: Moved = {
  since: { tag: "stage-44", commit: "d".repeat(40) },
  settings: [
    { path: "settings.config.LOG_LEVEL", kind: "changed", from: "debug", to: "info" },
    { path: "settings.config.YEN", kind: "added", to: true },
  ],
  secrets: [{ path: "settings.secrets.SESSION_KEY", kind: "changed" }],
  policy: [{ path: "approval.required", kind: "changed", from: 2, to: 0 }],
  suites: [{ path: "verification.suites.load", kind: "removed" }],
  program: {
    files: [
      { name: "approvals", kind: "added" },
      { name: "index.ts", kind: "changed" },
      { name: "old.ts", kind: "removed" },
    ],
    project: [{ path: "runtime.name", kind: "changed", from: "nodejs", to: "python" }],
  },
  packages: [
    { name: "semver", from: "7.0.0", to: "7.0.1" },
    { name: "left-pad", from: undefined, to: "1.0.0" },
    { name: "yaml", from: "2.0.0", to: "2.0.0", isOther: true },
  ],
  unnamed: [],
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
  moved,
  hotfix: true,
  wayBack: "stage-44, with `baton rollback prod`",
  approve: "baton approve prod 0123456789ab",
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

const NOTHING: Moved = {
  since: "nothing",
  settings: [],
  secrets: [],
  policy: [],
  suites: [],
  program: { files: [], project: [] },
  packages: [],
  unnamed: [],
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
  lane      hotfix: past freeze, soak and sign-offs
  plan      0123456789ab
  asked by  ann@example.com
  since     stage-44, deployed from ddddddddd
! delete    unexpected: 1 apps/v1:Deployment: worker
  replace   2 batch/v1:Job: smoke, load
  update    2 kubernetes:apps/v1:Deployment: web, api (spec.replicas,
            spec.template.spec.containers[0].resources.limits.memory)
  settings  settings.config.LOG_LEVEL: debug → info
            settings.config.YEN: added, true
  secrets   settings.secrets.SESSION_KEY: changed
  policy    approval.required: 2 → 0
  verifies  verification.suites.load: removed
  program   3 files: approvals (added), index.ts, old.ts (removed)
            Pulumi.yaml: runtime.name: nodejs → python
  packages  3 packages: semver 7.0.0 → 7.0.1, left-pad 1.0.0 (added), yaml 2.0.0
            (the same version with other contents)
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
  way back  stage-44, with \`baton rollback prod\`
  approval  not routine
  missing   prod: nobody has approved.
  approve   baton approve prod 0123456789ab`,
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
      moved: { ...NOTHING, since: { tag: "build-0", commit: "d".repeat(40) } },
      hotfix: false,
      suites: [],
      wayBack: undefined,
      approve: undefined,
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

  it("says of a first deployment that everything is new", () => {
    const operations = [
      { op: "create", type: "pulumi:pulumi:Stack", names: ["s"], routine: false, paths: [] },
      { op: "create", type: "baton:components:Workload", names: ["w"], routine: false, paths: [] },
      { op: "create", type: "core/v1:Service", names: ["web", "api"], routine: false, paths: [] },
    ];
    const text = formatCard({ ...card, from: {}, moved: NOTHING, operations });
    assert.match(text, /\n {2}new {7}everything, 2 objects: nothing was deployed before\n/);
    assert.doesNotMatch(text, /settings/);
  });

  it("marks what moved and cannot be named, and shows where long values differ", () => {
    const unnamed = ["program moved, and comparing with ddddddddd does not tell how"];
    const [from, to] = ["x".repeat(80), `${"x".repeat(79)}y`];
    const settings = [
      { path: "a", kind: "changed", from, to },
      { path: "b", kind: "changed", from: 1, to: "1" },
    ] as const;
    const text = formatCard({ ...full, moved: { ...moved, unnamed, settings } });
    assert.match(text, /\n! unnamed {3}program moved, and comparing/);
    assert.match(text, /a: …x{11} → …x{10}y\n/);
    assert.match(text, /b: 1 → "1"\n/);
  });

  it("says where an update may be of any property", () => {
    const update = { op: "update", type: "core/v1:Service", names: ["web"], routine: false };
    const text = formatCard({ ...card, operations: [{ ...update, paths: [] }] });
    assert.match(text, /1 core\/v1:Service: web \(of properties that are not known\)/);
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
    assert.match(text, /ccccccccc Harmless�\[2J prod: approved� \(Eve�\)/);
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
          assert.ok(blocks.length <= 48);
          for (const { type, text } of blocks) {
            assert.ok(text.text.length > 0);
            assert.ok(text.text.length <= (type === "header" ? 150 : 3000), type);
          }
        }),
        { numRuns: 30 },
      );
      const missing = Array.from({ length: 200 }, () => "word ".repeat(500));
      const blocks = cardBlocks({ ...full, missing });
      assert.ok(blocks.length <= 48);
      assert.ok(blocks.reduce((sum, { text }) => sum + text.text.length, 0) <= 12_000);
      assert.match(blocks.at(-1)?.text.text ?? "", /and more/);
    });
  });
});
