// What of a VM's configuration says that it boots from rescue media, and how it is written. All of it stands in PVE itself:
// a tag for the eye, the boot order for QEMU, and a line in the description for the way back.
import { disksOf, properties, tagsOf } from "./config.ts";
import type { VmConfig } from "./schema.ts";

const RESCUE_TAG = "ratatosk-rescue";

export interface RescueNote {
  /** The drive that holds the media: ide0. */
  slot: string;
  /** What the slot held before: an empty CD drive, or nothing (""). */
  held: string;
  /** The option `boot` as it was; "" when it was not set. */
  boot: string;
}

const LINE = /^rescue:((?:ide|sata)\d+) held=(\S*) boot=(.*)$/u;
const EMPTY_DRIVE = "none,media=cdrom";
/** Never a slot that holds something: the cloud-init drive is usually ide2. */
const SLOTS = ["ide0", "ide1", "ide2", "ide3", "sata0", "sata1", "sata2", "sata3", "sata4", "sata5"];

export function lineIn(config: VmConfig): RescueNote | null {
  for (const line of (config["description"] ?? "").split("\n")) {
    const found = LINE.exec(line.trimEnd());
    if (found !== null) return { slot: found[1] ?? "", held: found[2] ?? "", boot: found[3] ?? "" };
  }
  return null;
}

/**
 * Null, too, for a line that is no longer true: going back to a snapshot keeps the description, but brings tags, drives and
 * boot order of that time.
 */
export function noteIn(config: VmConfig): RescueNote | null {
  const note = lineIn(config);
  if (note === null) return null;
  const isFirst = bootOrder(config["boot"])[0] === note.slot;
  const signs = [isTagged(config), isFirst, mediaIn(config, note.slot) !== null];
  return signs.filter(Boolean).length > 1 ? note : null;
}

export function hasLine(config: VmConfig): boolean {
  return withoutNote(config) !== (config["description"] ?? "").trimEnd();
}

export function withNote(config: VmConfig, { slot, held, boot }: RescueNote): string {
  return [withoutNote(config), `rescue:${slot} held=${held} boot=${boot}`].join("\n");
}

export function withoutNote(config: VmConfig): string {
  const lines = (config["description"] ?? "").trimEnd().split("\n");
  return lines.filter((line) => !LINE.test(line.trimEnd())).join("\n");
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

/** What is to be remembered before anything is changed. Null when every slot holds something. */
export function newNote(config: VmConfig): RescueNote | null {
  const isEmpty = (key: string) => config[key]?.startsWith(EMPTY_DRIVE) === true;
  // An empty drive first: of a protected VM PVE lets no drive be removed, and each rescue would leave another one.
  const slot = SLOTS.find(isEmpty) ?? SLOTS.find((key) => config[key] === undefined);
  if (slot === undefined) return null;
  return { slot, held: isEmpty(slot) ? EMPTY_DRIVE : "", boot: config["boot"] ?? "" };
}

export function bootOrder(boot: string | undefined): string[] {
  return (properties(boot ?? "")["order"] ?? "").split(";").filter((key) => key !== "");
}

/** The media first, then what came before. */
export function rescueOrder(config: VmConfig, { slot, boot }: RescueNote): string {
  const before = bootOrder(boot).filter((key) => key !== slot);
  const rest = before.length > 0 ? before : disksOf(config).map(({ key }) => key);
  return `order=${[slot, ...rest].join(";")}`;
}

/** The image in a CD drive. */
function mediaIn(config: VmConfig, slot: string): string | null {
  const parts = properties(config[slot] ?? "");
  const volume = parts[""] ?? parts["file"] ?? "";
  return parts["media"] === "cdrom" && /:iso\//u.test(volume) ? volume : null;
}

/** The drive that it boots from when that is a CD with an image in it. */
export function bootMedia(config: VmConfig): string | null {
  const [slot = ""] = bootOrder(config["boot"]);
  return mediaIn(config, slot) === null ? null : slot;
}

/** Of a VM that runs, by its configuration without what is pending: what it was started from. */
export function isInRescue(config: VmConfig): boolean {
  const slot = bootMedia(config);
  return slot !== null && (isTagged(config) || lineIn(config)?.slot === slot);
}

/** What to do about a slot to take the media out again: a protected VM keeps an empty drive. */
export function slotAfter(config: VmConfig, { slot, held }: RescueNote): string | undefined {
  if (config[slot] === undefined) return undefined;
  return held === "" && config["protection"] !== "1" ? undefined : EMPTY_DRIVE;
}
