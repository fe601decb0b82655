/** Submitted forms and the suggestions of their selects. */
import type { AckFn, BlockSuggestion, types, ViewResponseAction, ViewSubmitAction } from "@slack/bolt";
import type { Principal } from "../../core/access.ts";
import type { Action } from "../../core/action.ts";
import { isServiceError } from "../../core/errors.ts";
import type { Answer } from "../../core/request.ts";
import { late, within } from "../deadline.ts";
import { clip, plain } from "../text.ts";
import { summaryOf } from "./api.ts";
import { acknowledge, type Place, placeOf, type SlackContext } from "./context.ts";
import { MAX_CHOICES, MAX_OPTION_VALUE, option, readForm, renderForm, viewModal } from "./form.ts";
import { identify, workspaceOf } from "./person.ts";
import { problemView } from "./reply.ts";

export interface SubmitArgs {
  body: ViewSubmitAction;
  ack: AckFn<ViewResponseAction>;
}

/** How a submitted modal goes on; null closes it. */
type Outcome = ViewResponseAction | null;

export async function handleSubmit(context: SlackContext, { body, ack }: SubmitArgs): Promise<void> {
  const work = submit(context, body);
  const inTime = await within(work, context.ackBudgetMs);
  if (inTime !== late) {
    await acknowledge(context, () => ack(inTime ?? undefined));
    return;
  }
  const view = viewModal({
    title: "Working on it",
    tone: "progress",
    text: "This takes longer than usual; wait here.",
  });
  await acknowledge(context, () => ack({ response_action: "update", view }));
  const outcome = await work;
  try {
    await context.api.trigger.views.update({ view_id: body.view.id, view: lateView(outcome) });
  } catch (error) {
    context.log.warn({ reason: summaryOf(error) }, "slack: a modal was not brought up to date");
  }
}

/** The form is off the screen by now: whatever came out is told in its place. */
function lateView(outcome: Outcome): types.ModalView {
  if (outcome === null) {
    return viewModal({
      title: "Accepted",
      tone: "success",
      text: "Its card shows the progress; you may close this.",
    });
  }
  if (outcome.response_action === "errors") {
    return viewModal({
      title: "Something is not right",
      tone: "warning",
      text: [...Object.values(outcome.errors), "Nothing was done. Use the command once more."].join("\n"),
    });
  }
  if ("view" in outcome && outcome.view.type === "modal") return outcome.view;
  return viewModal({ title: "Accepted", tone: "success", text: "You may close this." });
}

async function submit(context: SlackContext, body: ViewSubmitAction): Promise<Outcome> {
  let principal: Principal | null = null;
  let fields: string[] = [];
  try {
    principal = await identify(context.entrance, body);
    if (principal === null) {
      return push({
        title: "Not linked",
        tone: "warning",
        text: `Your Slack account (${body.user.id}) is no longer linked. If you work here, ask an administrator; if you are a customer, ask support for a code and send it: /${context.commandPrefix}link code:…`,
      });
    }
    const form = readForm(body.view);
    fields = form.fields;
    const place = placeOf(context, { sender: body, principal }, form);
    const answer = await context.entrance.dispatch({
      action: form.action,
      options: { ...form.given, ...form.entered },
      principal,
      source: "slack",
      idempotencyKey: `slack:${workspaceOf(body)}:${body.view.id}`,
      origin: place.origin,
      dryRun: form.dryRun,
    });
    return await outcomeOf(answer, place, fields);
  } catch (error) {
    const errors = fieldErrors(error, fields);
    // The form stays under the error, with everything that was typed into it.
    return errors === null
      ? push(problemView(error, principal, context.log))
      : { response_action: "errors", errors };
  }
}

async function outcomeOf(answer: Answer, place: Place, fields: string[]): Promise<Outcome> {
  if (answer.kind === "view") return { response_action: "update", view: viewModal(answer.view) };
  if (answer.kind === "form") {
    const errors = known(answer.form.errors ?? {}, fields);
    if (errors !== null) return { response_action: "errors", errors };
    return { response_action: "update", view: renderForm(answer.form, place.whereabouts) };
  }
  if (!answer.existing) return null;
  const link = await place.whereabouts.linkTo(answer.operationId);
  const where = link === null ? "Its card shows the progress." : `Its card: ${link}`;
  const text = [answer.view.title, answer.publicId, where].join("\n");
  return {
    response_action: "update",
    view: viewModal({ title: "Already asked for", tone: "neutral", text }),
  };
}

function push(view: Parameters<typeof viewModal>[0]): Outcome {
  return { response_action: "push", view: viewModal(view) };
}

/** Sentences by field, when the error is about fields of this form and only about them. */
function fieldErrors(error: unknown, fields: readonly string[]): Record<string, string> | null {
  if (!isServiceError(error, "invalid_input")) return null;
  const { errors, option: name } = error.facts;
  if (typeof errors === "object" && errors !== null) {
    const sentences = Object.entries(errors).map(([field, text]) => [field, String(text)] as const);
    return known(Object.fromEntries(sentences), fields);
  }
  return typeof name === "string" ? known({ [name]: error.message }, fields) : null;
}

function known(errors: Record<string, string>, fields: readonly string[]): Record<string, string> | null {
  const entries = Object.entries(errors);
  if (entries.length === 0 || entries.some(([field]) => !fields.includes(field))) return null;
  return Object.fromEntries(entries.map(([field, text]) => [field, clip(plain(text), 300)]));
}

export interface SuggestArgs {
  body: BlockSuggestion;
  ack(answer: { options: types.PlainTextOption[] }): Promise<void>;
}

/** Slack shows an empty list when nothing comes within 3 s, and has no place for an error. */
export async function handleSuggest(context: SlackContext, { body, ack }: SuggestArgs): Promise<void> {
  const found = await within(suggestions(context, body), context.ackBudgetMs);
  if (found === late) context.log.warn({ option: body.block_id }, "slack: suggestions came too late");
  await acknowledge(context, () => ack({ options: found === late ? [] : found }));
}

async function suggestions(context: SlackContext, body: BlockSuggestion): Promise<types.PlainTextOption[]> {
  try {
    const principal = await identify(context.entrance, body);
    if (principal === null || body.view === undefined) return [];
    const form = readForm(body.view);
    const asked = context.registry.get(form.action).options.find(({ name }) => name === body.block_id);
    if (asked === undefined) return [];
    const choices =
      asked.lookup === undefined
        ? matching(asked, body.value)
        : await context.entrance.lookup(
            {
              kind: asked.lookup,
              text: body.value,
              limit: MAX_CHOICES,
              options: { ...form.given, ...form.entered },
            },
            principal,
          );
    const usable = choices.filter(({ value }) => value.length > 0 && value.length <= MAX_OPTION_VALUE);
    if (usable.length < choices.length) {
      context.log.warn(
        { option: asked.name },
        "slack: a choice is longer than Slack takes; it can only be typed",
      );
    }
    return usable.slice(0, MAX_CHOICES).map(option);
  } catch (error) {
    context.log.error({ err: error }, "slack: suggestions failed");
    return [];
  }
}

function matching(asked: Action["options"][number], text: string): { value: string; label: string }[] {
  const wanted = text.trim().toLowerCase();
  return (asked.choices ?? []).filter(({ value, label }) =>
    `${value} ${label}`.toLowerCase().includes(wanted),
  );
}
