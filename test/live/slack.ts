/** The people at the Slack stand-in: what they type, press and fill in, and what stands on their screens. */
import { until } from "./report.ts";

export interface Message {
  ts: string;
  text: string;
  user?: string;
  thread_ts?: string;
  ephemeral: boolean;
  blocks?: Block[];
}
export interface Block {
  type: string;
  block_id?: string;
  text?: { text: string };
  fields?: { text: string }[];
  elements?: (Button & { elements?: unknown[] })[];
  rows?: { text: string }[][];
  label?: { text: string };
  element?: { type: string; action_id: string; initial_option?: { value: string }; initial_value?: string };
}
interface Button {
  type: string;
  text?: string | { text: string };
  action_id?: string;
  confirm?: { title: { text: string }; text: { text: string } };
}
export interface Modal {
  id: string;
  title: { text: string };
  blocks: Block[];
}
interface Outcome {
  ok: boolean;
  ms: number;
  error?: string;
  user_sees?: string;
  shown?: Message | null;
  modal: Modal | null;
  response_action?: string | null;
  errors?: Record<string, string>;
  client_errors?: Record<string, string>;
  options?: { value: string; text: { text: string } }[];
}

/** What a command, a form or a button brought up, for the person alone. */
export interface Reply {
  text: string;
  /** The operation that the text names. */
  operation: string;
  modal: Modal | null;
  errors: Record<string, string>;
  ms: number;
}

export interface Person {
  id: string;
  name: string;
  command(line: string, channel?: string): Promise<Reply>;
  suggestions(field: string, typed: string): Promise<string[]>;
  /** Field → value. */
  submit(values: Record<string, string>): Promise<Reply>;
  close(): Promise<void>;
  /** The button with this label. Throws when the message has none. */
  press(message: Message, label: string, channel?: string): Promise<Reply>;
  modal(): Promise<Modal | null>;
}

export interface Violation {
  rule: string;
  where?: string;
  detail?: unknown;
}

export interface Slack {
  counts: { commands: number; modals: number; submissions: number; buttons: number; suggestions: number };
  slowestAckMs(): number;
  person(id: string, name: string): Person;
  messages(channel: string, viewer: string): Promise<Message[]>;
  /** The newest card of an operation in a channel. */
  card(operation: string, viewer: string, channel?: string): Promise<Message | undefined>;
  thread(card: Message, viewer: string, channel?: string): Promise<string[]>;
  deliverTo(appUrl: string): Promise<void>;
  violations(): Promise<Violation[]>;
  probe(): Promise<Record<string, { status: number }>>;
}

export const ops = "C01OPS";
const answerWithinMs = 6_000;

export function createSlack(base: string): Slack {
  const counts = { commands: 0, modals: 0, submissions: 0, buttons: 0, suggestions: 0 };
  let slowestAckMs = 0;

  async function control<T>(name: string, body: Record<string, unknown> = {}): Promise<T> {
    const response = await fetch(`${base}/_control/${name}`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    });
    return answerOf<T>(name, response);
  }
  async function look<T>(name: string, query: Record<string, string> = {}): Promise<T> {
    const response = await fetch(`${base}/_control/${name}?${new URLSearchParams(query).toString()}`);
    return answerOf<T>(name, response);
  }
  function heard(outcome: Outcome): Outcome {
    slowestAckMs = Math.max(slowestAckMs, outcome.ms);
    if (!outcome.ok && outcome.client_errors === undefined) {
      throw new Error(`Slack shows: ${outcome.user_sees ?? outcome.error ?? "a failure"}`);
    }
    return outcome;
  }
  const modalOf = async (user: string) => (await look<{ view: Modal | null }>("view", { user })).view;
  const messages = async (channel: string, viewer: string) =>
    (await look<{ messages: Message[] }>("messages", { channel, viewer })).messages;

  /** What comes up after the acknowledgement: a message for this person alone, or a modal. */
  async function comesUp(
    user: string,
    channel: string,
    before: Set<string>,
    modalBefore: string | undefined,
  ) {
    return until("an answer", answerWithinMs, async () => {
      const modal = await modalOf(user);
      if (modal !== null && modal.id !== modalBefore) return { modal, message: null };
      const message = (await messages(channel, user)).find((one) => one.ephemeral && !before.has(one.ts));
      return message === undefined ? undefined : { modal: null, message };
    });
  }
  async function seen(user: string, channel: string) {
    return new Set((await messages(channel, user)).map((one) => one.ts));
  }

  function person(id: string, name: string): Person {
    return {
      id,
      name,
      modal: () => modalOf(id),
      async command(line, channel = ops) {
        const [command = "", ...rest] = line.split(" ");
        const before = await seen(id, channel);
        const modalBefore = (await modalOf(id))?.id;
        counts.commands += 1;
        const outcome = heard(
          await control<Outcome>("command", { user: id, channel, command, text: rest.join(" ") }),
        );
        const up =
          outcome.shown === null || outcome.shown === undefined
            ? await comesUp(id, channel, before, modalBefore)
            : { modal: null, message: outcome.shown };
        if (up.modal !== null) counts.modals += 1;
        return replyOf(up.message, up.modal, outcome);
      },
      async suggestions(field, typed) {
        counts.suggestions += 1;
        const asked = { user: id, action_id: `input:${field}`, block_id: field, value: typed };
        const { options = [] } = heard(await control<Outcome>("suggest", asked));
        return options.map((option) => option.value);
      },
      async submit(values) {
        counts.submissions += 1;
        const outcome = heard(await control<Outcome>("submit", { user: id, values }));
        return replyOf(null, outcome.modal, outcome);
      },
      async close() {
        while ((await modalOf(id)) !== null) await control("close", { user: id });
      },
      async press(message, label, channel = ops) {
        const button = buttonsOf(message).find((one) => one.label === label);
        if (button === undefined) throw new Error(`no button "${label}" under: ${visible(message)}`);
        const before = await seen(id, channel);
        const modalBefore = (await modalOf(id))?.id;
        counts.buttons += 1;
        const asked = { user: id, channel, message_ts: message.ts, action_id: button.actionId };
        const outcome = heard(await control<Outcome>("action", asked));
        const up = await comesUp(id, channel, before, modalBefore);
        if (up.modal !== null) counts.modals += 1;
        return replyOf(up.message, up.modal, outcome);
      },
    };
  }

  return {
    counts,
    slowestAckMs: () => slowestAckMs,
    person,
    messages,
    async card(operation, viewer, channel = ops) {
      const all = await messages(channel, viewer);
      return all.findLast(
        (one) => !one.ephemeral && one.thread_ts === undefined && one.text.includes(operation),
      );
    },
    async thread(card, viewer, channel = ops) {
      const all = await messages(channel, viewer);
      return all
        .filter((one) => one.thread_ts === card.ts && one.ts !== card.ts)
        .map((one) => plain(one.text));
    },
    deliverTo: (appUrl) => control("config", { appUrl, mode: "http" }),
    violations: async () => (await look<{ violations: Violation[] }>("violations")).violations,
    probe: () => control("probe", { command: "/server" }),
  };
}

