/** A request to the entrance, and its answer on the screen: a message, a form, or a sentence about what is wrong. */
import type { Principal } from "../../core/access.ts";
import { ServiceError } from "../../core/errors.ts";
import type { Form } from "../../core/form.ts";
import type { Answer } from "../../core/request.ts";
import { late, within } from "../deadline.ts";
import type { DiscordContext } from "./context.ts";
import {
  type Choices,
  type Draft,
  fitsFormId,
  formId,
  keptBeside,
  MAX_CHOICES,
  newNonce,
  pageOf,
  renderForm,
} from "./form.ts";
import { type DiscordMessage, renderView, sentence } from "./message.ts";
import { originOf, personOf, type Sender } from "./person.ts";
import { operationMessage, problemOfRequest, withFormButton } from "./reply.ts";
import type { Responder } from "./respond.ts";
import type { Asked } from "./slash.ts";

export interface Asker {
  interaction: Sender & { id: string };
  principal: Principal;
  responder: Responder;
}

/** Lists in a form are a convenience: without them the field takes text. */
const CHOICES_BUDGET_MS = 800;

export async function ask(context: DiscordContext, asker: Asker, asked: Asked): Promise<void> {
  const { interaction, principal, responder } = asker;
  try {
    const answer = await context.entrance.dispatch({
      ...asked,
      principal,
      source: "discord",
      // Discord may deliver an interaction again when a gateway session is resumed: the same id, the same operation.
      idempotencyKey: `discord:${interaction.id}`,
      origin: originOf(interaction, principal),
    });
    await showAnswer(context, asker, { answer, asked });
  } catch (error) {
    const { message, wrong } = problemOfRequest(error, principal, { log: context.log, typed: asked.options });
    const isKnown = context.registry.find(asked.action) !== undefined;
    if (wrong === null || !isKnown) {
      await responder.show(message);
      return;
    }
    const nonce = keep(context, { ...draftOf(asked), wrong });
    await responder.show(withFormButton(message, nonce, "Correct it"));
  }
}

export async function showAnswer(
  context: DiscordContext,
  { interaction, principal, responder }: Asker,
  { answer, asked }: { answer: Answer; asked?: Asked },
): Promise<void> {
  if (answer.kind === "form") {
    const { form } = answer;
    const draft = { ...draftOf(asked ?? { action: form.action, options: {}, dryRun: false }), wrong: [] };
    await openForm(context, { principal, responder }, { form, draft });
    return;
  }
  await responder.show(await messageOfAnswer(context, { interaction, principal }, answer));
}

async function messageOfAnswer(
  context: DiscordContext,
  { interaction, principal }: Pick<Asker, "interaction" | "principal">,
  answer: Exclude<Answer, { kind: "form" }>,
): Promise<DiscordMessage> {
  if (answer.kind === "view") return renderView(answer.view, context.confirmations.set);
  const isDirect = personOf(originOf(interaction, principal).channel) !== null;
  const link = answer.existing ? await context.linkTo(answer.operationId) : null;
  return operationMessage(answer, { isDirect, link });
}

/** Opens the form's next page, or offers a button that does. */
export async function openForm(
  context: DiscordContext,
  { principal, responder }: Pick<Asker, "principal" | "responder">,
  { form, draft }: { form: Form; draft: Draft },
): Promise<void> {
  const page = pageOf(form, draft.wrong);
  const kept = keptBeside(form, page);
  const bare = { action: form.action, dryRun: draft.dryRun, nonce: "" };
  const isWhole = Object.keys(kept).length === 0 && fitsFormId(bare);
  const choices = await choicesOf(context, { form, page, given: { ...draft.given, ...kept }, principal });
  const customId = isWhole
    ? formId(bare)
    : formId({ ...bare, action: "", nonce: keep(context, { ...draft, given: kept }) });
  await responder.open(renderForm(form, page, { customId, choices }), () => {
    const missing = page.filter(({ required, initial }) => required && (initial ?? "") === "");
    const names = missing.map(({ label }) => label).join(", ");
    const text = names === "" ? "Open the form to go on." : `Still needed: ${names}.`;
    return withFormButton(sentence(text), keep(context, draft), "Open the form");
  });
}

/** The choices of lookups that are short enough for a list; those that are slow or fail are typed instead. */
async function choicesOf(
  { entrance, log }: DiscordContext,
  asked: { form: Form; page: Form["fields"]; given: Record<string, string>; principal: Principal },
): Promise<Map<string, Choices>> {
  const { page, given: options, principal } = asked;
  const found = new Map<string, Choices>();
  const lookups = page.flatMap(async ({ name, lookup: kind }) => {
    if (kind === undefined) return;
    const choices = await entrance.lookup({ kind, text: "", limit: MAX_CHOICES + 1, options }, principal);
    if (choices.length <= MAX_CHOICES) found.set(name, choices);
  });
  const all = Promise.all(lookups).catch((error: unknown) =>
    log.error({ err: error }, "discord: a list failed"),
  );
  if ((await within(all, CHOICES_BUDGET_MS)) === late) log.warn("discord: the lists of a form came too late");
  return new Map(found);
}

export function draftOf({ action, options, dryRun }: Asked): Draft {
  return { action, given: options, dryRun, wrong: [] };
}

export function keep({ drafts }: DiscordContext, draft: Draft): string {
  const nonce = newNonce();
  drafts.set(nonce, draft);
  return nonce;
}

/** Thrown when a form outlived what this process kept of it. */
export function tooOld(): ServiceError {
  return new ServiceError(
    "expired",
    "This form is too old, and nothing was done. Use the command once more.",
  );
}
