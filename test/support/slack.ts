import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { KnownBlock } from "@slack/types";

export interface Posted {
  /** The channel's identifier. */
  readonly channel: string;
  readonly ts: string;
  readonly thread_ts?: string;
  readonly reply_broadcast?: boolean;
  readonly text: string;
  readonly blocks: KnownBlock[];
  readonly metadata?: { event_type: string; event_payload: Record<string, unknown> };
}

/** How Slack answers when it does not do what it is asked to. */
export type Trouble =
  | { readonly status: number; readonly retryAfter?: number; readonly body?: string }
  | { readonly error: string; readonly needed?: string }
  | "hang";

export const TOKEN = "xoxb-hunter2-hunter2";

type Fields = Readonly<Record<string, string | undefined>>;

/** The part of Slack's Web API that the tool uses, over real HTTP, in memory. */
export class SlackServer {
  /** What stands in the channels now, in the order it was posted. */
  messages: Posted[] = [];
  /** What the webhook got. */
  readonly hooked: { text: string; blocks: KnownBlock[] }[] = [];
  /** The methods that were called, in order. */
  readonly calls: string[] = [];
  /** The channels that the app is a member of, by name. */
  readonly channels = new Map<string, string>();
  /** People by their addresses. */
  readonly people = new Map<string, string>();
  /** By method (`webhook` for the webhook), or for all by `*`. */
  readonly troubles = new Map<string, Trouble>();
  /** How many callers still wait for an answer that does not come. */
  private hanging = 0;
  private allLeft: () => void = () => undefined;
  /** How long every answer takes, in milliseconds. */
  delay = 0;
  /** How many messages a page has at most. */
  pageSize = 100;
  private clock = 1000;
  private readonly server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      const answer = () => this.answer(request, response, Buffer.concat(chunks).toString());
      if (this.delay === 0) answer();
      else setTimeout(answer, this.delay);
    });
  });

  static async start(): Promise<SlackServer> {
    const slack = new SlackServer();
    await new Promise<void>((resolve) => slack.server.listen(0, "127.0.0.1", resolve));
    return slack;
  }

  async stop(): Promise<void> {
    this.server.closeAllConnections();
    await new Promise((resolve) => this.server.close(resolve));
  }

  /** Waits until nobody waits any more for an answer that does not come. */
  async left(): Promise<void> {
    if (this.hanging > 0) await new Promise<void>((resolve) => (this.allLeft = resolve));
  }

  /** The variables by which the tool finds it. */
  get environment(): { SLACK_TOKEN: string; SLACK_API_URL: string } {
    return { SLACK_TOKEN: TOKEN, SLACK_API_URL: `${this.host}/api/` };
  }

  get webhook(): string {
    return `${this.host}/services/T0/B0/hunter3`;
  }

  /** The messages of a channel, by its name. */
  in(name: string): Posted[] {
    return this.messages.filter(({ channel }) => channel === this.channels.get(name));
  }

  private get host(): string {
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  private answer(request: IncomingMessage, response: ServerResponse, body: string): void {
    const url = request.url ?? "";
    const method = url.startsWith("/services/") ? "webhook" : url.replace("/api/", "");
    this.calls.push(method);
    const trouble = this.troubles.get(method) ?? this.troubles.get("*");
    if (trouble === "hang") {
      this.hanging++;
      response.on("close", () => {
        this.hanging--;
        if (this.hanging === 0) this.allLeft();
      });
      return;
    }
    if (trouble !== undefined && "status" in trouble) {
      const { status, retryAfter, body: text = "" } = trouble;
      response.writeHead(
        status,
        retryAfter === undefined ? {} : { "retry-after": String(retryAfter) },
      );
      response.end(text);
      return;
    }
    if (method === "webhook") {
      this.hooked.push(JSON.parse(body) as { text: string; blocks: KnownBlock[] });
      response.end("ok");
      return;
    }
    const known = request.headers.authorization === `Bearer ${TOKEN}`;
    const fields = Object.fromEntries(new URLSearchParams(body));
    const answer =
      trouble ?? (known ? this.call(method, fields) : { error: "invalid_auth" as const });
    response.writeHead(200, { "content-type": "application/json" });
    response.end(JSON.stringify({ ok: !("error" in answer), ...answer }));
  }

  private call(method: string, fields: Fields): Record<string, unknown> {
    switch (method) {
      case "chat.postMessage":
        return this.post(fields);
      case "chat.update":
        return this.update(fields);
      case "conversations.history":
        return this.read(fields, (message) => isInChannel(message), true);
      case "conversations.replies": {
        const { ts } = fields;
        return this.read(fields, (message) => message.ts === ts || message.thread_ts === ts, false);
      }
      case "users.conversations": {
        const channels = [...this.channels].map(([name, id]) => ({ name, id }));
        const { slice, next } = this.page(channels, fields["cursor"]);
        return { channels: slice, response_metadata: { next_cursor: next } };
      }
      case "users.lookupByEmail": {
        const id = this.people.get(fields["email"] ?? "");
        return id === undefined ? { error: "users_not_found" } : { user: { id } };
      }
      case "conversations.open":
        return { channel: { id: `D${fields["users"] ?? ""}` } };
      default:
        return { error: "unknown_method" };
    }
  }

  private post(fields: Fields): Record<string, unknown> {
    const name = fields["channel"] ?? "";
    const channel = this.channels.get(name.replace(/^#/, "")) ?? name;
    if (!this.isKnown(channel)) return { error: "channel_not_found" };
    const content = contentOf(fields);
    if (content === undefined) return { error: "invalid_blocks" };
    const ts = `${++this.clock}.000100`;
    const { thread_ts, reply_broadcast } = fields;
    this.messages.push({
      channel,
      ts,
      ...content,
      ...(thread_ts === undefined ? {} : { thread_ts }),
      ...(reply_broadcast === "true" ? { reply_broadcast: true } : {}),
    });
    return { channel, ts };
  }

  /** Takes no channel by its name. */
  private update(fields: Fields): Record<string, unknown> {
    const { channel = "", ts } = fields;
    if (!this.isKnown(channel)) return { error: "channel_not_found" };
    const index = this.messages.findIndex((one) => one.channel === channel && one.ts === ts);
    const former = this.messages[index];
    if (former === undefined) return { error: "message_not_found" };
    const content = contentOf(fields);
    if (content === undefined) return { error: "invalid_blocks" };
    this.messages[index] = { ...former, ...content };
    return { channel, ts };
  }

  /** Takes no channel by its name; tells metadata only when it is asked to. */
  private read(
    fields: Fields,
    matches: (message: Posted) => boolean,
    newestFirst: boolean,
  ): Record<string, unknown> {
    const { channel = "" } = fields;
    if (!this.isKnown(channel)) return { error: "channel_not_found" };
    const all = this.messages.filter((one) => one.channel === channel && matches(one));
    const { slice, next } = this.page(newestFirst ? all.reverse() : all, fields["cursor"]);
    const messages = slice.map(({ metadata, ...message }) => ({
      ...message,
      // As Slack does without include_all_metadata.
      ...(metadata && {
        metadata: fields["include_all_metadata"] === "true" ? metadata : { event_payload: {} },
      }),
    }));
    return { messages, response_metadata: { next_cursor: next } };
  }

  private page<T>(all: T[], cursor = "0"): { slice: T[]; next: string } {
    const end = Number(cursor) + this.pageSize;
    return {
      slice: all.slice(Number(cursor), end),
      next: end < all.length ? String(end) : "",
    };
  }

  private isKnown(channel: string): boolean {
    return channel.startsWith("D") || [...this.channels.values()].includes(channel);
  }
}

/** Replies are not in the channel itself unless they are shown there, too. */
function isInChannel({ thread_ts, reply_broadcast = false }: Posted): boolean {
  return thread_ts === undefined || reply_broadcast;
}

/** Nothing where it is more than Slack takes. */
function contentOf(fields: Fields): Pick<Posted, "text" | "blocks" | "metadata"> | undefined {
  const blocks = JSON.parse(fields["blocks"] ?? "[]") as KnownBlock[];
  const long = blocks.some(
    (block) => block.type === "section" && (block.text?.text.length ?? 0) > 3000,
  );
  if (blocks.length > 50 || long || JSON.stringify(blocks).length > 13_000) return undefined;
  const { text = "", metadata } = fields;
  return {
    text,
    blocks,
    ...(metadata === undefined
      ? {}
      : { metadata: JSON.parse(metadata) as NonNullable<Posted["metadata"]> }),
  };
}
