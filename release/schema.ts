import type { Problem } from "./problem";

/** What an image's labels say of the database's schema. */
export const SCHEMA_LABELS = {
  /** The version its migrations lead to, a whole number. */
  head: "baton.schema-head",
  /** What the last of them does to the release before. */
  kind: "baton.schema-kind",
  /** Every point of no return on the way there, `7=contract 12=irreversible`. */
  points: "baton.schema-points",
} as const;

/**
 * - `expand`: releases of a lower version still run on the schema.
 * - `contract`: they do not; a migration down may bring it back.
 * - `irreversible`: they do not, and only a backup brings it back.
 */
export type SchemaKind = "expand" | "contract" | "irreversible";
const KINDS: readonly string[] = ["expand", "contract", "irreversible"] satisfies SchemaKind[];

/** A version of the schema on which releases of a lower one do not run. */
export interface SchemaPoint {
  readonly version: number;
  readonly kind: Exclude<SchemaKind, "expand">;
}

/** The schema that a release brings. */
export interface Schema {
  readonly version: number;
  /** In ascending order, each version once. */
  readonly points: readonly SchemaPoint[];
}

/** What an environment's outputs say of its database. */
export interface SchemaRecord extends Schema {
  /** Of the schema before the last migration, by its name. */
  readonly backup?: string | undefined;
  /** Whether the configuration it was deployed with allows a migration down, and has one. */
  readonly allowDown?: true | undefined;
}

/**
 * Reads an image's labels; nothing where they say nothing of a schema.
 * @param where the environment, and `image` as people know it, for the problems
 */
export function schemaOf(
  labels: Readonly<Record<string, string>>,
  { where, image }: { readonly where: string; readonly image: string },
): { readonly ok: Schema | undefined } | { readonly problems: readonly Problem[] } {
  const {
    head,
    kind,
    points = "",
  } = {
    head: labels[SCHEMA_LABELS.head],
    kind: labels[SCHEMA_LABELS.kind],
    points: labels[SCHEMA_LABELS.points],
  };
  if (head === undefined && kind === undefined && points === "") return { ok: undefined };
  const problem = (label: string, value: string | undefined, expected: string): Problem => ({
    where,
    property: `label ${label} of ${image}`,
    value: value ?? "not set",
    expected,
    fix: "Build the image again with it",
  });
  const problems: Problem[] = [];
  const version = wholeNumber(head);
  if (version === undefined) {
    problems.push(
      problem(SCHEMA_LABELS.head, head, "the version its migrations lead to, such as 7"),
    );
  }
  if (kind === undefined || !KINDS.includes(kind)) {
    problems.push(
      problem(SCHEMA_LABELS.kind, kind, KINDS.join(", ").replace(/, (\w+)$/, " or $1")),
    );
  }
  const all = new Map<number, SchemaPoint["kind"]>();
  for (const word of points.split(/[\s,]+/).filter((one) => one !== "")) {
    const [text, pointKind = ""] = word.split("=");
    const at = wholeNumber(text);
    if (at === undefined || at > (version ?? Infinity) || !isPoint(pointKind)) {
      const expected = "versions up to its head with contract or irreversible, such as 7=contract";
      problems.push(problem(SCHEMA_LABELS.points, points, expected));
      break;
    }
    all.set(at, pointKind);
  }
  if (problems.length > 0 || version === undefined) return { problems };
  if (kind !== undefined && isPoint(kind)) all.set(version, kind);
  return { ok: { version, points: sorted(all) } };
}

function wholeNumber(text: string | undefined): number | undefined {
  return text !== undefined && /^\d{1,15}$/.test(text) ? Number(text) : undefined;
}

function isPoint(kind: string): kind is SchemaPoint["kind"] {
  return kind === "contract" || kind === "irreversible";
}

function sorted(points: ReadonlyMap<number, SchemaPoint["kind"]>): SchemaPoint[] {
  return [...points]
    .map(([version, kind]) => ({ version, kind }))
    .sort((a, b) => a.version - b.version);
}

