import * as assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { deploy } from "../../cli/deploy";
import { detailsOf, liftedHolds, waitsOf } from "../../cli/details";
import { history } from "../../cli/history";
import { request } from "../../cli/request";
import { detailTrailers, MOST_COMMITS, parseDetails } from "../../ledger/details";
import { messageOf } from "../../ledger/entries";
import type { Request } from "../../ledger/ledger";
import { approvalsTerm, freezeTerm, leadTerm, signOffTerm, soakTerm } from "../../release/gate";
import { ToolScene } from "../support/tool";

const DEV = "config:\n  baton:imageTag: build-1\n";
const QA = "config:\n  baton:upstream: dev\n  baton:soak: 1h\n";
const at = (time: string) => new Date(`2026-11-21T${time}Z`);
const id = (digit: string) => digit.repeat(40);

describe("the details of an outcome", () => {
  let scene: ToolScene;
  before(async () => {
    scene = await ToolScene.open({ dev: DEV, qa: QA });
  });
  after(async () => scene.remove());

  const isAsked = { tag: "dev-2", digest: "", environment: "qa", at: at("09:00:00") };
  const asked = (digest: string) => ({ ...isAsked, digest }) as Request;
  const image = (revision: string) =>
    scene.registry.pushImage({
      config: { Labels: { "org.opencontainers.image.revision": revision } },
    });
  const commit = (subject: string) => {
    scene.git("commit", "--quiet", "--allow-empty", "-m", subject);
    return scene.git("rev-parse", "HEAD");
  };
  const committedAt = (revision: string) =>
    new Date(scene.git("log", "-1", "--format=%cI", revision)).toISOString();
  const deployment = (next: string, former?: string) => ({
    request: asked(next),
    stackFile: QA,
    former: former === undefined ? undefined : { tag: "dev-1", digest: former },
    approvedBy: [],
    terms: [soakTerm("qa", "dev", 3600, at("08:30:00"), at("10:00:00"))],
    unattended: false,
  });

  it("name revision, commits, suites and waits", async () => {
    const context = await scene.context();
    const [first, second, third] = [commit("One"), commit("Two"), commit("Three")];
    const digest = image(third);
    const suites = [
      { name: "smoke", result: "passed", seconds: 41 },
      { name: "load", result: "passed" },
    ] as const;
    const outputs = { release: { imageTag: "dev-2", digest }, suites: [...suites] };
    assert.deepEqual(await detailsOf(context, deployment(digest, image(first)), outputs), {
      revision: third,
      commits: {
        total: 2,
        newest: [third, second].map((each) => ({ id: each, at: committedAt(each) })),
      },
      suites: [{ name: "smoke", seconds: 41 }],
      waited: { soak: 1800 },
    });
    const other = { ...outputs, release: { imageTag: "dev-1", digest } };
    const { suites: none } = await detailsOf(context, deployment(digest), other);
    assert.equal(none, undefined, "suites of another release");
    assert.deepEqual(context.notes, []);
  });

  it("list a hundred commits at most, and count all", async () => {
    const one = `commit refs/heads/many
committer Ann <ann@example.com> 1763712000 +0000
data 4
More
`;
    const input = one.repeat(MOST_COMMITS + 2);
    execFileSync("git", ["fast-import", "--quiet"], { cwd: scene.folder, input });
    const first = scene.git("rev-parse", `many~${MOST_COMMITS + 1}`);
    const digest = image(scene.git("rev-parse", "many"));
    const { commits } = await detailsOf(
      await scene.context(),
      deployment(digest, image(first)),
      undefined,
    );
    assert.deepEqual([commits?.newest.length, commits?.total], [MOST_COMMITS, MOST_COMMITS + 1]);
  });

  it("are those that are known where others cannot be found out, with a note", async () => {
    const context = await scene.context();
    const missing = deployment(`sha256:${"0".repeat(64)}`);
    assert.deepEqual(await detailsOf(context, missing, undefined), { waited: { soak: 1800 } });
    assert.match(context.notes.join("\n"), /^qa: details of the outcome are missing: /);
  });

  it("are not waited for beyond their time", async () => {
    const context = await scene.context();
    const slow = { ...context, now: context.now, ledger: Object.create(context.ledger) as never };
    Object.assign(slow.ledger, { holds: async () => new Promise(() => undefined) });
    const digest = image(commit("One"));
    const { waited } = await detailsOf(slow, deployment(digest), undefined, 10);
    assert.deepEqual(waited, { soak: 1800 });
    assert.deepEqual(context.notes, [
      "qa: details of the outcome are missing: they were not found out within 0.01 s",
    ]);
  });

  it("are recorded of a deployment, and shown as data", async () => {
    const revision = commit("One");
    const digest = image(revision);
    scene.registry.tags.set("dev-2", digest);
    scene.pulumi(
      "dev.json",
      JSON.stringify({ release: { imageTag: "build-2", digest }, earnedTag: "dev-2" }),
    );
    scene.write("Pulumi.qa.yaml", "config:\n  baton:upstream: dev\n");
    scene.git("commit", "--quiet", "-am", "No soak");
    await request(await scene.context(), "qa", {});
    const report = await deploy(await scene.context(), "qa", { yes: true });
    assert.equal(report.outcome, "done", scene.printed.join("\n"));
    scene.printed.length = 0;
    const { entries } = await history(await scene.context(), {});
    const [entry] = JSON.parse(JSON.stringify(entries)) as { details?: unknown }[];
    assert.deepEqual(entry?.details, { revision });
    assert.doesNotMatch(scene.printed.join("\n"), new RegExp(revision));
  });
});

