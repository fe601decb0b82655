/**
 * Cards in a terminal: the whole card once, then one line for each thing that changed, and what is new at the end. A
 * card rewritten in place would fight with the line that is being typed, and would be gone from the scroll-back.
 */
import { type CardTarget, ChatError, type Messenger, type ThreadLine } from "../../core/bot.ts";
import { duration } from "../../core/operations/card.ts";
import { stateLabels } from "../../core/operations/state.ts";
import type { View, ViewStep } from "../../core/view.ts";
import type { Buttons } from "./buttons.ts";
import { renderView, stepLine, toneMarks } from "./render.ts";
import type { Screen } from "./screen.ts";
import { printable } from "./text.ts";

export interface Card {
  handle: string;
  /** What a person sees of the handle: "#1". */
  name: string;
  channel: string;
  view: View;
  postedAt: number;
  printedAt: number;
  /** Its thread has called the person, which is the last thing it does. */
  mentioned: boolean;
}

export interface CardsOptions {
  screen: Screen;
  buttons: Buttons;
  /** Names this run of the console: handles of an earlier one are gone. */
  session: string;
  now: () => number;
  /** Who is mentioned. */
  nameOf: (target: CardTarget) => string;
}

export interface Cards {
  messenger: Messenger;
  find(handle: string): Card | undefined;
  /** The card of the command that was typed into this channel. */
  inChannel(channel: string): Card | undefined;
  /** Resolves when any card was posted or changed. */
  changed(): Promise<void>;
}

/** A wait whose only news are its seconds is told this often. */
const tickMs = 10_000;
/** These come and go with every step and say no more than the steps do. */
const quietHeadlines = new Set(
  [stateLabels.queued, stateLabels.running, stateLabels.waiting].map((label) => `${label}.`),
);

export function createCards({ screen, buttons, session, now, nameOf }: CardsOptions): Cards {
  const cards = new Map<string, Card>();
  const posted = new Map<string, string>();
  const told = new Set<string>();
  let waiting: (() => void)[] = [];
  const announce = () => {
    const resolvers = waiting;
    waiting = [];
    for (const resolve of resolvers) resolve();
  };
  const known = (handle: string): Card => {
    const card = cards.get(handle);
    if (card === undefined) throw new ChatError("gone", "The card was shown by an earlier console.");
    return card;
  };

  const messenger: Messenger = {
    platform: "console",
    // A terminal takes anything; this only keeps percentages from flooding it.
    budget: { editsPerMinute: 600, postsPerMinute: 600, channelPostGapMs: 0 },
    async postCard(target, view, key) {
      const before = posted.get(key);
      if (before !== undefined) return before;
      const number = cards.size + 1;
      const handle = `${session}:${number}`;
      const at = now();
      const card: Card = {
        handle,
        name: `#${number}`,
        channel: target.channel,
        view,
        postedAt: at,
        printedAt: at,
        mentioned: false,
      };
      cards.set(handle, card);
      posted.set(key, handle);
      buttons.show(handle, view.buttons ?? []);
      const title = `${card.name}  ${view.title}`;
      await screen.print(
        `\n${renderView({ ...view, title }, { ...screen.look(), numberOf: buttons.numberOf })}\n`,
      );
      announce();
      return handle;
    },
    async editCard(_target, handle, view) {
      const card = known(handle);
      const text = changeText(card, view, { screen, buttons, now: now() });
      const at = now();
      cards.set(handle, { ...card, view, printedAt: text === "" ? card.printedAt : at });
      buttons.show(handle, view.buttons ?? []);
      if (text !== "") await screen.print(text);
      announce();
    },
    async postLines(target, handle, lines, { mention, key }) {
      const card = known(handle);
      if (told.has(key)) return;
      told.add(key);
      const name = mention ? nameOf(target) : undefined;
      await screen.print(threadText(card, lines, { screen, now: now(), name }));
      cards.set(handle, { ...known(handle), mentioned: card.mentioned || mention });
      announce();
    },
  };
  return {
    messenger,
    find: (handle) => cards.get(handle),
    inChannel: (channel) => [...cards.values()].findLast((card) => card.channel === channel),
    changed: () => new Promise((resolve) => waiting.push(resolve)),
  };
}

