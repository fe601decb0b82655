/** Every interaction that discord.js hands us, to the file that answers it. */
import type { Interaction } from "discord.js";
import { handleAutocomplete } from "./autocomplete.ts";
import { handleButton } from "./buttons.ts";
import type { DiscordContext } from "./context.ts";
import { createMemory } from "./memory.ts";
import { handleSubmit } from "./modal.ts";
import { handleCommand } from "./slash.ts";

export interface Intake {
  /** Never throws. */
  take(interaction: Interaction): void;
  /** Resolves when everything that was taken so far is answered. */
  settled(): Promise<void>;
}

/** A resumed session replays what it thinks we missed; older than this Discord would refuse an answer anyway. */
const REMEMBERED = 10_000;

export function createIntake(context: DiscordContext): Intake {
  const running = new Set<Promise<void>>();
  const seen = createMemory<true>(REMEMBERED);

  async function answer(interaction: Interaction): Promise<void> {
    try {
      if (interaction.isAutocomplete()) await handleAutocomplete(context, interaction);
      else if (interaction.isChatInputCommand()) await handleCommand(context, interaction);
      else if (interaction.isModalSubmit()) await handleSubmit(context, interaction);
      else if (interaction.isButton()) await handleButton(context, interaction);
      else context.log.warn({ type: interaction.type }, "discord: an interaction of no kind that we offer");
    } catch (error) {
      context.log.error({ err: error, interaction: interaction.id }, "discord: a handler failed");
    }
  }

  return {
    take(interaction) {
      if (seen.has(interaction.id)) {
        context.log.debug({ interaction: interaction.id }, "discord: an interaction was delivered again");
        return;
      }
      seen.set(interaction.id, true);
      const work = answer(interaction).finally(() => running.delete(work));
      running.add(work);
    },
    async settled() {
      await Promise.all(running);
    },
  };
}
