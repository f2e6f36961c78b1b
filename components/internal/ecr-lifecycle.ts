import { formatTag } from "../../release/tags";

export interface LifecycleRule {
  readonly rulePriority: number;
  readonly description: string;
  readonly selection: {
    readonly tagStatus: "tagged" | "untagged";
    readonly tagPrefixList?: readonly string[];
    readonly countType: "imageCountMoreThan" | "sinceImagePushed";
    readonly countNumber: number;
    readonly countUnit?: "days";
  };
  readonly action: { readonly type: "expire" };
}

/** More images than a repository can hold (https://docs.aws.amazon.com/AmazonECR/latest/userguide/service-quotas.html). */
const NEVER = 1_000_000;
const UNTAGGED_DAYS = 14;

/**
 * ECR expires images, not tags, and an image that matches a rule's tags is out of reach of every
 * rule with a higher number (https://docs.aws.amazon.com/AmazonECR/latest/userguide/LifecyclePolicies.html).
 * One image carries all the tags it has earned, so the givers furthest along the path come first:
 * `keepAll` as rules that shield and never fire, then `keepNewest` in its own order.
 */
export function lifecycleRules(
  keepAll: readonly string[],
  keepNewest: Readonly<Record<string, number>>,
): LifecycleRule[] {
  const prefix = (giver: string) => formatTag({ giver, release: "" });
  const tagged = (giver: string, countNumber: number, description: string) => ({
    description,
    selection: {
      tagStatus: "tagged" as const,
      tagPrefixList: [prefix(giver)],
      countType: "imageCountMoreThan" as const,
      countNumber,
    },
  });
  const rules = [
    ...keepAll.map((giver) => tagged(giver, NEVER, `keep all that ${giver} has verified`)),
    ...Object.entries(keepNewest).map(([giver, newest]) =>
      tagged(giver, newest, `keep the newest ${newest} of ${giver}`),
    ),
    {
      description: `expire what has no tag after ${UNTAGGED_DAYS} days`,
      selection: {
        tagStatus: "untagged" as const,
        countType: "sinceImagePushed" as const,
        countNumber: UNTAGGED_DAYS,
        countUnit: "days" as const,
      },
    },
  ];
  return rules.map((rule, index) => ({
    rulePriority: index + 1,
    ...rule,
    action: { type: "expire" as const },
  }));
}