/**
 * All points of no return that several schemas know of, the stronger kind where they disagree. The
 * version is the first one's.
 */
export function mergeSchemas(first: Schema, ...others: readonly (Schema | undefined)[]): Schema {
  const all = new Map<number, SchemaPoint["kind"]>();
  for (const { version, kind } of [first, ...others].flatMap((schema) => schema?.points ?? [])) {
    all.set(version, all.get(version) === "irreversible" ? "irreversible" : kind);
  }
  return { version: first.version, points: sorted(all) };
}

/**
 * The points of no return that keep a release from running on a database.
 * @param release the version it brings; 0 for one that says nothing of a schema
 * @param database the version it is at, unless it is not known: then it may be at any
 */
export function pointsBetween(
  release: number,
  points: readonly SchemaPoint[],
  database = Infinity,
): SchemaPoint[] {
  return points.filter(({ version }) => version > release && version <= database);
}

/** How one gets from a release back to the one before. */
export type WayBack =
  /** As ever: the former release runs on the schema. */
  | "open"
  /** By a migration down, which the policy allows. */
  | "down"
  /** Only by restoring a backup of what was before. */
  | "restore";

/** What a release does to an environment's database. */
export interface SchemaChange {
  /** The version that was known before; 0 where nothing was. */
  readonly from: number;
  readonly to: number;
  /** The points of no return that it crosses. */
  readonly crosses: readonly SchemaPoint[];
  readonly wayBack: WayBack;
}

/**
 * What going forward does. The way back takes the configuration that was deployed last, so that is
 * the one that may allow a migration down.
 * @param former the schema that is there, with every point of no return that is known
 * @param next what the release brings; nothing where it says nothing of a schema
 */
export function schemaChange(
  former: SchemaRecord | undefined,
  next: Schema | undefined,
): SchemaChange | undefined {
  const from = former?.version ?? 0;
  if (next === undefined || next.version <= from) return undefined;
  const crosses = pointsBetween(from, mergeSchemas(next, former).points, next.version);
  return {
    from,
    to: next.version,
    crosses,
    wayBack: wayBackOver(crosses, former?.allowDown === true),
  };
}

/**
 * Why traffic does not return by itself to the release before one that fails; nothing where it may.
 * By then the database is migrated.
 */
export function irreversibleBy(
  plan: DatabasePlan | undefined,
  environment: string,
): string | undefined {
  const change = plan?.kind === "forward" ? plan.change : undefined;
  if (change === undefined || change.wayBack === "open") return undefined;
  const points = `the former release does not run on the schema, ${formatPoints(change.crosses)}`;
  const rollback = `\`baton rollback ${environment}\``;
  return change.wayBack === "down"
    ? `${points}; ${rollback} migrates down and goes back`
    : `${points}; the way back is \`baton restore ${environment} --backup NAME\`, then ${rollback}`;
}

/** How one gets back over points of no return. */
export function wayBackOver(points: readonly SchemaPoint[], down: boolean): WayBack {
  if (points.length === 0) return "open";
  return down && points.every(({ kind }) => kind === "contract") ? "down" : "restore";
}

/**
 * A change in one line, for the preview and the change card.
 * @param former the tag of the release before
 */
export function formatSchemaChange(
  { from, to, crosses, wayBack }: SchemaChange,
  { former, environment }: { readonly former: string | undefined; readonly environment: string },
): string {
  const change = `schema ${from} → ${to}`;
  const release = former ?? "the former release";
  switch (wayBack) {
    case "open":
      return `${change}, expanded${former === undefined ? "" : `: ${former} still runs on it`}`;
    case "down":
      return `${change}, ${formatPoints(crosses)}: ${release} runs again after the migration down`;
    case "restore":
      return (
        `${change}, ${formatPoints(crosses)}: ${release} does not run on it. There is no way back ` +
        `but the backup: \`baton restore ${environment} --backup NAME\`, then \`baton rollback ${environment}\``
      );
  }
}

