/** Who stands behind an interaction, and where an answer to them belongs. */
import type { Principal } from "../../core/access.ts";
import type { Origin } from "../../core/bot.ts";

/** The parts of an interaction that say who acts and where. */
export interface Sender {
  user: { id: string };
  guildId: string | null;
  channelId: string | null;
}

/** A workspace for all direct conversations; a channel of one is `dm:<user id>`. */
export const DIRECT = "dm";

/**
 * Staff get the card where they typed. A customer gets it in the direct conversation with the bot, because others may
 * read the channel; a conversation without a guild may be one between two people, which is closed to us.
 */
export function originOf({ user, guildId, channelId }: Sender, principal: Principal): Origin {
  const origin = { platform: "discord", userId: user.id } as const;
  if (principal.kind === "customer" || guildId === null || channelId === null) {
    return { ...origin, workspace: DIRECT, channel: directChannel(user.id) };
  }
  return { ...origin, workspace: guildId, channel: channelId };
}

export function directChannel(userId: string): string {
  return `${DIRECT}:${userId}`;
}

/** The person whose direct conversation this stands for, or null for a channel. */
export function personOf(channel: string): string | null {
  return channel.startsWith(`${DIRECT}:`) ? channel.slice(DIRECT.length + 1) : null;
}
