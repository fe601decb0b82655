/** What the chat platforms have to be told about our commands. */

import { discordCommands } from "../bots/discord/commands.ts";
import { lintDiscordCommands } from "../bots/discord/commands-lint.ts";
import { slackManifest } from "../bots/slack/manifest.ts";
import { withDotEnv } from "../config/environment.ts";
import { ConfigurationError, collectProblems } from "../config/problems.ts";
import { createRegistry } from "../core/actions/index.ts";
import { ServiceError } from "../core/errors.ts";
import type { Terminal } from "./terminal.ts";

/** Needs no complete configuration: it is what one is made with. */
export function printSlackManifest(
  terminal: Terminal,
  options: { url?: string; socket: boolean; name?: string },
): number {
  const problems = collectProblems();
  const env = withDotEnv(terminal.env, terminal.cwd, problems);
  if (problems.list().length > 0) throw new ConfigurationError(problems.list());
  const publicUrl = options.socket ? null : addressOf(options.url ?? env["RATATOSK_PUBLIC_URL"] ?? "");
  const manifest = slackManifest({
    registry: createRegistry(),
    publicUrl,
    commandPrefix: env["SLACK_COMMAND_PREFIX"] ?? "",
    ...(options.name === undefined ? {} : { name: options.name }),
  });
  terminal.stdout.write(`${JSON.stringify(manifest, null, 2)}\n`);
  return 0;
}

function addressOf(url: string): string {
  if (URL.canParse(url) && /^https?:/i.test(url)) return url;
  throw new ServiceError(
    "configuration",
    "Slack must know where it reaches Ratatosk: set RATATOSK_PUBLIC_URL, or give --url https://bot.example.com; " +
      "with --socket Ratatosk calls Slack instead.",
  );
}

/** The body of PUT /applications/{id}/commands. Nothing is printed that Discord would refuse. */
export function printDiscordCommands(terminal: Terminal): number {
  const commands = discordCommands(createRegistry());
  const found = lintDiscordCommands(commands);
  for (const text of found) terminal.stderr.write(`${text}\n`);
  if (found.length > 0) return 1;
  terminal.stdout.write(`${JSON.stringify(commands, null, 2)}\n`);
  return 0;
}
