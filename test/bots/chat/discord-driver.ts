import { createDiscordBot } from "../../../src/bots/discord/app.ts";
import type { Bot } from "../../../src/core/bot.ts";
import { sampleRegistry } from "../../support/sample-actions.ts";
import type { CardSeen, ChatDriver, Seen, Typed } from "./driver.ts";
import { control, until } from "./stand-in.ts";

export const discordIds = {
  application: "1100000000000000001",
  guild: "1200000000000000001",
  ops: "1300000000000000001",
  readonly: "1300000000000000002",
  hidden: "1300000000000000003",
  alice: "1400000000000000001",
  carol: "1400000000000000002",
  mallory: "1400000000000000003",
  /** In the other guild, in which only mallory is. */
  general: "1300000000000000011",
} as const;
export const discordToken = "MTEwMDAwMDAwMDAwMDAwMDAwMQ.test.discord-harness-token";

interface Component {
  type: number;
  custom_id?: string;
  label?: string;
  component?: Component;
  components?: Component[];
}
export interface Message {
  id: string;
  content: string;
  embeds: unknown[];
  components: Component[];
  ephemeral: boolean;
  author: { id: string };
  message_reference?: { message_id: string };
  nonce?: string;
}
export interface Interaction {
  interaction_id: string;
  state: string;
  ack_type: number | null;
  ack_ms: number | null;
  modal: { custom_id: string; title: string; components: Component[] } | null;
  choices: { name: string; value: string }[] | null;
  original: (Message & { loading: boolean }) | null;
  user_sees: string | null;
}

/** The people of Discord's stand-in. */
export function discordPeople(base: string) {
  const call = <T>(name: string, body: Record<string, unknown> = {}, method: "GET" | "POST" = "POST") =>
    control<T>(base, name, body, method);
  const people = {
    call,
    /** Waits until the answer is there; one that replaces a message shows something else than `before`. */
    async settled(interaction: Interaction, before?: string): Promise<Interaction> {
      const isThere = ({ ack_type: type, original }: Interaction) =>
        original === null || (!original.loading && !(type === 6 && textOf(original) === before));
      if (isThere(interaction)) return interaction;
      return until(
        async () => {
          const now = await call<Interaction>("interaction", { id: interaction.interaction_id }, "GET");
          return isThere(now) ? now : undefined;
        },
        { what: "no answer came" },
      );
    },
    command: (user: string, channel: string, { action, options = {} }: Typed) =>
      call<Interaction>("command", { user, channel, command: `/${action.replaceAll(".", " ")}`, options }),
    autocomplete: (user: string, channel: string, { action, options = {} }: Typed, focused: string) =>
      call<Interaction>("autocomplete", {
        user,
        channel,
        command: `/${action.replaceAll(".", " ")}`,
        options: { [focused]: "", ...options },
        focused,
      }),
    press: (user: string, channel: string, message: string, customId: string) =>
      call<Interaction>("component", { user, channel, message, custom_id: customId }),
    modal: (user: string, interactionId: string, fields: Record<string, string>) =>
      call<Interaction>("modal", { user, interaction_id: interactionId, fields }),
    messages: async (channel: string, viewer: string) =>
      (await call<{ messages: Message[] }>("messages", { channel, viewer }, "GET")).messages,
    direct: async (user: string) => (await call<{ id: string }>("dm", { user })).id,
    violations: async () =>
      (await call<{ violations: { rule: string }[] }>("violations", {}, "GET")).violations,
    /** Logged in, and its commands registered. */
    async ready(): Promise<void> {
      await until(
        async () => {
          const { sessions, commands } = await call<{
            sessions: { connected: boolean }[];
            commands: Record<string, unknown[]>;
          }>("state", {}, "GET");
          return sessions.some(({ connected }) => connected) && Object.keys(commands).length > 0
            ? true
            : undefined;
        },
        { what: "the bot did not log in", withinMs: 15_000 },
      );
    },
  };
  return people;
}

export function textOf({ content, embeds }: Pick<Message, "content" | "embeds">): string {
  return [content, ...embeds.map((embed) => JSON.stringify(embed))].join("\n");
}

export function buttonsOf({ components }: Pick<Message, "components">): Component[] {
  return components.flatMap(({ components: inner = [] }) => inner);
}

