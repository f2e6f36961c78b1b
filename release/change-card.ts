import type { Digest } from "./eligibility";
import { isUnexpected, type OperationGroup } from "./operations";
import type { PackageChange } from "./packages";
import { escapeEntities, mrkdwn, plain } from "./plain-text";
import { shortDigest } from "./plan";
import type { SettingsChange } from "./settings-difference";

/** The commits between the image that runs and the next one. */
export interface Commits {
  /** The revisions that the two images' labels name. */
  readonly from?: string;
  readonly to?: string;
  readonly state: "known" | "unknown";
  /** Why they are not known. */
  readonly why?: string;
  /** The newest of what comes, the newest first. */
  readonly commits: readonly {
    readonly id: string;
    readonly subject: string;
    readonly author: string;
  }[];
  /** How many are left, where the next image is older or on another line. */
  readonly behind: number;
  /** How many come. */
  readonly total: number;
}

/** How a suite ended. */
export interface Suite {
  readonly name: string;
  readonly result: "passed" | "failed";
  /** How long it ran. */
  readonly seconds?: number | undefined;
  /** Where its log is: an address, or the command that shows it. */
  readonly log?: string | undefined;
}

/** Where a card has no better word. */
export const NOT_KNOWN = "not known";

interface Side {
  readonly tag?: string | undefined;
  readonly digest?: Digest | undefined;
  readonly version?: string | undefined;
}

/** A file of the program that differs from what was deployed last. */
export interface FileChange {
  readonly name: string;
  readonly kind: "added" | "removed" | "changed";
}

/** What differs from what was deployed last, by the plan's parts. */
export interface Moved {
  /** The deployment that it is compared with, or a commit only; `nothing` where there is neither. */
  readonly since: { readonly tag: string | undefined; readonly commit: string } | "nothing";
  readonly settings: readonly SettingsChange[];
  /** Secrets, and what is or may be one, by their keys. */
  readonly secrets: readonly SettingsChange[];
  readonly policy: readonly SettingsChange[];
  readonly suites: readonly SettingsChange[];
  readonly program: {
    readonly files: readonly FileChange[];
    /** `Pulumi.yaml` without its configuration. */
    readonly project: readonly SettingsChange[];
  };
  readonly packages: readonly PackageChange[];
  /** Parts of the plan that moved although nothing above says how. */
  readonly unnamed: readonly string[];
}

/** The one summary people approve; as JSON, it is this very object. */
export interface ChangeCard {
  readonly environment: string;
  readonly from: Side;
  readonly to: Side;
  /** The plan's hash. */
  readonly plan: string;
  readonly requester: string;
  /** Left out where nobody asked. */
  readonly commits?: Commits | undefined;
  /** Left out where it is not known what a plan is of. */
  readonly moved?: Moved | undefined;
  /** Whether it goes the fast lane, past freeze, soak and sign-offs. */
  readonly hotfix?: boolean | undefined;
  /** As `groupOperations` orders them. */
  readonly operations: readonly OperationGroup[];
  /** What becomes of the database; left out where there is none. */
  readonly schema?: string | undefined;
  /** How to go back from it. */
  readonly wayBack?: string | undefined;
  /** What ran upstream; left out where there is none. */
  readonly suites?: readonly Suite[] | undefined;
  /** What is known of the image's vulnerabilities. */
  readonly scan: string;
  /** The release notes, in as many lines as they have. */
  readonly notes?: string | undefined;
  /** Whether it is nothing but what every release does. */
  readonly routine: boolean;
  /** The environments that follow this one. */
  readonly followers?: readonly FollowerCard[] | undefined;
  /** What still stands in the way. */
  readonly missing: readonly string[];
  /** The command that approves this plan, where it needs people's words. */
  readonly approve?: string | undefined;
}

/** What is approved together with the card's own release, and deployed after it. */
export type FollowerCard = Pick<
  ChangeCard,
  "environment" | "from" | "to" | "plan" | "moved" | "schema" | "operations" | "routine"
>;

/** One thing the card says, in as many lines as it takes; `exact` ones are never wrapped. */
interface Row {
  readonly name: string;
  readonly lines: readonly (string | { readonly exact: string })[];
  readonly marked?: boolean;
}

const NONE = "nothing";
/** As many characters of a value as the card shows. */
const VALUE_SHOWN = 60;
/** As many of a commit's id. */
const ID_SHOWN = 9;

