/** One step of a preview. */
export interface Operation {
  /** Pulumi's own word: `create`, `update`, `replace`, `delete` … */
  readonly op: string;
  readonly urn: string;
  /**
   * The properties that change, such as `spec.template.spec.containers[0].image`; absent where the
   * provider does not say.
   */
  readonly paths?: readonly string[] | undefined;
}

/** Operations of one kind on resources of one type. */
export interface OperationGroup {
  readonly op: string;
  readonly type: string;
  readonly names: readonly string[];
  /** Whether every release does this. */
  readonly routine: boolean;
  /** Of updates, the properties that not every release changes; none where nobody says which. */
  readonly paths: readonly string[];
}

/** The property that says: the resource is there, but was not ready in the end. */
export const NOT_READY = "#initerror";

/** The strongest first; an operation that is none of these comes before them. */
const ORDER = [
  ...["delete", "delete-replaced", "remove-pending-replace"],
  ...["replace", "create-replacement", "import", "update", "create"],
];
/** What changes no resource. */
export const HARMLESS = [
  ...["same", "read", "refresh", "diff", "discard"],
  ...["read-replacement", "discard-replaced", "extend-parameterize"],
];
/** Operations that a card shows as the one `replace` of the same resource. */
const OF_REPLACEMENT = ["create-replacement", "delete-replaced"];
/** What making or renewing a resource may consist of. */
const RENEWAL = [
  ...["create", "update", "replace"],
  ...["create-replacement", "delete-replaced", "remove-pending-replace"],
];
/** An approval of one of these is of all of a renewal, so that it can be carried on. */
const RENEWING = ["create", "replace"];

/**
 * What a preview would do, grouped: first what no release does away with, then the other deletions and
 * replacements. Each operation that changes anything is in a group: what people are not shown, they do
 * not approve.
 */
export function groupOperations(operations: readonly Operation[]): OperationGroup[] {
  const groups = new Map<string, OperationGroup & { names: string[]; paths: string[] }>();
  const replaced = new Set(
    operations.flatMap((operation) => (operation.op === "replace" ? [resourceOf(operation)] : [])),
  );
  for (const operation of operations) {
    const { op, urn } = operation;
    if (HARMLESS.includes(op)) continue;
    if (OF_REPLACEMENT.includes(op) && replaced.has(resourceOf(operation))) continue;
    const { type, name } = parseUrn(urn);
    const routine = isRoutine(operation);
    // Beside updates of named properties, one of any property would pass for one of those.
    const isOfAny = op === "update" && (operation.paths ?? []).length === 0;
    const key = `${op} ${type} ${String(routine)} ${String(isOfAny)}`;
    const group = groups.get(key) ?? { op, type, names: [], routine, paths: [] };
    group.names.push(name);
    if (op === "update") group.paths.push(...unusualPaths(operation));
    groups.set(key, group);
  }
  const rank = (group: OperationGroup) =>
    ORDER.indexOf(group.op) - (isUnexpected(group) ? ORDER.length : 0);
  return [...groups.values()]
    .map((group) => ({ ...group, paths: [...new Set(group.paths)].sort() }))
    .sort(
      (a, b) =>
        rank(a) - rank(b) || Number(a.routine) - Number(b.routine) || a.type.localeCompare(b.type),
    );
}

/** Whether it takes away what no release takes away by itself, or is of an unknown kind. */
export function isUnexpected({ op, routine }: OperationGroup): boolean {
  return !routine && !["import", "update", "create"].includes(op);
}

/**
 * A URN without stack and project, `urn:pulumi:STACK::PROJECT::TYPES::NAME`: the types of the
 * resource's parents and its own, its own, and its name.
 */
export function parseUrn(urn: string): { types: string; type: string; name: string } {
  const [, , types = "", ...name] = urn.replace(/^urn:pulumi:/, "").split("::");
  return { types, type: types.split("$").at(-1) ?? types, name: name.join("::") };
}

/** What tells a resource of a stack from all others: the types of its parents, its own, its name. */
function resourceOf({ urn }: Operation): string {
  const { types, name } = parseUrn(urn);
  return `${types}::${name}`;
}

