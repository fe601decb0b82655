/** What the entrance answered (or threw) → what a person in Slack sees. */
import type { types } from "@slack/bolt";
import type { Logger } from "pino";
import type { Principal } from "../../core/access.ts";
import { problemOf, ServiceError } from "../../core/errors.ts";
import type { Answer } from "../../core/request.ts";
import type { View } from "../../core/view.ts";
import { paragraph, plain } from "../text.ts";
import { type FormContext, renderForm } from "./form.ts";
import { bannerBlocks, bannerLines, note, renderView, type SlackMessage, sections } from "./message.ts";
import { escape, escapeTo } from "./text.ts";

export type Reply = { kind: "message"; message: SlackMessage } | { kind: "modal"; modal: types.ModalView };

export interface Whereabouts extends FormContext {
  /** Where the card of a new operation appears. */
  card: "here" | "direct";
  /** The address of an existing operation's card, when it is known. */
  linkTo(operationId: string): Promise<string | null>;
}

export async function replyTo(answer: Answer, whereabouts: Whereabouts): Promise<Reply> {
  if (answer.kind === "form") return { kind: "modal", modal: renderForm(answer.form, whereabouts) };
  if (answer.kind === "view") return { kind: "message", message: renderView(answer.view) };
  return { kind: "message", message: await operationMessage(answer, whereabouts) };
}

/** The card follows by itself, so this is one line: it was understood, under which id, and where to look. */
async function operationMessage(
  answer: Extract<Answer, { kind: "operation" }>,
  whereabouts: Whereabouts,
): Promise<SlackMessage> {
  const { view, publicId, existing } = answer;
  const title = plain(view.title, 300);
  // The text of a new one names it; that nothing new was started goes without saying.
  const said = existing ? `Already asked for: ${title}` : paragraph(view.text ?? title, 2000);
  const place =
    whereabouts.card === "here" ? "Its card is in this channel." : "Its card is in our direct messages.";
  const link = existing ? await whereabouts.linkTo(answer.operationId) : null;
  const where = link === null ? place : `<${link}|Open its card>`;
  return {
    text: escapeTo([...bannerLines(view.banner), said, publicId].join("\n"), 3000),
    blocks: [
      ...bannerBlocks(view.banner),
      ...sections([said]),
      { type: "context", elements: [{ type: "mrkdwn", text: `${escape(plain(publicId))} · ${where}` }] },
    ],
  };
}

/** Logs what nobody expected; returns the sentence for the person. `who`: staff also see the cloud's own words. */
export function problemReply(error: unknown, who: Principal | null, log: Logger): SlackMessage {
  const { text, detail } = tell(error, who, log);
  return {
    text: escapeTo(text, 3000),
    blocks: [...sections([text]), ...(detail === undefined ? [] : [note(detail)])],
  };
}

export function problemView(error: unknown, who: Principal | null, log: Logger): View {
  const { text, detail } = tell(error, who, log);
  return {
    title: "That did not work",
    tone: "warning",
    text,
    ...(detail === undefined ? {} : { footer: detail }),
  };
}

function tell(
  error: unknown,
  who: Principal | null,
  log: Logger,
): { text: string; detail: string | undefined } {
  if (!(error instanceof ServiceError)) log.error({ err: error }, "slack: a request failed unexpectedly");
  const { message, staffDetail } = problemOf(error);
  return { text: paragraph(message), detail: who?.kind === "staff" ? staffDetail : undefined };
}

/** One sentence, for the asker alone. */
export function sentence(text: string): SlackMessage {
  return { text: escapeTo(text, 3000), blocks: sections([text]) };
}

/** A stranger learns their own id, because that is what an administrator needs, and how customers get in. Nothing else. */
export function notLinked(userId: string, commandPrefix: string): SlackMessage {
  return sentence(
    `Your Slack account (${userId}) is not linked to anybody I know, so I cannot do that for you. ` +
      "If you work here, ask an administrator to add this id to your entry under `staff` in ratatosk.yaml. " +
      `If you are a customer, ask support for a code and send it here: /${commandPrefix}link code:…`,
  );
}
