/** The Slack app manifest, made from the registry: paste it at api.slack.com/apps, "Create app from a manifest". */
import type { ActionRegistry } from "../../core/action.ts";
import { clip } from "../text.ts";
import { SLACK_PATH } from "./ingress.ts";

/**
 * Slack's own commands; an app cannot have these names (slack.com/help/articles/201259356). A prefix
 * (SLACK_COMMAND_PREFIX) is the way out of a clash with another app.
 */
export const reservedCommands: readonly string[] = [
  "/active",
  "/archive",
  "/away",
  "/call",
  "/collapse",
  "/dm",
  "/dnd",
  "/expand",
  "/feed",
  "/feedback",
  "/huddle",
  "/invite",
  "/join",
  "/keys",
  "/kick",
  "/leave",
  "/me",
  "/msg",
  "/mute",
  "/open",
  "/part",
  "/prefs",
  "/remind",
  "/remove",
  "/rename",
  "/search",
  "/shortcuts",
  "/shrug",
  "/star",
  "/status",
  "/topic",
  "/who",
];

/** What the bot needs and nothing more. */
export const botScopes: readonly string[] = [
  "commands",
  // Cards and threads in channels it was invited to.
  "chat:write",
  // Cards in the direct conversation with a customer.
  "im:write",
];

const MAX_DESCRIPTION = 2000;
const MAX_HINT = 1000;

export interface SlackManifest {
  display_information: { name: string; description: string };
  features: {
    app_home: {
      home_tab_enabled: boolean;
      messages_tab_enabled: boolean;
      messages_tab_read_only_enabled: boolean;
    };
    bot_user: { display_name: string; always_online: boolean };
    slash_commands: {
      command: string;
      url?: string | undefined;
      description: string;
      usage_hint: string;
      should_escape: boolean;
    }[];
  };
  oauth_config: { scopes: { bot: string[] } };
  settings: {
    interactivity: {
      is_enabled: boolean;
      request_url?: string | undefined;
      message_menu_options_url?: string | undefined;
    };
    org_deploy_enabled: boolean;
    socket_mode_enabled: boolean;
    token_rotation_enabled: boolean;
  };
}

/** `publicUrl`: where Slack reaches this service (RATATOSK_PUBLIC_URL); null for Socket Mode, where we call Slack. */
export function slackManifest(options: {
  registry: ActionRegistry;
  publicUrl: string | null;
  commandPrefix?: string;
  name?: string;
}): SlackManifest {
  const { registry, publicUrl, commandPrefix = "", name = "Ratatosk" } = options;
  const url = publicUrl === null ? undefined : `${publicUrl.replace(/\/+$/u, "")}${SLACK_PATH}`;
  return {
    display_information: { name, description: "Servers, from the chat" },
    features: {
      // Without the writable messages tab nobody can type a command in the bot's direct conversation.
      app_home: {
        home_tab_enabled: false,
        messages_tab_enabled: true,
        messages_tab_read_only_enabled: false,
      },
      bot_user: { display_name: name.toLowerCase(), always_online: true },
      slash_commands: groupsOf(registry).map(({ group, description, hint }) => ({
        command: `/${commandPrefix}${group}`,
        url,
        description: clip(description, MAX_DESCRIPTION),
        usage_hint: clip(hint, MAX_HINT),
        should_escape: false,
      })),
    },
    oauth_config: { scopes: { bot: [...botScopes] } },
    settings: {
      interactivity: { is_enabled: true, request_url: url, message_menu_options_url: url },
      org_deploy_enabled: false,
      socket_mode_enabled: url === undefined,
      token_rotation_enabled: false,
    },
  };
}

/** One slash command per group, and `/help`, which the grammar knows by itself. */
function groupsOf(registry: ActionRegistry): { group: string; description: string; hint: string }[] {
  const verbs = new Map<string, string[]>();
  const alone = new Map<string, string>();
  for (const { name, summary } of registry.list()) {
    const [group = name, ...rest] = name.split(".");
    const known = verbs.get(group) ?? [];
    if (rest.length > 0) known.push(rest.join(" "));
    else alone.set(group, summary);
    verbs.set(group, known);
  }
  if (!verbs.has("help")) alone.set("help", "What you may do here");
  return [...verbs.keys(), ...(verbs.has("help") ? [] : ["help"])].map((group) => {
    const hint = (verbs.get(group) ?? []).join(" | ");
    return { group, description: alone.get(group) ?? `${group}: ${hint.replaceAll(" | ", ", ")}`, hint };
  });
}
