/** The chat platforms' settings: environment variables only, because nearly all of them are secrets. */
import type { EnvironmentReader } from "./environment.ts";
import type { Problems } from "./problems.ts";

export interface SlackSettings {
  botToken: string;
  /** Socket Mode. Wins over HTTP when both are there. */
  appToken: string | undefined;
  /** HTTP mode. */
  signingSecret: string | undefined;
  apiUrl: string | undefined;
  commandPrefix: string;
}

export interface DiscordSettings {
  token: string;
  applicationId: string;
  guildId: string | undefined;
  /** HTTP interactions instead of the gateway. */
  publicKey: string | undefined;
  apiUrl: string | undefined;
}

export function readSlack(environment: EnvironmentReader, problems: Problems): SlackSettings | undefined {
  const botToken = environment.text("SLACK_BOT_TOKEN");
  const appToken = environment.text("SLACK_APP_TOKEN");
  const signingSecret = environment.text("SLACK_SIGNING_SECRET");
  const apiUrl = environment.url("SLACK_API_URL", ["https:", "http:"]);
  const commandPrefix = environment.text("SLACK_COMMAND_PREFIX") ?? "";
  if (botToken?.startsWith("xapp-") === true) {
    problems.add(
      "SLACK_BOT_TOKEN holds an app token (xapp-…)",
      "use the Bot User OAuth Token (xoxb-…) of the app's page OAuth & Permissions",
    );
  }
  if (appToken !== undefined && !appToken.startsWith("xapp-")) {
    problems.add(
      "SLACK_APP_TOKEN is no app token",
      "use the App-Level Token (xapp-…) with the scope connections:write, of the app's page Basic Information",
    );
  }
  if (!/^[a-z0-9-]{0,20}$/.test(commandPrefix)) {
    problems.add(
      "SLACK_COMMAND_PREFIX is not usable in a command",
      "use at most 20 small letters, digits and -",
    );
  }
  if (botToken === undefined) {
    if (appToken !== undefined || signingSecret !== undefined) {
      problems.add(
        "SLACK_BOT_TOKEN is missing",
        "set it to the Bot User OAuth Token (xoxb-…), or unset the other SLACK_ variables",
      );
    }
    return undefined;
  }
  if (appToken === undefined && signingSecret === undefined) {
    problems.add(
      "Slack has neither SLACK_APP_TOKEN nor SLACK_SIGNING_SECRET",
      "set the first for Socket Mode, or the second for HTTP",
    );
  }
  return { botToken, appToken, signingSecret, apiUrl, commandPrefix };
}

export function readDiscord(environment: EnvironmentReader, problems: Problems): DiscordSettings | undefined {
  const token = environment.text("DISCORD_TOKEN");
  const applicationId = environment.text("DISCORD_APPLICATION_ID");
  const guildId = environment.text("DISCORD_GUILD_ID");
  const publicKey = environment.text("DISCORD_PUBLIC_KEY");
  const apiUrl = environment.url("DISCORD_API_URL", ["https:", "http:"]);
  for (const [name, id] of [
    ["DISCORD_APPLICATION_ID", applicationId],
    ["DISCORD_GUILD_ID", guildId],
  ] as const) {
    if (id !== undefined && !/^\d{15,21}$/.test(id)) {
      problems.add(`${name} is no Discord id`, "copy it with developer mode on; it has 17 to 20 digits");
    }
  }
  if (publicKey !== undefined && !/^[0-9a-f]{64}$/i.test(publicKey)) {
    problems.add(
      "DISCORD_PUBLIC_KEY is no public key",
      "copy the 64 hex digits of the application's General Information page",
    );
  }
  if (token === undefined) {
    if (applicationId !== undefined || publicKey !== undefined || guildId !== undefined) {
      problems.add(
        "DISCORD_TOKEN is missing",
        "set it to the bot's token, or unset the other DISCORD_ variables",
      );
    }
    return undefined;
  }
  if (applicationId === undefined) {
    problems.add(
      "DISCORD_APPLICATION_ID is missing",
      "copy it from the application's General Information page",
    );
    return undefined;
  }
  return { token, applicationId, guildId, publicKey, apiUrl };
}
