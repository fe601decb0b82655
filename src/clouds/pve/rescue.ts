// What of a VM's configuration says that it boots from rescue media. All of it stands in PVE itself: a tag for the eye, the
// boot order for QEMU, and a line in the description for the way back.
import { tagsOf } from "./config.ts";
import { bootOrder, type DriveNote, lineIn, mediaIn } from "./media.ts";
import type { VmConfig } from "./schema.ts";

const RESCUE_TAG = "ratatosk-rescue";

/**
 * Null, too, for a line that is no longer true: going back to a snapshot keeps the description, but brings tags, drives and
 * boot order of that time.
 */
export function rescueNoteIn(config: VmConfig): DriveNote | null {
  const note = lineIn(config, "rescue");
  if (note === null) return null;
  const isFirst = bootOrder(config["boot"])[0] === note.slot;
  const signs = [isTagged(config), isFirst, mediaIn(config, note.slot) !== null];
  return signs.filter(Boolean).length > 1 ? note : null;
}

export function isTagged(config: VmConfig): boolean {
  return tagsOf(config["tags"]).includes(RESCUE_TAG);
}

export function tagsWith(config: VmConfig): string {
  return [...new Set([...tagsOf(config["tags"]), RESCUE_TAG])].join(";");
}

export function tagsWithout(config: VmConfig): string {
  return tagsOf(config["tags"])
    .filter((tag) => tag !== RESCUE_TAG)
    .join(";");
}

/** The drive that it boots from when that is a CD with an image in it. */
export function bootMedia(config: VmConfig): string | null {
  const [slot = ""] = bootOrder(config["boot"]);
  return mediaIn(config, slot) === null ? null : slot;
}

/** Of a VM that runs, by its configuration without what is pending: what it was started from. */
export function isInRescue(config: VmConfig): boolean {
  const slot = bootMedia(config);
  return slot !== null && (isTagged(config) || lineIn(config, "rescue")?.slot === slot);
}
