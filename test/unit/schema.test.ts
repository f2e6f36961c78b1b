import * as assert from "node:assert/strict";
import * as fc from "fast-check";
import {
  formatSchemaChange,
  mergeSchemas,
  planBack,
  irreversibleBy,
  planForward,
  pointsBetween,
  refusalIn,
  schemaChange,
  schemaOf,
  wayBackOver,
  type Schema,
  type SchemaKind,
  type SchemaRecord,
} from "../../release/schema";
import { labels, schema } from "../support/database";

const where = { where: "prod", image: "stage-45" };
const problems = (given: Readonly<Record<string, string>>) => {
  const read = schemaOf(given, where);
  return "problems" in read ? read.problems.map(({ property, value }) => [property, value]) : [];
};

/** Any schema whose points are known from its beginning on. */
const histories = fc
  .array(fc.constantFrom<SchemaKind>("expand", "contract", "irreversible"), {
    minLength: 1,
    maxLength: 8,
  })
  .map((kinds) => {
    const at = (version: number): Schema => ({
      version,
      points: kinds
        .slice(0, version)
        .flatMap((kind, index) => (kind === "expand" ? [] : [{ version: index + 1, kind }])),
    });
    return { kinds, at };
  });

/** What a record says of a configuration that allows a migration down, or does not. */
function allowing(down: boolean): Pick<SchemaRecord, "allowDown"> {
  return down ? { allowDown: true } : {};
}

/** What a release of version `release` runs on, said the slow way. */
function runsOn(kinds: readonly SchemaKind[], release: number, database: number): boolean {
  for (let version = release + 1; version <= database; version += 1) {
    if (kinds[version - 1] !== "expand") return false;
  }
  return true;
}

describe("a schema", () => {
  it("is what the image's labels say", () => {
    assert.deepEqual(schema(7), { version: 7, points: [] });
    assert.deepEqual(schema(7, "contract"), {
      version: 7,
      points: [{ version: 7, kind: "contract" }],
    });
    assert.deepEqual(schema(9, "expand", "7=contract, 8=irreversible").points, [
      { version: 7, kind: "contract" },
      { version: 8, kind: "irreversible" },
    ]);
    assert.deepEqual(schemaOf({ "org.opencontainers.image.version": "1" }, where), {
      ok: undefined,
    });
  });

  it("is refused where the labels say half of it, or something else", () => {
    assert.deepEqual(problems({ "baton.schema-head": "7" }), [
      ["label baton.schema-kind of stage-45", "not set"],
    ]);
    assert.deepEqual(problems({ "baton.schema-kind": "expand" }), [
      ["label baton.schema-head of stage-45", "not set"],
    ]);
    assert.deepEqual(problems(labels(7, "harmless")), [
      ["label baton.schema-kind of stage-45", "harmless"],
    ]);
    for (const points of ["8=contract", "7", "7=expand", "x=contract"]) {
      assert.equal(problems(labels(7, "expand", points)).length, 1, points);
    }
    for (const head of ["-1", "1.5", "7a", "1e3", "9999999999999999"]) {
      assert.equal(problems({ ...labels(7), "baton.schema-head": head }).length, 1, head);
    }
  });

  it("knows after a merge every point that anyone knew, the stronger kind first", () => {
    const merged = mergeSchemas(
      schema(9, "expand", "7=contract"),
      schema(8, "irreversible"),
      schema(7, "irreversible"),
    );
    assert.deepEqual(merged, {
      version: 9,
      points: [
        { version: 7, kind: "irreversible" },
        { version: 8, kind: "irreversible" },
      ],
    });
  });
});

