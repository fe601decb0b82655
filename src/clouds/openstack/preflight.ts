// Can this order be carried out now? Reads only; what races with others is still handled when it is carried out.
import type { ProvisionOrder } from "../../core/cloud.ts";
import { isServiceError, reworded, ServiceError } from "../../core/errors.ts";
import type { OpenStackClient } from "./client.ts";
import { getFlavor, getLimits } from "./compute.ts";
import { getImage } from "./image.ts";
import { getNetwork } from "./network.ts";
import type { GlanceImage, NeutronNetwork, NovaFlavor } from "./schema.ts";

export async function preflightProvision(
  client: OpenStackClient,
  order: ProvisionOrder,
  signal: AbortSignal,
): Promise<void> {
  const flavor = await required(getFlavor(client, flavorIdOf(order.size), signal), "size (flavor)");
  const image = await required(getImage(client, order.imageId, signal), "image");
  const network = await required(getNetwork(client, order.networkId, signal), "network");
  checkFlavor(flavor, order);
  checkImage(image, flavor);
  checkNetwork(network);
  await checkQuota(client, flavor, signal);
}

export function flavorIdOf(size: { flavorId?: string | undefined }): string {
  if (size.flavorId !== undefined) return size.flavorId;
  throw new ServiceError(
    "cloud_invalid",
    "This plan has no OpenStack flavor in this cloud. The operators must name one under the plan's targets in the configuration.",
  );
}

async function required<T>(looking: Promise<T>, what: string): Promise<T> {
  try {
    return await looking;
  } catch (error) {
    if (!isServiceError(error, "cloud_not_found")) throw error;
    throw reworded(
      error,
      `The cloud no longer has this ${what}. Choose another one, or run /sync to bring our list up to date.`,
      { code: "cloud_invalid", facts: { what } },
    );
  }
}

function checkFlavor(flavor: NovaFlavor, { size }: ProvisionOrder): void {
  // A flavor with disk 0 takes the image's own size.
  const smaller =
    flavor.vcpus < size.vcpus ||
    flavor.ram < size.memoryMib ||
    (flavor.disk > 0 && flavor.disk < size.diskGib);
  if (!smaller) return;
  throw new ServiceError(
    "cloud_invalid",
    "What the cloud has for this plan is smaller than what the plan sells. The operators must correct the plan.",
    {
      facts: { flavor: flavor.name },
      staffDetail: `The flavor ${flavor.name} has ${flavor.vcpus} CPU, ${flavor.ram} MiB, ${flavor.disk} GiB; the plan sells ${size.vcpus} CPU, ${size.memoryMib} MiB, ${size.diskGib} GiB.`,
    },
  );
}

function checkImage(image: GlanceImage, flavor: NovaFlavor): void {
  const name = image.name ?? "without a name";
  if (image.status !== "active") {
    throw new ServiceError(
      "cloud_invalid",
      `The image ${name} is not ready in the cloud (${image.status ?? "unknown"}). Choose another one.`,
      {
        facts: { image: name, status: image.status },
      },
    );
  }
  const memory = image.min_ram ?? 0;
  const disk = image.min_disk ?? 0;
  if (memory > flavor.ram || (flavor.disk > 0 && disk > flavor.disk)) {
    throw new ServiceError(
      "cloud_invalid",
      `The image ${name} needs at least ${memory} MiB of memory and ${disk} GiB of disk; this size has ${flavor.ram} MiB and ${flavor.disk} GiB. Choose a bigger size.`,
      { facts: { image: name, minMemoryMib: memory, minDiskGib: disk } },
    );
  }
}

function checkNetwork(network: NeutronNetwork): void {
  const name = network.name ?? network.id;
  // Nova takes such an order and fails it a few seconds later: a tenant gets no port on it.
  if (network["router:external"] === true && network.shared !== true) {
    throw new ServiceError(
      "cloud_invalid",
      "The network is the cloud's outside network; servers cannot be put on it directly. The operators must choose another one.",
      { facts: { network: name }, staffDetail: `The network is ${name}.` },
    );
  }
  if (network.subnets?.length === 0) {
    throw new ServiceError(
      "cloud_invalid",
      "The network has no subnet, so it has no addresses. The operators must choose another one.",
      { facts: { network: name }, staffDetail: `The network is ${name}.` },
    );
  }
}

async function checkQuota(client: OpenStackClient, flavor: NovaFlavor, signal: AbortSignal): Promise<void> {
  const limits = await getLimits(client, signal);
  const rows = [
    { what: "servers", used: limits.totalInstancesUsed, max: limits.maxTotalInstances, more: 1 },
    { what: "CPUs", used: limits.totalCoresUsed, max: limits.maxTotalCores, more: flavor.vcpus },
    { what: "MiB of memory", used: limits.totalRAMUsed, max: limits.maxTotalRAMSize, more: flavor.ram },
  ];
  for (const { what, used, max, more } of rows) {
    // -1 is "no limit"; a cloud that does not say is asked by the order itself.
    if (used === undefined || max === undefined || max < 0 || used + more <= max) continue;
    throw new ServiceError(
      "cloud_quota",
      "The cloud project's quota is used up, so nothing was changed. Remove something, or have the quota raised.",
      {
        facts: { cloud: client.cloud, what, used, limit: max, requested: more },
        // How much all customers together use is not for one of them to know.
        staffDetail: `${client.cloud}: ${used} of ${max} ${what} in use, ${more} more needed.`,
      },
    );
  }
}
