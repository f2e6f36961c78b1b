import type { KnownBlock } from "@slack/types";
import {
  LogLevel,
  WebAPIHTTPError,
  WebAPIPlatformError,
  WebAPIRateLimitedError,
  WebAPIRequestError,
  WebClient,
  type ChatPostMessageArguments,
  type Logger,
} from "@slack/web-api";
import {
  cardOf,
  digestOf,
  formatAnnouncement,
  headline,
  heardBy,
  type Announcement,
} from "../release/announcement";
import type { StackConfig } from "../ledger/stack-config";

export interface SlackOptions {
  /** Where the token, the webhook and another address of Slack's API are looked up. */
  readonly environment?: NodeJS.ProcessEnv;
  /** How long all that one announcement needs may take, in milliseconds. */
  readonly deadline?: number;
}

/** Whoever is to hear of something: a channel, a person, or whoever reads the webhook. */
interface Receiver {
  readonly name: string;
  /** @returns why it is not where it belongs, if it was sent nevertheless. */
  readonly send: (signal: AbortSignal) => Promise<string | undefined>;
}

/** Where in a channel a message goes. */
interface Place {
  /** Its identifier; its name where that is not known. */
  readonly channel: string;
  /** The timestamp of the message that the release's thread began with. */
  readonly root?: string | undefined;
  /** The message of the same request. */
  readonly former?: { readonly ts: string; readonly blocks: readonly KnownBlock[] } | undefined;
}

/** What the tool leaves in a message that only programs see, and finds it by. */
const EVENT = "baton_release";
/** Beyond so many messages, a thread has been forgotten and begins anew. */
const PAGES = 5;
const PAGE_SIZE = 200;
const DEADLINE = 5000;
const WEBHOOK = "the on-call webhook";

/**
 * Tells people in Slack, in one thread per release and channel. Nothing is kept but in Slack
 * itself, so any machine carries a thread on. Nobody waits for Slack, and nothing fails with it:
 * what could not be said is a sentence for whoever ran the command.
 */
export class Slack {
  /** Who has been told something. */
  readonly told: string[] = [];
  private readonly unsent: string[] = [];
  private readonly pending: Promise<void>[] = [];
  /** The last message on its way to a receiver: two about one release may not begin two threads. */
  private readonly turns = new Map<string, Promise<void>>();
  private readonly roots = new Map<string, string>();
  private channels: Promise<ReadonlyMap<string, string>> | undefined;
  private readonly environment: NodeJS.ProcessEnv;
  private readonly deadline: number;

  constructor(
    private readonly config: {
      slack?: StackConfig["slack"] | undefined;
      announce: StackConfig["announce"];
    },
    { environment = process.env, deadline = DEADLINE }: SlackOptions = {},
  ) {
    this.environment = environment;
    this.deadline = deadline;
  }

  /** Begins to tell everybody who is to hear of it, and returns at once. */
  announce(announcement: Announcement): void {
    this.pending.push(this.tellAll(this.masked(announcement)));
  }

  /**
   * Waits until all is said, at most for as long as the last announcement may take.
   * @returns what could not be said since the last call, and why; one sentence each.
   */
  async settle(): Promise<string[]> {
    await Promise.all(this.pending.splice(0));
    return this.unsent.splice(0);
  }

  private async tellAll(announcement: Announcement): Promise<void> {
    const controller = new AbortController();
    const { signal } = controller;
    const timer = setTimeout(() => controller.abort(), this.deadline);
    const late = new Promise<never>((_, reject) => {
      const reason = new Reason(`no answer within ${this.deadline / 1000} s`);
      signal.addEventListener("abort", () => reject(reason));
    });
    // Whoever is told at that moment hears of it; there may be nobody.
    late.catch(() => {});
    const what = headline(announcement);
    const tell = async ({ name, send }: Receiver) => {
      try {
        const astray = await Promise.race([send(signal), late]);
        this.told.push(name);
        if (astray === undefined) return;
        this.complain(`${name} was told that ${what}, but not in its thread: ${astray}`);
      } catch (error) {
        this.complain(`${name} was not told that ${what}: ${reasonOf(error)}`);
      }
    };
    const turns = this.receivers(announcement).map((receiver) => {
      const before = this.turns.get(receiver.name) ?? Promise.resolve();
      const turn = before.then(() => tell(receiver));
      this.turns.set(receiver.name, turn);
      return turn;
    });
    await Promise.all(turns);
    clearTimeout(timer);
  }

