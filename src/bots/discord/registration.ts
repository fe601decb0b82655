/**
 * The bot's commands at Discord. Theirs are read first and overwritten only when they differ, because Discord takes 200 new
 * commands a day and a restart loop must not use them up. What differs is found by their content, so that it does not
 * matter who changed them.
 */
import { createHash } from "node:crypto";
import { Routes } from "discord.js";
import { z } from "zod";
import type { DiscordApi } from "./api.ts";
import type { DiscordCommand } from "./commands.ts";

export interface CommandScope {
  applicationId: string;
  /** Present: for this guild alone, at once. Absent: everywhere, which Discord spreads within minutes. */
  guildId: string | undefined;
}

/** True when they had to be written. Throws discord.js's errors. */
export async function registerCommands(
  api: DiscordApi,
  { applicationId, guildId }: CommandScope,
  commands: readonly DiscordCommand[],
): Promise<boolean> {
  const route =
    guildId === undefined
      ? Routes.applicationCommands(applicationId)
      : Routes.applicationGuildCommands(applicationId, guildId);
  const theirs = await api.progress((rest) => rest.get(route));
  if (hashOf(theirs) === hashOf(commands)) return false;
  await api.progress((rest) => rest.put(route, { body: commands }));
  return true;
}

const Choice = z.object({ name: z.string(), value: z.union([z.string(), z.number()]) });
// What we set; Discord fills in the defaults of what we left out, and adds ids, versions and contexts.
const Item = z.object({
  type: z.number().default(1),
  name: z.string(),
  description: z.string().default(""),
  required: z.boolean().default(false),
  autocomplete: z.boolean().default(false),
  choices: z.array(Choice).default([]),
  min_value: z.number().nullable().default(null),
  max_value: z.number().nullable().default(null),
  get options() {
    return z.array(Item).default([]);
  },
});

/** The same for command sets that a person could not tell apart. */
export function hashOf(commands: unknown): string {
  const items = z.array(Item).parse(commands);
  const sorted = items.toSorted((a, b) => (a.name < b.name ? -1 : 1));
  return createHash("sha256").update(JSON.stringify(sorted)).digest("hex");
}
