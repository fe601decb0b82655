/** Bolt's and the Web API client's log lines, in ours. */
import { LogLevel, type Logger as SlackLogger } from "@slack/bolt";
import type { Logger } from "pino";

export function boltLogger(log: Logger): SlackLogger {
  const join = (messages: unknown[]): string => messages.map(String).join(" ");
  return {
    // Their debug lines quote whole requests, and a modal may show a secret.
    debug() {},
    info: (...messages) => log.debug(join(messages)),
    warn: (...messages) => log.warn(join(messages)),
    error: (...messages) => log.error(join(messages)),
    setLevel() {},
    getLevel: () => LogLevel.INFO,
    setName() {},
  };
}