  /** Everybody who is to hear of it, each once. */
  private receivers(announcement: Announcement): Receiver[] {
    const receivers: Receiver[] = [];
    const audiences = heardBy(announcement);
    if (this.value("SLACK_TOKEN") !== undefined) {
      for (const key of new Set(audiences.flatMap((audience) => this.config.announce[audience]))) {
        const name = this.config.slack?.channels[key]?.name.replace(/^#/, "");
        receivers.push({
          name: `#${name ?? key}`,
          send: (signal) => this.toChannel(announcement, name, this.client(signal)),
        });
      }
      if (announcement.kind === "build-failed" && announcement.committer !== undefined) {
        const { committer } = announcement;
        receivers.push({
          name: committer,
          send: (signal) => this.toPerson(announcement, committer, this.client(signal)),
        });
      }
    }
    const webhook = this.value("BATON_ONCALL_WEBHOOK");
    if (webhook !== undefined && audiences.includes("failures")) {
      receivers.push({ name: WEBHOOK, send: (signal) => toWebhook(announcement, webhook, signal) });
    }
    return receivers.filter(
      ({ name }, index) => receivers.findIndex((other) => other.name === name) === index,
    );
  }

  private async toChannel(
    announcement: Announcement,
    name: string | undefined,
    client: WebClient,
  ): Promise<string | undefined> {
    if (name === undefined) throw new Reason("baton:slack.channels does not have it");
    const digest = digestOf(announcement);
    let place: Place = { channel: `#${name}` };
    let astray: string | undefined;
    try {
      place = await this.find(announcement, name, client);
    } catch (error) {
      // A message in the wrong place is better than none.
      astray = digest === undefined ? undefined : reasonOf(error);
    }
    const { root, former } = place;
    const metadata = metadataOf(announcement);
    if (former !== undefined) {
      const message = formatAnnouncement(announcement, cardOf(former.blocks));
      await client.chat.update({ ...message, ...metadata, channel: place.channel, ts: former.ts });
      return astray;
    }
    const message: ChatPostMessageArguments = {
      ...formatAnnouncement(announcement),
      ...metadata,
      channel: place.channel,
      unfurl_links: false,
    };
    // Few read a thread they did not write in: what failed is shown in the channel, too.
    const reply_broadcast = heardBy(announcement).includes("failures");
    const { channel, ts } = await client.chat.postMessage(
      root === undefined ? message : { ...message, thread_ts: root, reply_broadcast },
    );
    if (digest !== undefined && channel !== undefined && ts !== undefined) {
      this.roots.set(`${channel} ${digest}`, root ?? ts);
    }
    return astray;
  }

  private async toPerson(
    announcement: Announcement,
    email: string,
    client: WebClient,
  ): Promise<undefined> {
    const { user } = await client.users.lookupByEmail({ email });
    const { channel } = await client.conversations.open({ users: user?.id ?? "" });
    await client.chat.postMessage({
      ...formatAnnouncement(announcement),
      channel: channel?.id ?? "",
      unfurl_links: false,
    });
  }

  /** Where in a channel the release's thread is, and in that the message to change. */
  private async find(announcement: Announcement, name: string, client: WebClient): Promise<Place> {
    const digest = digestOf(announcement);
    const channel = (await this.channelsOf(client)).get(name);
    if (digest === undefined) return { channel: channel ?? `#${name}` };
    if (channel === undefined) throw new Reason("the app is no member of the channel; invite it");

    const key = `${channel} ${digest}`;
    const root = this.roots.get(key) ?? (await findRoot(client, channel, digest));
    if (root === undefined) return { channel };
    this.roots.set(key, root);
    if (announcement.kind !== "requested") return { channel, root };
    const former = await findRequest(client, channel, root, announcement.requestId);
    return { channel, root, former };
  }

  /** The identifiers of the channels that the app is a member of, by their names. */
  private async channelsOf(client: WebClient): Promise<ReadonlyMap<string, string>> {
    this.channels ??= listChannels(client);
    try {
      return await this.channels;
    } catch (error) {
      // The next announcement asks again.
      this.channels = undefined;
      throw error;
    }
  }

  /** Calls nothing any longer once the signal is given. */
  private client(signal: AbortSignal): WebClient {
    return new WebClient(this.value("SLACK_TOKEN"), {
      slackApiUrl: this.value("SLACK_API_URL") ?? "https://slack.com/api/",
      allowAbsoluteUrls: false,
      rejectRateLimitedCalls: true,
      retryConfig: { retries: 1, minTimeout: 100, maxTimeout: 100 },
      logger: SILENT,
      fetch: (url, init) => fetch(url, { ...init, signal }),
    });
  }

  private value(name: string): string | undefined {
    return this.environment[name]?.trim() || undefined;
  }

  private complain(sentence: string): void {
    this.unsent.push(`Slack: ${this.mask(sentence)}.`);
  }

  private masked(announcement: Announcement): Announcement {
    const mask = (_: string, value: unknown) =>
      typeof value === "string" ? this.mask(value) : value;
    return JSON.parse(JSON.stringify(announcement), mask) as Announcement;
  }

  /** Without the secrets that the environment holds, whoever has written them into a text. */
  private mask(text: string): string {
    const secrets = Object.entries(this.environment).filter(([name]) => SECRET.test(name));
    return secrets
      .map(([, value = ""]) => value.trim())
      .filter((value) => value.length >= 8)
      .reduce((masked, value) => masked.replaceAll(value, "[secret]"), text);
  }
}

/** Variables whose values nobody may see. */
const SECRET = /TOKEN|PASSWORD|PASSPHRASE|SECRET|WEBHOOK|_KEY$/i;

/** Why something was not sent, in words that may be shown. */
class Reason extends Error {}

/** The client would warn of its own on the console. */
const SILENT: Logger = {
  debug() {},
  info() {},
  warn() {},
  error() {},
  setLevel() {},
  setName() {},
  getLevel: () => LogLevel.ERROR,
};

/** Neither the token nor the webhook's address is in it: no message of another's is passed on. */
function reasonOf(error: unknown): string {
  if (error instanceof Reason) return error.message;
  if (error instanceof WebAPIRateLimitedError) {
    return `ratelimited (for ${error.retryAfter} s)`;
  }
  if (error instanceof WebAPIPlatformError) {
    const { error: code, needed } = error.data as { error: string; needed?: unknown };
    if (!/^[a-z0-9_]+$/.test(code)) return "no answer of Slack's";
    const scopes = typeof needed === "string" && /^[a-z:.,_]+$/.test(needed) ? ` (${needed})` : "";
    return `${code}${scopes}`;
  }
  if (error instanceof WebAPIHTTPError) return `HTTP ${error.statusCode}`;
  const cause = error instanceof WebAPIRequestError ? error.original.cause : undefined;
  const { code } = (cause ?? (error as Error).cause ?? {}) as { code?: unknown };
  return typeof code === "string" && /^[A-Z_]+$/.test(code) ? code : "it could not be reached";
}

async function toWebhook(
  announcement: Announcement,
  webhook: string,
  signal: AbortSignal,
): Promise<undefined> {
  const response = await fetch(webhook, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(formatAnnouncement(announcement)),
    redirect: "error",
    signal,
  });
  if (!response.ok) throw new Reason(`HTTP ${response.status}`);
}

