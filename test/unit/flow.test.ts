import * as assert from "node:assert/strict";
import * as fc from "fast-check";
import {
  checkBuild,
  matches,
  names,
  newestFirst,
  parseFlow,
  parseRef,
  protectedBranch,
  rowFor,
  type Flow,
} from "../../release/flow";
import { formatProblem } from "../../release/problem";

const ENVIRONMENTS = {
  dev: { takesBuilds: true, asksApproval: false },
  qa: { takesBuilds: false, asksApproval: false },
  stage: { takesBuilds: false, asksApproval: false },
  prod: { takesBuilds: false, asksApproval: true },
};
const PROTECTED = { dev: "dev", qa: "qa", stage: "release/{version}" };
const ROWS = [
  { branch: "dev", build: true, promote: "dev" },
  { branch: "feature/**", build: true },
  { branch: "qa", promote: "qa" },
  { branch: "release/{version}", promote: "stage" },
  { tag: "v{version}", on: "main", promote: "prod", pullRequest: "dev" },
];

function flowOf(rows: readonly unknown[], others: object = {}): Flow {
  const values = { application: "app", protected: PROTECTED, rows, ...others };
  const parsed = parseFlow(values, "flow.yaml", ENVIRONMENTS);
  return "ok" in parsed ? parsed.ok : assert.fail(parsed.problems.map(formatProblem).join("\n"));
}

function problemsOf(values: unknown): string[] {
  const parsed = parseFlow(values, "flow.yaml", ENVIRONMENTS);
  return "problems" in parsed ? parsed.problems.map(formatProblem) : [];
}

describe("the table of pushes", () => {
  it("gives each push its row and version", () => {
    const flow = flowOf(ROWS);
    const row = (text: string) => {
      const match = rowFor(flow, parseRef(text) ?? assert.fail(text));
      return match && [flow.rows.indexOf(match.row), match.version];
    };
    assert.deepEqual(row("refs/heads/dev"), [0, undefined]);
    assert.deepEqual(row("refs/heads/feature/a/b"), [1, undefined]);
    assert.deepEqual(row("refs/heads/qa"), [2, undefined]);
    assert.deepEqual(row("refs/heads/release/1.4.0"), [3, "v1.4.0"]);
    assert.deepEqual(row("refs/tags/v1.4.0-rc.1"), [4, "v1.4.0-rc.1"]);
    for (const other of ["heads/v1.4.0", "tags/dev", "heads/release/next", "tags/v1", "heads/qa2"])
      assert.equal(row(`refs/${other}`), undefined, other);
  });

  it("says all that is wrong with it, in the table's words", () => {
    assert.deepEqual(
      problemsOf({
        application: "../app",
        rows: [{ branch: "dev", promot: "dev" }, { tag: "v{version}", promote: "prod" }, {}],
        then: 1,
      }),
      [
        "flow.yaml: application is ../app; expected a folder of the repository, or .. Correct it.",
        "flow.yaml: rows[0].promot is not known; expected no such key. Correct it.",
        "flow.yaml: rows[1].on is not set; expected a branch, such as main. Correct it.",
        "flow.yaml: rows[2].branch is not set; expected a name of a branch or tag, with * or one {version} for what varies. Correct it.",
        "flow.yaml: then is not known; expected no such key. Correct it.",
      ],
    );
    assert.match(problemsOf("text").join(), /^flow.yaml: the file is text; expected /);
    assert.match(problemsOf({ application: "app", rows: [] }).join(), /at least one row/);
  });

  it("knows which environments there are, and which take builds", () => {
    const of = (row: object) => problemsOf({ application: "app", rows: [row] }).join();
    assert.match(
      of({ branch: "x", promote: "perf" }),
      /is perf; expected one of dev, qa, stage, prod/,
    );
    assert.match(of({ branch: "x", promote: "dev" }), /is dev; expected build: true beside it/);
    assert.match(of({ branch: "x", build: true, promote: "qa" }), /expected no build beside it/);
    assert.match(of({ branch: "x" }), /without build and promote; expected one of them/);
  });

  it("names the protected branch of each environment, which is main where none is named", () => {
    const flow = flowOf(ROWS);
    const branches = Object.keys(ENVIRONMENTS).map((name) => protectedBranch(flow, name));
    assert.deepEqual(branches, ["dev", "qa", "release/{version}", "main"]);
  });

  it("promotes from the protected branch only, and takes versions of its commits only", () => {
    const of = (row: object, names: object = {}) =>
      problemsOf({ application: "app", protected: names, rows: [row] });
    assert.deepEqual(of({ branch: "qa", promote: "qa" }), [
      "flow.yaml: rows[0].branch is qa; expected main, the protected branch of qa. Correct it, or protected.qa, whose pipelines get its credentials.",
    ]);
    assert.match(of({ tag: "v*", on: "dev", promote: "prod" }).join(), /rows\[0\]\.on is dev; exp/);
    const everywhere = { branch: "**", build: true, promote: "dev" };
    assert.match(of(everywhere).join(), /rows\[0\]\.branch is \*\*; expected main/);
    assert.deepEqual(of(everywhere, { dev: "**" }), []);
  });

  it("protects environments that there are, and one branch where approvals are asked for", () => {
    const of = (names: unknown) =>
      problemsOf({ application: "app", protected: names, rows: [{ branch: "x", build: true }] });
    assert.deepEqual(of({ perf: "main", prod: "release/*" }), [
      "flow.yaml: protected.perf is no environment; expected one of dev, qa, stage, prod. Correct or remove it.",
      "flow.yaml: protected.prod is release/*; expected one branch, as baton:approval.required is more than 0. Name one: the tag of an approval starts the deployment there.",
    ]);
    assert.match(of("main").join(), /protected is main; expected a map of environments/);
  });

  it("matches a pattern against the whole name, and takes nothing in it for an expression", () => {
    assert.ok(matches("a.b", "a.b"));
    assert.equal(matches("a.b", "aXb"), undefined);
    assert.ok(matches("a/*", "a/b"));
    assert.equal(matches("a/*", "a/b/c"), undefined);
    assert.ok(matches("a/**", "a/b/c"));
    assert.equal(matches("{version}", "1.0"), undefined);
    assert.equal(matches("{version}", "1.0.0+1"), undefined);
    const name = fc.stringMatching(/^[a-z.()+$^|/-]{1,20}$/);
    fc.assert(
      fc.property(name, name, (one, other) =>
        assert.equal(matches(one, other) !== undefined, one === other),
      ),
    );
  });
});

