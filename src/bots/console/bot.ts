/** The console: the whole chat in a terminal, with no token and no platform. */
import { randomUUID } from "node:crypto";
import type { Logger } from "pino";
import type { Principal } from "../../core/access.ts";
import type { ActionRegistry } from "../../core/action.ts";
import type { Bot } from "../../core/bot.ts";
import type { OperationState } from "../../core/operations/state.ts";
import type { Entrance } from "../../core/request.ts";
import { createButtons } from "./buttons.ts";
import { createCards } from "./cards.ts";
import { complete } from "./complete.ts";
import { builtIns, type Conversation, createConversation, describe, workspaceOf } from "./conversation.ts";
import type { PrincipalFlag } from "./principal-flag.ts";
import { type Completer, createReader, type Reader } from "./reader.ts";
import { type ConsoleOutput, createScreen, type Screen } from "./screen.ts";
import { wantsColor } from "./text.ts";

export interface ConsoleBotOptions {
  entrance: Entrance;
  registry: ActionRegistry;
  /** Who types. */
  principal: Principal;
  /** For `as staff:sam`; null for a stranger. Without it the principal stays. */
  identify?: (flag: PrincipalFlag) => Promise<Principal | null>;
  /** The state of an operation, null when there is none. Piped commands wait for their operations to end by it. */
  stateOf: (operationId: string) => Promise<OperationState | null>;
  input: NodeJS.ReadableStream & { isTTY?: boolean };
  output: ConsoleOutput;
  log: Logger;
  /** Default: when the output is a terminal that wants colours. */
  color?: boolean;
  /** Milliseconds; for tests. */
  now?: () => number;
}

export interface ConsoleBot extends Bot {
  /**
   * Talks until `exit` or the end of the input; called again, it returns the same promise. On a pipe each line is run
   * and its operations are waited for. Resolves with the exit code: 1 when a piped command was refused or its
   * operation did not succeed.
   */
  run(): Promise<number>;
}

export function createConsoleBot(options: ConsoleBotOptions): ConsoleBot {
  const { entrance, registry, input, output, log } = options;
  const interactive = input.isTTY === true && output.isTTY === true;
  const screen = createScreen(output, options.color ?? wantsColor(output, process.env));
  const session = randomUUID().slice(0, 8);
  const buttons = createButtons();
  let principal = options.principal;
  // Whoever the console was: what was asked for before a change of hands is followed to its end.
  const hands = new Set([workspaceOf(principal)]);
  const cards = createCards({
    screen,
    buttons,
    session,
    now: options.now ?? Date.now,
    nameOf: (target) => (target.userId === principal.id ? principal.name : (target.userId ?? principal.name)),
  });
  let reader: Reader | null = null;
  let running: Promise<number> | null = null;
  let ended = false;

  async function talk(): Promise<number> {
    reader = createReader({ input, output, screen, interactive, log });
    const { identify, stateOf } = options;
    const become = async (flag: PrincipalFlag) => {
      const other = (await identify?.(flag)) ?? null;
      principal = other ?? principal;
      hands.add(workspaceOf(principal));
      return other;
    };
    const conversation = createConversation({
      entrance,
      registry,
      screen,
      buttons,
      cards,
      reader,
      interactive,
      session,
      log,
      stateOf,
      principal: () => principal,
      ...(identify === undefined ? {} : { become }),
    });
    if (interactive) await greet(screen, principal);
    await converse(reader, conversation, {
      screen,
      complete: (line) => complete(line, { registry, principal, lookup: entrance.lookup, builtIns }),
    });
    reader.close();
    return conversation.finish();
  }

  const run = () => {
    running ??= talk().finally(() => {
      ended = true;
      reader?.close();
    });
    return running;
  };
  return {
    platform: "console",
    messenger: { ...cards.messenger, workspaces: () => [...hands] },
    run,
    async start() {
      run().catch((error: unknown) => log.error({ err: error }, "the console ended"));
    },
    async stop() {
      reader?.close();
      await running?.catch(() => undefined);
    },
    status: () => ({ ok: !ended, detail: ended ? "ended" : `${describe(principal)} is at the console` }),
  };
}

async function greet(screen: Screen, principal: Principal): Promise<void> {
  await screen.say(`Ratatosk, as ${describe(principal)}. This is the whole chat, without a chat platform.`);
  await screen.say("Try: help, server list. Tab completes, !1 presses [1], exit leaves.");
  await screen.print("");
}

/** Until the input ends, the person leaves, or presses Ctrl+C twice on an empty line. */
async function converse(
  reader: Reader,
  conversation: Conversation,
  { screen, complete: completer }: { screen: Screen; complete: Completer },
): Promise<void> {
  const wanted = { prompt: screen.paint("bold", "ratatosk> "), history: true, complete: completer };
  let leaving = false;
  for (;;) {
    const typed = await reader.next(wanted);
    if (typed.kind === "end" || (leaving && typed.kind === "interrupt")) return;
    leaving = typed.kind === "interrupt" && typed.empty;
    if (leaving) await screen.print(screen.paint("dim", "Ctrl+C again, or exit, leaves."));
    if (typed.kind === "line" && (await conversation.run(typed.text)) === "leave") return;
  }
}
