/** The options of a VM's configuration: their rules, what a change of them needs, and when it takes effect. */
import * as format from "./formats.ts";
import { boolean, decimal, integer, oneOf, type Rule, ruleFor, type Schema, string } from "./schema.ts";

const drive: Rule = string({ format: format.drive });

export const vmOptions: Schema = {
  acpi: boolean(),
  affinity: string(),
  agent: string({ format: format.agent }),
  "allow-ksm": boolean({ since: "9.2" }),
  "amd-sev": string(),
  arch: oneOf("x86_64", "aarch64"),
  args: string(),
  audio0: string(),
  autostart: boolean(),
  balloon: integer({ minimum: 0 }),
  bios: oneOf("seabios", "ovmf"),
  boot: string({ format: format.bootOrder }),
  bootdisk: string({ pattern: /(ide|sata|scsi|virtio)\d+/ }),
  cdrom: string(),
  cicustom: string(),
  cipassword: string(),
  citype: oneOf("configdrive2", "nocloud", "opennebula"),
  ciupgrade: boolean(),
  ciuser: string(),
  cores: integer({ minimum: 1 }),
  cpu: string(),
  cpulimit: decimal({ minimum: 0, maximum: 128 }),
  cpuunits: integer({ minimum: 1, maximum: 262_144 }),
  description: string({ maxLength: 8192 }),
  efidisk0: drive,
  freeze: boolean(),
  hookscript: string(),
  "hostpci[n]": string(),
  hotplug: string(),
  hugepages: oneOf("any", "2", "1024"),
  "ide[n]": drive,
  "intel-tdx": string({ since: "9.2" }),
  "ipconfig[n]": string({ format: format.ipConfig }),
  ivshmem: string(),
  keephugepages: boolean(),
  keyboard: oneOf(
    ..."de,de-ch,da,en-gb,en-us,es,fi,fr,fr-be,fr-ca,fr-ch,hu,is,it,ja,lt,mk,nl,no,pl,pt,pt-br,sv,sl,tr".split(
      ",",
    ),
  ),
  kvm: boolean(),
  localtime: boolean(),
  lock: oneOf(
    "backup",
    "clone",
    "create",
    "migrate",
    "rollback",
    "snapshot",
    "snapshot-delete",
    "suspending",
    "suspended",
  ),
  machine: string(),
  memory: string({ format: format.memory }),
  migrate_downtime: decimal({ minimum: 0 }),
  migrate_speed: integer({ minimum: 0 }),
  name: string({ format: format.dnsName }),
  nameserver: string({ format: format.addressList }),
  "net[n]": string({ format: format.netDevice }),
  numa: boolean(),
  "numa[n]": string(),
  onboot: boolean(),
  ostype: oneOf(..."other,wxp,w2k,w2k3,w2k8,wvista,win7,win8,win10,win11,l24,l26,solaris".split(",")),
  "parallel[n]": string({ pattern: /\/dev\/parport\d+|\/dev\/usb\/lp\d+/ }),
  protection: boolean(),
  reboot: boolean(),
  rng0: string(),
  "sata[n]": drive,
  "scsi[n]": drive,
  scsihw: oneOf("lsi", "lsi53c810", "virtio-scsi-pci", "virtio-scsi-single", "megasas", "pvscsi"),
  searchdomain: string(),
  "serial[n]": string({ pattern: /(\/dev\/[^,]+|socket)/ }),
  shares: integer({ minimum: 0, maximum: 50_000 }),
  smbios1: string({ format: format.smbios, maxLength: 512 }),
  smp: integer({ minimum: 1 }),
  sockets: integer({ minimum: 1 }),
  spice_enhancements: string(),
  sshkeys: string({ format: format.urlEncoded }),
  startdate: string({ pattern: /(now|\d{4}-\d{1,2}-\d{1,2}(T\d{1,2}:\d{1,2}:\d{1,2})?)/ }),
  startup: string(),
  tablet: boolean(),
  tags: string({ format: format.tagList }),
  tdf: boolean(),
  template: boolean(),
  tpmstate0: drive,
  "unused[n]": drive,
  "usb[n]": string(),
  vcpus: integer({ minimum: 1 }),
  vga: string(),
  "virtio[n]": drive,
  "virtiofs[n]": string(),
  vmgenid: string({ pattern: /(?:[a-fA-F0-9]{8}(?:-[a-fA-F0-9]{4}){3}-[a-fA-F0-9]{12}|[01])/ }),
  vmstatestorage: string({ format: format.storageId }),
  watchdog: string(),
};

