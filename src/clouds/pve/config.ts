// What a VM's configuration says: PVE writes drives and cards as "value,key=value,…".
import type { VmConfig } from "./schema.ts";

/** A property string; what stands first without a key is under "". */
export function properties(text: string): Record<string, string> {
  const parts: Record<string, string> = {};
  for (const part of text.split(",")) {
    const at = part.indexOf("=");
    if (at < 0) parts[""] ??= part;
    else parts[part.slice(0, at)] = part.slice(at + 1);
  }
  return parts;
}

const DISK = /^(?:scsi|virtio|sata|ide)\d+$/u;
const UNIT_BYTES: Readonly<Record<string, number>> = {
  "": 1,
  K: 2 ** 10,
  M: 2 ** 20,
  G: 2 ** 30,
  T: 2 ** 40,
};
const GIB = 2 ** 30;

/** "2252M" in bytes; 0 for what is no size. */
export function bytesOf(size: string | undefined): number {
  const found = /^(\d+(?:\.\d+)?)([KMGT]?)$/u.exec(size ?? "");
  return found === null ? 0 : Math.round(Number(found[1]) * (UNIT_BYTES[found[2] ?? ""] ?? 1));
}

export interface Disk {
  /** scsi0 */
  key: string;
  volume: string;
  bytes: number;
}

/** Its disks, without CD drives and the cloud-init drive. */
export function disksOf(config: VmConfig): Disk[] {
  return Object.entries(config)
    .filter(([key]) => DISK.test(key))
    .map(([key, text]) => ({ key, parts: properties(text) }))
    .filter(({ parts }) => parts["media"] !== "cdrom" && !isCloudInit(volumeOf(parts)))
    .map(({ key, parts }) => ({ key, volume: volumeOf(parts), bytes: bytesOf(parts["size"]) }));
}

function volumeOf(parts: Readonly<Record<string, string>>): string {
  return parts[""] ?? parts["file"] ?? "";
}

function isCloudInit(volume: string): boolean {
  return /(?:^|[:/-])cloudinit(?:\.|$)/u.test(volume);
}

/** The one it starts from: the first of the boot order that is a disk, else bootdisk, else the first disk. */
export function bootDiskOf(config: VmConfig): Disk | null {
  const disks = disksOf(config);
  const order = (properties(config["boot"] ?? "")["order"] ?? "").split(";");
  const named = [...order, config["bootdisk"] ?? ""];
  const found = named.map((key) => disks.find((disk) => disk.key === key)).find((disk) => disk !== undefined);
  return found ?? disks[0] ?? null;
}

export function diskGibOf(config: VmConfig): number {
  return Math.ceil((bootDiskOf(config)?.bytes ?? 0) / GIB);
}

export function hasCloudInit(config: VmConfig): boolean {
  return Object.entries(config).some(
    ([key, text]) => DISK.test(key) && isCloudInit(volumeOf(properties(text))),
  );
}

export function hasAgent(config: VmConfig): boolean {
  const parts = properties(config["agent"] ?? "");
  return (parts["enabled"] ?? parts[""]) === "1";
}

export function isProtected(config: VmConfig): boolean {
  return config["protection"] === "1";
}

/** PVE's `onboot`. */
export function startsWithNode(config: VmConfig): boolean {
  return config["onboot"] === "1";
}

/** Lower case; a clone always gets a new one. */
export function smbiosUuidOf(config: VmConfig): string | null {
  return properties(config["smbios1"] ?? "")["uuid"]?.toLowerCase() ?? null;
}

export function coresOf(config: VmConfig): { cores: number; sockets: number } {
  return { cores: Number(config["cores"] ?? 1), sockets: Number(config["sockets"] ?? 1) };
}

/** Memory may be "2048" or "current=2048". PVE's default is 512 MiB. */
export function memoryMibOf(config: VmConfig): number {
  const parts = properties(config["memory"] ?? "512");
  return Number(parts["current"] ?? parts[""] ?? 512);
}

/** Addresses that the configuration itself gives to cloud-init; none for DHCP. */
export function staticAddressesOf(config: VmConfig): string[] {
  return Object.entries(config)
    .filter(([key]) => /^ipconfig\d+$/u.test(key))
    .toSorted(([a], [b]) => a.localeCompare(b))
    .flatMap(([, text]) => {
      const parts = properties(text);
      return [parts["ip"], parts["ip6"]];
    })
    .filter((address) => address !== undefined)
    .filter((address) => !["dhcp", "auto", "manual"].includes(address))
    .map((address) => address.replace(/\/\d+$/u, ""));
}

/** MAC addresses of its cards, lower case. */
export function macAddressesOf(config: VmConfig): string[] {
  return Object.entries(config)
    .filter(([key]) => /^net\d+$/u.test(key))
    .flatMap(([, text]) => Object.values(properties(text)))
    .filter((value) => /^[0-9a-f]{2}(?::[0-9a-f]{2}){5}$/iu.test(value))
    .map((value) => value.toLowerCase());
}

/** The card on another bridge; model, MAC address and the rest stay. */
export function cardOn(card: string | undefined, bridge: string): string {
  if (card === undefined) return `virtio,bridge=${bridge}`;
  const parts = card.split(",").filter((part) => !part.startsWith("bridge="));
  return [...parts, `bridge=${bridge}`].join(",");
}

export function bridgeOf(card: string | undefined): string | undefined {
  return properties(card ?? "")["bridge"];
}

export function tagsOf(text: string | undefined): string[] {
  return (text ?? "").split(/[;,\s]+/u).filter((tag) => tag !== "");
}
