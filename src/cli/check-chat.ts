/** Do the chat platforms know our tokens. Posts nothing and opens no connection that would take events from a process. */
import { Routes } from "discord.js";
import type { Logger } from "pino";
import { z } from "zod";
import * as discordApi from "../bots/discord/api.ts";
import * as slackApi from "../bots/slack/api.ts";
import type { DiscordSettings, SlackSettings } from "../config/chat.ts";
import type { Settings } from "../config/settings.ts";
import type { Report } from "./terminal.ts";

const Application = z.looseObject({ id: z.string(), name: z.string().optional() });
const BotUser = z.looseObject({ username: z.string() });

export async function checkChat({ slack, discord }: Settings, report: Report, log: Logger): Promise<void> {
  if (slack === undefined) report.result(null, "slack", "not configured");
  else await checkSlack(slack, report, log);
  if (discord === undefined) report.result(null, "discord", "not configured");
  else await checkDiscord(discord, report);
}

async function checkSlack(settings: SlackSettings, report: Report, log: Logger): Promise<void> {
  const { botToken, appToken, apiUrl } = settings;
  try {
    const { progress } = slackApi.createSlackApi({ token: botToken, apiUrl, log });
    const { team, user } = await progress.auth.test();
    report.result(true, "slack", `${user ?? "the bot"} in ${team ?? "Slack"}`);
  } catch (error) {
    report.result(false, "slack", slackProblem(error, slackApi.refusedToken));
    return;
  }
  if (appToken === undefined) {
    report.result(null, "slack socket", "not used: requests come over HTTP, signed");
    return;
  }
  try {
    // Answers with an address to connect to; nobody does.
    const { progress } = slackApi.createSlackApi({ token: appToken, apiUrl, log });
    await progress.apps.connections.open({});
    report.result(true, "slack socket", "Socket Mode is open to us");
  } catch (error) {
    report.result(
      false,
      "slack socket",
      slackProblem(
        error,
        (code) =>
          `Slack refuses SLACK_APP_TOKEN (${code}).\nSwitch on Socket Mode, and copy an App-Level Token with the scope connections:write.`,
      ),
    );
  }
}

function slackProblem(error: unknown, refused: (code: string) => string): string {
  const code = slackApi.slackCode(error);
  if (code !== undefined) return refused(code);
  return `no answer (${slackApi.summaryOf(error)})\nCheck the way out to Slack: proxy, firewall, DNS.`;
}

async function checkDiscord(
  { token, apiUrl, applicationId, guildId }: DiscordSettings,
  report: Report,
): Promise<void> {
  const api = discordApi.createDiscordApi({ token, apiUrl });
  try {
    const bot = BotUser.parse(await api.progress((rest) => rest.get(Routes.user("@me"))));
    const application = Application.parse(
      await api.progress((rest) => rest.get(Routes.currentApplication())),
    );
    if (application.id !== applicationId) {
      report.result(
        false,
        "discord",
        `the token is ${bot.username}'s, of the application ${application.id}, not ${applicationId}\nSet DISCORD_APPLICATION_ID to the one that DISCORD_TOKEN belongs to.`,
      );
      return;
    }
    report.result(true, "discord", `${bot.username} of ${application.name ?? application.id}`);
  } catch (error) {
    report.result(false, "discord", discordProblem(error));
    return;
  }
  if (guildId === undefined) return;
  try {
    await api.progress((rest) => rest.get(Routes.guild(guildId)));
    report.result(true, "discord server", guildId);
  } catch (error) {
    const advice = "Invite the bot there (docs/discord.md), or correct DISCORD_GUILD_ID.";
    report.result(false, "discord server", `${guildId}: ${discordApi.summaryOf(error)}\n${advice}`);
  }
}

function discordProblem(error: unknown): string {
  if (discordApi.isUnauthorized(error)) return discordApi.refusedToken;
  if (error instanceof z.ZodError)
    return "an answer that is not Discord's\nCheck DISCORD_API_URL and the proxy.";
  return `no answer (${discordApi.summaryOf(error)})\nCheck the way out to Discord: proxy, firewall, DNS.`;
}
