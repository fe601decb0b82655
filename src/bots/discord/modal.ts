/** Submitted forms, and the buttons that open one. */
import type { ButtonInteraction, ModalSubmitInteraction } from "discord.js";
import type { Principal } from "../../core/access.ts";
import type { DiscordContext } from "./context.ts";
import { ask, draftOf, openForm, tooOld } from "./dispatch.ts";
import { readEntered, readFormId } from "./form.ts";
import { notLinked, problemOfRequest } from "./reply.ts";
import { createResponder } from "./respond.ts";
import type { Asked } from "./slash.ts";

export async function handleSubmit(
  context: DiscordContext,
  interaction: ModalSubmitInteraction,
): Promise<void> {
  // A form opened by a button of an answer replaces that answer.
  const place = interaction.message === null ? "reply" : "update";
  const responder = createResponder(context, interaction, { place, canOpen: false });
  let principal: Principal | null = null;
  try {
    if (!(await responder.defer())) return;
    principal = await context.entrance.identify("discord", interaction.user.id);
    if (principal === null) {
      await responder.show(notLinked(interaction.user.id));
      return;
    }
    const asked = readSubmit(context, interaction);
    await ask(context, { interaction, principal, responder }, asked);
  } catch (error) {
    await responder.show(problemOfRequest(error, principal, context).message);
  } finally {
    responder.end();
  }
}

function readSubmit({ drafts }: DiscordContext, { customId, fields }: ModalSubmitInteraction): Asked {
  const id = readFormId(customId);
  if (id === null) throw tooOld();
  const draft = id.nonce === "" ? draftOf({ ...id, options: {} }) : drafts.get(id.nonce);
  if (draft === undefined) throw tooOld();
  return { action: draft.action, dryRun: draft.dryRun, options: { ...draft.given, ...readEntered(fields) } };
}

/** "Correct it", "Open the form": a press may open a form, an answer to a form may not. */
export async function handleOpen(
  context: DiscordContext,
  interaction: ButtonInteraction,
  nonce: string,
): Promise<void> {
  const responder = createResponder(context, interaction, { place: "update", canOpen: true });
  let principal: Principal | null = null;
  try {
    principal = await context.entrance.identify("discord", interaction.user.id);
    if (principal === null) {
      await responder.show(notLinked(interaction.user.id));
      return;
    }
    const draft = context.drafts.get(nonce);
    if (draft === undefined) throw tooOld();
    const form = await context.entrance.form(draft.action, draft.given, principal);
    await openForm(context, { principal, responder }, { form, draft });
  } catch (error) {
    await responder.show(problemOfRequest(error, principal, context).message);
  } finally {
    responder.end();
  }
}
