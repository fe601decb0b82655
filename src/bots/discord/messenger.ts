/**
 * Cards and threads in Discord. Everything is sent with the bot's token: an interaction's own ends after 15 minutes.
 */
import { createHash } from "node:crypto";
import { type REST, Routes } from "discord.js";
import { z } from "zod";
import type { CardTarget, Messenger } from "../../core/bot.ts";
import type { View } from "../../core/view.ts";
import { plain } from "../text.ts";
import { chatError, codes, type DiscordApi, discordCode, isNoEntry } from "./api.ts";
import { createdAt, directGuild, type Handle, partsOf, textOf } from "./handle.ts";
import { linesMessage } from "./lines.ts";
import { createMemory, type Memory } from "./memory.ts";
import { type Confirm, type DiscordMessage, renderView } from "./message.ts";
import { DIRECT, personOf } from "./person.ts";

const MAX_THREAD_NAME = 100;
/** Three days; whoever writes into a thread that was archived opens it again. */
const ARCHIVE_AFTER_MINUTES = 4_320;
/**
 * Edits of a message older than an hour are limited, by numbers that Discord does not tell (error 30046). Before that, the
 * progress moves into the thread, so that the end can still be shown on the card.
 */
const PROGRESS_MOVES_AFTER_MS = 55 * 60_000;
const REMEMBERED = 5_000;
const Made = z.object({ id: z.string() });
const Posted = z.object({ embeds: z.array(z.object({ title: z.string().default("") })).default([]) });

export interface DiscordMessengerOptions {
  api: DiscordApi;
  now: () => number;
  confirmations: Memory<Confirm>;
}

interface Desk extends DiscordMessengerOptions {
  /** Direct conversations by user id: they never change. */
  directs: Memory<string>;
  /** Channels in which no thread can be started. */
  threadless: Memory<true>;
  /** Card's handle → the message that shows the progress since the card is old. */
  fresh: Memory<Handle>;
  /** Card's handle → the key it was posted with; key → how often its card has gone. */
  keys: Memory<string>;
  losses: Memory<number>;
  /** Card's message → its title. */
  titles: Memory<string>;
}

export function createDiscordMessenger(options: DiscordMessengerOptions): Messenger {
  const desk: Desk = {
    ...options,
    directs: createMemory(REMEMBERED),
    threadless: createMemory(REMEMBERED),
    fresh: createMemory(REMEMBERED),
    keys: createMemory(REMEMBERED),
    losses: createMemory(REMEMBERED),
    titles: createMemory(REMEMBERED),
  };
  return {
    platform: "discord",
    // Discord's own limits are per channel and come in its answers ("do not hard code"); these keep one guild from using up
    // the 50 requests a second of the whole bot.
    budget: { editsPerMinute: 180, postsPerMinute: 180, channelPostGapMs: 1_000 },

    async postCard(target, card, key) {
      try {
        const handle = await postCard(desk, target, card, key);
        desk.keys.set(handle, key);
        desk.titles.set(partsOf(handle).message, card.title);
        return handle;
      } catch (error) {
        throw chatError(error);
      }
    },

    async editCard(target, handle, card) {
      try {
        await editCard(desk, target, handle, card);
      } catch (error) {
        const failure = chatError(error, true);
        if (failure.kind === "gone") forget(desk, handle);
        throw failure;
      }
    },

    async postLines(target, handle, lines, { mention, key }) {
      const userId = mention ? target.userId : null;
      try {
        await postBelow(desk, handle, { ...linesMessage(lines, userId), ...once(key) });
      } catch (error) {
        const failure = chatError(error, true);
        if (failure.kind === "gone") forget(desk, handle);
        throw failure;
      }
    },
  };
}

/** Discord answers a nonce that it has seen with the message it made of it: one copy, however often it is sent. */
function once(key: string): { nonce: string; enforce_nonce: true } {
  const nonce = createHash("sha256").update(key).digest("base64url").slice(0, 25);
  return { nonce, enforce_nonce: true };
}

async function postCard(desk: Desk, target: CardTarget, card: View, key: string): Promise<string> {
  // A card that has gone must not be taken for the one that replaces it.
  const unique = once(`card ${key} ${desk.losses.get(key) ?? 0}`);
  const person = personOf(target.channel);
  if (person !== null) {
    return postDirect(desk, person, { ...render(desk, card), ...unique });
  }
  try {
    const message = await post(desk, target.channel, { ...render(desk, card), ...unique });
    return textOf({ guild: target.workspace || "_", channel: target.channel, message });
  } catch (error) {
    if (!isNoEntry(error) || target.userId === null) throw error;
    return postDirect(desk, target.userId, { ...render(desk, card, elsewhere), ...unique });
  }
}

async function postDirect(desk: Desk, userId: string, message: object): Promise<string> {
  let channel = desk.directs.get(userId);
  if (channel === undefined) {
    const body = { recipient_id: userId };
    const opened = await desk.api.progress((rest) => rest.post(Routes.userChannels(), { body }));
    channel = Made.parse(opened).id;
    desk.directs.set(userId, channel);
  }
  return textOf({ guild: directGuild, channel, message: await post(desk, channel, message) });
}

/** The id of the new message. */
async function post({ api }: Desk, channel: string, body: object): Promise<string> {
  const posted = await api.progress((rest) => rest.post(Routes.channelMessages(channel), { body }));
  return Made.parse(posted).id;
}