/** `contracted at 8`, `contracted at 8 and irreversibly changed at 9`. */
export function formatPoints(points: readonly SchemaPoint[]): string {
  const words = { contract: "contracted", irreversible: "irreversibly changed" };
  return points.map(({ version, kind }) => `${words[kind]} at ${version}`).join(" and ");
}

/** From which version of the database on a release may not be deployed, and why. */
export interface SchemaRefusal {
  readonly from: number;
  readonly reason: string;
}

/** What a deployment means for an environment's database. */
export type DatabasePlan =
  /** Nothing, as nothing is known of a schema. */
  | { readonly kind: "none"; readonly known: undefined }
  /** It stays as it is, unless a release that never passed has changed it. */
  | {
      readonly kind: "same";
      readonly known: SchemaRecord;
      /** On the way back: the schema of the release that is returned to. */
      readonly version?: number;
    }
  | {
      readonly kind: "forward";
      readonly schema: Schema;
      readonly known: SchemaRecord | undefined;
      /** Nothing where the database is at the release's version, or past it. */
      readonly change: SchemaChange | undefined;
      readonly refusal: SchemaRefusal | undefined;
    }
  | {
      readonly kind: "back";
      /** The schema of the release that is returned to. */
      readonly version: number;
      readonly known: SchemaRecord;
      /** Where the migration down is: unless the policy allows it, the way back is refused. */
      readonly down: { readonly digest: string } | undefined;
      readonly refusal: SchemaRefusal;
    };

/** What is deployed, and what is known of it. */
interface Deployed {
  readonly environment: string;
  readonly tag: string;
  readonly schema: Schema | undefined;
  /** What the environment's database holds by its last record. */
  readonly known: SchemaRecord | undefined;
}

/** What going forward means. */
export function planForward(deployed: Deployed): DatabasePlan {
  const { schema, known } = deployed;
  if (schema === undefined) return unchanged(known);
  const change = schemaChange(known, schema);
  return { kind: "forward", schema, known, change, refusal: refusalOf(deployed, known?.points) };
}

/**
 * What going back means.
 * @param left the release that is left, which may have migrated whatever the record says
 * @param down whether the policy allows a migration down, and there is one
 */
export function planBack(
  deployed: Deployed,
  left: { readonly schema: Schema | undefined; readonly digest: string | undefined },
  down: boolean,
): DatabasePlan {
  const { schema, known } = deployed;
  const version = schema?.version ?? 0;
  const base: SchemaRecord = known ?? { version, points: [] };
  const all = { ...base, ...mergeSchemas(base, left.schema) };
  const refusal = refusalOf(deployed, all.points);
  if (refusal === undefined) return unchanged(known && all, version);
  // A release that says nothing of a schema would be migrated down to nothing.
  const way = wayBackOver(pointsBetween(version, all.points), down && schema !== undefined);
  const { digest } = left;
  const mayMigrate = way === "down" && digest !== undefined;
  return { kind: "back", version, known: all, refusal, down: mayMigrate ? { digest } : undefined };
}

/**
 * The refusal in what Pulumi says of a way back, as the database's Job has said it; nothing where it
 * failed for another reason.
 */
export function refusalIn(reason: string): string | undefined {
  return /the schema is at version \d+: .* and run this again\./.exec(reason)?.[0];
}

function unchanged(known: SchemaRecord | undefined, version?: number): DatabasePlan {
  if (known === undefined) return { kind: "none", known };
  return { kind: "same", known, ...(version === undefined ? {} : { version }) };
}

/** Where a database has passed points that a release does not run on. */
function refusalOf(
  { tag, schema }: Deployed,
  points: readonly SchemaPoint[] = [],
): SchemaRefusal | undefined {
  const version = schema?.version ?? 0;
  const passed = pointsBetween(version, points);
  const [first] = passed;
  if (first === undefined) return undefined;
  const reason = `${tag} is made for version ${version} and does not run on it, as it was ${formatPoints(passed)}.`;
  return { from: first.version, reason };
}
