// Whether another VM of ours has an address, by what PVE itself has of each: also one that was changed past us, or whose change
// was broken off half-way. Our own rows are asked when the operation is entered (core/servers/claims.ts).
import { ServiceError } from "../../core/errors.ts";
import { canonical } from "./address.ts";
import { inBatches } from "./batches.ts";
import type { PveClient } from "./client.ts";
import { type FoundVm, findVm, listResources } from "./cluster.ts";
import { staticAddressesOf } from "./config.ts";
import { markersIn } from "./marker.ts";
import { mayBeOurs } from "./server.ts";

const AT_ONCE = 8;

/** Throws `cloud_invalid`; who has it is for staff. `except`: the VM that is to have it. */
export async function requireUnusedAddress(
  client: PveClient,
  { address, except }: { address: string; except: number | null },
  signal: AbortSignal,
): Promise<void> {
  const holder = await findHolder(client, { address, except }, signal);
  if (holder === null) return;
  const { vmid, node, config } = holder;
  throw new ServiceError(
    "cloud_invalid",
    "Another server has this address in the cloud already, so nothing was changed. Choose another one, or release it there first.",
    {
      facts: { cloud: client.cloud, option: "ip" },
      staffDetail: `${client.cloud}: VM ${vmid} (${config["name"] ?? "no name"}) on ${node} has ${address}`,
    },
  );
}

/** VMs of nodes that are away cannot be asked. */
async function findHolder(
  client: PveClient,
  { address, except }: { address: string; except: number | null },
  signal: AbortSignal,
): Promise<FoundVm | null> {
  const { guests, nodes } = await listResources(client, signal);
  const online = new Set(nodes.filter((node) => node.online).map(({ node }) => node));
  const rows = guests.filter(
    (row) =>
      row.type === "qemu" &&
      row.template !== true &&
      row.vmid !== except &&
      online.has(row.node) &&
      mayBeOurs(client, row),
  );
  const wanted = canonical(address);
  const found = await inBatches(rows, AT_ONCE, async ({ vmid, node }) => {
    const vm = await findVm(client, vmid, { hint: node, signal });
    const isOurs = vm !== null && markersIn(vm.config["description"]).length > 0;
    return isOurs && staticAddressesOf(vm.config).map(canonical).includes(wanted) ? [vm] : [];
  });
  return found.flat()[0] ?? null;
}
