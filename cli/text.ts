import { styleText } from "node:util";
import type { Term } from "../release/gate";
import { plain, plainLines } from "../release/plain-text";

/** Where nobody says how wide it is. */
const USUAL_WIDTH = 80;
const MARKS = { passes: "✔", waits: "…", fails: "✖" } as const;
const COLOURS = { passes: "green", waits: "yellow", fails: "red" } as const;

/** How many columns there are to print in. */
export function widthOf(): number {
  return process.stdout.columns || USUAL_WIDTH;
}

/** Whether to print in colour (https://no-color.org). */
export function isColoured(): boolean {
  return process.stdout.isTTY && !process.env["NO_COLOR"];
}

/** A term's mark, in its colour. */
export function markOf(state: Term["state"]): string {
  return paint(COLOURS[state], MARKS[state]);
}

/** Words of the tool's own in colour, the only ones that `printable` leaves so. */
const painted = new Set<string>();

/** Colours a word that no other has written, where colours are wanted. */
export function paint(colour: "green" | "yellow" | "red" | "cyan", word: string): string {
  if (!isColoured()) return word;
  const text = styleText(colour, word);
  painted.add(text);
  return text;
}

/**
 * A text as a terminal may have it. All that is printed for people passes here, as much of it was
 * written by others: git subjects, tags, reasons, what Pulumi and clusters say.
 */
export function printable(text: string): string {
  if (painted.size === 0) return plainLines(text);
  const words = [...painted].map((word) => word.replace(/[[\]\\^$.*+?(){}|]/g, "\\$&"));
  const pieces = text.split(new RegExp(`(${words.join("|")})`));
  return pieces.map((piece) => (painted.has(piece) ? piece : plainLines(piece))).join("");
}

/**
 * Text below and beside a heading, in lines that fit. They break between words, but not within a
 * command in backticks; what is longer than a line by itself is cut in pieces.
 * @param heading of one line; the text keeps right of it
 * @param indent how wide the heading is, where colours make it longer than it looks
 */
export function wrap(heading: string, text: string, indent = lengthOf(heading)): string {
  const width = Math.max(widthOf() - indent, 20);
  const words = plain(text).match(/`[^`]*`\S*|\S+/g) ?? [];
  const pieces = words.flatMap((word) => {
    const characters = Array.from(word);
    const count = Math.ceil(characters.length / width);
    return Array.from({ length: count }, (_, index) =>
      characters.slice(index * width, (index + 1) * width).join(""),
    );
  });
  const lines: string[] = [];
  for (const piece of pieces) {
    const last = lines.at(-1);
    if (last !== undefined && lengthOf(last) + 1 + lengthOf(piece) <= width) {
      lines[lines.length - 1] = `${last} ${piece}`;
    } else {
      lines.push(piece);
    }
  }
  return heading + lines.join(`\n${" ".repeat(indent)}`);
}

/** In columns, of what is no wider than a letter. */
export function lengthOf(text: string): number {
  return Array.from(text).length;
}

/** A term as the next program reads it. */
export interface SaidTerm {
  readonly name: string;
  readonly state: Term["state"];
  readonly says: string;
  /** What to do about it. */
  readonly fix?: string;
  /** When it will pass, in ISO 8601. */
  readonly passesAt?: string;
}

export function sayTerm({ name, state, says, problem, passesAt }: Term): SaidTerm {
  return {
    name,
    state,
    says,
    ...(problem === undefined ? {} : { fix: problem.fix }),
    ...(passesAt === undefined ? {} : { passesAt: passesAt.toISOString() }),
  };
}
