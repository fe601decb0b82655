/** Slash commands: one request each. */
import type {
  AutocompleteInteraction,
  ChatInputCommandInteraction,
  CommandInteractionOption,
} from "discord.js";
import type { Principal } from "../../core/access.ts";
import { helpView } from "../../core/help.ts";
import { missingOptions } from "../../core/options.ts";
import { LINK } from "../../core/people/link.ts";
import { dryRunOption, helpTopicOption } from "./commands.ts";
import type { DiscordContext } from "./context.ts";
import { ask } from "./dispatch.ts";
import { renderView } from "./message.ts";
import { notLinked, problemOfRequest } from "./reply.ts";
import { createResponder, type Responder } from "./respond.ts";

export interface Asked {
  /** The action's name. */
  action: string;
  options: Record<string, string>;
  dryRun: boolean;
}

export async function handleCommand(
  context: DiscordContext,
  interaction: ChatInputCommandInteraction,
): Promise<void> {
  const responder = createResponder(context, interaction, { place: "reply", canOpen: true });
  let principal: Principal | null = null;
  try {
    const asked = readCommand(interaction);
    principal = await context.entrance.identify("discord", interaction.user.id);
    if (principal === null) {
      await answerStranger(context, { userId: interaction.user.id, responder }, asked);
      return;
    }
    const action = context.registry.find(asked.action);
    if (action === undefined && asked.action === "help") {
      await responder.show(renderView(helpView(context.registry, principal, asked.options[helpTopicOption])));
      return;
    }
    // A form must be the first answer. It is all that can come of a request with options missing, and needs no waiting;
    // anything else is begun only when the person is sure to see what came of it.
    const isForm = action !== undefined && missingOptions(action, asked.options, principal).length > 0;
    if (!isForm && !(await responder.defer())) return;
    await ask(context, { interaction, principal, responder }, asked);
  } catch (error) {
    await responder.show(problemOfRequest(error, principal, context).message);
  } finally {
    responder.end();
  }
}

/** A stranger may be linked, and nothing else. */
async function answerStranger(
  { entrance }: DiscordContext,
  { userId, responder }: { userId: string; responder: Responder },
  { action, options }: Asked,
): Promise<void> {
  if (action !== LINK) {
    await responder.show(notLinked(userId));
    return;
  }
  // Nothing is done whose outcome the person would not see.
  if (!(await responder.defer())) return;
  await responder.show(
    renderView(await entrance.link({ platform: "discord", userId }, options["code"] ?? "")),
  );
}

export function readCommand(
  interaction: Pick<ChatInputCommandInteraction | AutocompleteInteraction, "commandName" | "options">,
): Asked {
  const path = [interaction.commandName];
  let options: readonly CommandInteractionOption[] = interaction.options.data;
  // Groups and verbs are options that hold options.
  while (options[0]?.options !== undefined) {
    path.push(options[0].name);
    options = options[0].options;
  }
  const given: Record<string, string> = {};
  let dryRun = false;
  for (const { name, value } of options) {
    if (name === dryRunOption) dryRun = value === true;
    else if (value !== undefined)
      given[name] = typeof value === "boolean" ? (value ? "yes" : "no") : String(value);
  }
  return { action: path.join("."), options: given, dryRun };
}
