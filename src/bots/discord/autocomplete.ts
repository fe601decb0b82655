/** Suggestions while a command is typed. Discord shows an error for no answer, and has no place for a reason. */
import {
  type APIApplicationCommandOptionChoice,
  ApplicationCommandOptionType,
  type AutocompleteInteraction,
  InteractionResponseType,
} from "discord.js";
import type { Principal } from "../../core/access.ts";
import { usableActions } from "../../core/help.ts";
import { optionsFor } from "../../core/options.ts";
import { late, within } from "../deadline.ts";
import { plain } from "../text.ts";
import { summaryOf } from "./api.ts";
import { helpTopicOption } from "./commands.ts";
import type { DiscordContext } from "./context.ts";
import { type Choices, MAX_CHOICES } from "./form.ts";
import { answerFirst } from "./respond.ts";
import { readCommand } from "./slash.ts";

const MAX_TEXT = 100;
const SEND_WITHIN_MS = 600;

export async function handleAutocomplete(
  context: DiscordContext,
  interaction: AutocompleteInteraction,
): Promise<void> {
  const { log } = context;
  const found = await within(suggestions(context, interaction), context.ackBudgetMs);
  if (found === late) log.warn({ command: interaction.commandName }, "discord: suggestions came too late");
  const choices = found === late ? [] : found;
  try {
    await answerFirst(context, interaction, {
      body: { type: InteractionResponseType.ApplicationCommandAutocompleteResult, data: { choices } },
      until: context.now() + SEND_WITHIN_MS,
    });
  } catch (error) {
    log.warn({ reason: summaryOf(error) }, "discord: suggestions were not taken");
  }
}

async function suggestions(
  context: DiscordContext,
  interaction: AutocompleteInteraction,
): Promise<APIApplicationCommandOptionChoice[]> {
  try {
    const principal = await context.entrance.identify("discord", interaction.user.id);
    if (principal === null) return [];
    const { name, value, type } = interaction.options.getFocused(true);
    const found = await choicesOf(context, interaction, { name, text: value, principal });
    const usable = found.filter((choice) => choice.value !== "" && choice.value.length <= MAX_TEXT);
    if (usable.length < found.length) {
      context.log.warn(
        { option: name },
        "discord: a choice is longer than Discord takes; it can only be typed",
      );
    }
    const isText = type === ApplicationCommandOptionType.String;
    return usable.slice(0, MAX_CHOICES).map((choice) => ({
      name: plain(choice.label, MAX_TEXT) || plain(choice.value, MAX_TEXT),
      value: isText ? choice.value : Number(choice.value),
    }));
  } catch (error) {
    context.log.error({ err: error }, "discord: suggestions failed");
    return [];
  }
}

async function choicesOf(
  { entrance, registry }: DiscordContext,
  interaction: AutocompleteInteraction,
  { name, text, principal }: { name: string; text: string; principal: Principal },
): Promise<Choices> {
  const asked = readCommand(interaction);
  const action = registry.find(asked.action);
  if (action === undefined) {
    return asked.action === "help" && name === helpTopicOption
      ? matching(topics(usableActions(registry, principal).map((usable) => usable.name)), text)
      : [];
  }
  const option = optionsFor(action, principal).find((candidate) => candidate.name === name);
  if (option?.lookup === undefined) return matching(option?.choices ?? [], text);
  const { [name]: _focused, ...options } = asked.options;
  return entrance.lookup({ kind: option.lookup, text, limit: MAX_CHOICES, options }, principal);
}

/** Groups and commands, as typed. */
function topics(names: readonly string[]): Choices {
  const groups = names.map((name) => name.split(".")[0] ?? name);
  return [...new Set([...groups, ...names])].map((name) => {
    const typed = name.replaceAll(".", " ");
    return { value: typed, label: `/${typed}` };
  });
}

function matching(choices: Choices, text: string): Choices {
  const wanted = text.trim().toLowerCase();
  return choices.filter(({ value, label }) => `${value} ${label}`.toLowerCase().includes(wanted));
}
