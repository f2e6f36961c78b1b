import { TRIGGERS } from "../release/trigger";
import type { Git } from "./git";

/** The kinds of entries that every clone keeps and pushes. Each is a folder of annotated tags. */
export const KINDS = ["approve", "reject", "outcome", "hold", "sign-off", "review"] as const;

export type Kind = (typeof KINDS)[number] | typeof TRIGGERS;

/** How many names stand in an entry's ref after the kind and the project. */
const PATH_LENGTHS: Readonly<Record<Kind, number>> = {
  // ENV/PLAN/PERSON
  approve: 3,
  reject: 3,
  // ENV/TIME
  outcome: 2,
  [TRIGGERS]: 2,
  // TIME
  hold: 1,
  // ENV/EARNED-TAG/NAME/PERSON
  "sign-off": 4,
  // ENV/TIME/PERSON
  review: 3,
};

/** The trailer with the name of the project that an entry is about. */
export const PROJECT = "Baton-Project";

/** Lines `Name: value` at the end of a message. */
export type Trailers = Readonly<Record<string, string | undefined>>;

/** Trailers to write; a list becomes a line for each of its values. */
export type NewTrailers = Readonly<Record<string, string | readonly string[] | undefined>>;

/** One annotated tag. */
export interface Entry {
  /** Its name without `refs/tags/`. */
  readonly ref: string;
  /** The names in `ref` after the kind and the project. */
  readonly path: readonly string[];
  /**
   * The project that the entry names. Undefined for entries written before entries named a project,
   * and for `hold/TIME`, which is about all projects of the repository.
   */
  readonly project: string | undefined;
  /** The tag object's id. */
  readonly id: string;
  /** The commit that the tag is on. */
  readonly commit: string;
  /** The tagger's address and date. */
  readonly email: string;
  readonly at: Date;
  readonly message: string;
}

const ENTRY_FIELDS = [
  ...["refname:strip=2", "objectname", "tag", "*objectname"],
  ...["taggeremail:trim", "taggerdate:iso-strict", "contents"],
];

/** The annotated tags in a repository that are about one Pulumi project, or about all projects. */
export class Entries {
  constructor(
    private readonly git: Git,
    private readonly project: string,
  ) {}

  /**
   * The entries of some kinds below a path, by name.
   * @param path the first names after kind and project, such as an environment; all entries without it
   */
  async list(kinds: readonly Kind[], ...path: readonly string[]): Promise<Entry[]> {
    // No message holds the character between fields, so no message can pass for two entries.
    const format = ENTRY_FIELDS.map((field) => `%(${field})%00`).join("");
    const patterns = kinds.flatMap((kind) => {
      const rest = Array<string>(PATH_LENGTHS[kind] - path.length).fill("*");
      return [
        `refs/tags/${[kind, this.project, ...path].join("/")}/`,
        `refs/tags/${[kind, ...path, ...rest].join("/")}`,
      ];
    });
    const list = await this.git.run(["for-each-ref", `--format=${format}`, ...patterns]);
    const fields = list.split("\0");
    const entries: Entry[] = [];
    for (let index = 0; index + ENTRY_FIELDS.length < fields.length; index += ENTRY_FIELDS.length) {
      const [name = "", id = "", tag, commit, email = "", date = "", message = ""] = fields.slice(
        index,
        index + ENTRY_FIELDS.length,
      );
      const ref = name.replace(/^\n/, "");
      // A tag object that was copied to another ref says its former name, and does not count.
      if (ref !== tag || !commit) continue;
      const place = this.placeOf(ref, message);
      if (place === undefined) continue;
      // A space before an address makes no other person.
      const person = email.trim();
      entries.push({ ref, ...place, id, commit, email: person, at: new Date(date), message });
    }
    return entries;
  }

  /** Where an entry stands by its ref and message; undefined where the two disagree. */
  private placeOf(ref: string, message: string): Pick<Entry, "path" | "project"> | undefined {
    const [kind = "", ...names] = ref.split("/");
    const length = new Map<string, number>(Object.entries(PATH_LENGTHS)).get(kind);
    if (names.length === length && !message.includes(`\n${PROJECT}: `)) {
      return { path: names, project: undefined };
    }
    const [project, ...path] = names;
    const isNamed = message.includes(`\n${PROJECT}: ${this.project}\n`);
    return project === this.project && path.length === length && isNamed
      ? { path, project }
      : undefined;
  }

  /**
   * Makes an annotated tag.
   * @param path the names after kind and project
   * @returns the tag's name.
   */
  async add(
    kind: Kind,
    path: readonly string[],
    entry: { readonly commit: string; readonly subject: string; readonly trailers: NewTrailers },
    options: {
      readonly signed?: boolean;
      readonly forAllProjects?: boolean;
      /** The tagger's date; now unless given. */
      readonly at?: Date;
    } = {},
  ): Promise<string> {
    const project = options.forAllProjects === true ? undefined : this.project;
    const ref = [kind, ...(project === undefined ? [] : [project]), ...path].join("/");
    const message = messageOf(entry.subject, { [PROJECT]: project, ...entry.trailers });
    await this.git.tag(ref, entry.commit, message, options);
    return ref;
  }

  /** The name of one of the project's entries. */
  nameOf(kind: Kind, path: readonly string[]): string {
    return [kind, this.project, ...path].join("/");
  }
}

/** A tag's message: its subject and its trailers. */
export function messageOf(subject: string, trailers: NewTrailers): string {
  return `${subject}\n\n${formatTrailers(trailers)}`;
}

/** `20261121T101500.000Z`, which sorts as time does and may stand in a ref. */
export function stampOf(time: Date): string {
  return time.toISOString().replace(/[-:]/g, "");
}

/** The time that `stampOf` has written; undefined for other texts. */
export function timeOf(stamp: string): Date | undefined {
  const parts = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d\.\d{3}Z)$/.exec(stamp);
  if (parts === null) return undefined;
  const [, year, month, day, hour, minute, second] = parts;
  const time = new Date(
    `${year ?? ""}-${month ?? ""}-${day ?? ""}T${hour ?? ""}:${minute ?? ""}:${second ?? ""}`,
  );
  return Number.isNaN(time.getTime()) ? undefined : time;
}

/** A text as a trailer's value. */
export function oneLine(text: string): string {
  return text.trim().replace(/\s+/g, " ");
}

export function formatTrailers(trailers: NewTrailers): string {
  return Object.entries(trailers)
    .flatMap(([name, value]) => [value ?? []].flat().map((each) => `${name}: ${each}\n`))
    .join("");
}

/** The trailers of the tool's own messages; the first of a name counts. */
export function parseTrailers(message: string): Trailers {
  const trailers: Record<string, string> = {};
  // A regular expression over each whole message takes most of the time for ten thousand messages.
  for (const line of message.split("\n")) {
    if (!line.startsWith("Baton-")) continue;
    const [, name, value = ""] = /^(Baton-[A-Za-z-]+): (.*)$/.exec(line) ?? [];
    if (name !== undefined) trailers[name] ??= value.trim();
  }
  return trailers;
}
