/** Simulated clouds, a webhook receiver, and a ratatosk.yaml that connects them: for the sandbox and the demo. */
import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { stringify } from "yaml";
import { type OpenStackSimulator, startOpenStackSimulator } from "../sandbox/openstack/index.ts";
import { type PveSimulator, startPveSimulator } from "../sandbox/pve/index.ts";
import { type Delivery, type Receiver, startReceiver } from "../sandbox/receiver.ts";

export interface SampleWorld {
  openstack: OpenStackSimulator;
  pve: PveSimulator;
  receiver: Receiver;
  /** Holds the configuration, and nothing that outlives `close()`. */
  folder: string;
  configPath: string;
  close(): Promise<void>;
}

export async function startSampleWorld(options: {
  /** Of the clouds: 1 is lifelike. */
  speed: number;
  onDelivery: (delivery: Delivery) => void;
}): Promise<SampleWorld> {
  const folder = mkdtempSync(join(tmpdir(), "ratatosk-sample-"));
  // Standard Webhooks: `whsec_` and 24 to 64 random bytes in base64.
  const secret = `whsec_${randomBytes(32).toString("base64")}`;
  const openstack = await startOpenStackSimulator({ speed: options.speed });
  const pve = await startPveSimulator({ speed: options.speed });
  const receiver = await startReceiver({ secret, onDelivery: options.onDelivery });
  const configPath = join(folder, "ratatosk.yaml");
  const config = sampleConfig({ openstack, pve, receiver: { url: receiver.url, secret } });
  writeFileSync(configPath, stringify(config), { mode: 0o600 });
  return {
    openstack,
    pve,
    receiver,
    folder,
    configPath,
    async close() {
      await receiver.close();
      await openstack.close();
      await pve.close();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

interface Sources {
  openstack: OpenStackSimulator;
  pve: PveSimulator;
  receiver: { url: string; secret: string };
}

function sampleConfig({ openstack, pve, receiver }: Sources): Record<string, unknown> {
  const { credentials } = openstack;
  return {
    clouds: {
      "sim-openstack": {
        type: "openstack",
        auth: {
          auth_url: openstack.authUrl,
          application_credential_id: credentials.applicationCredentialId,
          application_credential_secret: credentials.applicationCredentialSecret,
        },
        region: credentials.region,
      },
      "sim-pve": {
        type: "pve",
        url: pve.url,
        tokenId: pve.tokenId,
        tokenSecret: pve.tokenSecret,
        fingerprint: pve.fingerprint,
        vmidRange: "5000-5999",
        rescueIso: "local:iso/rescue.iso",
        isos: { "debian-13": "local:iso/debian-13.iso" },
      },
    },
    staff: [
      { name: "Sam", role: "operator" },
      { name: "Rita", role: "admin" },
    ],
    customers: [
      { ref: "ada", name: "Ada Lovelace", email: "ada@example.com", maxServers: 5 },
      { ref: "bob", name: "Bob's Bakery", email: "bob@example.com", maxServers: 2 },
    ],
    plans: [
      { code: "small", name: "Small", vcpus: 1, memory: "2G", disk: "10G", targets: targets("m1.small") },
      { code: "medium", name: "Medium", vcpus: 2, memory: "4G", disk: "20G", targets: targets("m1.medium") },
    ],
    webhooks: [{ name: "billing", url: receiver.url, secret: receiver.secret, events: ["*"] }],
    policies: { allowPrivateWebhooks: ["127.0.0.0/8"] },
  };
}

function targets(flavor: string) {
  return { "sim-openstack": { flavor, network: "private" }, "sim-pve": { network: "vmbr0" } };
}
