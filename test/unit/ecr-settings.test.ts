import * as assert from "node:assert/strict";
import * as fc from "fast-check";
import {
  replicationProblem,
  scanningProblem,
  withEnhancedScanning,
  withReplication,
} from "../../components/internal/ecr-settings";
import { formatProblem } from "../../release/problem";

const prefixes = (...filters: string[]) =>
  filters.map((filter) => ({ filter, filterType: "PREFIX_MATCH" as const }));
const wildcards = (...filters: string[]) =>
  filters.map((filter) => ({ filter, filterType: "WILDCARD" as const }));
const to = (region: string) => [{ region, registryId: "123456789012" }];
const replicate = (present: Parameters<typeof withReplication>[0], ...regions: string[]) =>
  withReplication(present, "podinfo", "123456789012", regions);

describe("a registry's replication", () => {
  it("keeps every rule of others, also those that reach this repository", () => {
    const others = [
      { destinations: to("us-east-1"), repositoryFilters: prefixes("other") },
      { destinations: to("us-east-1"), repositoryFilters: prefixes("podinfo", "other") },
      { destinations: to("us-east-1"), repositoryFilters: prefixes("pod") },
      { destinations: to("us-east-1") },
    ];
    const own = { destinations: to("eu-central-1"), repositoryFilters: prefixes("podinfo") };
    assert.deepEqual(replicate(others, "eu-central-1"), [...others, own]);
  });

  it("has its own rule once, as it is asked for now, however often it is made", () => {
    const rule = fc.record({
      destinations: fc.constant(to("us-east-1")),
      repositoryFilters: fc.array(fc.constantFrom(...prefixes("podinfo", "pod", "other"))),
    });
    fc.assert(
      fc.property(fc.array(rule), (present) => {
        const once = replicate(present, "eu-central-1");
        assert.deepEqual(replicate(once, "eu-central-1"), once);
        const changed = replicate(once, "eu-north-1");
        assert.equal(changed.length, once.length);
        assert.deepEqual(changed.at(-1)?.destinations, to("eu-north-1"));
      }),
    );
  });

  it("is refused where the registry can take no rule more", () => {
    const rules = (count: number) =>
      Array.from({ length: count }, (_, index) => ({
        destinations: to("us-east-1"),
        repositoryFilters: prefixes(`other-${index}`),
      }));
    assert.equal(replicationProblem("dev", replicate(rules(9), "eu-central-1")), undefined);
    const problem = replicationProblem("dev", replicate(rules(10), "eu-central-1"));
    assert.ok(problem);
    assert.match(formatProblem(problem), /^dev: baton:registry\.replication is one rule more than/);
  });
});

describe("a registry's enhanced scanning", () => {
  const settings = (type: "BASIC" | "ENHANCED", rules: string[], hasOthers: boolean) => ({
    replication: [],
    scanning: {
      type,
      rules: rules.map((filter) => ({
        scanFrequency: "SCAN_ON_PUSH" as const,
        repositoryFilters: wildcards(filter),
      })),
    },
    hasOthers,
  });

  it("keeps every rule of others, and has its own once", () => {
    const { scanning } = settings("ENHANCED", ["other/*"], true);
    const once = withEnhancedScanning(scanning, "podinfo");
    assert.deepEqual(once.rules[0], scanning.rules[0]);
    assert.equal(once.rules.length, 2);
    assert.deepEqual(withEnhancedScanning(once, "podinfo"), once);
  });

  it("is not switched on over the heads of others", () => {
    const problem = (...given: Parameters<typeof settings>) =>
      scanningProblem("dev", "eu-west-1", settings(...given));
    assert.equal(problem("BASIC", [], false), undefined);
    assert.equal(problem("ENHANCED", ["other/*"], true), undefined);
    for (const refused of [problem("BASIC", [], true), problem("BASIC", ["other/*"], false)]) {
      assert.ok(refused);
      assert.match(
        formatProblem(refused),
        /^dev: baton:registry\.scanning is enhanced, while the registry in eu-west-1 scans .*aws ecr put-/,
      );
    }
  });
});