/** What the card says, in groups that belong together; the first line is apart. */
function rowsOf(card: ChangeCard): Row[][] {
  const { from, to } = card;
  const row = (name: string, ...lines: Row["lines"]): Row => ({ name, lines });
  const optional = (present: boolean, one: Row): Row[] => (present ? [one] : []);
  const versions = from.version !== undefined || to.version !== undefined;
  const { commits, moved, schema, suites, wayBack, approve, notes = "" } = card;
  return [
    [
      row("digest", change(digestOf(from), digestOf(to))),
      ...optional(versions, row("version", change(from.version, to.version))),
      ...optional(card.hotfix ?? false, row("lane", "hotfix: past freeze, soak and sign-offs")),
      row("plan", card.plan),
      row("asked by", card.requester),
      ...sinceRows(card),
    ],
    card.operations.length === 0 ? [row("changes", "none")] : card.operations.map(operationRow),
    moved === undefined ? [] : movedRows(moved),
    schema === undefined ? [] : [row("database", schema)],
    commits === undefined ? [] : [row("commits", ...commitLines(commits))],
    [
      ...(suites === undefined
        ? []
        : [row("suites", ...(suites.length === 0 ? [NOT_KNOWN] : suites.flatMap(suiteLines)))]),
      row("scan", card.scan),
    ],
    ...(card.followers ?? []).map(followerRows),
    notes.trim() === "" ? [] : [row("notes", ...notes.trim().split(/\r?\n/))],
    [
      ...(wayBack === undefined ? [] : [row("way back", wayBack)]),
      row("approval", card.routine ? "routine" : "not routine"),
      ...card.missing.map((text) => row("missing", text)),
      ...(approve === undefined ? [] : [row("approve", { exact: approve })]),
    ],
  ].filter((group) => group.length > 0);
}

/** With what it is compared. */
function sinceRows({
  from,
  moved,
  operations,
}: Pick<ChangeCard, "from" | "moved" | "operations">): Row[] {
  if (moved === undefined) return [];
  if (moved.since !== "nothing") {
    const { tag, commit } = moved.since;
    const id = commit.slice(0, ID_SHOWN);
    const text = tag === undefined ? `commit ${id}` : `${tag}, deployed from ${id}`;
    return [{ name: "since", lines: [text] }];
  }
  const objects = operations
    .filter(({ op, type }) => op === "create" && !/^(baton:components|pulumi):/.test(type))
    .flatMap(({ names }) => names).length;
  const text =
    from.tag === undefined
      ? `everything, ${count(objects, "object")}: nothing was deployed before`
      : `everything: ${from.tag} was not deployed with the tool`;
  return [{ name: "new", lines: [text] }];
}

function movedRows(moved: Moved): Row[] {
  if (moved.since === "nothing") return [];
  const { settings, secrets, policy, suites, program, packages, unnamed } = moved;
  const row = (name: string, lines: readonly string[]): Row[] =>
    lines.length === 0 ? [] : [{ name, lines }];
  const files = program.files.map(
    ({ name, kind }) => `${name}${kind === "changed" ? "" : ` (${kind})`}`,
  );
  const list = (items: readonly string[], what: string) =>
    items.length === 0 ? [] : [`${count(items.length, what)}: ${items.join(", ")}`];
  return [
    ...row("settings", settings.length === 0 ? ["unchanged"] : settings.map(settingLine)),
    ...row("secrets", secrets.map(settingLine)),
    ...row("policy", policy.map(settingLine)),
    ...row("verifies", suites.map(settingLine)),
    ...row("program", [
      ...list(files, "file"),
      ...program.project.map((one) => `Pulumi.yaml: ${settingLine(one)}`),
    ]),
    ...row("packages", list(packages.map(packageText), "package")),
    ...(unnamed.length === 0
      ? []
      : [{ name: "unnamed", lines: unnamed.map((text) => text), marked: true }]),
  ];
}

function packageText({ name, from, to, isOther }: PackageChange): string {
  if (isOther === true) return `${name} ${to ?? ""} (the same version with other contents)`;
  if (from === undefined) return `${name} ${to ?? ""} (added)`;
  return to === undefined ? `${name} ${from} (removed)` : `${name} ${from} → ${to}`;
}

function count(number: number, what: string): string {
  return `${number} ${what}${number === 1 ? "" : "s"}`;
}

