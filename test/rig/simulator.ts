/** A simulated cloud in a process of its own: it must not stop when a worker does, nor share its event loop. */
import { monitorEventLoopDelay } from "node:perf_hooks";
import { startOpenStackSimulator } from "../../src/sandbox/openstack/index.ts";
import { startPveSimulator } from "../../src/sandbox/pve/index.ts";
import type { CloudAddress, CloudKind } from "./address.ts";

export interface SimulatorConfig {
  kind: CloudKind;
  name: string;
  orders: number;
  seed: number;
  speed: number;
}

const { kind, name, orders, seed, speed } = JSON.parse(process.env["RIG_SIMULATOR"] ?? "") as SimulatorConfig;

/** https://en.wikipedia.org/wiki/Xorshift: which requests a fault hits follows the seed. */
let state = seed | 1;
Math.random = () => {
  state ^= state << 13;
  state ^= state >>> 17;
  state ^= state << 5;
  return (state >>> 0) / 2 ** 32;
};

async function openstack(): Promise<CloudAddress> {
  const room = orders * 4;
  const { url, authUrl, credentials } = await startOpenStackSimulator({
    speed,
    quota: { instances: room, cores: room * 2, ramMib: room * 4096 },
  });
  const { region, applicationCredentialId, applicationCredentialSecret } = credentials;
  return {
    kind: "openstack",
    name,
    url,
    authUrl,
    region,
    applicationCredentialId,
    applicationCredentialSecret,
  };
}

async function pve(): Promise<CloudAddress> {
  const { url, tokenId, tokenSecret, fingerprint, ca } = await startPveSimulator({
    speed,
    storageBytes: (orders * 4 + 100) * 64 * 1024 ** 3,
    // Room for all: what runs out in a run is not what it asks about.
    nodeMemoryBytes: (orders + 100) * 4 * 1024 ** 3,
  });
  return { kind: "pve", name, url, tokenId, tokenSecret, fingerprint, ca };
}

process.send?.(await (kind === "openstack" ? openstack() : pve()));
// A starved cloud holds requests by itself; the rig asks for how long it did at most.
const pauses = monitorEventLoopDelay({ resolution: 10 });
pauses.enable();
process.on("message", () => process.send?.(Math.round(pauses.max / 1e6)));
process.on("disconnect", () => process.exit(0));
