// Can this order be carried out now? Reads only; what races with others is still handled when it is carried out.
import type { ProvisionOrder } from "../../core/cloud.ts";
import { ServiceError } from "../../core/errors.ts";
import { requireUnusedAddress } from "./address-holder.ts";
import type { PveClient } from "./client.ts";
import { listBridges } from "./cluster.ts";
import { diskGibOf, hasCloudInit } from "./config.ts";
import { type PlaceRequest, placeFor } from "./placement.ts";

export async function preflightProvision(
  client: PveClient,
  order: ProvisionOrder,
  signal: AbortSignal,
  mayPlaceOn?: PlaceRequest["mayPlaceOn"],
): Promise<void> {
  const { imageId, node, storage, clone, size } = order;
  const place = await placeFor(client, { imageId, node, storage, clone, size, mayPlaceOn, signal });
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
  if (order.address !== undefined) {
    const address = order.address.cidr.replace(/\/\d+$/u, "");
    await requireUnusedAddress(client, { address, except: null }, signal);
  }
  const bridges = await listBridges(client, place.node, signal);
  if (!bridges.includes(order.networkId)) {
    throw invalid(
      client,
      "The network is not there on the node that this server would be on. Choose another network or node.",
      `node ${place.node} has ${bridges.join(", ") || "no bridges"}, not ${order.networkId}`,
    );
  }
}

function invalid(client: PveClient, message: string, detail?: string): ServiceError {
  return new ServiceError("cloud_invalid", message, {
    facts: { cloud: client.cloud },
    ...(detail === undefined ? {} : { staffDetail: `${client.cloud}: ${detail}` }),
  });
}
