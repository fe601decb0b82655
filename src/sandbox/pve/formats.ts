/** The formats of PVE's parameters: what is wrong with a value, in PVE's words, or nothing. */
import { isIP } from "node:net";
import { type Format, integer, oneOf, type Rule, string } from "./schema.ts";
import { parseProperties, splitList } from "./wire.ts";

function matching(pattern: RegExp, problem: (value: string) => string): Format {
  return (value) => (pattern.test(value) ? undefined : problem(value));
}

const says = (what: string) => (): string => `value does not look like a valid ${what}\n`;

const LABEL = "[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?";
export const dnsName = matching(new RegExp(`^(${LABEL}\\.)*${LABEL}$`), says("DNS name"));
export const nodeName = matching(new RegExp(`^${LABEL}$`), says("node name"));
export const configId = matching(/^[a-z][a-z0-9_-]+$/i, (value) => `invalid configuration ID '${value}'\n`);
export const storageId = matching(
  /^[a-z][a-z0-9\-_.]*[a-z0-9]$/i,
  (value) => `storage ID '${value}' contains illegal characters\n`,
);
export const poolId = matching(/^[\w.-]+(\/[\w.-]+){0,2}$/, (value) => `invalid pool name '${value}'\n`);
/** The value's own percent-encoding, below that of the form. */
export const urlEncoded = matching(
  /^(?:[-a-zA-Z0-9_.!~*'()]|%[0-9a-fA-F]{2})*$/,
  (value) => `invalid urlencoded string: ${value}\n`,
);

const idPattern = /^[1-9][0-9]{2,8}$/;
export const vmidFormat = matching(idPattern, says("VM ID"));

export const vmid = (): Rule => integer({ format: vmidFormat, minimum: 100, maximum: 999_999_999 });
export const node = (): Rule => string({ format: nodeName });
export const storage = (): Rule => string({ format: storageId });
export const snapshotName = (): Rule => string({ format: configId, maxLength: 40 });
export const digest = (): Rule => string({ maxLength: 40 });
export const diskName = (): Rule =>
  oneOf(
    ...range(4, "ide"),
    ...range(31, "scsi"),
    ...range(16, "virtio"),
    ...range(6, "sata"),
    "efidisk0",
    "tpmstate0",
  );
export const diskOrUnused = (): Rule => oneOf(...(diskName().enum ?? []), ...range(256, "unused"));

function range(count: number, prefix: string): string[] {
  return Array.from({ length: count }, (_, index) => `${prefix}${index}`);
}

export const configIdList: Format = (value) =>
  splitList(value)
    .map((item) => configId(item))
    .find((problem) => problem !== undefined);

export const tagList: Format = (value) =>
  splitList(value).every((tag) => /^[a-z0-9_][a-z0-9_\-+.]*$/i.test(tag))
    ? undefined
    : "invalid characters in tag\n";

export const addressList: Format = (value) =>
  splitList(value).every((address) => isIP(address) !== 0) ? undefined : "value is not a valid IP address\n";

export const statusTypeList: Format = (value) =>
  splitList(value).every((type) => ["ok", "error", "warning", "unknown"].includes(type.toLowerCase()))
    ? undefined
    : "value does not look like a valid task status type\n";

export const memory: Format = (value) => {
  const current = parseProperties(value, "current").get("current") ?? "";
  if (!/^\d+$/.test(current)) {
    return `format error\nmemory.current: type check ('integer') failed - got '${current}'\n`;
  }
  return Number(current) < 16
    ? "format error\nmemory.current: value must have a minimum value of 16\n"
    : undefined;
};

const cidr = (address: string, family: 4 | 6): boolean => {
  const [ip = "", bits] = address.split("/");
  if (isIP(ip) !== family || bits === undefined || !/^\d+$/.test(bits)) return false;
  return Number(bits) <= (family === 4 ? 32 : 128);
};

/** `ip=A/B,gw=C,ip6=…,gw6=…`, `ip=dhcp`. */
export const ipConfig: Format = (value) => {
  const checks: Record<string, (part: string) => boolean> = {
    ip: (part) => part === "dhcp" || cidr(part, 4),
    ip6: (part) => part === "dhcp" || part === "auto" || cidr(part, 6),
    gw: (part) => isIP(part) === 4,
    gw6: (part) => isIP(part) === 6,
  };
  const properties = parseProperties(value, "");
  for (const [key, part] of properties) {
    const check = checks[key];
    if (!check)
      return `format error\nipconfig.${key}: property is not defined in schema and the schema does not allow additional properties\n`;
    if (!check(part))
      return `format error\nipconfig.${key}: invalid format - value does not look like a valid address\n`;
  }
  if (properties.has("gw") && !properties.has("ip"))
    return "format error\nipconfig.ip: missing property - 'gw' requires this property\n";
  if (properties.has("gw6") && !properties.has("ip6"))
    return "format error\nipconfig.ip6: missing property - 'gw6' requires this property\n";
  return undefined;
};

export const NIC_MODELS = ["virtio", "e1000", "e1000e", "rtl8139", "vmxnet3"] as const;
const MAC = /^(?:[0-9a-f]{2}:){5}[0-9a-f]{2}$/i;

/** `virtio=MAC,bridge=vmbr0,firewall=1,rate=…,tag=…`, or `model=virtio,macaddr=MAC`. */
export const netDevice: Format = (value) => {
  const properties = parseProperties(value, "model");
  const known = new Set([
    "model",
    "macaddr",
    "bridge",
    "firewall",
    "link_down",
    "mtu",
    "queues",
    "rate",
    "tag",
    "trunks",
    "host-tunnel",
  ]);
  for (const [key, part] of properties) {
    const model = NIC_MODELS.some((name) => name === key);
    if (!model && !known.has(key)) {
      return `format error\nnet.${key}: property is not defined in schema and the schema does not allow additional properties\n`;
    }
    if ((model || key === "macaddr") && !MAC.test(part)) {
      return `format error\nnet.${key}: value does not look like a valid unicast MAC address\n`;
    }
    if (key === "model" && !NIC_MODELS.some((name) => name === part)) {
      return `format error\nnet.model: value '${part}' does not have a value in the enumeration '${NIC_MODELS.join(", ")}'\n`;
    }
  }
  const named = NIC_MODELS.some((name) => properties.has(name)) || properties.has("model");
  return named ? undefined : "format error\nnet.model: property is missing and it is not optional\n";
};

const DRIVE_KEYS = new Set(
  "file,aio,backup,bps,bps_rd,bps_wr,cache,discard,format,iops,iops_rd,iops_wr,iothread,mbps,mbps_rd,mbps_wr,media,model,queues,replicate,rerror,ro,scsiblock,serial,shared,size,snapshot,ssd,werror,import-from".split(
    ",",
  ),
);

/** `local:100/vm-100-disk-0.qcow2,size=4G`, `local:8`, `none,media=cdrom`. */
export const drive: Format = (value) => {
  const properties = parseProperties(value, "file");
  for (const key of properties.keys()) {
    if (!DRIVE_KEYS.has(key)) {
      return `format error\ndrive.${key}: property is not defined in schema and the schema does not allow additional properties\n`;
    }
  }
  return properties.has("file")
    ? undefined
    : "format error\ndrive.file: property is missing and it is not optional\n";
};

/** `1`, `enabled=1,fstrim_cloned_disks=1`. */
export const agent: Format = (value) => {
  const properties = parseProperties(value, "enabled");
  const known = new Set([
    "enabled",
    "freeze-fs",
    "freeze-fs-on-backup",
    "fstrim_cloned_disks",
    "guest-fsfreeze",
    "type",
  ]);
  for (const [key, part] of properties) {
    if (!known.has(key))
      return `format error\nagent.${key}: property is not defined in schema and the schema does not allow additional properties\n`;
    if (key === "enabled" && !/^(0|1|on|off|yes|no|true|false)$/i.test(part)) {
      return `format error\nagent.enabled: type check ('boolean') failed - got '${part}'\n`;
    }
  }
  return properties.has("enabled")
    ? undefined
    : "format error\nagent.enabled: property is missing and it is not optional\n";
};

/** `order=scsi0;net0`, or the legacy `cdn`. */
export const bootOrder: Format = (value) => {
  const properties = parseProperties(value, "legacy");
  for (const [key, part] of properties) {
    if (key === "legacy" && /^[acdn]{1,4}$/.test(part)) continue;
    if (key !== "order") return `format error\nboot.${key}: value does not match the regex pattern\n`;
    const bad = splitList(part).find(
      (device) => !/^(?:(?:ide|sata|scsi|virtio|net|usb|hostpci)\d+)$/.test(device),
    );
    if (bad !== undefined) return `format error\nboot.order: invalid format - invalid boot device '${bad}'\n`;
  }
  return undefined;
};

/** `uuid=…,manufacturer=…,base64=1`. */
export const smbios: Format = (value) => {
  const uuid = parseProperties(value, "").get("uuid");
  return uuid === undefined || /^[a-f0-9]{8}(-[a-f0-9]{4}){3}-[a-f0-9]{12}$/i.test(uuid)
    ? undefined
    : "format error\nsmbios1.uuid: value does not match the regex pattern\n";
};

/** An address, a network, or the name of an alias. */
export const addressOrAlias: Format = (value) => {
  const [ip = ""] = value.split("/");
  const ok =
    isIP(value) !== 0 ||
    (isIP(ip) !== 0 && (cidr(value, 4) || cidr(value, 6))) ||
    /^(?:dc\/|guest\/)?[a-z][a-z0-9\-_]+$/i.test(value);
  return ok ? undefined : "value does not look like a valid IP address, CIDR network or alias\n";
};