function followerRows({ environment, from, to, ...follower }: FollowerCard): Row[] {
  const { plan, operations, moved, schema, routine } = follower;
  const what = `${change(from.tag, to.tag)}, once that has succeeded`;
  const rest = `plan ${plan}; ${routine ? "routine" : "not routine"}`;
  const rows = moved === undefined ? [] : movedRows(moved);
  return [
    { name: environment, lines: [what, rest] },
    ...sinceRows({ from, moved, operations }),
    ...operations.map(operationRow),
    ...rows.filter(({ name, lines }) => name !== "settings" || lines[0] !== "unchanged"),
    ...(schema === undefined ? [] : [{ name: "database", lines: [schema] }]),
  ];
}

function change(one?: string, other?: string): string {
  return one === other ? `${other ?? NONE} (unchanged)` : `${one ?? NONE} → ${other ?? NONE}`;
}

function digestOf({ digest }: Side): string | undefined {
  return digest && shortDigest(digest);
}

function operationRow(group: OperationGroup): Row {
  const { op, type, names, paths, routine } = group;
  const unexpected = isUnexpected(group);
  const properties = op === "update" && !routine ? ["of properties that are not known"] : [];
  const shown = paths.length === 0 ? properties : paths;
  const of = shown.length === 0 ? "" : ` (${shown.join(", ")})`;
  const what = `${names.length} ${type}: ${names.join(", ")}${of}`;
  return { name: op, lines: [unexpected ? `unexpected: ${what}` : what], marked: unexpected };
}

function settingLine({ path, kind, from, to }: SettingsChange): string {
  const show = (value: unknown) => cutTo(plain(String(value)), VALUE_SHOWN);
  if (from !== undefined && to !== undefined) {
    const isAlike = String(from) === String(to);
    const text = (value: unknown) => plain(isAlike ? JSON.stringify(value) : String(value));
    const [one, other] = differing(text(from), text(to));
    return `${path}: ${cutTo(one, VALUE_SHOWN)} → ${cutTo(other, VALUE_SHOWN)}`;
  }
  const value = kind === "added" ? to : from;
  return `${path}: ${kind}${value === undefined ? "" : `, ${show(value)}`}`;
}

/** Two values from shortly before they differ, where that is beyond what is shown of a value. */
function differing(one: string, other: string): [string, string] {
  const [mine, theirs] = [Array.from(one), Array.from(other)];
  const first = mine.findIndex((character, index) => character !== theirs[index]);
  const at = first < 0 ? mine.length : first;
  if (at < VALUE_SHOWN / 2) return [one, other];
  const from = (characters: readonly string[]) => `…${characters.slice(at - 10).join("")}`;
  return [from(mine), from(theirs)];
}

function commitLines({ state, why, from, to, commits, behind, total }: Commits): string[] {
  if (state === "unknown") return [`${NOT_KNOWN}: ${why ?? "nobody says why"}`];
  const number = (many: number) => count(many, "commit");
  const [one, other] = [from?.slice(0, ID_SHOWN) ?? "", to?.slice(0, ID_SHOWN) ?? ""];
  const lines = total === 0 && behind === 0 ? [`none, both are ${other}`] : [];
  if (behind > 0) lines.push(`${number(behind)} of ${one} ${behind === 1 ? "is" : "are"} left`);
  if (total > 0) lines.push(`${number(total)} from ${one} to ${other}`);
  for (const { id, subject, author } of commits) {
    lines.push(`${id.slice(0, ID_SHOWN)} ${subject} (${author})`);
  }
  if (total > commits.length) lines.push(`and ${total - commits.length} more`);
  return lines;
}

function suiteLines({ name, result, seconds, log }: Suite): Row["lines"] {
  const time = seconds === undefined ? "" : ` in ${seconds} s`;
  // A command that is broken in two cannot be copied.
  return [`${name}: ${result}${time}`, ...(log === undefined ? [] : [{ exact: log }])];
}

const NAME_WIDTH = 9;
const INDENT = " ".repeat(2 + NAME_WIDTH + 1);

/**
 * The card as text, without colour.
 * @param width in columns; a single word may be longer
 */
