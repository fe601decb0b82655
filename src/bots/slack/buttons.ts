/** Buttons of cards and answers. They carry an opaque capability; who presses is authorised at the press. */
import type { AckFn, BlockAction, ButtonAction, RespondFn } from "@slack/bolt";
import type { Principal } from "../../core/access.ts";
import { summaryOf } from "./api.ts";
import { acknowledge, openModal, placeOf, type SlackContext } from "./context.ts";
import { secretModal } from "./form.ts";
import type { SlackMessage } from "./message.ts";
import { identify } from "./person.ts";
import { notLinked, problemReply, replyTo, sentence } from "./reply.ts";

export interface ButtonArgs {
  body: BlockAction;
  payload: ButtonAction;
  ack: AckFn<void>;
  respond: RespondFn;
}

export async function handleButton(
  context: SlackContext,
  { body, payload, ack, respond }: ButtonArgs,
): Promise<void> {
  await acknowledge(context, () => ack());
  const message = await press(context, body, payload);
  if (message !== undefined) {
    await respond({ response_type: "ephemeral", replace_original: false, ...message });
  }
}

async function press(
  context: SlackContext,
  body: BlockAction,
  button: ButtonAction,
): Promise<SlackMessage | undefined> {
  let principal: Principal | null = null;
  try {
    principal = await identify(context.entrance, body);
    if (principal === null) return notLinked(body.user.id, context.commandPrefix);
    const token = button.value ?? "";
    if (button.action_id.startsWith("reveal:")) return await reveal(context, { token, principal, body });

    const answer = await context.entrance.press(token, principal, "slack");
    const { whereabouts } = placeOf(
      context,
      { sender: body, principal },
      { channel: body.channel?.id ?? "", dryRun: false },
    );
    const reply = await replyTo(answer, whereabouts);
    return reply.kind === "message" ? reply.message : await openModal(context, body.trigger_id, reply.modal);
  } catch (error) {
    return problemReply(error, principal, context.log);
  }
}

/**
 * The secret counts as shown only once the modal is open. When Slack's answer is lost it may be open all the same: then it
 * can be revealed again to the same person, which is better than never.
 */
async function reveal(
  context: SlackContext,
  { token, principal, body }: { token: string; principal: Principal; body: BlockAction },
): Promise<SlackMessage | undefined> {
  const secret = await context.entrance.reveal(token, principal, "slack");
  try {
    await context.api.trigger.views.open({ trigger_id: body.trigger_id, view: secretModal(secret) });
  } catch (error) {
    context.log.warn({ reason: summaryOf(error) }, "slack: a secret could not be shown");
    await secret.release();
    return sentence(
      "Slack did not open the window for the secret, so it is still there: press the button again.",
    );
  }
  try {
    await secret.burn();
  } catch (error) {
    // It is on the screen; the claim that was made for showing it keeps others out until it expires.
    context.log.error({ err: error }, "slack: a shown secret could not be burned");
  }
  return undefined;
}
