import type { KnownBlock } from "@slack/types";
import { escapeEntities, mrkdwn, plain } from "./plain-text";
import { shortHash } from "./plan";

/** A release in an environment. The digest says which thread the announcement goes on in. */
interface Release {
  readonly environment: string;
  readonly tag: string;
  readonly digest: string;
  readonly version?: string | undefined;
}

/** What people hear of, of all that happens. People are email addresses. */
export type Announcement =
  | {
      readonly kind: "build-failed";
      /** What did not pass, in the pipeline's words: `lint`, `unit tests`. */
      readonly gate: string;
      readonly revision: string;
      readonly build?: string | undefined;
      /** Hears of it in person. */
      readonly committer?: string | undefined;
      /** Where the log is. */
      readonly url?: string | undefined;
    }
  | (Release & {
      /** Announced again with the same `requestId`, it changes the message that is there. */
      readonly kind: "requested";
      readonly requestId: string;
      /** The plan's hash. */
      readonly plan: string;
      readonly requester: string;
      /** The change card; without it, the one in the message stays. */
      readonly card?: string | readonly KnownBlock[] | undefined;
      /** Who has approved. */
      readonly approvals: readonly string[];
      /** What still stands in the way. */
      readonly missing: readonly string[];
    })
  | (Release & {
      readonly kind: "deployed";
      readonly who: string;
      readonly earnedTag?: string | undefined;
      /** Whether people test it next, under its earned tag. */
      readonly readyForTesting?: boolean | undefined;
    })
  | (Release & {
      readonly kind: "failed";
      readonly who: string;
      /** The way back, where there was one to try. */
      readonly back?: { readonly tag: string; readonly succeeded: boolean } | undefined;
      readonly reason: string;
    })
  | (Release & {
      /** `tag` and `version` run again; `digest` is that of the release that was left. */
      readonly kind: "rolled-back";
      /** The tag that was left. */
      readonly left: string;
      readonly who: string;
    })
  | (Pick<Release, "environment"> &
      Partial<Release> & {
        /** Of one release, or without tag and digest of the whole environment. */
        readonly kind: "stopped" | "resumed";
        readonly who: string;
        readonly reason?: string | undefined;
      })
  | (Omit<Release, "digest"> &
      Partial<Release> & {
        /** Deployed without what it needs. */
        readonly kind: "break-glass";
        readonly who: string;
        readonly reason: string;
      });

/** The lists of channels in `baton:announce`. */
export type Audience = "builds" | "requests" | "outcomes" | "failures";

const HEARD_BY: Readonly<Record<Announcement["kind"], readonly Audience[]>> = {
  "build-failed": ["builds"],
  requested: ["requests"],
  deployed: ["outcomes"],
  failed: ["outcomes", "failures"],
  "rolled-back": ["outcomes", "failures"],
  stopped: ["outcomes"],
  resumed: ["outcomes"],
  "break-glass": ["outcomes", "failures"],
};

export function heardBy({ kind }: Announcement): readonly Audience[] {
  return HEARD_BY[kind];
}

/** Of the release that it is about, and in whose thread it belongs. */
export function digestOf(announcement: Announcement): string | undefined {
  return "digest" in announcement ? announcement.digest : undefined;
}

/** A message as Slack takes it. `text` is what notifications show. */
export interface Message {
  readonly text: string;
  readonly blocks: KnownBlock[];
}

/** Slack's limits (https://docs.slack.dev/reference/block-kit/blocks/section-block/). */
const SECTION_LENGTH = 3000;
const MESSAGE_BLOCKS = 50;
/** All sections of a message together may have some 13,000 characters. */
const CARD_SECTIONS = 3;
const REASON_LENGTH = 300;
const FENCE = "```";

/** What has happened, as a clause: `prod runs stage-45 (verified)`. Not for Slack's markup. */
export function headline(announcement: Announcement): string {
  switch (announcement.kind) {
    case "build-failed": {
      const { gate, revision, build } = announcement;
      return `${gate} failed at ${shortHash(revision)}${build === undefined ? "" : ` (${build})`}`;
    }
    case "requested": {
      const { requester, environment } = announcement;
      return `${requester} asks for ${nameOf(announcement)} in ${environment}`;
    }
    case "deployed": {
      const { environment, earnedTag, readyForTesting } = announcement;
      const earned = readyForTesting === true ? "ready for testing as" : "it has earned";
      const end = earnedTag === undefined ? "" : ` – ${earned} ${earnedTag}`;
      return `${environment} runs ${nameOf(announcement)} (verified)${end}`;
    }
    case "failed": {
      const { environment, back } = announcement;
      const failed = `${nameOf(announcement)} failed in ${environment}`;
      if (back === undefined) return failed;
      return back.succeeded
        ? `${failed}; ${back.tag} runs again`
        : `${failed}, and so did the way back to ${back.tag}`;
    }
    case "rolled-back": {
      const { environment, left } = announcement;
      return `${environment} is back on ${nameOf(announcement)}; ${left} was left`;
    }
    case "stopped":
    case "resumed": {
      const { kind, environment, tag } = announcement;
      return tag === undefined
        ? `${environment} is ${kind}`
        : `${tag} is ${kind} in ${environment}`;
    }
    case "break-glass": {
      const { environment } = announcement;
      return `${environment} takes ${nameOf(announcement)} without what it needs (break-glass)`;
    }
  }
}

