// Can this order be carried out now? Reads only; what races with others is still handled when it is carried out.
import { z } from "zod";
import type { ProvisionOrder } from "../../core/cloud.ts";
import { ServiceError } from "../../core/errors.ts";
import type { PveClient } from "./client.ts";
import { listBridges } from "./cluster.ts";
import { diskGibOf, disksOf, hasCloudInit } from "./config.ts";
import { placeFor } from "./placement.ts";

const GIB = 2 ** 30;
const Storages = z.array(
  z.looseObject({
    storage: z.string(),
    active: z.coerce.number().optional(),
    avail: z.coerce.number().optional(),
  }),
);

export async function preflightProvision(
  client: PveClient,
  order: ProvisionOrder,
  signal: AbortSignal,
): Promise<void> {
  const place = await placeFor(client, { imageId: order.imageId, node: order.node, signal });
  const { template } = place;
  if (!hasCloudInit(template.config)) {
    throw invalid(
      client,
      "The image has no cloud-init drive, so neither password nor network could be set. Our operators must add one.",
      `template ${template.vmid} on ${template.node}`,
    );
  }
  const diskGib = diskGibOf(template.config);
  if (diskGib > order.size.diskGib) {
    throw invalid(
      client,
      `The image needs a disk of at least ${diskGib} GiB; this size has ${order.size.diskGib} GiB. Choose a bigger size.`,
    );
  }
  const bridges = await listBridges(client, place.node, signal);
  if (!bridges.includes(order.networkId)) {
    throw invalid(
      client,
      "The network is not there on the node that this server would be on. Choose another network or node.",
      `node ${place.node} has ${bridges.join(", ") || "no bridges"}, not ${order.networkId}`,
    );
  }
  const [disk] = disksOf(template.config);
  const storage = place.storage ?? disk?.volume.split(":")[0];
  if (storage !== undefined)
    await checkStorage(client, { node: place.node, storage, order, full: place.full, signal });
}

async function checkStorage(
  client: PveClient,
  request: { node: string; storage: string; order: ProvisionOrder; full: boolean; signal: AbortSignal },
): Promise<void> {
  const { node, storage, order, full, signal } = request;
  const path = `/nodes/${encodeURIComponent(node)}/storage`;
  const rows = await client.read({ path, parameters: { content: "images" }, signal }, Storages);
  const found = rows.find((row) => row.storage === storage);
  // Without a right on the storage it is not listed; the clone itself then says so.
  if (found === undefined) return;
  if (found.active === 0) {
    throw invalid(
      client,
      "The storage for the server is not active at the moment. Our operators must look at it.",
      `${storage} on ${node}`,
    );
  }
  const freeGib = Math.floor((found.avail ?? Number.POSITIVE_INFINITY) / GIB);
  if (!full || freeGib >= order.size.diskGib) return;
  throw new ServiceError(
    "capacity",
    "The cloud has no room for this server's disk. Try a smaller size, or have our operators make room.",
    {
      facts: { cloud: client.cloud },
      staffDetail: `${client.cloud}: ${storage} on ${node} has ${freeGib} GiB free, ${order.size.diskGib} GiB are needed`,
    },
  );
}

function invalid(client: PveClient, message: string, detail?: string): ServiceError {
  return new ServiceError("cloud_invalid", message, {
    facts: { cloud: client.cloud },
    ...(detail === undefined ? {} : { staffDetail: `${client.cloud}: ${detail}` }),
  });
}