/**
 * What would be changed, one line an operation: `update TYPES NAME PATH,PATH`. Neither values nor
 * names that Pulumi generates are in it.
 */
export function formatOperations(operations: readonly Operation[]): string[] {
  return operations
    .filter(({ op }) => !HARMLESS.includes(op))
    .map(({ op, urn, paths = [] }) => {
      const { types, name } = parseUrn(urn);
      // Of all else it does not matter which properties change.
      const changed = op === "update" && paths.length > 0 ? [paths.map(escape).join(",")] : [];
      return [op, escape(types), escape(name), ...changed].join(" ");
    });
}

/**
 * Reads what `formatOperations` has written, as operations of no particular stack. A line that is
 * not whole is left out: it approves nothing.
 */
export function parseOperations(lines: readonly string[]): Operation[] {
  return lines.flatMap((line) => {
    const [op, types, name, paths] = line.trim().split(" ");
    if (!op || !types || !name) return [];
    const urn = `urn:pulumi:::::${unescape(types)}::${unescape(name)}`;
    return [{ op, urn, ...(paths ? { paths: paths.split(",").map(unescape) } : {}) }];
  });
}

/** Without anything that ends a line, a word or a path. */
export function escape(text: string): string {
  return text.replace(/[\s,%\p{Cc}]/gu, (character) =>
    // `,` is a word to encodeURIComponent, too.
    character === "," ? "%2C" : encodeURIComponent(character),
  );
}