/**
 * The message for Slack.
 * @param card the card's blocks in the message that is there, where the announcement has none
 */
export function formatAnnouncement(
  announcement: Announcement,
  card: readonly KnownBlock[] = [],
): Message {
  const title = mrkdwn(headline(announcement));
  const lines = details(announcement);
  const blocks = [section([`*${title}*`, ...lines].join("\n"))];
  if (announcement.kind === "requested") {
    const own = announcement.card;
    const shown = typeof own === "string" ? cardSections(own) : (own ?? card);
    blocks.push(...shown.slice(0, MESSAGE_BLOCKS - 2), section(progress(announcement).join("\n")));
  }
  return { text: [title, ...lines].join("\n"), blocks };
}

/** The card's blocks in the message of a request, as `formatAnnouncement` has put them there. */
export function cardOf(blocks: readonly KnownBlock[]): KnownBlock[] {
  return blocks.slice(1, -1);
}

/** The lines below the headline, in Slack's markup. */
function details(announcement: Announcement): string[] {
  switch (announcement.kind) {
    case "build-failed": {
      const { committer, url } = announcement;
      return [
        ...(committer === undefined ? [] : [`Committed by ${mrkdwn(committer)}`]),
        ...(url === undefined ? [] : [link(url, "Log")]),
      ];
    }
    case "requested":
      return [`Plan ${mrkdwn(shortHash(announcement.plan))}`];
    case "deployed":
    case "rolled-back":
      return [`By ${mrkdwn(announcement.who)}`];
    case "failed":
    case "stopped":
    case "resumed":
    case "break-glass": {
      const { who, reason = "" } = announcement;
      return [`By ${mrkdwn(who)}`, ...(reason.trim() === "" ? [] : [`> ${mrkdwn(brief(reason))}`])];
    }
  }
}

/** Where a request stands, and what to do next. */
function progress(request: Extract<Announcement, { kind: "requested" }>): string[] {
  const { environment, approvals, missing, plan } = request;
  const next =
    missing.length === 0
      ? `Go on with \`baton deploy ${mrkdwn(environment)}\``
      : `Approve with \`baton approve ${mrkdwn(environment)} ${mrkdwn(shortHash(plan))}\``;
  return [
    `Approved by ${mrkdwn(approvals.join(", ")) || "nobody yet"}`,
    ...missing.map((text) => `• ${mrkdwn(brief(text))}`),
    next,
  ];
}

/** Tag and version, where the one does not say the other. */
function nameOf({ tag, version }: Pick<Release, "tag" | "version">): string {
  return version === undefined || tag.includes(version) ? tag : `${tag} as ${version}`;
}

/** One line, of the length that people read, without the password of an address in it. */
function brief(text: string): string {
  const line = text.replace(/\s+/g, " ").trim();
  return cut(line.replace(/:\/\/[^/\s@]+@/g, "://[secret]@"), REASON_LENGTH);
}

function link(url: string, title: string): string {
  return /^https?:\/\//.test(url)
    ? `<${escapeEntities(plain(url)).replaceAll("|", "%7C")}|${title}>`
    : mrkdwn(url);
}

function section(text: string): KnownBlock {
  // Else Slack makes links and mentions of what looks like one.
  const shown = { type: "mrkdwn", text: cut(text, SECTION_LENGTH), verbatim: true } as const;
  return { type: "section", text: shown };
}

/** The card in a fixed-width font, in as many sections as it needs and a message can hold. */
function cardSections(card: string): KnownBlock[] {
  const room = SECTION_LENGTH - 2 * FENCE.length - "\n\n\n…".length;
  const pieces: string[] = [];
  for (const line of card.split("\n")) {
    const text = cut(escapeEntities(plain(line).replaceAll(FENCE, "'''")), room);
    const longer = `${pieces.at(-1) ?? ""}\n${text}`;
    if (pieces.length > 0 && longer.length <= room) pieces[pieces.length - 1] = longer;
    else pieces.push(text);
  }
  const kept = pieces.slice(0, CARD_SECTIONS);
  const end = pieces.length > kept.length ? "\n…" : "";
  return kept.map((piece, index) =>
    section(`${FENCE}\n${piece}${index === kept.length - 1 ? end : ""}\n${FENCE}`),
  );
}

/** So many characters at most, and no half of one, nor of what stands for one. */
function cut(text: string, length: number): string {
  if (text.length <= length) return text;
  const start = text.slice(0, length - 1);
  return `${start.replace(/[\uD800-\uDBFF]$/, "").replace(/&[a-z]{0,3}$/, "")}…`;
}