describe("the trailers of an outcome's details", () => {
  const read = (details: Parameters<typeof detailTrailers>[0]) =>
    parseDetails(messageOf("qa: dev-2 deployed", detailTrailers(details)));

  it("are read as they were written", () => {
    const details = {
      revision: id("a"),
      commits: { total: 2, newest: [id("a"), id("b")].map((each) => ({ id: each, at: "T" })) },
      suites: [
        { name: "web/smoke", seconds: 41 },
        { name: "load", seconds: 600 },
      ],
      waited: { approvals: 5, "sign-offs": 0 },
    };
    assert.deepEqual(read(details), details);
    assert.equal(read({}), undefined);
  });

  it("hold no line of a label's or a suite's own", () => {
    const forged = `${id("a")}\nBaton-Result: failed`;
    const message = messageOf("Subject", {
      ...detailTrailers({ revision: forged, suites: [{ name: forged, seconds: 1 }] }),
    });
    assert.doesNotMatch(message, /^Baton-Result/m);
    assert.equal(read({ revision: "a".repeat(101) }), undefined, "a label without an end");
  });
});

describe("how long a request waited", () => {
  const asked = { at: at("09:00:00"), digest: "sha256:aa" };
  const now = at("12:00:00");

  it("is known for terms that say when they passed", () => {
    const policy = { required: 2, notOwnRequest: false, signed: false };
    const word = (email: string, time: string) =>
      ({ email, kind: "approve", at: at(time), signature: "none" }) as const;
    const words = [
      word("cid@example.com", "11:00:00"),
      word("bob@example.com", "10:00:00"),
      word("Bob@example.com", "09:10:00"),
      word("ann@example.com", "09:05:00"),
    ];
    const on = { environment: "qa", plan: "" };
    const window = { name: "night", from: "2026-11-21T00:00", until: "2026-11-21T09:20" };
    const given = [
      { name: "uat", email: "ann@example.com", at: at("09:40:00") },
      { name: "uat", email: "bob@example.com", at: at("11:40:00") },
      { name: "qa", email: "ann@example.com", at: at("08:00:00") },
    ];
    const terms = [
      approvalsTerm("qa", policy, [], words, asked.at, now, on),
      freezeTerm("qa", [{ ...window, timeZone: "UTC" }], now),
      soakTerm("qa", "dev", 3600, at("07:00:00"), now),
      signOffTerm("qa", "dev", { uat: [], qa: [] }, given, "dev-2"),
      leadTerm("qa", "dev", at("09:01:00")),
    ];
    assert.deepEqual(waitsOf(asked, terms), {
      approvals: 600,
      freeze: 1200,
      soak: 0,
      "sign-offs": 2400,
      lead: 60,
    });
  });

  it("is left out for terms that do not", () => {
    const policy = { required: 0, notOwnRequest: false, signed: false };
    const on = { environment: "qa", plan: "" };
    const terms = [
      approvalsTerm("qa", policy, [], [], asked.at, now, on),
      freezeTerm("qa", [], now),
      soakTerm("qa", "dev", undefined, undefined, now),
      soakTerm("qa", "dev", 86_400, at("09:00:00"), now),
      signOffTerm("qa", "dev", {}, [], "dev-2"),
      leadTerm("qa", "dev", undefined),
    ];
    assert.deepEqual(waitsOf(asked, terms), {});
  });

  it("counts holds of its image, and stops, that were taken back since", () => {
    const entry = (kind: "unhold" | "resume", time: string, digest?: string) =>
      ({ kind, scope: "project", reason: "", who: "", at: at(time), digest }) as const;
    const entries = [
      entry("unhold", "09:10:00", "sha256:aa"),
      entry("unhold", "09:20:00", "sha256:bb"),
      entry("resume", "08:00:00"),
    ];
    assert.deepEqual(liftedHolds(asked, entries), { hold: 600 });
    assert.deepEqual(liftedHolds(asked, [entry("resume", "09:00:30")]), { line: 30 });
  });
});
