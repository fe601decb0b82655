/** Buttons of cards and answers. They carry an opaque capability; who presses is authorised at the press. */
import { type ButtonInteraction, MessageFlags } from "discord.js";
import type { Principal } from "../../core/access.ts";
import { paragraph } from "../text.ts";
import type { DiscordContext } from "./context.ts";
import { showAnswer } from "./dispatch.ts";
import { type DiscordMessage, messageOf, plainButton, rows, sentence } from "./message.ts";
import { handleOpen } from "./modal.ts";
import { notLinked, OPEN_FORM, problemOfRequest, secretMessage } from "./reply.ts";
import { createResponder, type Responder } from "./respond.ts";
import { escapeTo, line } from "./text.ts";

const DISMISS = "dismiss";

interface Press {
  interaction: ButtonInteraction;
  token: string;
  principal: Principal;
  responder: Responder;
}

export async function handleButton(context: DiscordContext, interaction: ButtonInteraction): Promise<void> {
  const [purpose = "", token = ""] = interaction.customId.split(":", 2);
  if (purpose === OPEN_FORM) return handleOpen(context, interaction, token);
  const handle = handlers[purpose];
  // What a press on an answer leads to takes that answer's place: it is the presser's own, and its buttons are used.
  const isAnswer = interaction.message.flags.has(MessageFlags.Ephemeral) && purpose !== "reveal";
  const responder = createResponder(context, interaction, {
    place: isAnswer ? "update" : "reply",
    canOpen: true,
  });
  let principal: Principal | null = null;
  try {
    if (handle === undefined) {
      await responder.show(sentence("This button is from an older version. Use the command once more."));
      return;
    }
    // Nothing is done whose outcome the presser would not see.
    if (purpose !== "ask" && !(await responder.defer())) return;
    principal = await context.entrance.identify("discord", interaction.user.id);
    if (principal === null) await responder.show(notLinked(interaction.user.id));
    else await handle(context, { interaction, token, principal, responder });
  } catch (error) {
    await responder.show(problemOfRequest(error, principal, context).message);
  } finally {
    responder.end();
  }
}

const handlers: Record<string, (context: DiscordContext, press: Press) => Promise<void>> = {
  act,
  reveal,
  async ask(context, press) {
    await press.responder.show(question(context, press));
  },
  async [DISMISS](_context, { responder }) {
    await responder.show(sentence("Nothing was done."));
  },
};

async function act(context: DiscordContext, press: Press): Promise<void> {
  const answer = await context.entrance.press(press.token, press.principal, "discord");
  await showAnswer(context, press, { answer });
}

/**
 * The secret counts as shown only once Discord took the message. When that answer is lost it may be on the screen all the
 * same: then it can be revealed again to the same person, which is better than never.
 */
async function reveal(context: DiscordContext, { token, principal, responder }: Press): Promise<void> {
  const secret = await context.entrance.reveal(token, principal, "discord");
  if (!(await responder.show(secretMessage(secret)))) {
    await secret.release();
    await responder.show(
      sentence("Discord did not show the secret, so it is still there: press the button again."),
    );
    return;
  }
  try {
    await secret.burn();
  } catch (error) {
    // It is on the screen; the claim that was made for showing it keeps others out until it expires.
    context.log.error({ err: error }, "discord: a shown secret could not be burned");
  }
}

/**
 * Discord has no dialog, so the question is an answer of its own, whose Yes is the act. What to ask is remembered by the
 * process that made the button; after a restart the card itself says what is at stake.
 */
function question({ confirmations }: DiscordContext, { interaction, token }: Press): DiscordMessage {
  const known = confirmations.get(token);
  const text =
    known === undefined
      ? { title: "Are you sure?", text: "This is what it is about:", yes: "Yes, do it", no: "No" }
      : known;
  const [card] = known === undefined ? interaction.message.embeds : [];
  const { title, description, fields, color } = card?.toJSON() ?? {};
  return messageOf({
    content: `**${line(text.title, 200)}**\n${escapeTo(paragraph(text.text), 1_500)}`,
    embeds:
      card === undefined
        ? []
        : [
            {
              ...(title === undefined ? {} : { title }),
              ...(description === undefined ? {} : { description }),
              ...(fields === undefined ? {} : { fields }),
              ...(color === undefined ? {} : { color }),
            },
          ],
    components: rows([plainButton(`act:${token}`, text.yes, "danger"), plainButton(`${DISMISS}:`, text.no)]),
  });
}
