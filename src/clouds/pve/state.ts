// PVE's words into ours. The lock says what PVE is doing to a VM, the QEMU status what the guest does.
import type { ServerState } from "../../core/cloud.ts";
import type { VmConfig, VmStatus } from "./schema.ts";

/** A VM whose memory was saved to disk keeps this lock until it runs again. */
export const SAVED = "suspended";

const LOCK_STATES: Readonly<Record<string, ServerState>> = {
  clone: "building",
  create: "building",
  destroyed: "deleting",
  [SAVED]: "suspended",
};

const BROKEN = new Set(["internal-error", "io-error", "guest-panicked"]);

export function stateOf(status: VmStatus): ServerState {
  const locked = LOCK_STATES[status.lock ?? ""];
  if (locked !== undefined) return locked;
  if (status.status === "stopped") return "stopped";
  if (status.status !== "running") return "unknown";
  if (status.qmpstatus === "paused" || status.qmpstatus === "suspended") return "paused";
  return BROKEN.has(status.qmpstatus ?? "") ? "error" : "active";
}

/** A lock under which something may be at work. */
export function workLockOf(source: Pick<VmStatus, "lock"> | VmConfig): string | null {
  const lock = source["lock"];
  return typeof lock === "string" && lock !== "" && lock !== SAVED ? lock : null;
}

export function providerStatusOf(status: VmStatus): string {
  const guest =
    status.qmpstatus === undefined || status.qmpstatus === status.status ? "" : `/${status.qmpstatus}`;
  const lock = status.lock === undefined || status.lock === "" ? "" : ` (lock: ${status.lock})`;
  return `${status.status}${guest}${lock}`;
}

const LOCK_NOTES: Readonly<Record<string, string>> = {
  clone: "copying the disk",
  create: "making the server",
  backup: "a backup is being made",
  migrate: "moving to another node",
  snapshot: "a snapshot is being made",
  "snapshot-delete": "a snapshot is being deleted",
  rollback: "going back to a snapshot",
  suspending: "saving its memory",
  destroyed: "being deleted",
};

export function lockNoteOf(lock: string): string {
  return LOCK_NOTES[lock] ?? `locked (${lock})`;
}

const UNFINISHED = "It is unfinished: then delete it with qm destroy VMID --purge.";

/** What to do with a VM whose work was broken off, besides unlocking it. */
const LOCK_ADVICE: Readonly<Record<string, string>> = {
  clone: UNFINISHED,
  create: UNFINISHED,
  destroyed: "Its deletion was broken off: then end it with qm destroy VMID --purge.",
  backup: "Its last backup is not complete.",
  migrate: "See first on which node its disks are; the other copy must go.",
  snapshot: "Then remove the unfinished snapshot: qm delsnapshot VMID NAME --force.",
  "snapshot-delete": "Then delete the snapshot to the end: qm delsnapshot VMID NAME --force.",
  rollback: "Its disks may be half back: then roll back again, or restore a backup.",
  suspending: "Its memory was not saved: it may have to be started anew.",
};

export function lockAdviceOf(lock: string, vmid: number): string {
  return (LOCK_ADVICE[lock] ?? "").replaceAll("VMID", String(vmid));
}
