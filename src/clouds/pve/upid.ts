// A task's id says where and when it runs: UPID:node:pid:pstart:starttime(hex):type:id:user!token:
// https://git.proxmox.com/?p=pve-common.git;a=blob;f=src/PVE/UPID.pm
export interface Upid {
  upid: string;
  node: string;
  /** Seconds, by the node's clock. */
  startedAt: number;
  type: string;
  /** What it is about: a VMID, and for a clone the source's. */
  id: string;
}

const UPID = /^UPID:([^\s:/]+):[0-9A-F]{8}:[0-9A-F]{8,9}:([0-9A-F]{8}):([^:\s]+):([^:\s]*):([^:\s]+):$/iu;

/** Null for anything else. */
export function parseUpid(text: unknown): Upid | null {
  const found = typeof text === "string" ? UPID.exec(text) : null;
  if (found === null) return null;
  const [upid, node = "", startedAt = "", type = "", id = ""] = found;
  return { upid, node, startedAt: Number.parseInt(startedAt, 16), type, id };
}
