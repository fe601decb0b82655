/** The bot's answers without a gateway: real discord.js interactions, a local Discord, a scripted entrance. */
import { Events } from "discord.js";
import { pino } from "pino";
import { createDiscordApi } from "../../../src/bots/discord/api.ts";
import { createClient } from "../../../src/bots/discord/connection.ts";
import type { DiscordContext } from "../../../src/bots/discord/context.ts";
import { createIntake, type Intake } from "../../../src/bots/discord/interactions.ts";
import { createMemory } from "../../../src/bots/discord/memory.ts";
import {
  buttonData,
  commandData,
  deliver,
  type FakeDiscord,
  fakeDiscord,
  modalData,
} from "../../support/discord-api.ts";
import { alice, carol, type FakeEntrance, fakeEntrance } from "../../support/fake-entrance.ts";
import { sampleRegistry } from "../../support/sample-actions.ts";

export const [ALICE, CAROL, MALLORY] = ["41", "42", "43"];

export interface Rig {
  discord: FakeDiscord;
  entrance: FakeEntrance;
  context: DiscordContext;
  /** Lines of the log, as JSON. */
  log: string[];
  /** Each brings its interaction to its end and returns its id. */
  command(
    user: string,
    words: string,
    options?: Record<string, string | number | boolean>,
    over?: Record<string, unknown>,
  ): Promise<string>;
  autocomplete(
    user: string,
    words: string,
    options: Record<string, string>,
    focused: string,
  ): Promise<string>;
  press(user: string, customId: string, message?: Record<string, unknown>): Promise<string>;
  submit(
    user: string,
    customId: string,
    entered: { text?: Record<string, string>; chosen?: Record<string, string> },
    over?: Record<string, unknown>,
  ): Promise<string>;
  deliver(user: string, raw: Record<string, unknown>): Promise<string>;
  intake: Intake;
  close(): Promise<void>;
}

export async function discordRig(options: Partial<DiscordContext> = {}): Promise<Rig> {
  const discord = await fakeDiscord();
  const entrance = fakeEntrance({ [ALICE]: alice, [CAROL]: carol });
  const log: string[] = [];
  const context: DiscordContext = {
    entrance,
    registry: sampleRegistry,
    api: createDiscordApi({ token: "test", apiUrl: discord.url }),
    log: pino({ level: "debug" }, { write: (entry: string) => void log.push(entry) }),
    now: Date.now,
    ackBudgetMs: 1_500,
    drafts: createMemory(100),
    confirmations: createMemory(100),
    linkTo: () => Promise.resolve(null),
    ...options,
  };
  const intake = createIntake(context);
  const client = createClient(discord.url);
  client.on(Events.InteractionCreate, intake.take);
  const send = async (user: string, raw: Record<string, unknown>) => {
    const id = deliver(client, user, raw);
    await intake.settled();
    return id;
  };
  return {
    discord,
    entrance,
    context,
    log,
    intake,
    deliver: send,
    command: (user, words, given = {}, over = {}) => send(user, { ...commandData(words, given), ...over }),
    autocomplete: (user, words, given, focused) => send(user, commandData(words, given, focused)),
    press: (user, customId, message) => send(user, buttonData(customId, message)),
    submit: (user, customId, { text = {}, chosen = {} }, over = {}) =>
      send(user, { ...modalData(customId, text, chosen), ...over }),
    async close() {
      await client.destroy();
      await discord.close();
    },
  };
}
