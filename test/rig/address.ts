import { Agent, request } from "undici";

/** Where the rig's processes find the simulated clouds. */
export interface OpenStackAddress {
  kind: "openstack";
  /** The cloud's name in our configuration. */
  name: string;
  /** Of the simulator's own door, `/_sim/…`. */
  url: string;
  authUrl: string;
  region: string;
  applicationCredentialId: string;
  applicationCredentialSecret: string;
}

export interface PveAddress {
  kind: "pve";
  name: string;
  url: string;
  tokenId: string;
  tokenSecret: string;
  fingerprint: string;
  /** PEM, for the simulator's own door. */
  ca: string;
}

export type CloudAddress = OpenStackAddress | PveAddress;
export type CloudKind = CloudAddress["kind"];

/** A call of PVE's own API, past our client; its task goes on by itself. */
export async function askPve(
  cloud: PveAddress,
  { method, path, form }: { method: "POST"; path: string; form: Record<string, string> },
): Promise<void> {
  const agent = new Agent({ connect: { ca: cloud.ca } });
  try {
    const response = await request(`${cloud.url}/api2/json${path}`, {
      dispatcher: agent,
      method,
      headers: {
        authorization: `PVEAPIToken=${cloud.tokenId}=${cloud.tokenSecret}`,
        "content-type": "application/x-www-form-urlencoded",
      },
      body: new URLSearchParams(form).toString(),
    });
    const text = await response.body.text();
    if (response.statusCode !== 200) throw new Error(`${method} ${path}: ${response.statusCode} ${text}`);
  } finally {
    await agent.close();
  }
}

/** Of the PVE cluster; strangers' VMs stand in it, too. */
export const vmidRange = [100_000, 199_999] as const;

/** A call through the simulator's own door, past the API that the cloud has. */
export async function askSimulator(
  cloud: CloudAddress,
  call: { method?: "GET" | "POST" | "PUT"; path: string; body?: unknown },
): Promise<unknown> {
  const agent = new Agent(cloud.kind === "pve" ? { connect: { ca: cloud.ca } } : {});
  try {
    const response = await request(`${cloud.url}/_sim/${call.path}`, {
      dispatcher: agent,
      method: call.method ?? "GET",
      ...(call.body === undefined ? {} : { body: JSON.stringify(call.body) }),
    });
    const text = await response.body.text();
    if (response.statusCode >= 300) {
      throw new Error(`the simulator answered ${response.statusCode} for ${call.path}: ${text}`);
    }
    return JSON.parse(text);
  } finally {
    await agent.close();
  }
}
