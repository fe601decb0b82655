// What VMs have sent and received, from the one list that has it for the whole cluster.
import { z } from "zod";
import type { TrafficSample } from "../../core/cloud.ts";
import type { PveClient } from "./client.ts";
import { ClusterResource } from "./schema.ts";

const counter = z.coerce
  .number()
  .nonnegative()
  .transform((value) => BigInt(Math.trunc(value)));

/**
 * pvestatd writes a VM's figures down every ten seconds or so, all at once: the uptime of its QEMU process, and the sums over its
 * network cards in the process's life (PVE::QemuServer::vmstatus). A migration is another process. One on a node that is away keeps
 * its last figures for five minutes (pmxcfs' status.c drops older ones) and is `unknown` without any after that.
 */
const Row = ClusterResource.extend({
  uptime: z.coerce.number().nonnegative().optional(),
  netin: counter.optional(),
  netout: counter.optional(),
});
const Rows = z.array(Row);

export async function listTraffic(client: PveClient, signal?: AbortSignal): Promise<TrafficSample[]> {
  const rows = await client.read({ path: "/cluster/resources", parameters: { type: "vm" }, signal }, Rows);
  return rows.flatMap((row) => sampleOf(row) ?? []);
}

/** Of a container, a template and one whose state nobody knows there is none. */
function sampleOf(row: z.infer<typeof Row>): TrafficSample | undefined {
  const { type, vmid, status, template, uptime, netin, netout } = row;
  if (type !== "qemu" || vmid === undefined || template === true) return undefined;
  const externalId = String(vmid);
  if (status === "stopped") return { externalId, uptimeS: 0, inBytes: 0n, outBytes: 0n };
  // One that has just been started has an uptime of nothing yet, which would read as off.
  if (status !== "running" || uptime === undefined || uptime < 1) return undefined;
  if (netin === undefined || netout === undefined) return undefined;
  return { externalId, uptimeS: Math.trunc(uptime), inBytes: netin, outBytes: netout };
}
