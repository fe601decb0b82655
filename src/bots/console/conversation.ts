/** What one typed line does: a command, a press (`!1`), or one of the console's own words. */
import { randomUUID } from "node:crypto";
import type { Logger } from "pino";
import { commandOf, type Principal } from "../../core/access.ts";
import type { ActionRegistry } from "../../core/action.ts";
import { problemOf, ServiceError } from "../../core/errors.ts";
import type { Form } from "../../core/form.ts";
import { helpView } from "../../core/help.ts";
import type { OperationState } from "../../core/operations/state.ts";
import { listed, shortened } from "../../core/option-values.ts";
import type { Answer, Entrance, Request } from "../../core/request.ts";
import type { View } from "../../core/view.ts";
import { parseCommand } from "../command.ts";
import { askForm } from "./ask.ts";
import type { Buttons, NumberedButton } from "./buttons.ts";
import type { Cards } from "./cards.ts";
import { createFollower, type Follower } from "./follow.ts";
import { type PrincipalFlag, parsePrincipalFlag } from "./principal-flag.ts";
import type { Reader } from "./reader.ts";
import { renderView } from "./render.ts";
import { revealSecret } from "./reveal.ts";
import type { Screen } from "./screen.ts";
import { printable } from "./text.ts";

export const builtIns = ["as", "clear", "exit"] as const;

export interface ConversationOptions {
  entrance: Entrance;
  registry: ActionRegistry;
  screen: Screen;
  buttons: Buttons;
  cards: Cards;
  reader: Reader;
  interactive: boolean;
  session: string;
  log: Logger;
  stateOf: (operationId: string) => Promise<OperationState | null>;
  principal: () => Principal;
  /** Null for a stranger. */
  become?: (flag: PrincipalFlag) => Promise<Principal | null>;
}

export interface Conversation {
  run(line: string): Promise<"go on" | "leave">;
  /** Waits for what piped commands have left open; the exit code. */
  finish(): Promise<number>;
}

export function createConversation(options: ConversationOptions): Conversation {
  const { screen, interactive } = options;
  const follower = createFollower(options);
  const talk: Talk = { ...options, follower };
  let failed = false;
  let lines = 0;

  async function act(line: string): Promise<"go on" | "leave"> {
    if (/^\/?(exit|quit)$/i.test(line)) return "leave";
    if (/^\/?clear$/i.test(line)) {
      if (interactive) await screen.print("\u001b[2J\u001b[3J\u001b[H");
      return "go on";
    }
    const as = /^\/?as\s+(.+)$/i.exec(line)?.[1];
    const press = /^!\s*(\S.*?)(?:\s+(yes))?$/i.exec(line);
    if (as !== undefined) await become(talk, as);
    else if (press !== null) await pressButton(talk, press[1] ?? "", press[2] !== undefined);
    else if (line === "!") throw refused("Write ! and the number of a button, for example !1.");
    else await command(talk, line, `${options.session}/${lines}`);
    return "go on";
  }

  return {
    async run(text) {
      const line = text.trim();
      // Comments, for scripts that are piped in.
      if (line === "" || line.startsWith("#")) return "go on";
      lines += 1;
      if (!interactive) await screen.print(screen.paint("dim", `> ${printable(line)}`));
      try {
        const next = await act(line);
        if (!interactive) failed = !(await follower.settle()) || failed;
        return next;
      } catch (error) {
        failed = true;
        await showError(talk, error);
        return "go on";
      }
    },
    async finish() {
      if (interactive) return 0;
      const open = await follower.open();
      if (open.length > 0) {
        await talk.screen.say(`${listed(open)} still waits for somebody's decision.`, "warning");
      }
      return failed || open.length > 0 ? 1 : 0;
    },
  };
}

/** Cards are shown in the hands that asked for them, in whichever process: two consoles on one database stay apart. */
export function workspaceOf({ kind, id }: Principal): string {
  return `${kind}:${id}`;
}

interface Talk extends ConversationOptions {
  follower: Follower;
}

async function command(talk: Talk, line: string, channel: string): Promise<void> {
  const principal = talk.principal();
  const [, group = "", text = ""] = /^\/?\s*(\S*)\s*(.*)$/s.exec(line) ?? [];
  const parsed = parseCommand(group, text, talk.registry, { principal });
  if (parsed.help) {
    await showView(talk, helpView(talk.registry, principal, parsed.action));
    return;
  }
  const request: Request = {
    action: parsed.action,
    options: parsed.options,
    principal,
    source: "console",
    idempotencyKey: `console:${randomUUID()}`,
    origin: { platform: "console", workspace: workspaceOf(principal), channel, userId: principal.id },
    dryRun: parsed.dryRun,
  };
  let answer = await talk.entrance.dispatch(request);
  while (answer.kind === "form") {
    if (!talk.interactive) throw refused(missing(answer.form));
    const values = await askForm(answer.form, { ...talk, principal, lookup: talk.entrance.lookup });
    if (values === null) return;
    answer = await dispatchAgain(talk, { ...request, options: values });
  }
  await showAnswer(talk, answer, channel);
}