describe("what a push names", () => {
  it("is a branch or a tag, by its whole name", () => {
    assert.deepEqual(parseRef("refs/heads/a/b"), { kind: "branch", name: "a/b" });
    assert.deepEqual(parseRef("refs/tags/v1.0.0"), { kind: "tag", name: "v1.0.0" });
    for (const other of ["dev", "refs/heads/", "refs/remotes/origin/dev", "x refs/tags/v1"])
      assert.equal(parseRef(other), undefined);
  });

  it("is of what contains it; a version's application is the same", () => {
    const branch = { kind: "branch", name: "qa" } as const;
    const tag = { kind: "tag", name: "v1.0.0" } as const;
    const ancestries = [true, false].flatMap((contained) =>
      [true, false].map((sameApplication) => ({ contained, sameApplication })),
    );
    assert.deepEqual(
      ancestries.map((one) => [names(branch, one), names(tag, one)]),
      [
        [true, true],
        [true, false],
        [false, false],
        [false, false],
      ],
    );
  });

  it("orders a giver's tags by their release, whatever order the registry gives", () => {
    const tags = [
      "dev-9",
      "dev-10",
      "build-11",
      "dev-100",
      "latest",
      "dev-v1.0.0",
      "dev-v1.0.0-rc.1",
    ];
    const sorted = ["dev-v1.0.0", "dev-v1.0.0-rc.1", "dev-100", "dev-10", "dev-9"];
    fc.assert(
      fc.property(fc.shuffledSubarray(tags, { minLength: tags.length }), (shuffled) =>
        assert.deepEqual(newestFirst(shuffled, "dev"), sorted),
      ),
    );
  });
});

describe("a build's number", () => {
  const of = (tag: string, existing: { revision: string | undefined } | undefined) => {
    const checked = checkBuild(tag, "abc", existing);
    return "ok" in checked ? checked.ok : checked.problems.map(formatProblem).join();
  };

  it("is pushed once, reused for the same revision, and refused for another", () => {
    assert.equal(of("build-7", undefined), "push");
    assert.equal(of("build-7", { revision: "abc" }), "reuse");
    assert.match(of("build-7", { revision: "def" }), /holding it already, built from def/);
    assert.match(of("build-7", { revision: undefined }), /built from an unknown revision/);
    assert.match(of("dev-7", undefined), /the tag is dev-7; expected build and a number/);
  });
});
