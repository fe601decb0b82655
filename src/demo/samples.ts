/** Sample customers, plans and people for the sandbox and the demo, as the ratatosk.yaml that anybody could write. */
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { stringify } from "yaml";
import type { OpenStackSimulator } from "../sandbox/openstack/index.ts";

export interface SampleOptions {
  simulator: Pick<OpenStackSimulator, "authUrl" | "credentials">;
  receiver: { url: string; secret: string };
}

export function sampleConfig({ simulator, receiver }: SampleOptions): Record<string, unknown> {
  const { credentials } = simulator;
  return {
    clouds: {
      "sim-openstack": {
        type: "openstack",
        auth: {
          auth_url: simulator.authUrl,
          application_credential_id: credentials.applicationCredentialId,
          application_credential_secret: credentials.applicationCredentialSecret,
        },
        region: credentials.region,
        network: "private",
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
      { code: "small", name: "Small", vcpus: 1, memory: "2G", disk: "10G", targets: target("m1.small") },
      { code: "medium", name: "Medium", vcpus: 2, memory: "4G", disk: "20G", targets: target("m1.medium") },
    ],
    webhooks: [{ name: "billing", url: receiver.url, secret: receiver.secret, events: ["*"] }],
    policies: { allowPrivateWebhooks: ["127.0.0.0/8"] },
  };
}

function target(flavor: string) {
  return { "sim-openstack": { flavor, network: "private" } };
}

export function writeSampleConfig(path: string, options: SampleOptions): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, stringify(sampleConfig(options)), { mode: 0o600 });
}
