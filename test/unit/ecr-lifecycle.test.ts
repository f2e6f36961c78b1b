import * as assert from "node:assert/strict";
import * as fc from "fast-check";
import { lifecycleRules, type LifecycleRule } from "../../components/internal/ecr-lifecycle";
import { committedConfig } from "../support/program";

interface Image {
  readonly tags: readonly string[];
  /** Days since it was pushed. */
  readonly age: number;
}

/**
 * What ECR would expire, by its own description: every rule is evaluated, a rule sees the images
 * that have all its prefixes, and an image that matches a rule is out of reach of those with a
 * higher priority number (https://docs.aws.amazon.com/AmazonECR/latest/userguide/LifecyclePolicies.html).
 */
function expired(rules: readonly LifecycleRule[], images: readonly Image[]): Image[] {
  const gone: Image[] = [];
  let left = [...images];
  for (const { selection } of [...rules].sort((a, b) => a.rulePriority - b.rulePriority)) {
    const { tagStatus, tagPrefixList = [], countType, countNumber } = selection;
    const seen = left.filter(({ tags }) =>
      tagStatus === "untagged"
        ? tags.length === 0
        : tagPrefixList.every((prefix) => tags.some((tag) => tag.startsWith(prefix))),
    );
    const newestFirst = [...seen].sort((a, b) => a.age - b.age);
    gone.push(
      ...(countType === "imageCountMoreThan"
        ? newestFirst.slice(countNumber)
        : seen.filter(({ age }) => age > countNumber)),
    );
    left = left.filter((image) => !seen.includes(image));
  }
  return gone;
}

const lifecycle = (
  committedConfig("dev").defaults["registry"] as {
    lifecycle: { keepAll: string[]; keepNewest: Record<string, number> };
  }
).lifecycle;
const rules = lifecycleRules(lifecycle.keepAll, lifecycle.keepNewest);

/** A history: each build gets as far along the path as the number says. */
const PATH = ["dev", "qa", "stage", "prod", "dr"];
function history(reach: readonly number[]): Image[] {
  return reach.map((steps, index) => {
    const number = index + 1;
    const earned = PATH.slice(0, steps).map((environment) =>
      ["prod", "dr"].includes(environment)
        ? `${environment}-v1.${number}.0`
        : `${environment}-${number}`,
    );
    return { tags: [`build-${number}`, ...earned], age: reach.length - index };
  });
}

describe("the ECR lifecycle", () => {
  it("shields prod and dr before any rule that fires", () => {
    assert.deepEqual(
      rules.map(({ selection }) => selection.tagPrefixList?.[0] ?? "untagged"),
      ["prod-", "dr-", "stage-", "qa-", "dev-", "build-", "untagged"],
    );
  });

  it("never expires what an environment runs or would return to", () => {
    const reaches = fc.array(fc.integer({ min: 0, max: 5 }), { minLength: 1, maxLength: 400 });
    fc.assert(
      fc.property(reaches, (reach) => {
        const images = history(reach);
        const gone = new Set(expired(rules, images));
        for (const environment of PATH) {
          const carried = images.filter(({ tags }) =>
            tags.some((tag) => tag.startsWith(`${environment}-`)),
          );
          // What it runs, and the four releases before that.
          for (const image of carried.slice(-5)) assert.ok(!gone.has(image), image.tags.join());
        }
        for (const image of gone) {
          assert.ok(!image.tags.some((tag) => /^(prod|dr)-/.test(tag)), image.tags.join());
        }
        // The newest build has not been anywhere yet.
        assert.ok(!gone.has(images.at(-1) as Image));
      }),
    );
  });

  it("keeps a bounded number of builds that went nowhere", () => {
    const images = history(Array.from({ length: 500 }, () => 0));
    assert.equal(images.length - expired(rules, images).length, lifecycle.keepNewest["build"]);
  });

  it("expires what has no tag after 14 days", () => {
    const images = [13, 14, 15].map((age) => ({ tags: [], age }));
    assert.deepEqual(expired(rules, images), [images[2]]);
  });
});
