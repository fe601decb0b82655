/** The formats: one file and one line each. */
import type { WebhookFormat } from "./format.ts";
import { standardFormat } from "./standard.ts";

export const formats: readonly WebhookFormat[] = [standardFormat];

export function findFormat(name: string): WebhookFormat | undefined {
  return formats.find((format) => format.name === name);
}
