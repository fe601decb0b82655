/** Who stands behind a Slack payload, and where an answer to them belongs. */
import type { Principal } from "../../core/access.ts";
import type { Origin } from "../../core/bot.ts";
import type { Entrance } from "../../core/request.ts";

/** The parts of a payload that say who acts; Slack sends them in every interaction. */
export interface Sender {
  user: { id: string; team_id?: string };
  team: { id: string } | null;
  enterprise?: { id: string } | null;
  view?: { team_id?: string };
}

/** The workspace, or the whole organisation when the app is installed for that. */
export function workspaceOf(sender: Sender): string {
  return sender.team?.id ?? sender.view?.team_id ?? sender.enterprise?.id ?? "unknown";
}

/**
 * Null for a stranger. In a channel shared with another company its members see our buttons too: their ids are of their
 * own workspace and are never looked up. (In an Enterprise Grid organisation a member's home may be another workspace.)
 */
export async function identify(entrance: Entrance, sender: Sender): Promise<Principal | null> {
  const home = sender.user.team_id;
  const isForeign =
    home !== undefined &&
    sender.team !== null &&
    home !== sender.team.id &&
    (sender.enterprise ?? null) === null;
  return isForeign ? null : await entrance.identify("slack", sender.user.id);
}

/**
 * Staff get the card where they typed. A customer gets it in the direct conversation with the bot, because others may
 * read the channel. A conversation between two people is closed to us, so that too means the one with the bot, which
 * the messenger opens: a user id stands for it.
 */
export function originOf(sender: Sender, principal: Principal, channel: string): Origin {
  const isDirect = principal.kind === "customer" || channel.startsWith("D") || channel === "";
  return {
    platform: "slack",
    workspace: workspaceOf(sender),
    channel: isDirect ? sender.user.id : channel,
    userId: sender.user.id,
  };
}
