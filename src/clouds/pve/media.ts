// A CD drive with an image that we have put in: for a rescue, or an ISO that somebody asked for. How the drive and the boot
// order were before stands in a line of the VM's description, because PVE itself is the only place that cannot be lost.
import { isServiceError } from "../../core/errors.ts";
import type { PveClient } from "./client.ts";
import { disksOf, properties } from "./config.ts";
import { StorageContent, type VmConfig } from "./schema.ts";

export type Purpose = "rescue" | "iso";

export interface DriveNote {
  /** The drive that holds the image: ide0. */
  slot: string;
  /** What the slot held before: an empty CD drive, or nothing (""). */
  held: string;
  /** The option `boot` as it was; "" when it was not set. */
  boot: string;
}

const LINES: Readonly<Record<Purpose, RegExp>> = {
  rescue: /^rescue:((?:ide|sata)\d+) held=(\S*) boot=(.*)$/u,
  iso: /^iso:((?:ide|sata)\d+) held=(\S*) boot=(.*)$/u,
};
export const EMPTY_DRIVE = "none,media=cdrom";
/** Never a slot that holds something: the cloud-init drive is usually ide2. */
const SLOTS = ["ide0", "ide1", "ide2", "ide3", "sata0", "sata1", "sata2", "sata3", "sata4", "sata5"];

export function lineIn(config: VmConfig, purpose: Purpose): DriveNote | null {
  for (const line of (config["description"] ?? "").split("\n")) {
    const found = LINES[purpose].exec(line.trimEnd());
    if (found !== null) return { slot: found[1] ?? "", held: found[2] ?? "", boot: found[3] ?? "" };
  }
  return null;
}

export function hasLine(config: VmConfig, purpose: Purpose): boolean {
  return withoutLine(config, purpose) !== (config["description"] ?? "").trimEnd();
}

/** Of any purpose. */
export function isMediaLine(line: string): boolean {
  return Object.values(LINES).some((pattern) => pattern.test(line.trimEnd()));
}

export function withLine(config: VmConfig, purpose: Purpose, { slot, held, boot }: DriveNote): string {
  return [withoutLine(config, purpose), `${purpose}:${slot} held=${held} boot=${boot}`].join("\n");
}

export function withoutLine(config: VmConfig, purpose: Purpose): string {
  const lines = (config["description"] ?? "").trimEnd().split("\n");
  return lines.filter((line) => !LINES[purpose].test(line.trimEnd())).join("\n");
}

/** What is to be remembered before anything is changed. Null when every slot holds something. */
export function newNote(config: VmConfig): DriveNote | null {
  const isEmpty = (key: string) => config[key]?.startsWith(EMPTY_DRIVE) === true;
  // An empty drive first: of a protected VM PVE lets no drive be removed, and each time would leave another one.
  const slot = SLOTS.find(isEmpty) ?? SLOTS.find((key) => config[key] === undefined);
  if (slot === undefined) return null;
  return { slot, held: isEmpty(slot) ? EMPTY_DRIVE : "", boot: config["boot"] ?? "" };
}

export function bootOrder(boot: string | undefined): string[] {
  return (properties(boot ?? "")["order"] ?? "").split(";").filter((key) => key !== "");
}

/** The drive first, then what came before. */
export function orderFrom(config: VmConfig, { slot, boot }: DriveNote): string {
  const before = bootOrder(boot).filter((key) => key !== slot);
  const rest = before.length > 0 ? before : disksOf(config).map(({ key }) => key);
  return `order=${[slot, ...rest].join(";")}`;
}

/** The image in a CD drive. */
export function mediaIn(config: VmConfig, slot: string): string | null {
  const parts = properties(config[slot] ?? "");
  const volume = parts[""] ?? parts["file"] ?? "";
  return parts["media"] === "cdrom" && /:iso\//u.test(volume) ? volume : null;
}

/** What to do about a slot to take the image out again: a protected VM keeps an empty drive. */
export function slotAfter(config: VmConfig, { slot, held }: DriveNote): string | undefined {
  if (config[slot] === undefined) return undefined;
  return held === "" && config["protection"] !== "1" ? undefined : EMPTY_DRIVE;
}

/** A comma would begin another property of the drive. */
export const ISO = /^([A-Za-z][\w.-]*):iso\/[^\s,;/]+$/u;

/** Whether the image is on a storage that this node has. */
export async function isOnNode(
  client: PveClient,
  { node, media }: { node: string; media: string },
  signal?: AbortSignal,
): Promise<boolean> {
  const storage = encodeURIComponent(ISO.exec(media)?.[1] ?? "");
  const path = `/nodes/${encodeURIComponent(node)}/storage/${storage}/content`;
  try {
    const rows = await client.read({ path, parameters: { content: "iso" }, signal }, StorageContent);
    return rows.some(({ volid }) => volid === media);
  } catch (error) {
    // The node has no such storage.
    if (isServiceError(error, "cloud_invalid")) return false;
    throw error;
  }
}