async function edit({ api }: Desk, { channel, message }: Handle, body: object): Promise<void> {
  const send = () =>
    api.progress((rest: REST) => rest.patch(Routes.channelMessage(channel, message), { body }));
  try {
    await send();
  } catch (error) {
    if (discordCode(error) !== codes.archivedThread) throw error;
    // The command was typed in a thread that has been archived since.
    await api.progress((rest) => rest.patch(Routes.channel(channel), { body: { archived: false } }));
    await send();
  }
}

async function editCard(desk: Desk, target: CardTarget, text: string, card: View): Promise<void> {
  const handle = partsOf(text);
  const note = handle.guild === directGuild && isChannel(target) ? elsewhere : undefined;
  const isOld = desk.now() - createdAt(handle.message) > PROGRESS_MOVES_AFTER_MS;
  if (isOld && card.tone === "progress") {
    await editFresh(desk, text, card);
    return;
  }
  try {
    await edit(desk, handle, render(desk, card, note));
  } catch (error) {
    if (discordCode(error) !== codes.tooManyOldEdits) throw error;
    await editFresh(desk, text, card);
  }
  if (isOld && desk.fresh.has(text)) await editFresh(desk, text, card);
}

/** Shows the card in a younger message below the old one, which says so. */
async function editFresh(desk: Desk, text: string, card: View): Promise<void> {
  const known = desk.fresh.get(text);
  if (known !== undefined && desk.now() - createdAt(known.message) < PROGRESS_MOVES_AFTER_MS) {
    try {
      await edit(desk, known, render(desk, card));
      return;
    } catch (error) {
      if (chatError(error, true).kind !== "gone") throw error;
    }
  }
  const key = `fresh ${text} ${known?.message ?? ""}`;
  desk.fresh.set(text, await postBelow(desk, text, { ...render(desk, card), ...once(key) }));
  if (known !== undefined) return;
  try {
    await edit(desk, partsOf(text), render(desk, card, "This card is old; the progress goes on below it."));
  } catch (error) {
    if (discordCode(error) !== codes.tooManyOldEdits) throw error;
  }
}

/**
 * Into the card's thread, which has the id of the message it was started from; a reply to the card where there can be no
 * thread (direct messages, commands typed in a thread) or none for us.
 */
async function postBelow(desk: Desk, text: string, body: object): Promise<Handle> {
  const handle = partsOf(text);
  const { guild, channel, message } = handle;
  if (guild !== directGuild && !desk.threadless.has(channel)) {
    const posted = await postInThread(desk, handle, body);
    if (posted !== null) return { guild, channel: message, message: posted };
  }
  const reply = { ...body, message_reference: { message_id: message, fail_if_not_exists: false } };
  return { guild, channel, message: await post(desk, channel, reply) };
}

const noThread: ReadonlySet<number> = new Set([
  codes.missingAccess,
  codes.missingPermissions,
  codes.wrongChannelType,
  codes.archivedThread,
  codes.threadExists,
  codes.lockedThread,
  codes.tooManyThreads,
]);

async function postInThread(desk: Desk, handle: Handle, body: object): Promise<string | null> {
  try {
    return await post(desk, handle.message, body);
  } catch (error) {
    if (discordCode(error) !== codes.unknownChannel) return nullWhenThreadless(error);
  }
  try {
    await startThread(desk, handle);
  } catch (error) {
    const code = discordCode(error);
    if (code === codes.wrongChannelType) desk.threadless.set(handle.channel, true);
    // Another process was faster: the thread is there.
    if (code !== codes.threadExists) return nullWhenThreadless(error);
  }
  try {
    return await post(desk, handle.message, body);
  } catch (error) {
    if (discordCode(error) === codes.unknownChannel) return null;
    return nullWhenThreadless(error);
  }
}

function nullWhenThreadless(error: unknown): null {
  if (noThread.has(discordCode(error) ?? 0)) return null;
  throw error;
}

async function startThread(desk: Desk, handle: Handle): Promise<void> {
  const { channel, message } = handle;
  const name = plain(desk.titles.get(message) ?? (await titleOf(desk, handle)), MAX_THREAD_NAME) || "Details";
  const body = { name, auto_archive_duration: ARCHIVE_AFTER_MINUTES };
  await desk.api.progress((rest) => rest.post(Routes.threads(channel, message), { body }));
}

/** Of a card that another process has posted. */
async function titleOf({ api }: Desk, { channel, message }: Handle): Promise<string> {
  try {
    const card = Posted.parse(
      await api.progress((rest) => rest.get(Routes.channelMessage(channel, message))),
    );
    return (card.embeds[0]?.title ?? "").replaceAll("\\", "");
  } catch (error) {
    // Where it may not read the history it may still start a thread, without the right name.
    if (isNoEntry(error)) return "";
    throw error;
  }
}

const elsewhere =
  "Shown here because I cannot post where you typed the command; let me see and write into that channel for next time.";

function render({ confirmations }: Desk, card: View, note?: string): DiscordMessage {
  const message = renderView(card, confirmations.set);
  return note === undefined ? message : { ...message, content: `-# ${note}` };
}

function isChannel(target: CardTarget): boolean {
  return target.workspace !== DIRECT && personOf(target.channel) === null;
}

function forget({ keys, losses, fresh }: Desk, handle: string): void {
  fresh.delete(handle);
  const key = keys.get(handle);
  if (key !== undefined) losses.set(key, (losses.get(key) ?? 0) + 1);
}