describe("the way back from a schema", () => {
  it("is open exactly where the former release runs on the new one", () => {
    fc.assert(
      fc.property(histories, fc.nat(8), fc.nat(8), fc.boolean(), ({ kinds, at }, a, b, down) => {
        const [from, to] = [Math.min(a, kinds.length), Math.min(b, kinds.length)];
        const change = schemaChange({ ...at(from), ...allowing(down) }, at(to));
        if (to <= from) {
          assert.equal(change, undefined);
          return;
        }
        const crossed = kinds.slice(from, to);
        const expected = runsOn(kinds, from, to)
          ? "open"
          : down && !crossed.includes("irreversible")
            ? "down"
            : "restore";
        assert.equal(change?.wayBack, expected);
      }),
    );
  });

  it("is refused for every release that the database has left behind, and for no other", () => {
    fc.assert(
      fc.property(histories, fc.nat(8), fc.nat(8), fc.nat(8), ({ kinds, at }, a, b, c) => {
        const [target, left, actual] = [a, b, c].map((n) => Math.min(n, kinds.length)) as [
          number,
          number,
          number,
        ];
        const deployed = { environment: "qa", tag: "dev-1", schema: at(target), known: at(target) };
        const plan = planBack(deployed, { schema: at(left), digest: "sha256:0" }, false);
        // What the Job does with the version that it reads.
        const refused = plan.kind === "back" && actual >= plan.refusal.from;
        assert.equal(refused, !runsOn(kinds, target, Math.min(actual, Math.max(left, target))));
      }),
    );
  });

  it("is the same whether the points come from the record or from the labels", () => {
    fc.assert(
      fc.property(histories, fc.nat(8), ({ kinds, at }, a) => {
        const target = Math.min(a, kinds.length);
        const deployed = { environment: "qa", tag: "dev-1", schema: at(target) };
        const all = at(kinds.length);
        const recorded = planBack(
          { ...deployed, known: all },
          { schema: undefined, digest: undefined },
          false,
        );
        const labelled = planBack(
          { ...deployed, known: at(target) },
          { schema: all, digest: "sha256:0" },
          false,
        );
        assert.equal(recorded.kind, labelled.kind);
      }),
    );
  });

  it("goes down only over contractions, and with the image that is left", () => {
    const deployed = {
      environment: "qa",
      tag: "dev-6",
      schema: schema(6),
      known: schema(8, "contract"),
    };
    const plan = planBack(deployed, { schema: undefined, digest: "sha256:8" }, true);
    assert.deepEqual(plan.kind === "back" && plan.down, { digest: "sha256:8" });
    for (const [known, digest] of [
      [schema(8, "irreversible"), "sha256:8"],
      [schema(8, "contract"), undefined],
      [schema(8, "irreversible", "7=contract"), "sha256:8"],
    ] as const) {
      const refused = planBack({ ...deployed, known }, { schema: undefined, digest }, true);
      assert.equal(refused.kind === "back" && refused.down, undefined);
    }
  });

  it("goes down where its own configuration says so, whatever was deployed last", () => {
    for (const down of [true, false]) {
      const known = { ...schema(8, "contract"), ...allowing(!down) };
      const deployed = { environment: "qa", tag: "dev-6", schema: schema(6), known };
      const plan = planBack(deployed, { schema: undefined, digest: "sha256:8" }, down);
      assert.equal(plan.kind === "back" && plan.down !== undefined, down);
    }
  });

  it("is announced as the configuration says that was deployed last", () => {
    const next = schema(7, "contract");
    const wayBack = (former: SchemaRecord | undefined) => schemaChange(former, next)?.wayBack;
    assert.equal(wayBack({ ...schema(6), allowDown: true }), "down");
    assert.equal(wayBack(schema(6)), "restore");
    assert.equal(wayBack(undefined), "restore", "nothing was recorded");
  });

  it("remembers the points of a release that was left, also where the next one does not name them", () => {
    const left = { version: 5, points: [{ version: 6, kind: "contract" as const }] };
    assert.equal(schemaChange(left, { version: 7, points: [] })?.wayBack, "restore");
  });

  it("counts a release without labels as one from the beginning", () => {
    assert.equal(pointsBetween(0, schema(1, "contract").points).length, 1);
    assert.equal(wayBackOver([], false), "open");
    const deployed = { environment: "qa", tag: "dev-1", known: undefined };
    assert.deepEqual(planForward({ ...deployed, schema: undefined }), {
      kind: "none",
      known: undefined,
    });
    const left = { schema: schema(3, "contract"), digest: "sha256:3" };
    assert.equal(planBack({ ...deployed, schema: undefined }, left, false).kind, "back");
    const down = planBack({ ...deployed, schema: undefined }, left, true);
    assert.equal(down.kind === "back" && down.down, undefined, "down to what, it does not say");
  });

  it("is found refused in what Pulumi says of it", () => {
    const said =
      "the schema is at version 5: dev-4 is made for version 4 and does not run on it, as it was contracted at 5. Go forward, or restore what was before with `baton restore dev --backup before-dev-5` and run this again.";
    const printed = `error: 3 errors occurred:\n\t* [Pod dev/database-schema]:  -- [Error] ${said}\n\n`;
    assert.equal(refusalIn(printed), said);
    assert.equal(refusalIn("error: web: ImagePullBackOff"), undefined);
  });

  it("is closed to traffic once the database is past a point of no return", () => {
    const after = (next: Schema, down = false) => {
      const known = { ...schema(6), ...allowing(down) };
      const deployed = { environment: "qa", tag: "dev-8", schema: next, known };
      return irreversibleBy(planForward(deployed), "qa");
    };
    assert.equal(after(schema(7)), undefined);
    assert.equal(after(schema(6, "contract")), undefined, "nothing is crossed");
    assert.equal(irreversibleBy(undefined, "qa"), undefined);
    assert.equal(
      after(schema(7, "contract")),
      "the former release does not run on the schema, contracted at 7; the way back is `baton restore qa --backup NAME`, then `baton rollback qa`",
    );
    assert.equal(
      after(schema(7, "contract"), true),
      "the former release does not run on the schema, contracted at 7; `baton rollback qa` migrates down and goes back",
    );
  });

  it("is said in one line", () => {
    const to = (next: Schema, down = false) => {
      const change = schemaChange({ ...schema(6), ...allowing(down) }, next);
      assert.ok(change);
      return formatSchemaChange(change, { former: "qa-6", environment: "stage" });
    };
    assert.equal(to(schema(7)), "schema 6 → 7, expanded: qa-6 still runs on it");
    assert.equal(
      to(schema(8, "contract", "7=contract"), true),
      "schema 6 → 8, contracted at 7 and contracted at 8: qa-6 runs again after the migration down",
    );
    assert.equal(
      to(schema(7, "irreversible")),
      "schema 6 → 7, irreversibly changed at 7: qa-6 does not run on it. There is no way back but the backup: `baton restore stage --backup NAME`, then `baton rollback stage`",
    );
  });
});
