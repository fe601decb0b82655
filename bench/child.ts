/** A process of its own for what must not share our event loop or our memory. */
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";

export interface Child<Ready> {
  ready: Ready;
  process: ChildProcess;
  /** Sends a message and waits for the next one. */
  ask<Answer>(message: object): Promise<Answer>;
  stop(): Promise<void>;
}

/** Starts `bench/<file>` with `options` and waits for its first message. */
export async function startChild<Ready>(file: string, options: object): Promise<Child<Ready>> {
  const path = new URL(file, import.meta.url).pathname;
  const child = fork(path, [JSON.stringify(options)], {
    execArgv: ["--liftoff-only", "--disable-warning=ExperimentalWarning"],
    stdio: ["ignore", "inherit", "inherit", "ipc"],
  });
  const next = async (): Promise<unknown> => {
    const ended = new AbortController();
    const [message]: unknown[] = await Promise.race([
      once(child, "message", { signal: ended.signal }),
      once(child, "exit", { signal: ended.signal }).then(([code]) => {
        throw new Error(`${file} ended with ${String(code)}`);
      }),
    ]).finally(() => ended.abort());
    return message;
  };
  return {
    ready: (await next()) as Ready,
    process: child,
    async ask<Answer>(message: object) {
      const answered = next();
      child.send(message);
      return (await answered) as Answer;
    },
    async stop() {
      if (child.exitCode !== null) return;
      const ended = once(child, "exit");
      child.kill("SIGKILL");
      await ended;
    },
  };
}

/** In the child: what it was started with, and its voice. */
export function startedWith(): unknown {
  process.on("disconnect", () => process.exit(0));
  return JSON.parse(process.argv[2] ?? "{}");
}

export function tell(message: object): void {
  if (process.send === undefined) throw new Error("this is started by a bench, not by hand");
  process.send(message);
}
