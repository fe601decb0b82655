/** Cards and threads in Slack. A handle is `channel:ts`. */
import type { CardTarget, Messenger, ThreadLine } from "../../core/bot.ts";
import type { View } from "../../core/view.ts";
import { plain } from "../text.ts";
import { chatError, isNoEntry, type SlackApi } from "./api.ts";
import { note, renderView, type SlackMessage } from "./message.ts";
import { escapeTo } from "./text.ts";

const lineSymbols: Record<ThreadLine["level"], string> = {
  info: "·",
  success: "✓",
  warning: "⚠️",
  error: "✗",
};
const MAX_LINE = 600;
// Slack advises at most 4,000 characters of text a message.
const MAX_TEXT = 3_800;

export function createSlackMessenger(api: SlackApi): Messenger {
  /** Direct conversations by user id: they never change. */
  const directs = new Map<string, string>();

  async function directWith(userId: string): Promise<string> {
    const known = directs.get(userId);
    if (known !== undefined) return known;
    const { channel } = await api.progress.conversations.open({ users: userId });
    if (channel?.id === undefined) throw new Error("conversations.open answered without a channel");
    directs.set(userId, channel.id);
    return channel.id;
  }

  async function post(channel: string, message: SlackMessage): Promise<string> {
    const { channel: posted, ts } = await api.progress.chat.postMessage({
      channel,
      ...message,
      unfurl_links: false,
      unfurl_media: false,
    });
    return `${posted ?? channel}:${ts ?? ""}`;
  }

  return {
    platform: "slack",
    // chat.update is tier 3, "50+ per minute" for the whole workspace; chat.postMessage "several hundred" a minute and
    // one a second into a channel (docs.slack.dev/apis/web-api/rate-limits).
    budget: { editsPerMinute: 45, postsPerMinute: 180, channelPostGapMs: 1_050 },

    async postCard(target: CardTarget, card: View) {
      try {
        if (isUser(target.channel)) return await post(await directWith(target.channel), renderView(card));
        try {
          return await post(target.channel, renderView(card));
        } catch (error) {
          if (!isNoEntry(error) || target.userId === null) throw error;
          const direct = await directWith(target.userId);
          return await post(direct, render(card, target, `${direct}:`));
        }
      } catch (error) {
        throw chatError(error);
      }
    },

    async editCard(target: CardTarget, handle: string, card: View) {
      const { channel, ts } = partsOf(handle);
      try {
        await api.progress.chat.update({ channel, ts, ...render(card, target, handle) });
      } catch (error) {
        throw chatError(error, true);
      }
    },

    async postLines(target: CardTarget, handle: string, lines: ThreadLine[], options: { mention: boolean }) {
      const { channel, ts } = partsOf(handle);
      const text = threadText(lines, options.mention ? target.userId : null);
      try {
        await api.progress.chat.postMessage({
          channel,
          thread_ts: ts,
          text,
          unfurl_links: false,
          unfurl_media: false,
        });
      } catch (error) {
        throw chatError(error, true);
      }
    },
  };
}

/** In the direct conversation instead of its channel, the card says why at every edit. */
function render(card: View, target: CardTarget, handle: string): SlackMessage {
  const message = renderView(card);
  if (partsOf(handle).channel === target.channel || isUser(target.channel)) return message;
  const why = "Shown here because I cannot post where you typed the command; /invite me there for next time.";
  return { ...message, blocks: [...message.blocks, note(why)] };
}

/** A card may be addressed to a person instead of a channel: their direct conversation with the bot. */
function isUser(channel: string): boolean {
  return /^[UW]/u.test(channel);
}

function partsOf(handle: string): { channel: string; ts: string } {
  const at = handle.indexOf(":");
  return { channel: handle.slice(0, at), ts: handle.slice(at + 1) };
}

/** The newest lines when not all fit; the times are shown in the reader's own zone. */
export function threadText(lines: readonly ThreadLine[], mention: string | null): string {
  const end = mention === null ? [] : [`<@${mention}>`];
  const kept: string[] = [];
  let length = 120;
  for (const entry of lines.toReversed()) {
    const next = threadLine(entry);
    if (length + next.length > MAX_TEXT) break;
    length += next.length + 1;
    kept.unshift(next);
  }
  const left = lines.length - kept.length;
  if (left > 0) kept.unshift(`… ${left} earlier ${left === 1 ? "line" : "lines"} left out`);
  return [...kept, ...end].join("\n");
}

function threadLine({ at, level, text }: ThreadLine): string {
  const fallback = at.toISOString().slice(11, 19);
  const time = `<!date^${Math.floor(at.getTime() / 1000)}^{time_secs}|${fallback} UTC>`;
  return `${time} ${lineSymbols[level]} ${escapeTo(plain(text), MAX_LINE)}`;
}
