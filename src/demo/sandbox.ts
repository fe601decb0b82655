/** `npm start` with nothing configured: simulated clouds, a receiver for webhooks, and people to play with. */
import type { Delivery } from "../sandbox/receiver.ts";
import { startSampleWorld } from "./sample-world.ts";

export interface Sandbox {
  /** Where the sample ratatosk.yaml was written. */
  configPath: string;
  banner: string;
  close(): Promise<void>;
}

export async function startSandbox(onDelivery: (delivery: Delivery) => void): Promise<Sandbox> {
  const world = await startSampleWorld({ speed: 1, onDelivery });
  return {
    configPath: world.configPath,
    banner: [
      "SANDBOX: no cloud is configured, so these are simulated ones. Nothing here is real, and nothing is kept.",
      `  simulated OpenStack   ${world.openstack.authUrl}`,
      `  simulated Proxmox VE  ${world.pve.url}`,
      `  webhook receiver      ${world.receiver.url}`,
      `  sample configuration  ${world.configPath}`,
      "  To connect the real things, copy .env.example to .env and ratatosk.example.yaml to ratatosk.yaml (docs/configuration.md).",
    ].join("\n"),
    close: world.close,
  };
}
