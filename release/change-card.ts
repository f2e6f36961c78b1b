import type { Digest } from "./eligibility";

/** One step of a preview. */
export interface Operation {
  /** Pulumi's own word: `create`, `update`, `replace`, `delete` … */
  readonly op: string;
  readonly urn: string;
}

/** Operations of one kind on resources of one type. */
export interface OperationGroup {
  readonly op: string;
  readonly type: string;
  readonly names: readonly string[];
}

/** The strongest first. What a replacement consists of is counted as one. */
const ORDER = ["delete", "replace", "import", "discard", "update", "create"];

/** What a preview would do, grouped, deletions and replacements first. */
export function groupOperations(operations: readonly Operation[]): OperationGroup[] {
  const groups = new Map<string, { op: string; type: string; names: string[] }>();
  for (const { op, urn } of operations) {
    if (!ORDER.includes(op)) continue;
    const [, , qualifiedType = "", ...name] = urn.replace(/^urn:pulumi:/, "").split("::");
    const type = qualifiedType.split("$").at(-1) ?? qualifiedType;
    const key = `${op} ${type}`;
    const group = groups.get(key) ?? { op, type, names: [] };
    group.names.push(name.join("::"));
    groups.set(key, group);
  }
  const rank = ({ op }: OperationGroup) => ORDER.indexOf(op);
  return [...groups.values()].sort((a, b) => rank(a) - rank(b) || a.type.localeCompare(b.type));
}

interface Side {
  readonly tag?: string | undefined;
  readonly digest?: Digest | undefined;
  readonly version?: string | undefined;
}

/** The one summary people approve. */
export interface ChangeCard {
  readonly environment: string;
  readonly from: Side;
  readonly to: Side;
  /** The plan's hash. */
  readonly plan: string;
  readonly requester: string;
  readonly operations: readonly OperationGroup[];
  /** What still stands in the way. */
  readonly missing: readonly string[];
}

const NONE = "nothing";

/** The card as text, without colour. */
export function formatCard(card: ChangeCard): string {
  const { from, to } = card;
  const change = (one?: string, other?: string) =>
    one === other ? `${other ?? NONE} (unchanged)` : `${one ?? NONE} → ${other ?? NONE}`;
  const facts = [
    ["digest", change(from.digest, to.digest)],
    ...(from.version === undefined && to.version === undefined
      ? []
      : [["version", change(from.version, to.version)]]),
    ["plan", card.plan],
    ["asked by", card.requester],
  ];
  const operations = card.operations.map(({ op, type, names }) => [
    op,
    `${names.length} ${type}: ${names.join(", ")}`,
  ]);
  const lines = [
    ...facts,
    ...(operations.length === 0 ? [["changes", "none"]] : operations),
    ...card.missing.map((text) => ["missing", text]),
  ];
  const rows = lines.map(([name = "", text = ""]) => `  ${name.padEnd(9)} ${text}`);
  return [`${card.environment}: ${change(from.tag, to.tag)}`, ...rows].join("\n");
}