/** What a program finds the message by; nothing where it is about no release. */
function metadataOf(announcement: Announcement) {
  const digest = digestOf(announcement);
  if (digest === undefined) return {};
  const { kind } = announcement;
  const request = kind === "requested" ? { request: announcement.requestId } : {};
  const event_payload = { kind, digest, ...request };
  return { metadata: { event_type: EVENT, event_payload } };
}

/** A message of Slack's, as far as it matters here. */
interface Found {
  readonly ts?: string;
  readonly thread_ts?: string;
  readonly blocks?: unknown;
  readonly metadata?: { readonly event_type?: string; readonly event_payload?: object };
}

interface Page {
  readonly response_metadata?: { readonly next_cursor?: string };
}

/** The timestamp that a release's thread goes by; also where only a reply is in the channel. */
async function findRoot(
  client: WebClient,
  channel: string,
  digest: string,
): Promise<string | undefined> {
  const options = { channel, include_all_metadata: true, limit: PAGE_SIZE };
  const found = await firstOf(
    (cursor) => client.conversations.history({ ...options, ...cursor }),
    ({ messages = [] }) => messages.find((message) => says(message, "digest", digest)),
  );
  return found?.thread_ts ?? found?.ts;
}

/** The message of a request, in its release's thread or as the beginning of it. */
async function findRequest(
  client: WebClient,
  channel: string,
  root: string,
  request: string,
): Promise<Place["former"]> {
  const options = { channel, ts: root, include_all_metadata: true, limit: PAGE_SIZE };
  const found = await firstOf(
    (cursor) => client.conversations.replies({ ...options, ...cursor }),
    ({ messages = [] }) => messages.find((message) => says(message, "request", request)),
  );
  if (found?.ts === undefined) return undefined;
  return { ts: found.ts, blocks: (found.blocks ?? []) as KnownBlock[] };
}

async function listChannels(client: WebClient): Promise<ReadonlyMap<string, string>> {
  const types = "public_channel,private_channel";
  const names = new Map<string, string>();
  await firstOf(
    (cursor) =>
      client.users.conversations({ types, exclude_archived: true, limit: 999, ...cursor }),
    ({ channels = [] }) => {
      for (const { name, id } of channels) {
        if (name !== undefined && id !== undefined) names.set(name, id);
      }
      return undefined;
    },
  );
  return names;
}

function says({ metadata }: Found, key: string, value: string): boolean {
  const payload = metadata?.event_type === EVENT ? metadata.event_payload : undefined;
  return (payload as Readonly<Record<string, unknown>> | undefined)?.[key] === value;
}

/** Reads page after page until one has it; gives up after so many. */
async function firstOf<P extends Page, T>(
  read: (cursor: { cursor?: string }) => Promise<P>,
  find: (page: P) => T | undefined,
): Promise<T | undefined> {
  let cursor: { cursor?: string } = {};
  for (let number = 0; number < PAGES; number++) {
    const page = await read(cursor);
    const found = find(page);
    const next = page.response_metadata?.next_cursor;
    if (found !== undefined || !next) return found;
    cursor = { cursor: next };
  }
  return undefined;
}