export function isOption(key: string): boolean {
  return ruleFor(vmOptions, key) !== undefined;
}

export function isDrive(key: string): boolean {
  return /^(?:(?:ide|sata|scsi|virtio)\d+|efidisk0|tpmstate0)$/.test(key);
}

/** PVE shows integers, numbers and booleans as JSON numbers, everything else as text. */
export function shown(key: string, value: string): string | number {
  if (key === "serial") return value;
  const rule = ruleFor(vmOptions, key);
  const numeric = rule && ["integer", "number", "boolean"].includes(rule.type);
  return numeric && value !== "" && !Number.isNaN(Number(value)) ? Number(value) : value;
}

const groups: Readonly<Record<string, string>> = {
  "VM.Config.CPU": "cores cpu cpulimit cpuunits numa smp sockets vcpus",
  "VM.Config.Memory": "memory balloon shares allow-ksm",
  "VM.Config.HWType": "acpi hotplug kvm machine scsihw smbios1 tablet vga watchdog audio0 rng0",
  "VM.Config.Options":
    "agent autostart bios description keyboard localtime migrate_downtime migrate_speed name onboot ostype protection reboot startdate startup tdf template tags",
  "VM.PowerMgmt": "freeze",
  "VM.Config.Disk": "boot bootdisk vmstatestorage",
  "VM.Config.Cloudinit|VM.Config.Network":
    "cicustom cipassword citype ciuser ciupgrade nameserver searchdomain sshkeys",
};

const privilegeByOption = new Map(
  Object.entries(groups).flatMap(([privilege, options]) =>
    options.split(" ").map((option): [string, string] => [option, privilege]),
  ),
);

/** The privileges of which one is needed to change the option; undefined: only root@pam may. */
export function privilegesFor(key: string, value: string | undefined): string[] | undefined {
  if (isDrive(key) || key === "cdrom") return [drivePrivilege(value)];
  if (/^unused\d+$/.test(key)) return ["VM.Config.Disk"];
  if (/^net\d+$/.test(key)) return ["VM.Config.Network"];
  if (/^ipconfig\d+$/.test(key)) return ["VM.Config.Cloudinit", "VM.Config.Network"];
  if (/^numa\d+$/.test(key)) return ["VM.Config.CPU"];
  if (/^serial\d+$/.test(key) && (value === undefined || value === "socket")) return ["VM.Config.HWType"];
  if (/^usb\d+$/.test(key) && value?.startsWith("spice") === true) return ["VM.Config.HWType"];
  return privilegeByOption.get(key)?.split("|");
}

function drivePrivilege(value: string | undefined): string {
  const cdrom = value?.includes("media=cdrom") === true || value === "cdrom" || value === "none";
  return cdrom ? "VM.Config.CDROM" : "VM.Config.Disk";
}

/** What cloud-init is made of. */
export function isCloudInit(key: string): boolean {
  return /^(?:ipconfig\d+|ciuser|cipassword|sshkeys|nameserver|searchdomain|citype|ciupgrade|cicustom)$/.test(
    key,
  );
}

const AT_ONCE = new Set(
  "description hookscript lock migrate_downtime migrate_speed name onboot protection shares startup tags vmstatestorage".split(
    " ",
  ),
);

/**
 * Whether a running VM takes the change at once, with the default hotplug of network, disk and usb.
 * Everything else stays pending until a real stop and start.
 */
export function takesEffectLive(
  key: string,
  values: { old: string | undefined; wanted: string | undefined },
): boolean {
  if (AT_ONCE.has(key) || key === "cpuunits" || key === "cpulimit") return true;
  // $fast_plug_option has all of $confdesc_cloudinit: the configuration changes at once, the drive when it is made anew.
  if (isCloudInit(key)) return true;
  if (/^(?:net|scsi|virtio|unused)\d+$/.test(key)) return true;
  // A medium is changed in a drive that is there; the drive itself is not hot-plugged.
  const cdrom = (value: string | undefined): boolean => value?.includes("media=cdrom") === true;
  return /^(?:ide|sata)\d+$/.test(key) && cdrom(values.old) && cdrom(values.wanted);
}
