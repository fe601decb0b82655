/** How the demo looks in a terminal: titles, what the console shows, webhooks as they arrive, with the elapsed time. */
import { styleText } from "node:util";
import type { Delivery } from "../sandbox/receiver.ts";

export interface Stage {
  title(text: string): void;
  say(text: string): void;
  /** A line of the program's console. */
  console(line: string): void;
  webhook(delivery: Delivery): void;
  proof(holds: boolean, text: string): void;
}

export function createStage(output: NodeJS.WriteStream, now: () => number = Date.now): Stage {
  const startedAt = now();
  const paint = (style: Parameters<typeof styleText>[0], text: string) =>
    styleText(style, text, { stream: output });
  const elapsed = () => paint("dim", `${((now() - startedAt) / 1000).toFixed(1).padStart(5)} s `);
  const print = (text: string) => output.write(`${text}\n`);
  return {
    title: (text) => print(`\n${paint("bold", `── ${text} ${"─".repeat(Math.max(0, 74 - text.length))}`)}`),
    say: (text) => print(`${elapsed()} ${text}`),
    console: (line) => print(`${elapsed()} ${paint("cyan", "│")} ${line}`),
    webhook(delivery) {
      const mark = delivery.verified
        ? paint("green", "verified")
        : paint("red", `NOT VERIFIED: ${delivery.problem}`);
      const again = delivery.duplicate ? paint("yellow", " (again)") : "";
      print(`${elapsed()} ${paint("magenta", "⇢")} webhook ${delivery.type} ${mark}${again}`);
    },
    proof: (holds, text) => print(`  ${holds ? paint("green", "✓") : paint("red", "✗")} ${text}`),
  };
}