export function formatCard(card: ChangeCard, width = 80): string {
  const rows = rowsOf(card).flat();
  const lines = rows.flatMap(({ name, lines: texts, marked = false }) => {
    const wrapped = texts.flatMap((text) =>
      typeof text === "string" ? wrap(plain(text), width - INDENT.length) : [plain(text.exact)],
    );
    const first = `${marked ? "!" : " "} ${name.padEnd(NAME_WIDTH)} `;
    return wrapped.map((text, index) => `${index === 0 ? first : INDENT}${text}`.trimEnd());
  });
  return [title(card), ...lines].join("\n");
}

function title({ environment, from, to }: ChangeCard): string {
  return plain(`${environment}: ${change(from.tag, to.tag)}`);
}

/** In columns, of what is no wider than a letter. */
function lengthOf(text: string): number {
  return Array.from(text).length;
}

/** Lines that break between words, and are no longer than `width` unless a word is. */
function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(" ")) {
    if (line !== "" && lengthOf(line) + 1 + lengthOf(word) > width) {
      lines.push(line);
      line = word;
    } else {
      line = line === "" ? word : `${line} ${word}`;
    }
  }
  return [...lines, line];
}

/** A block of Slack's Block Kit (https://docs.slack.dev/reference/block-kit/blocks). */
export type CardBlock =
  | { type: "header"; text: { type: "plain_text"; text: string; emoji: false } }
  | { type: "section"; text: { type: "mrkdwn"; text: string; verbatim: true } };

/** A message has 50 blocks, one before and one after the card's. */
const MOST_BLOCKS = 48;
const LONGEST_HEADER = 150;
const LONGEST_SECTION = 3000;
/** All sections of a message together may have some 13,000 characters. */
const LONGEST_CARD = 11_000;
/** As many columns of one line as stand in a section; what is longer goes on below. */
const LONGEST_LINE = 1000;

/** The card for Slack, as far as a message can hold it; what is left out is said. */
export function cardBlocks(card: ChangeCard): CardBlock[] {
  const section = (text: string): CardBlock => ({
    type: "section",
    // Else Slack makes links and mentions of what looks like one.
    text: { type: "mrkdwn", text, verbatim: true },
  });
  const texts = rowsOf(card).flatMap((rows) => pack(rows.flatMap(mrkdwnLines)));
  const room = MOST_BLOCKS - 2;
  let length = 0;
  const fitting = texts.filter((text, index) => {
    length += text.length;
    return index < room && length <= LONGEST_CARD;
  });
  const rest =
    fitting.length === texts.length
      ? []
      : [section(`_… and more: \`baton show ${mrkdwn(card.environment)}\` shows all of it_`)];
  const text = cutTo(title(card), LONGEST_HEADER);
  return [
    { type: "header", text: { type: "plain_text", text, emoji: false } },
    ...fitting.map(section),
    ...rest,
  ];
}

function mrkdwnLines({ name, lines, marked = false }: Row): string[] {
  const label = `*${marked ? "! " : ""}${name}*`;
  const room = LONGEST_SECTION - label.length - "• ``".length;
  const escaped = lines.flatMap((line) => {
    if (typeof line === "string") {
      const pieces = line.trim() === "" ? [] : wrap(plain(line), LONGEST_LINE);
      return pieces.map((one) => cutEscaped(mrkdwn(one), room));
    }
    // Commands are copied, so no look-alike may stand in them.
    const exact = escapeEntities(plain(line.exact).replaceAll("`", "'"));
    return exact.trim() === "" ? [] : [`\`${cutEscaped(exact, room)}\``];
  });
  return escaped.length === 1
    ? [`${label} ${escaped[0] ?? ""}`]
    : [label, ...escaped.map((text) => `• ${text}`)];
}

/** Lines in as few texts as hold them. */
function pack(lines: readonly string[]): string[] {
  const texts: string[] = [];
  for (const line of lines) {
    const last = texts.at(-1);
    if (last !== undefined && last.length + 1 + line.length <= LONGEST_SECTION) {
      texts[texts.length - 1] = `${last}\n${line}`;
    } else {
      texts.push(line);
    }
  }
  return texts;
}

/** So many characters at most, and no half of what stands for one. */
function cutEscaped(text: string, longest: number): string {
  if (text.length < longest) return text;
  const start = text.slice(0, longest - 1);
  return `${start.replace(/[\uD800-\uDBFF]$/, "").replace(/&[a-z]{0,3}$/, "")}…`;
}

function cutTo(text: string, longest: number): string {
  const characters = Array.from(text);
  return characters.length <= longest ? text : `${characters.slice(0, longest - 1).join("")}…`;
}
