/** A secret on the terminal, once. */
import type { Logger } from "pino";
import type { Reveal } from "../../core/request.ts";
import type { Screen } from "./screen.ts";
import { printable } from "./text.ts";

/** Burns the secret when it was written, gives it back when it could not be. */
export async function revealSecret(
  reveal: Reveal,
  { screen, log }: { screen: Screen; log: Logger },
): Promise<void> {
  const warning =
    "Shown this once and deleted now. Keep it, then type clear: a terminal remembers what it showed.";
  try {
    // Never broken into lines: it is copied.
    await screen.print(`${screen.paint("bold", printable(reveal.label))}\n  ${printable(reveal.text)}`);
    await screen.say(warning, "warning");
  } catch (error) {
    log.warn({ err: error }, "a secret could not be shown; it can be asked for again");
    await reveal.release();
    throw error;
  }
  await reveal.burn();
}
