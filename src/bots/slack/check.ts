/** Does Slack know our tokens. Posts nothing, and connects nowhere that would take events from a process. */
import type { Logger } from "pino";
import type { Finding } from "../../core/cloud.ts";
import { createSlackApi, refusedToken, slackCode, summaryOf } from "./api.ts";

export interface SlackCheckOptions {
  botToken: string;
  /** Socket Mode. */
  appToken: string | undefined;
  apiUrl: string | undefined;
  log: Logger;
}

/** Never throws. */
export async function checkSlack(options: SlackCheckOptions): Promise<Finding[]> {
  const bot = await checkBot(options);
  return bot.ok === true ? [bot, await checkSocket(options)] : [bot];
}

async function checkBot({ botToken, apiUrl, log }: SlackCheckOptions): Promise<Finding> {
  const service = "slack";
  try {
    const { team, user } = await createSlackApi({ token: botToken, apiUrl, log }).progress.auth.test();
    return { service, ok: true, detail: `${user ?? "the bot"} in ${team ?? "Slack"}` };
  } catch (error) {
    return { service, ok: false, detail: problemOf(error, refusedToken) };
  }
}

async function checkSocket({ appToken, apiUrl, log }: SlackCheckOptions): Promise<Finding> {
  const service = "slack socket";
  if (appToken === undefined)
    return { service, ok: null, detail: "not used: requests come over HTTP, signed" };
  try {
    // Answers with an address to connect to; nobody does.
    await createSlackApi({ token: appToken, apiUrl, log }).progress.apps.connections.open({});
    return { service, ok: true, detail: "Socket Mode is open to us" };
  } catch (error) {
    const advice = "Switch on Socket Mode, and copy an App-Level Token with the scope connections:write.";
    const detail = problemOf(error, (code) => `Slack refuses SLACK_APP_TOKEN (${code}).\n${advice}`);
    return { service, ok: false, detail };
  }
}

function problemOf(error: unknown, refused: (code: string) => string): string {
  const code = slackCode(error);
  if (code !== undefined) return refused(code);
  return `no answer (${summaryOf(error)})\nCheck the way out to Slack: proxy, firewall, DNS.`;
}
