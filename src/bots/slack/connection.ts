/** Whether Slack knows our token. Nothing waits for it: Slack being down at start must not stop the service. */
import type { Logger } from "pino";
import { isUnusableToken, refusedToken, type SlackApi, slackCode, summaryOf } from "./api.ts";

const MAX_RETRY_MS = 60_000;

export interface Connection {
  start(): void;
  stop(): void;
  status(): { ok: boolean; detail: string };
  /** The workspace's address ("https://acme.slack.com/"), once Slack has told it. */
  workspaceUrl(): string | null;
}

export function createConnection(options: { api: SlackApi; log: Logger; firstRetryMs: number }): Connection {
  const { api, log, firstRetryMs } = options;
  let timer: NodeJS.Timeout | undefined;
  let stopped = false;
  let url: string | null = null;
  let status = { ok: false, detail: "Not started yet." };

  async function check(retryMs: number): Promise<void> {
    try {
      const answer = await api.progress.auth.test();
      url = answer.url ?? null;
      status = { ok: true, detail: `Connected to ${answer.team ?? "Slack"} as ${answer.user ?? "the bot"}.` };
      log.info({ team: answer.team_id, user: answer.user_id }, "slack: connected");
    } catch (error) {
      const detail = isUnusableToken(error)
        ? refusedToken(slackCode(error) ?? "")
        : `Slack could not be reached (${summaryOf(error)}); trying again.`;
      if (detail !== status.detail) log.warn(`slack: ${detail}`);
      status = { ok: false, detail };
      if (stopped) return;
      timer = setTimeout(() => void check(Math.min(MAX_RETRY_MS, retryMs * 2)), retryMs);
      timer.unref();
    }
  }

  return {
    start() {
      stopped = false;
      status = { ok: false, detail: "Connecting to Slack." };
      void check(firstRetryMs);
    },
    stop() {
      stopped = true;
      clearTimeout(timer);
      status = { ok: false, detail: "Stopped." };
    },
    status: () => status,
    workspaceUrl: () => url,
  };
}