/** A value that a question brought in and that is wrong is asked for again, not the whole command. */
async function dispatchAgain(talk: Talk, request: Request): Promise<Answer> {
  try {
    return await talk.entrance.dispatch(request);
  } catch (error) {
    if (!(error instanceof ServiceError) || typeof error.facts["option"] !== "string") throw error;
    const { option, errors } = error.facts;
    const wrong = isTexts(errors) ? errors : { [option]: error.message };
    const form = await talk.entrance.form(request.action, request.options, request.principal);
    const asked = form.fields.some(({ name }) => wrong[name] !== undefined);
    if (!asked) throw error;
    return { kind: "form", form: { ...form, errors: wrong } };
  }
}

function isTexts(value: unknown): value is Record<string, string> {
  return (
    typeof value === "object" &&
    value !== null &&
    Object.values(value).every((text) => typeof text === "string")
  );
}

/** For a pipe, where nobody can be asked. */
function missing(form: Form): string {
  const wrong = Object.values(form.errors ?? {});
  if (wrong.length > 0) return wrong.join(" ");
  const names = form.fields.filter(({ required, initial }) => required && initial === undefined);
  return `${commandOf(form.action)} needs ${listed(names.map(({ name }) => name))}; write ${names.map(({ name }) => `${name}:…`).join(" ")}.`;
}

async function showAnswer(talk: Talk, answer: Answer, channel: string): Promise<void> {
  switch (answer.kind) {
    case "view":
      talk.buttons.show(null, answer.view.buttons ?? []);
      await showView(talk, answer.view);
      return;
    case "operation":
      // What was asked for before has its card where it was asked for.
      talk.follower.follow({
        operationId: answer.operationId,
        publicId: answer.publicId,
        channel,
        hasCard: !answer.existing,
      });
      for (const line of answer.view.banner ?? []) {
        // oxlint-disable-next-line no-await-in-loop -- in order
        await talk.screen.say(line, "warning");
      }
      await talk.screen.say(answer.view.text ?? answer.view.title, answer.view.tone);
      return;
    case "form":
      throw refused(missing(answer.form));
  }
}

async function pressButton(talk: Talk, name: string, sure: boolean): Promise<void> {
  const found = talk.buttons.find(name);
  if (found === undefined) throw refused(noButton(talk.buttons.list(), name));
  if (!sure && !(await confirmed(talk, found))) return;
  const principal = talk.principal();
  const { token, purpose } = found.button;
  if (purpose === "reveal") {
    await revealSecret(await talk.entrance.reveal(token, principal, "console"), talk);
    return;
  }
  const card = found.handle === null ? undefined : talk.cards.find(found.handle);
  const answer = await talk.entrance.press(token, principal, "console");
  await showAnswer(talk, answer, card?.channel ?? talk.session);
  if (card !== undefined) talk.follower.again(card.channel);
}

function noButton(offered: readonly NumberedButton[], name: string): string {
  const list = offered.map((one) => `!${one.number} ${one.button.label}`);
  return `There is no button [${shortened(name)}] now; ${list.length === 0 ? "there are none" : `there are ${listed(list)}`}.`;
}

async function confirmed(talk: Talk, { number, button }: NumberedButton): Promise<boolean> {
  const { confirm } = button;
  if (confirm === undefined) return true;
  if (!talk.interactive) {
    throw refused(`${button.label} asks "${confirm.title}"; write !${number} yes to press it from a script.`);
  }
  await talk.screen.say(confirm.title, "warning");
  await talk.screen.say(confirm.text);
  const typed = await talk.reader.next({
    prompt: `  ${printable(confirm.yes)}? Type yes or no: `,
    history: false,
    complete: async (line) => [["yes", "no"].filter((word) => word.startsWith(line)), line],
  });
  const yes = typed.kind === "line" && /^\s*y(es)?\s*$/i.test(typed.text);
  if (!yes)
    await talk.screen.print(talk.screen.paint("dim", `  ${printable(confirm.no)}: nothing was done.`));
  return yes;
}

async function become(talk: Talk, text: string): Promise<void> {
  if (talk.become === undefined) throw refused("Here you stay who you are.");
  const { kind, name } = parsePrincipalFlag(text);
  const principal = await talk.become({ kind, name });
  if (principal === null) {
    const where = kind === "staff" ? "a staff member" : "a customer";
    throw new ServiceError("not_found", `Nobody is configured as ${where} "${name}"; you stay who you are.`);
  }
  await talk.screen.say(`You are ${describe(principal)} now.`, "success");
}

export function describe(principal: Principal): string {
  if (principal.kind === "staff") return `${principal.name} (staff, ${principal.role})`;
  return principal.kind === "customer" ? `${principal.name} (customer)` : principal.name;
}

async function showView(talk: Talk, view: View): Promise<void> {
  await talk.screen.print(
    `${renderView(view, { ...talk.screen.look(), numberOf: talk.buttons.numberOf })}\n`,
  );
}

async function showError(talk: Talk, error: unknown): Promise<void> {
  const problem = problemOf(error);
  if (problem.code === "internal") talk.log.error({ err: error }, "a console command failed");
  const all = error instanceof ServiceError && isTexts(error.facts["errors"]) ? error.facts["errors"] : {};
  const messages = new Set([problem.message, ...Object.values(all)]);
  for (const message of messages) await talk.screen.say(message, "error");
  if (problem.staffDetail !== undefined && talk.principal().kind !== "customer") {
    await talk.screen.print(talk.screen.paint("dim", `  ${printable(problem.staffDetail)}`));
  }
}

function refused(message: string): ServiceError {
  return new ServiceError("invalid_input", message);
}