async function answerOf<T>(name: string, response: Response): Promise<T> {
  const answer = (await response.json()) as T & { error?: string };
  if (!response.ok) throw new Error(`Slack's stand-in refused "${name}": ${answer.error ?? response.status}`);
  return answer;
}

function replyOf(
  message: Message | null,
  modal: Modal | null,
  { errors, client_errors, ms }: Outcome,
): Reply {
  const text = message === null ? (modal === null ? "" : visibleModal(modal)) : visible(message);
  return {
    text,
    operation: /op-[a-z0-9]+/i.exec(text)?.[0] ?? "",
    modal,
    errors: { ...client_errors, ...errors },
    ms,
  };
}

export function buttonsOf(
  message: Pick<Message, "blocks">,
): { label: string; actionId: string; confirm: string | undefined }[] {
  return (message.blocks ?? [])
    .flatMap((block) => block.elements ?? [])
    .filter((element) => element.type === "button")
    .map(({ text, action_id: actionId = "", confirm }) => ({
      label: textOf(text),
      actionId,
      confirm: confirm === undefined ? undefined : `${confirm.title.text} ${confirm.text.text}`,
    }));
}

/** A message as it stands on the screen. */
export function visible(message: Pick<Message, "text" | "blocks">): string {
  if (message.blocks === undefined || message.blocks.length === 0) return plain(message.text);
  return message.blocks
    .map(blockText)
    .filter((text) => text !== "")
    .join("\n");
}

export function visibleModal(modal: Modal): string {
  return [`[${modal.title.text}]`, ...modal.blocks.map(blockText)].join("\n");
}

function blockText(block: Block): string {
  if (block.element !== undefined) {
    const { initial_option: option, initial_value: typed } = block.element;
    return `${block.label?.text ?? ""}: [${option?.value ?? typed ?? ""}]`;
  }
  if (block.rows !== undefined)
    return block.rows.map((row) => row.map((cell) => cell.text).join(" | ")).join("\n");
  if (block.fields !== undefined) {
    return block.fields.map((field) => plain(field.text).replace("\n", ": ")).join(" · ");
  }
  if (block.text !== undefined) return plain(block.text.text);
  return (block.elements ?? []).map(elementText).join(" ");
}

function elementText(element: Button & { elements?: unknown[] }): string {
  if (element.type === "button") return `[ ${textOf(element.text)} ]`;
  const inner = (element.elements ?? []) as (Button & { elements?: unknown[] })[];
  return plain(textOf(element.text)) + inner.map(elementText).join("");
}

function textOf(text: string | { text: string } | undefined): string {
  return typeof text === "string" ? text : (text?.text ?? "");
}

/** Slack's markup as a reader sees it. */
export function plain(text: string): string {
  return text
    .replaceAll(/<!date\^\d+\^[^|>]*\|([^>]*)>/g, "$1")
    .replaceAll(/<(https?:[^|>]+)\|([^>]*)>/g, "$2 ($1)")
    .replaceAll("*", "")
    .replaceAll("&lt;", "<")
    .replaceAll("&gt;", ">")
    .replaceAll("&amp;", "&");
}
