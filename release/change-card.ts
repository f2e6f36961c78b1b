import type { Digest } from "./eligibility";
import { isUnexpected, type OperationGroup } from "./operations";
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
  /** What differs from what runs; left out where nothing does. */
  readonly settings?: readonly SettingsChange[] | undefined;
  /** As `groupOperations` orders them. */
  readonly operations: readonly OperationGroup[];
  /** What becomes of the database; left out where there is none. */
  readonly schema?: string | undefined;
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
}

/** What is approved together with the card's own release, and deployed after it. */
export type FollowerCard = Pick<
  ChangeCard,
  "environment" | "from" | "to" | "plan" | "settings" | "operations" | "routine"
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
  const { commits, settings, schema, suites, notes = "" } = card;
  return [
    [
      row("digest", change(digestOf(from), digestOf(to))),
      ...optional(versions, row("version", change(from.version, to.version))),
      row("plan", card.plan),
      row("asked by", card.requester),
    ],
    card.operations.length === 0 ? [row("changes", "none")] : card.operations.map(operationRow),
    settings === undefined
      ? []
      : [row("settings", ...(settings.length === 0 ? ["unchanged"] : settings.map(settingLine)))],
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
      row("approval", card.routine ? "routine" : "not routine"),
      ...card.missing.map((text) => row("missing", text)),
    ],
  ].filter((group) => group.length > 0);
}

function followerRows({ environment, from, to, ...follower }: FollowerCard): Row[] {
  const { plan, operations, settings = [], routine } = follower;
  const what = `${change(from.tag, to.tag)}, once that has succeeded`;
  const rest = `plan ${plan}; ${routine ? "routine" : "not routine"}`;
  return [
    { name: environment, lines: [what, rest] },
    ...operations.map(operationRow),
    ...(settings.length === 0 ? [] : [{ name: "settings", lines: settings.map(settingLine) }]),
  ];
}

function change(one?: string, other?: string): string {
  return one === other ? `${other ?? NONE} (unchanged)` : `${one ?? NONE} → ${other ?? NONE}`;
}

function digestOf({ digest }: Side): string | undefined {
  return digest && shortDigest(digest);
}

function operationRow(group: OperationGroup): Row {
  const { op, type, names, paths } = group;
  const unexpected = isUnexpected(group);
  const of = paths.length === 0 ? "" : ` (${paths.join(", ")})`;
  const what = `${names.length} ${type}: ${names.join(", ")}${of}`;
  return { name: op, lines: [unexpected ? `unexpected: ${what}` : what], marked: unexpected };
}

function settingLine({ path, kind, from, to }: SettingsChange): string {
  const show = (value: unknown) => cutTo(plain(String(value)), VALUE_SHOWN);
  if (from !== undefined && to !== undefined) return `${path}: ${show(from)} → ${show(to)}`;
  const value = kind === "added" ? to : from;
  return `${path}: ${kind}${value === undefined ? "" : `, ${show(value)}`}`;
}

function commitLines({ state, why, from, to, commits, behind, total }: Commits): string[] {
  if (state === "unknown") return [`${NOT_KNOWN}: ${why ?? "nobody says why"}`];
  const number = (count: number) => `${count} ${count === 1 ? "commit" : "commits"}`;
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

/** In one line, and without what a terminal would obey: some of it was written by others. */
function plain(text: string): string {
  return text.replace(/[\p{Cc}\u2028\u2029\u202a-\u202e\u2066-\u2069]+/gu, " ");
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

const MOST_BLOCKS = 50;
const LONGEST_HEADER = 150;
const LONGEST_SECTION = 3000;

/** The card for Slack: at most 50 blocks; what is too long is cut, and says so. */
export function cardBlocks(card: ChangeCard): CardBlock[] {
  const section = (text: string): CardBlock => ({
    type: "section",
    // Else Slack makes links and mentions of what looks like one.
    text: { type: "mrkdwn", text, verbatim: true },
  });
  const sections = rowsOf(card).flatMap((rows) => pack(rows.flatMap(mrkdwnLines)).map(section));
  const room = MOST_BLOCKS - 1;
  const shown = sections.length <= room ? sections : sections.slice(0, room - 1);
  const cut = sections.length <= room ? [] : [section("_… and more: too much to be shown here_")];
  const text = cutTo(title(card), LONGEST_HEADER);
  return [{ type: "header", text: { type: "plain_text", text, emoji: false } }, ...shown, ...cut];
}

function mrkdwnLines({ name, lines, marked = false }: Row): string[] {
  const texts = lines
    .map((line) => (typeof line === "string" ? line : line.exact))
    .filter((text) => text.trim() !== "");
  const label = `*${marked ? "! " : ""}${name}*`;
  const escaped = texts.map((text) =>
    escapeMrkdwn(plain(text), LONGEST_SECTION - label.length - 3),
  );
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

/** https://docs.slack.dev/messaging/formatting-message-text#escaping */
function escapeMrkdwn(text: string, longest: number): string {
  const entities: Readonly<Record<string, string>> = { "&": "&amp;", "<": "&lt;", ">": "&gt;" };
  const escaped = Array.from(text, (character) => entities[character] ?? character);
  let length = 0;
  const kept = escaped.filter((part) => (length += part.length) < longest);
  return kept.length === escaped.length ? kept.join("") : `${kept.join("")}…`;
}

function cutTo(text: string, longest: number): string {
  const characters = Array.from(text);
  return characters.length <= longest ? text : `${characters.slice(0, longest - 1).join("")}…`;
}
