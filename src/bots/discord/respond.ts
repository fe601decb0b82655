/**
 * The answer to one interaction. Discord takes exactly one first answer, within 3 s; everything later edits it. An answer
 * that gets lost on the way is sent again: Discord refuses the second one with 40060, so it cannot be shown twice.
 */
import {
  type APIInteractionResponse,
  type APIModalInteractionResponseCallbackData,
  InteractionResponseType,
  MessageFlags,
  Routes,
} from "discord.js";
import { codes, discordCode, isTransient, summaryOf } from "./api.ts";
import type { DiscordContext } from "./context.ts";
import { type DiscordMessage, sentence } from "./message.ts";

/** Whose first answer Discord took: ours, another process's, or nobody's because it came too late. */
type Acknowledged = "ours" | "taken" | "lost";

/** None of these throw: when an answer cannot be shown there is nowhere left to tell it. */
export interface Responder {
  /** Answers or edits the answer; the message is for the asker alone. False when it was not shown by us. */
  show(message: DiscordMessage): Promise<boolean>;
  /** Says that an answer will come. False when nobody will see it, so that nothing should be done either. */
  defer(): Promise<boolean>;
  /** Opens a form; where Discord does not allow that (any more), shows `instead`. */
  open(modal: APIModalInteractionResponseCallbackData, instead: () => DiscordMessage): Promise<boolean>;
  /** Ends the watch over the 3 s. */
  end(): void;
}

interface Answerable {
  id: string;
  token: string;
  applicationId: string;
  createdTimestamp: number;
}

export interface ResponderOptions {
  /** `reply`: a new message. `update`: in place of the message whose button was pressed. */
  place: "reply" | "update";
  /** Discord opens no form as the answer to a form. */
  canOpen: boolean;
}

const unshown = sentence(
  "Discord did not take the answer; what you asked for may have been done all the same. The log has the details.",
);
const ANSWER_WITHIN_MS = 2_600;
const PAUSE_MS = 100;
const EDIT_ATTEMPTS = 4;
const EDIT_PAUSE_MS = 400;

export function createResponder(
  context: DiscordContext,
  interaction: Answerable,
  { place, canOpen }: ResponderOptions,
): Responder {
  const { api, log } = context;
  const receivedAt = context.now();
  const flags = MessageFlags.Ephemeral;
  let first: Promise<boolean> | undefined;
  const watch = setTimeout(() => void defer(), context.ackBudgetMs);
  watch.unref();

  async function acknowledge(body: APIInteractionResponse): Promise<boolean> {
    clearTimeout(watch);
    try {
      const outcome = await answerFirst(context, interaction, { body, until: receivedAt + ANSWER_WITHIN_MS });
      if (outcome === "lost") log.warn({ interaction: interaction.id }, "discord: an answer came too late");
      return outcome === "ours";
    } catch (error) {
      // The error itself holds the interaction's token and what was to be shown, which may be a secret.
      log.error({ interaction: interaction.id, reason: summaryOf(error) }, "discord: an answer was refused");
      return false;
    }
  }

  function defer(): Promise<boolean> {
    first ??= acknowledge(
      place === "update"
        ? { type: InteractionResponseType.DeferredMessageUpdate }
        : { type: InteractionResponseType.DeferredChannelMessageWithSource, data: { flags } },
    );
    return first;
  }

  async function show(message: DiscordMessage): Promise<boolean> {
    if (first === undefined) {
      first = acknowledge(
        place === "update"
          ? { type: InteractionResponseType.UpdateMessage, data: message }
          : { type: InteractionResponseType.ChannelMessageWithSource, data: { ...message, flags } },
      );
      return first;
    }
    return (await first) && (await edit(message));
  }

  /** The same edit twice shows the same, so it may be repeated. */
  async function edit(message: DiscordMessage): Promise<boolean> {
    const route = Routes.webhookMessage(interaction.applicationId, interaction.token, "@original");
    for (let attempt = 1; ; attempt += 1) {
      try {
        await api.reply.patch(route, { body: message, auth: false });
        return true;
      } catch (error) {
        if (attempt < EDIT_ATTEMPTS && isTransient(error)) {
          await pause(EDIT_PAUSE_MS * attempt);
          continue;
        }
        log.warn(
          { interaction: interaction.id, reason: summaryOf(error) },
          "discord: an answer was not shown",
        );
        // Our fault, and the person would see "thinking" for ever.
        if (discordCode(error) === codes.invalidBody && message !== unshown) await edit(unshown);
        return false;
      }
    }
  }

  return {
    show,
    defer,
    open(modal, instead) {
      if (!canOpen || first !== undefined) return show(instead());
      first = acknowledge({ type: InteractionResponseType.Modal, data: modal });
      return first;
    },
    end: () => clearTimeout(watch),
  };
}

/** Sends the first answer, again while it is unknown whether it arrived and there is time. */
export async function answerFirst(
  { api, log, now }: Pick<DiscordContext, "api" | "log" | "now">,
  { id, token }: Pick<Answerable, "id" | "token">,
  { body, until }: { body: APIInteractionResponse; until: number },
): Promise<Acknowledged> {
  let isDoubtful = false;
  for (;;) {
    try {
      await api.reply.post(Routes.interactionCallback(id, token), { body, auth: false });
      return "ours";
    } catch (error) {
      const code = discordCode(error);
      if (code === codes.alreadyAcknowledged) return isDoubtful ? "ours" : "taken";
      if (code === codes.unknownInteraction) return "lost";
      if (!isTransient(error)) throw error;
      log.debug({ interaction: id, reason: summaryOf(error) }, "discord: an answer may be lost");
      if (now() + PAUSE_MS > until) return "lost";
      isDoubtful = true;
      await pause(PAUSE_MS);
    }
  }
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
