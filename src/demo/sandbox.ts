/** `npm start` with nothing configured: a simulated cloud, a receiver for webhooks, and people to play with. */
import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startOpenStackSimulator } from "../sandbox/openstack/index.ts";
import { type Delivery, startReceiver } from "../sandbox/receiver.ts";
import { writeSampleConfig } from "./samples.ts";

export interface Sandbox {
  /** Where the sample ratatosk.yaml was written. */
  configPath: string;
  banner: string;
  close(): Promise<void>;
}

export async function startSandbox(onDelivery: (delivery: Delivery) => void): Promise<Sandbox> {
  const folder = mkdtempSync(join(tmpdir(), "ratatosk-sandbox-"));
  const secret = newWebhookSecret();
  const simulator = await startOpenStackSimulator({ speed: 1 });
  const receiver = await startReceiver({ secret, onDelivery });
  const configPath = join(folder, "ratatosk.yaml");
  writeSampleConfig(configPath, { simulator, receiver: { url: receiver.url, secret } });
  return {
    configPath,
    banner: [
      "SANDBOX: no cloud is configured, so this is a simulated one. Nothing here is real, and nothing is kept.",
      `  simulated OpenStack  ${simulator.authUrl}`,
      `  webhook receiver     ${receiver.url}`,
      `  sample configuration ${configPath}`,
      "  To connect the real things, copy .env.example to .env and ratatosk.example.yaml to ratatosk.yaml (docs/configuration.md).",
    ].join("\n"),
    async close() {
      await receiver.close();
      await simulator.close();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** Standard Webhooks: `whsec_` and 24 to 64 random bytes in base64. */
export function newWebhookSecret(): string {
  return `whsec_${randomBytes(32).toString("base64")}`;
}