export function unescape(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/**
 * The operations that are new or stronger than those that were approved. What was approved is
 * compared by resource, whatever the stack's name. A creation or replacement covers all that it
 * takes to carry it on after it was interrupted; an update covers one of the same properties or
 * fewer, and another try at what did not get ready.
 */
export function exceeds(approved: readonly Operation[], now: readonly Operation[]): Operation[] {
  const byResource = new Map<string, Operation[]>();
  for (const operation of approved) {
    const resource = resourceOf(operation);
    byResource.set(resource, [...(byResource.get(resource) ?? []), operation]);
  }
  return now
    .filter(({ op }) => !HARMLESS.includes(op))
    .filter((operation) => {
      const known = byResource.get(resourceOf(operation)) ?? [];
      return !known.some((one) => covers(one, operation));
    });
}

function covers(approved: Operation, now: Operation): boolean {
  if (RENEWING.includes(approved.op) && RENEWAL.includes(now.op)) return true;
  if (now.op === "delete") return ["delete", "replace"].includes(approved.op);
  if (now.op !== "update") return now.op === approved.op;
  if (approved.op !== "update") return false;
  // Without paths, an update may be of anything.
  const unknown = (operation: Operation) => (operation.paths ?? []).length === 0;
  if (unknown(approved)) return true;
  const allowed = [...(approved.paths ?? []), NOT_READY];
  return !unknown(now) && (now.paths ?? []).every((path) => allowed.includes(path));
}

const LABELS = String.raw`metadata\.labels(\.baton/image-tag|\["(baton/image-tag|app\.kubernetes\.io/version)"\])`;
const POD = String.raw`spec\.(jobTemplate\.spec\.)?template`;
const CONTAINER = String.raw`${POD}\.spec\.(c|initC)ontainers\[\d+\]`;
const SOURCE = String.raw`${POD}\.spec\.volumes\[\d+\]\.projected\.sources\[\d+\]`;
const whole = (...patterns: string[]) => new RegExp(`^(${[NOT_READY, ...patterns].join("|")})$`);

const LABELS_ONLY = whole(LABELS);
/** The release's image, its labels, and the names of its settings. */
const NEW_RELEASE = whole(
  LABELS,
  `${POD}\\.${LABELS}`,
  String.raw`${CONTAINER}\.image`,
  String.raw`${CONTAINER}\.env\[\d+\]\.valueFrom\.secretKeyRef\.name`,
  String.raw`${CONTAINER}\.envFrom\[\d+\]\.(configMap|secret)Ref\.name`,
  String.raw`${SOURCE}\.(configMap|secret)\.name`,
);

/** What every release does, by the types of a resource's parents and its own. */
const ROUTINE = new Map<string, { readonly ops: readonly string[]; readonly paths?: RegExp }>(
  Object.entries({
    "baton:components:Settings$kubernetes:core/v1:ConfigMap": { ops: [...RENEWAL, "delete"] },
    "baton:components:Settings$kubernetes:core/v1:Secret": { ops: [...RENEWAL, "delete"] },
    "baton:components:Database$kubernetes:batch/v1:CronJob": {
      ops: ["update"],
      paths: NEW_RELEASE,
    },
    // One a release; whether they have anything to do, the policy asks of the image.
    "baton:components:Database$kubernetes:batch/v1:Job": { ops: [...RENEWAL, "delete"] },
    "baton:components:Database$promotion:index:SchemaVersion": { ops: [...RENEWAL, "delete"] },
    "baton:components:Verification$kubernetes:batch/v1:Job": { ops: RENEWAL },
    // The way back has none.
    "promotion:index:Unshared": { ops: [...RENEWAL, "delete"] },
    "baton:components:Verification$promotion:index:EarnedTag": { ops: RENEWAL },
    // The way back has none.
    "baton:components:Verification$promotion:index:Canary": { ops: [...RENEWAL, "delete"] },
    "baton:components:Verification$promotion:index:Bake": { ops: [...RENEWAL, "delete"] },
    "baton:components:Workload$promotion:index:Rollout": { ops: RENEWAL },
    "baton:components:Workload$kubernetes:core/v1:Service": {
      ops: ["update"],
      paths: whole(LABELS, String.raw`spec\.selector\["app\.kubernetes\.io/name"\]`),
    },
    // Each release has a colour of its own, and the one before the last goes.
    ...Object.fromEntries(
      [
        ...["promotion:index:Rollout", "kubernetes:apps/v1:Deployment"],
        ...["kubernetes:core/v1:Service", "kubernetes:policy/v1:PodDisruptionBudget"],
        ...["kubernetes:autoscaling/v2:HorizontalPodAutoscaler", "promotion:index:Autoscaled"],
      ].map((type) => [`baton:components:Colour$${type}`, { ops: [...RENEWAL, "delete"] }]),
    ),
    "baton:components:Workload$kubernetes:apps/v1:Deployment": {
      ops: ["update"],
      paths: NEW_RELEASE,
    },
    "baton:components:Workload$kubernetes:batch/v1:CronJob": {
      ops: ["update"],
      paths: NEW_RELEASE,
    },
  }),
);
/** All other objects carry the release's labels; what holds a release carries none. */
const OTHERS = { ops: ["update"], paths: LABELS_ONLY };
const HOLDS_RELEASE =
  /(^|\$)kubernetes:(rbac\.authorization\.k8s\.io\/.*|networking\.k8s\.io\/v1:NetworkPolicy|core\/v1:ServiceAccount)$/;

/** The operations of a preview that are more than what every release does. */
export function notRoutine(operations: readonly Operation[]): Operation[] {
  return operations.filter(
    (operation) => !HARMLESS.includes(operation.op) && !isRoutine(operation),
  );
}

function ruleOf({ urn }: Operation): { readonly ops: readonly string[]; readonly paths?: RegExp } {
  const { types } = parseUrn(urn);
  return ROUTINE.get(types) ?? (HOLDS_RELEASE.test(types) ? { ops: [] } : OTHERS);
}

function isRoutine(operation: Operation): boolean {
  const { op, paths = [] } = operation;
  const rule = ruleOf(operation);
  if (!rule.ops.includes(op)) return false;
  return rule.paths === undefined || (paths.length > 0 && unusualPaths(operation).length === 0);
}

function unusualPaths(operation: Operation): string[] {
  const { op, paths = [] } = operation;
  const rule = ruleOf(operation);
  if (!rule.ops.includes(op)) return [...paths];
  return paths.filter((path) => rule.paths?.test(path) === false);
}
