import * as pulumi from "@pulumi/pulumi";
import * as slack from "@pulumi/slack";
import type { Config } from "../config-schema";

export interface SlackChannelsArgs {
  readonly channels: NonNullable<Config["slack"]>["channels"];
  /** Whether `pulumi destroy` is refused until the channels' protection is lifted. */
  readonly protect: boolean;
}

/**
 * The channels that releases are announced in. A channel that has its name already is taken over,
 * and stays when the stack goes: Slack never frees the name of an archived one. Made once, in the
 * stack that owns them.
 */
export class SlackChannels extends pulumi.ComponentResource {
  /** Channel IDs by their key in the configuration. */
  readonly ids: Readonly<Record<string, pulumi.Output<string>>>;

  constructor(name: string, args: SlackChannelsArgs, opts?: pulumi.ComponentResourceOptions) {
    super("baton:components:SlackChannels", name, {}, opts);
    const channels = Object.entries(args.channels).map(([key, channel]) => {
      const conversation = new slack.Conversation(
        `${name}-${key}`,
        {
          name: channel.name,
          topic: channel.topic,
          isPrivate: channel.private,
          adoptExistingChannel: true,
          actionOnDestroy: "none",
        },
        { parent: this, retainOnDelete: true, protect: args.protect },
      );
      return [key, conversation.id] as const;
    });
    this.ids = Object.fromEntries(channels);
    this.registerOutputs({ ids: this.ids });
  }
}
