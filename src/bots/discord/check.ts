/** Does Discord know our token, and is it the configured application's. Posts nothing and does not log in. */
import { Routes } from "discord.js";
import { z } from "zod";
import type { Finding } from "../../core/cloud.ts";
import { createDiscordApi, isUnauthorized, refusedToken, summaryOf } from "./api.ts";

const Application = z.looseObject({ id: z.string(), name: z.string().optional() });
const BotUser = z.looseObject({ username: z.string() });

export interface DiscordCheckOptions {
  token: string;
  apiUrl: string | undefined;
  applicationId: string;
  guildId: string | undefined;
}

/** Never throws. */
export async function checkDiscord(options: DiscordCheckOptions): Promise<Finding[]> {
  const { guildId } = options;
  const bot = await checkBot(options);
  return bot.ok === true && guildId !== undefined ? [bot, await checkGuild(options, guildId)] : [bot];
}

async function checkBot({ token, apiUrl, applicationId }: DiscordCheckOptions): Promise<Finding> {
  const service = "discord";
  const api = createDiscordApi({ token, apiUrl });
  try {
    const bot = BotUser.parse(await api.progress((rest) => rest.get(Routes.user("@me"))));
    const found = Application.parse(await api.progress((rest) => rest.get(Routes.currentApplication())));
    if (found.id === applicationId) {
      return { service, ok: true, detail: `${bot.username} of ${found.name ?? found.id}` };
    }
    const detail = `the token is ${bot.username}'s, of the application ${found.id}, not ${applicationId}`;
    const advice = "Set DISCORD_APPLICATION_ID to the one that DISCORD_TOKEN belongs to.";
    return { service, ok: false, detail: `${detail}\n${advice}` };
  } catch (error) {
    return { service, ok: false, detail: problemOf(error) };
  }
}

async function checkGuild({ token, apiUrl }: DiscordCheckOptions, guildId: string): Promise<Finding> {
  const service = "discord server";
  try {
    await createDiscordApi({ token, apiUrl }).progress((rest) => rest.get(Routes.guild(guildId)));
    return { service, ok: true, detail: guildId };
  } catch (error) {
    const advice = "Invite the bot there (docs/discord.md), or correct DISCORD_GUILD_ID.";
    return { service, ok: false, detail: `${guildId}: ${summaryOf(error)}\n${advice}` };
  }
}

function problemOf(error: unknown): string {
  if (isUnauthorized(error)) return refusedToken;
  if (error instanceof z.ZodError)
    return "an answer that is not Discord's\nCheck DISCORD_API_URL and the proxy.";
  return `no answer (${summaryOf(error)})\nCheck the way out to Discord: proxy, firewall, DNS.`;
}
