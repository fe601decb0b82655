/** What the entrance answered (or threw) → what a person in Discord sees. */
import type { Logger } from "pino";
import type { Principal } from "../../core/access.ts";
import { isServiceError, problemOf, ServiceError } from "../../core/errors.ts";
import { asTyped } from "../../core/option-values.ts";
import type { Answer } from "../../core/request.ts";
import { paragraph, plain } from "../text.ts";
import { bannerLines, type DiscordMessage, messageOf, plainButton, rows, sentence } from "./message.ts";
import { escape, escapeTo, line } from "./text.ts";

const MAX_CONTENT = 2_000;

/** The card follows by itself, so this is one line: it was understood, under which id, and where to look. */
export function operationMessage(
  { view, publicId, existing }: Extract<Answer, { kind: "operation" }>,
  where: { isDirect: boolean; link: string | null },
): DiscordMessage {
  const title = `**${line(`${existing ? "Already asked for: " : ""}${view.title}`, 300)}**`;
  // Of one server there are two at most: its cloud's and its node's.
  const banner = bannerLines(view.banner).slice(0, 2);
  const room = 1_200 - banner.join("\n").length;
  const details = view.text === undefined ? [] : [escapeTo(paragraph(view.text), room)];
  const place = where.isDirect ? "Its card is in our direct messages." : "Its card is in this channel.";
  const card = where.link === null ? place : `[Open its card](<${where.link}>)`;
  return messageOf({
    content: [...banner, title, ...details, `${escape(plain(publicId))} · ${card}`].join("\n"),
  });
}

export interface Problem {
  message: DiscordMessage;
  /** Option names that the person can put right in a form; null when a form would not help. */
  wrong: string[] | null;
}

/** Logs what nobody expected. `who`: staff also see the cloud's own words. `typed`: so that it need not be typed again. */
export function problemOfRequest(
  error: unknown,
  who: Principal | null,
  { log, typed = {} }: { log: Logger; typed?: Record<string, string> },
): Problem {
  if (!(error instanceof ServiceError)) log.error({ err: error }, "discord: a request failed unexpectedly");
  const { message, staffDetail } = problemOf(error);
  const errors = sentencesOf(error);
  const more = Object.values(errors).filter((other) => other !== message);
  const isCorrectable = isServiceError(error, "invalid_input");
  const given = isCorrectable ? Object.entries(typed).map(([name, value]) => asTyped({ name }, value)) : [];
  const lines = [
    ...[message, ...more].map((text) => escapeTo(paragraph(text), 800)),
    ...(given.length === 0 ? [] : [`You gave: ${line(given.join(" "), 500)}`]),
    ...(who?.kind === "staff" && staffDetail !== undefined ? [`-# ${line(staffDetail, 300)}`] : []),
  ];
  return {
    message: messageOf({ content: fitting(lines) }),
    wrong: isCorrectable ? wrongOf(error, errors) : null,
  };
}

/** Whole lines, so that nothing escaped is cut open. */
function fitting(lines: readonly string[]): string {
  let content = "";
  for (const next of lines) {
    if (content.length + next.length + 1 > MAX_CONTENT) break;
    content = content === "" ? next : `${content}\n${next}`;
  }
  return content;
}

function sentencesOf(error: unknown): Record<string, string> {
  const errors = isServiceError(error, "invalid_input") ? error.facts["errors"] : undefined;
  if (typeof errors !== "object" || errors === null) return {};
  return Object.fromEntries(Object.entries(errors).map(([name, text]) => [name, String(text)]));
}

function wrongOf(error: ServiceError, errors: Record<string, string>): string[] {
  const option = error.facts["option"];
  return [...new Set([...Object.keys(errors), ...(typeof option === "string" ? [option] : [])])];
}

export const OPEN_FORM = "open";

/** The same message with a button that opens a form, because Discord opens one only at a press or a command. */
export function withFormButton(message: DiscordMessage, nonce: string, label: string): DiscordMessage {
  return { ...message, components: rows([plainButton(`${OPEN_FORM}:${nonce}`, label, "primary")]) };
}

/** A stranger learns their own id, because that is what an administrator needs, and how customers get in. Nothing else. */
export function notLinked(userId: string): DiscordMessage {
  return sentence(
    `Your Discord account (${userId}) is not linked to anybody I know, so I cannot do that for you. ` +
      "If you work here, ask an administrator to add this id to your entry under `staff` in ratatosk.yaml. " +
      "If you are a customer, ask support for a code and send it here: /link code:…",
  );
}

/** Shown to the presser alone. In a code block no character of it is read as markup, and it copies exactly. */
export function secretMessage({ label, text }: { label: string; text: string }): DiscordMessage {
  const shown = text.includes("```") ? escape(text) : `\`\`\`\n${text}\n\`\`\``;
  return messageOf({
    content: `**${line(label, 200)}**\n${shown}\nOnly you see this, and only once: copy it, then dismiss this message.`,
  });
}
