/** `webhook verify` and `webhook secret`, for whoever builds a receiver. */
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { ServiceError } from "../core/errors.ts";
import { generateSecret, verify } from "../webhooks/signature.ts";
import { settingsOf } from "./settings.ts";
import { createReport, type Terminal } from "./terminal.ts";

export interface VerifyOptions {
  /** "name: value", as received. */
  headers: readonly string[];
  /** A webhook of ratatosk.yaml whose secret is meant. */
  name: string | undefined;
  secretFile: string | undefined;
  toleranceSeconds: number;
}

/** The body comes from standard input, byte for byte. Exit code 1, with the reason, when the signature does not fit. */
export async function verifyWebhook(terminal: Terminal, options: VerifyOptions): Promise<number> {
  const secret = secretOf(terminal, options);
  const headers = Object.fromEntries(options.headers.map(headerOf));
  const body = await readAll(terminal.stdin);
  const id = verify({
    secret,
    headers,
    body,
    nowSeconds: Date.now() / 1000,
    toleranceSeconds: options.toleranceSeconds,
  });
  createReport(terminal).result(true, "signature", `${id} is genuine (${body.length} bytes)`);
  return 0;
}

export function printWebhookSecret(terminal: Terminal): number {
  terminal.stdout.write(`${generateSecret()}\n`);
  return 0;
}

/** Never an argument: every user of the machine can read those. */
function secretOf(terminal: Terminal, { name, secretFile }: VerifyOptions): string {
  if (secretFile !== undefined) return readSecretFile(resolve(terminal.cwd, secretFile));
  if (name !== undefined) {
    const webhooks = settingsOf(terminal).webhooks;
    const found = webhooks.find((webhook) => webhook.name === name);
    if (found !== undefined) return found.secret;
    const names = webhooks.map((webhook) => webhook.name).join(", ") || "none";
    throw new ServiceError("configuration", `ratatosk.yaml has no webhook "${name}"; there are: ${names}.`);
  }
  const secret = terminal.env["WEBHOOK_SECRET"] ?? "";
  if (secret !== "") return secret;
  throw new ServiceError(
    "invalid_input",
    "Say which secret: --webhook NAME (of ratatosk.yaml), --secret-file FILE, or the variable WEBHOOK_SECRET.",
  );
}

function readSecretFile(path: string): string {
  try {
    return readFileSync(path, "utf8").trim();
  } catch (error) {
    throw new ServiceError(
      "invalid_input",
      `The file ${path} cannot be read; give the one that holds the secret.`,
      {
        cause: error,
      },
    );
  }
}

function headerOf(text: string): [string, string] {
  const colon = text.indexOf(":");
  if (colon < 1) {
    throw new ServiceError(
      "invalid_input",
      'A header is written as received, for example --header "webhook-id: evt_1".',
    );
  }
  return [text.slice(0, colon).trim(), text.slice(colon + 1).trim()];
}

async function readAll(stream: NodeJS.ReadableStream): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(Buffer.from(chunk));
  return Buffer.concat(chunks);
}
