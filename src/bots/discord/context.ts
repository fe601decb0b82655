/** What every handler of the Discord bot works with. */
import type { Logger } from "pino";
import type { ActionRegistry } from "../../core/action.ts";
import type { Entrance } from "../../core/request.ts";
import type { DiscordApi } from "./api.ts";
import type { Draft } from "./form.ts";
import type { Memory } from "./memory.ts";
import type { Confirm } from "./message.ts";

export interface DiscordContext {
  entrance: Entrance;
  registry: ActionRegistry;
  api: DiscordApi;
  log: Logger;
  now: () => number;
  /** After this an interaction is acknowledged and answered afterwards; milliseconds. */
  ackBudgetMs: number;
  /** What forms must keep beside what is typed into them. */
  drafts: Memory<Draft>;
  /** Button token → what to ask before its press counts. */
  confirmations: Memory<Confirm>;
  /** The address of an operation's card, when it is known. */
  linkTo(operationId: string): Promise<string | null>;
}
