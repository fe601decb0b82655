// Which ISO of the offered ones is in a VM's CD drive, and how the drive and the boot order are brought back.
import { bootOrder, type DriveNote, lineIn, mediaIn, orderFrom } from "./media.ts";
import type { VmConfig } from "./schema.ts";

type Isos = Readonly<Record<string, string>>;

/** The one that we have put in and not quite taken out; null, too, for a line that a way back to a snapshot has made untrue. */
export function isoNoteIn(config: VmConfig): DriveNote | null {
  const note = lineIn(config, "iso");
  if (note === null) return null;
  const isIn = mediaIn(config, note.slot) !== null;
  const isOrdered =
    bootOrder(config["boot"]).includes(note.slot) && !bootOrder(note.boot).includes(note.slot);
  return isIn || isOrdered ? note : null;
}

/** For a drive that no line tells of: the order as it is, without it. */
export function noteOfNow(config: VmConfig, slot: string): DriveNote {
  const rest = bootOrder(config["boot"]).filter((key) => key !== slot);
  return { slot, held: "", boot: rest.length === 0 ? "" : `order=${rest.join(";")}` };
}

/** The drive with one of those that are offered in it. */
export function slotOfOffered(config: VmConfig, isos: Isos): string | null {
  const offered = new Set(Object.values(isos));
  return Object.keys(config).find((key) => offered.has(mediaIn(config, key) ?? "")) ?? null;
}

/** By the name that it is offered under. */
export function mountedIso(config: VmConfig, isos: Isos): string | null {
  const slot = slotOfOffered(config, isos);
  const media = slot === null ? null : mediaIn(config, slot);
  return Object.keys(isos).find((name) => isos[name] === media) ?? null;
}

/**
 * The option `boot` that is wanted; "" for none. Without `boot` it is what it was, apart from what others have changed
 * meanwhile: PVE puts a new CD drive at the end of the order by itself.
 */
export function bootFor(config: VmConfig, note: DriveNote, boot: boolean): string {
  const ours = orderFrom(config, note);
  if (boot) return ours;
  const now = config["boot"] ?? "";
  if (now === ours) return note.boot;
  const before = bootOrder(note.boot);
  const order = bootOrder(now);
  if (!order.includes(note.slot) || before.includes(note.slot)) return now;
  const rest = order.filter((key) => key !== note.slot);
  if (rest.join(";") === before.join(";")) return note.boot;
  return rest.length === 0 ? "" : `order=${rest.join(";")}`;
}
