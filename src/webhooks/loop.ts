import { setImmediate } from "node:timers/promises";

/** Runs `work` when kicked and at every sweep, never twice at a time; a kick during a run leads to another run. */
export interface LoopOptions {
  readonly work: () => Promise<void>;
  readonly onError: (error: unknown) => void;
  readonly sweepMs: number;
  /** Calls the kick whenever there may be work; returns how to end that. */
  readonly subscribe: (kick: () => void) => (() => void) | undefined;
}

export interface Loop {
  start(): void;
  /** Does nothing unless started. */
  kick(): void;
  /** Resolves when the present run has ended. */
  stop(): Promise<void>;
}

export function createLoop(options: LoopOptions): Loop {
  const state: {
    started: boolean;
    again: boolean;
    running: Promise<void> | undefined;
    timer?: NodeJS.Timeout;
    unsubscribe?: (() => void) | undefined;
  } = { started: false, again: false, running: undefined };

  async function run(): Promise<void> {
    try {
      while (state.again && state.started) {
        state.again = false;
        await options.work();
        // The embedded database answers without a turn of the event loop: without this, run after run would keep all else
        // from happening.
        await setImmediate();
      }
    } catch (error) {
      options.onError(error);
    } finally {
      state.running = undefined;
    }
  }

  function kick(): void {
    if (!state.started) return;
    state.again = true;
    state.running ??= run();
  }

  return {
    kick,
    start() {
      if (state.started) return;
      state.started = true;
      state.unsubscribe = options.subscribe(kick);
      state.timer = setInterval(kick, options.sweepMs);
      kick();
    },
    async stop() {
      state.started = false;
      state.unsubscribe?.();
      clearInterval(state.timer);
      await state.running;
    },
  };
}
