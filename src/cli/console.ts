/** `console`: the chat in this terminal, on the configured clouds and database. */
import { ServiceError } from "../core/errors.ts";
import { logOf, settingsOf } from "./settings.ts";
import type { Terminal } from "./terminal.ts";

const stopWithinMs = 20_000;

/**
 * Also runs operations, so that it works alone; beside running processes (DATABASE_URL) it shares their work. The chat
 * platforms stay with those. The exit code is the console's.
 */
export async function openConsole(terminal: Terminal, as: string): Promise<number> {
  const settings = settingsOf(terminal);
  if (settings.sandbox) {
    throw new ServiceError(
      "configuration",
      "No cloud is configured. npm start opens a console on simulated ones.",
    );
  }
  const { openApp } = await import("../app.ts");
  const app = await openApp(
    { ...settings, slack: undefined, discord: undefined, roles: ["bots", "worker", "dispatcher"] },
    {
      log: logOf(terminal),
      console: { as, input: terminal.stdin, output: process.stdout },
    },
  );
  if (app.console === null) throw new Error("the app was opened without its console");
  await app.start();
  const code = await app.console.run();
  // A queue whose server is away never finishes closing.
  const late = setTimeout(() => process.exit(code), stopWithinMs).unref();
  await app.close();
  clearTimeout(late);
  return code;
}
