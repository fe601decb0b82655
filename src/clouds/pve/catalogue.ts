// What is offered: templates as images, bridges as networks.
import type { RemoteImage, RemoteNetwork } from "../../core/cloud.ts";
import { ServiceError } from "../../core/errors.ts";
import { inBatches } from "./batches.ts";
import type { PveClient } from "./client.ts";
import { type FoundVm, findVm, listBridges, listResources } from "./cluster.ts";
import { diskGibOf, hasAgent } from "./config.ts";

const AT_ONCE = 8;
const GIB = 2 ** 30;

/** Templates seldom change, and every order looks at all of one name. */
export const TEMPLATE_MS = 10_000;

/** "pve1/9000": where it was when it was listed, and its VMID, which is what counts. */
function templateVmidOf(imageId: string): number | null {
  const found = /^[^/]+\/([1-9]\d{2,8})$/u.exec(imageId);
  return found === null ? null : Number(found[1]);
}

/** Throws `cloud_invalid` when it is gone or no template any more. */
export async function getTemplate(
  client: PveClient,
  imageId: string,
  signal: AbortSignal,
  since = client.recent.now() - TEMPLATE_MS,
): Promise<FoundVm> {
  const vmid = templateVmidOf(imageId);
  const hint = imageId.split("/")[0];
  const found = vmid === null ? null : await findVm(client, vmid, { hint, since, signal });
  if (found !== null && found.config["template"] === "1") return found;
  throw new ServiceError(
    "cloud_invalid",
    "The cloud no longer has this image. Choose another one, or run /sync to bring our list up to date.",
    { facts: { cloud: client.cloud }, staffDetail: `${client.cloud}: ${imageId} is no template` },
  );
}

export async function listImages(client: PveClient, signal?: AbortSignal): Promise<RemoteImage[]> {
  const { guests, nodes } = await listResources(client, signal);
  const rows = guests.filter((row) => row.type === "qemu" && row.template === true);
  return inBatches(rows, AT_ONCE, async (row): Promise<RemoteImage> => {
    const base = {
      externalId: `${row.node}/${row.vmid}`,
      name: row.name ?? `VM ${row.vmid}`,
      minMemoryMib: 0,
    };
    const isAway = nodes.some((node) => node.node === row.node && !node.online);
    const found = isAway ? null : await findVm(client, row.vmid, { hint: row.node, signal });
    if (found === null) {
      const minDiskGib = Math.ceil((row.maxdisk ?? 0) / GIB);
      return {
        ...base,
        minDiskGib,
        status: isAway ? "node away" : "gone",
        hasAgent: null,
        defaultUser: null,
      };
    }
    return {
      ...base,
      name: found.config["name"] ?? base.name,
      status: "active",
      minDiskGib: diskGibOf(found.config),
      // Without an agent a password still reaches the guest through cloud-init, at its next boot.
      hasAgent: hasAgent(found.config) ? true : null,
      defaultUser: found.config["ciuser"] ?? null,
    };
  });
}

/** By name, which means the same on all nodes. */
export function createNetworkList(client: PveClient): (signal?: AbortSignal) => Promise<RemoteNetwork[]> {
  /** A node that is away has its bridges still. */
  const known = new Map<string, string[]>();
  return async (signal) => {
    const { nodes } = await listResources(client, signal);
    await inBatches(
      nodes.filter((row) => row.online),
      AT_ONCE,
      async ({ node }) => {
        known.set(node, await listBridges(client, node, signal));
      },
    );
    const names = new Set(nodes.flatMap(({ node }) => known.get(node) ?? []));
    return [...names].toSorted().map((name) => ({
      externalId: name,
      name,
      status: "active",
      isExternal: false,
      isShared: false,
    }));
  };
}
