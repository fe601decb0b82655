/** What every handler of the Slack bot works with. */
import type { types } from "@slack/bolt";
import type { Logger } from "pino";
import type { Principal } from "../../core/access.ts";
import type { ActionRegistry } from "../../core/action.ts";
import type { Origin } from "../../core/bot.ts";
import type { Entrance } from "../../core/request.ts";
import { type SlackApi, summaryOf } from "./api.ts";
import type { SlackMessage } from "./message.ts";
import { originOf, type Sender } from "./person.ts";
import { sentence, type Whereabouts } from "./reply.ts";

export interface SlackContext {
  entrance: Entrance;
  registry: ActionRegistry;
  api: SlackApi;
  log: Logger;
  commandPrefix: string;
  /** After this a request is acknowledged and answered afterwards. */
  ackBudgetMs: number;
  linkTo(operationId: string): Promise<string | null>;
}

export interface Place {
  origin: Origin;
  whereabouts: Whereabouts;
}

/** Where a person is who typed or pressed something in `channel`. */
export function placeOf(
  context: SlackContext,
  who: { sender: Sender; principal: Principal },
  asked: { channel: string; dryRun: boolean },
): Place {
  const origin = originOf(who.sender, who.principal, asked.channel);
  return {
    origin,
    whereabouts: {
      ...asked,
      card: origin.channel === asked.channel ? "here" : "direct",
      linkTo: (operationId) => context.linkTo(operationId),
    },
  };
}

/**
 * False when Slack no longer takes it: more than 3 s have passed, or the socket that the request came by is gone. What was
 * asked for is done all the same.
 */
export async function acknowledge(
  { log }: Pick<SlackContext, "log">,
  send: () => Promise<void>,
): Promise<boolean> {
  try {
    await send();
    return true;
  } catch (error) {
    log.warn({ reason: summaryOf(error) }, "slack: an acknowledgement could not be sent");
    return false;
  }
}

/** Opens a modal, or says in a sentence why it did not open. A trigger_id serves once, for 3 s. */
export async function openModal(
  context: SlackContext,
  triggerId: string,
  view: types.ModalView,
): Promise<SlackMessage | undefined> {
  try {
    await context.api.trigger.views.open({ trigger_id: triggerId, view });
    return undefined;
  } catch (error) {
    context.log.warn({ reason: summaryOf(error) }, "slack: a modal did not open");
    return sentence(
      "Slack did not open the form in time. Ask once more, or give the options on the command line; `help` names them.",
    );
  }
}
