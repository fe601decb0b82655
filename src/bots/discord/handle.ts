/** What names a card: `guild/channel/message`, as in the message's address; `@me` in direct messages. */
const DISCORD_EPOCH_MS = 1_420_070_400_000;
export const directGuild = "@me";

export interface Handle {
  guild: string;
  channel: string;
  message: string;
}

export function textOf({ guild, channel, message }: Handle): string {
  return [guild, channel, message].join("/");
}

export function partsOf(handle: string): Handle {
  const [guild = "", channel = "", message = ""] = handle.split("/");
  return { guild, channel, message };
}

/** The address of a card, or null when its guild is not known (a channel of the configuration). */
export function linkOf(handle: string): string | null {
  const { guild } = partsOf(handle);
  return guild === "_" ? null : `https://discord.com/channels/${handle}`;
}

/** A snowflake holds the time of its making. https://docs.discord.com/developers/reference#snowflakes */
export function createdAt(id: string): number {
  return Number(BigInt(id) >> 22n) + DISCORD_EPOCH_MS;
}
