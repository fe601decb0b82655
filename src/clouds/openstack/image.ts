import type { RemoteImage } from "../../core/cloud.ts";
import type { OpenStackClient } from "./client.ts";
import { GlanceImage } from "./schema.ts";

export function getImage(client: OpenStackClient, id: string, signal?: AbortSignal): Promise<GlanceImage> {
  return client.read({ service: "image", path: `/images/${encodeURIComponent(id)}`, signal }, GlanceImage);
}

/** What servers can be made of. A snapshot holds one customer's disk, so it is nobody else's image. */
export async function listImages(client: OpenStackClient, signal?: AbortSignal): Promise<RemoteImage[]> {
  const { rows } = await client.list({
    service: "image",
    path: "/images",
    // Glance's own page is 25 (limit_param_default).
    query: { limit: "200" },
    key: "images",
    item: GlanceImage,
    signal,
  });
  const offered = rows.filter((image) => image.image_type !== "snapshot" && image.image_type !== "backup");
  return offered.map((image) => ({
    externalId: image.id,
    name: image.name ?? image.id,
    status: image.status ?? "unknown",
    minMemoryMib: image.min_ram ?? 0,
    minDiskGib: image.min_disk ?? 0,
    hasAgent: agentOf(image),
    defaultUser: image.os_admin_user ?? null,
  }));
}

/** Nova's own reading of the property (oslo_utils.strutils.bool_from_string). */
function agentOf(image: GlanceImage): boolean | null {
  const value = image.hw_qemu_guest_agent?.toLowerCase();
  if (value === undefined) return null;
  return ["yes", "true", "1", "on", "y", "t"].includes(value);
}