type OpenForm =
  | { interaction: string; before?: string | undefined }
  | { message: string; button: string; before: string };

export function discordDriver(base: string): ChatDriver {
  const people = discordPeople(base);
  const { alice, carol, mallory, ops, general } = discordIds;
  const channelOf = (user: string) => (user === mallory ? general : ops);
  let bot: Bot | undefined;
  /** The form that a person has open, or the button of an answer that opens it again. */
  const open = new Map<string, OpenForm>();

  async function seen(user: string, answered: Interaction, before?: string): Promise<Seen> {
    const {
      modal,
      original,
      interaction_id: interaction,
      state,
      user_sees,
    } = await people.settled(answered, before);
    if (state === "failed") throw new Error(user_sees ?? "failed");
    if (modal !== null) {
      open.set(user, { interaction, before });
      return {
        text: JSON.stringify(modal),
        form: modal.components.flatMap(({ component }) => component?.custom_id ?? []),
      };
    }
    if (original === null) return { text: "", form: null };
    const button = buttonsOf(original).find(({ custom_id: id }) => id?.startsWith("open:"))?.custom_id;
    if (button !== undefined) open.set(user, { message: original.id, button, before: textOf(original) });
    return { text: textOf(original), form: null };
  }

  async function cardsIn(channel: string, viewer: string): Promise<CardSeen[]> {
    const all = await people.messages(channel, viewer);
    const roots = all.filter(
      (each) => !each.ephemeral && each.message_reference === undefined && each.embeds.length > 0,
    );
    return Promise.all(
      roots.map(async (root) => {
        const replies = all.filter((each) => each.message_reference?.message_id === root.id);
        const thread = [...(await people.messages(root.id, viewer)), ...replies];
        return { id: `${channel}/${root.id}`, text: textOf(root), thread: thread.map(textOf) };
      }),
    );
  }

  return {
    platform: "discord",
    people: { staff: alice, customer: carol, stranger: mallory },
    mention: (user) => `<@${user}>`,
    mostCopiesAfterLostAnswer: 1,
    async open({ entrance, log }) {
      await people.call("reset");
      bot = createDiscordBot({
        token: discordToken,
        applicationId: discordIds.application,
        apiUrl: `${base}/api`,
        entrance,
        registry: sampleRegistry,
        log,
      });
      await bot.start();
      await people.ready();
      return bot;
    },
    close: async () => bot?.stop(),
    command: async (user, typed) => seen(user, await people.command(user, channelOf(user), typed)),
    async suggest(user, typed, option) {
      const { choices } = await people.autocomplete(user, ops, typed, option);
      return (choices ?? []).map(({ value }) => value);
    },
    async submit(user, values) {
      let form = open.get(user);
      if (form !== undefined && "button" in form) {
        await seen(user, await people.press(user, ops, form.message, form.button), form.before);
        form = open.get(user);
      }
      if (form === undefined || !("interaction" in form)) throw new Error("no form is open");
      open.delete(user);
      return seen(user, await people.modal(user, form.interaction, values), form.before);
    },
    cards: () => cardsIn(ops, alice),
    directCards: async (user) => cardsIn(await people.direct(user), user),
    readable: async (viewer) => (await people.messages(ops, viewer)).map(textOf).join("\n"),
    async press(user, card, button) {
      const [channel = "", message = ""] = card.id.split("/");
      const root = (await people.messages(channel, user)).find(({ id }) => id === message);
      const pressed =
        buttonsOf(root ?? { components: [] }).find(({ label }) => label === button)?.custom_id ?? "";
      const answer = await people.press(user, channel, message, pressed);
      const { original } = await people.settled(answer);
      const yes = pressed.startsWith("ask:")
        ? buttonsOf(original ?? { components: [] })[0]?.custom_id
        : undefined;
      if (yes === undefined || original === null) return seen(user, answer);
      return seen(user, await people.press(user, channel, original.id, yes), textOf(original));
    },
    async fault(kind) {
      const match = "POST /channels/\\d+/messages$";
      await people.call(
        "fault",
        kind === "slow_down" ? { match, status: 429, retry_after: 3 } : { match, drop_after: true },
      );
    },
    violations: () => people.violations(),
  };
}