interface ChangeLook {
  screen: Screen;
  buttons: Buttons;
  now: number;
}

/** What a person has not read yet; "" when there is nothing worth a line. */
function changeText(card: Card, view: View, look: ChangeLook): string {
  const { paint } = look.screen;
  const lead = leadOf(card, look);
  const lines: string[] = [];
  for (const step of view.steps ?? []) {
    const before = card.view.steps?.find(({ label }) => label === step.label);
    if (isNews(before, step, look.now - card.printedAt)) lines.push(lead + stepLine(step, paint));
  }
  const ended = view.tone !== card.view.tone && ["success", "error"].includes(view.tone);
  const text = view.text ?? "";
  if (ended) return [...lines, endText(card, view, look)].join("\n");

  if (text !== card.view.text && !quietHeadlines.has(text) && text !== "") {
    const { mark, style } = toneMarks[view.tone];
    lines.push(`${lead}${paint(style, mark)} ${printable(text)}`);
  }
  const offered = (view.buttons ?? []).filter(({ token }) => !has(card.view, token));
  if (offered.length > 0) {
    const shown = offered.map(({ token, label }) => `[${look.buttons.numberOf(token)}] ${printable(label)}`);
    lines.push(lead + shown.join("   "));
  }
  return lines.join("\n");
}

function has(view: View, token: string): boolean {
  return (view.buttons ?? []).some((button) => button.token === token);
}

function isNews(before: ViewStep | undefined, step: ViewStep, sincePrintedMs: number): boolean {
  if (before === undefined) return step.state !== "planned";
  if (before.state !== step.state) return true;
  if (step.state !== "running" || before.detail === step.detail) return false;
  return withoutNumbers(before.detail) !== withoutNumbers(step.detail) || sincePrintedMs >= tickMs;
}

/** "waiting for the cloud, 59 s" and "waiting for the cloud, 1 min 0 s" tell the same. */
function withoutNumbers(text: string | undefined): string {
  return (text ?? "")
    .replace(/\d+(\.\d+)? ?(h|min|s|%)?\b/g, "")
    .replace(/[\s,%]+/g, " ")
    .trim();
}

/** The end as a small card of its own: the steps were told already, so only what is new beside the outcome. */
function endText(card: Card, view: View, { screen, buttons }: ChangeLook): string {
  const fresh = (view.fields ?? []).filter(
    ({ label, value }) => !(card.view.fields ?? []).some((old) => old.label === label && old.value === value),
  );
  const { steps: _steps, fields: _fields, ...rest } = view;
  const end: View = { ...rest, title: `${card.name}  ${view.title}` };
  if (fresh.length > 0) end.fields = fresh;
  return `\n${renderView(end, { ...screen.look(), numberOf: buttons.numberOf })}\n`;
}

function leadOf(card: Card, { screen, now }: { screen: Screen; now: number }): string {
  return `  ${screen.paint("dim", `${card.name} ${duration(now - card.postedAt).padStart(8)}`)}  `;
}

const levelStyles = { info: "dim", warning: "yellow", error: "red", success: "green" } as const;

function threadText(
  card: Card,
  lines: readonly ThreadLine[],
  look: { screen: Screen; now: number; name: string | undefined },
): string {
  const { paint } = look.screen;
  const lead = leadOf(card, look);
  const texts = lines.flatMap(({ level, text }) => {
    const bar = paint(levelStyles[level], "│");
    return printable(text)
      .split("\n")
      .map((line) => `${lead}${bar} ${line}`);
  });
  if (look.name !== undefined) {
    texts.push(`${lead}${paint("dim", "│")} ${paint("bold", `@${printable(look.name)}`)}`);
  }
  return texts.join("\n");
}
