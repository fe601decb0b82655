/** A VM's configuration: how it reads, and how a change becomes live, pending or refused. */

import { randomBytes, scryptSync } from "node:crypto";
import { withoutUndefined } from "../defined.ts";
import { may, type Who } from "./access.ts";
import {
  type Cluster,
  checkLock,
  checkProtection,
  checkQuorum,
  digestOf,
  findVm,
  newMac,
  newUuid,
} from "./cluster.ts";
import { createDrive } from "./disks.ts";
import { NIC_MODELS } from "./formats.ts";
import { noteMacClashes } from "./macs.ts";
import { isCloudInit, isDrive, isOption, privilegesFor, shown, takesEffectLive } from "./options.ts";
import { addUnused, checkUnusedProtection, freeVolume, parseDrive } from "./storage.ts";
import type { Work } from "./tasks.ts";
import type { Vm } from "./types.ts";
import {
  flag,
  type Params,
  PveError,
  paramError,
  parseProperties,
  printProperties,
  splitList,
  text,
} from "./wire.ts";

/** GET config: with what is pending, or (`current`) as it runs now. */
export function configView(vm: Vm, current: boolean): Record<string, unknown> {
  const config = new Map(vm.config);
  if (!current) {
    for (const key of vm.pendingDelete.keys()) config.delete(key);
    for (const [key, value] of vm.pending) config.set(key, value);
  }
  return { ...configJson(config), digest: digestOf(vm) };
}

export function configJson(config: ReadonlyMap<string, string>): Record<string, unknown> {
  return Object.fromEntries(
    [...config].map(([key, value]) => [key, key === "cipassword" ? "**********" : shown(key, value)]),
  );
}

/** GET pending: one entry per option, with `pending` or `delete` where it waits. */
export function pendingView(vm: Vm): object[] {
  const keys = new Set([...vm.config.keys(), ...vm.pending.keys()]);
  const hide = (key: string, value: string): unknown =>
    key === "cipassword" ? "**********" : shown(key, value);
  return [...keys].map((key) => {
    const [value, pending] = [vm.config.get(key), vm.pending.get(key)];
    const doomed = vm.pendingDelete.get(key);
    return withoutUndefined({
      key,
      value: value === undefined ? undefined : hide(key, value),
      pending: pending === undefined ? undefined : hide(key, pending),
      delete: doomed === undefined ? undefined : doomed ? 2 : 1,
    });
  });
}

export interface Change {
  vmid: number;
  node: string;
  set: Map<string, string>;
  remove: string[];
  revert: string[];
  force: boolean;
  digest: string | undefined;
  skiplock: boolean;
}

const NOT_OPTIONS = new Set(
  "node vmid digest background_delay delete revert force skiplock import-working-storage".split(" "),
);

/** What a PUT or POST config asks for; throws what PVE refuses before it takes the VM's lock. */
export function readChange(who: Who, node: string, params: Params): Change {
  if (flag(params, "skiplock") === true && who.id !== "root@pam") {
    throw paramError({ skiplock: "Only root may use this option." });
  }
  const set = new Map<string, string>();
  for (const [key, value] of params) {
    if (!NOT_OPTIONS.has(key) && typeof value === "string") set.set(key === "cdrom" ? "ide2" : key, value);
  }
  checkSshKeys(set.get("sshkeys"));
  const remove = splitList(text(params, "delete")).map((key) => (key === "cdrom" ? "ide2" : key));
  const revert = splitList(text(params, "revert"));
  if (set.size === 0 && remove.length === 0 && revert.length === 0) {
    throw new PveError(500, "no options specified\n");
  }
  for (const key of remove) {
    if (set.has(key))
      throw paramError({ delete: `you can't use '-${key}' and -delete ${key}' at the same time` });
    if (!isOption(key) && key !== "vmstate") throw paramError({ delete: `unknown option '${key}'` });
  }
  for (const key of revert) {
    if (!isOption(key)) throw paramError({ revert: `unknown option '${key}'` });
  }
  checkOptionRights(who, Number(params.get("vmid")), { set, remove });
  for (const [key, value] of set) {
    if (/^net\d+$/.test(key)) set.set(key, normalNet(value));
    if (key === "vmgenid" && value === "1") set.set(key, newUuid());
  }
  return {
    vmid: Number(params.get("vmid")),
    node,
    set,
    remove,
    revert,
    force: flag(params, "force") === true,
    digest: text(params, "digest"),
    skiplock: flag(params, "skiplock") === true,
  };
}

/** The value is percent-encoded in itself: that much the parameter's format has checked. */
export function checkSshKeys(value: string | undefined): void {
  if (value === undefined) return;
  const lines = decodeURIComponent(value)
    .split("\n")
    .filter((line) => line.trim() !== "");
  const key =
    /^(?:\S.*\s)?(?:ssh-(?:dss|rsa|ed25519)|ecdsa-sha2-nistp\d+|sk-\S+)\s+[a-zA-Z0-9+/]+={0,2}(?:\s+.*)?$/;
  if (!lines.every((line) => line.startsWith("#") || key.test(line))) {
    throw new PveError(500, "SSH public key validation error\n");
  }
}

export function checkOptionRights(
  who: Who,
  vmid: number,
  { set, remove }: { set: ReadonlyMap<string, string>; remove: readonly string[] },
): void {
  if (who.id === "root@pam") return;
  const changes: [string, string | undefined][] = [
    ...remove.map((key): [string, undefined] => [key, undefined]),
    ...set,
  ];
  for (const [key, value] of changes) {
    const wanted = privilegesFor(key, value);
    if (!wanted) throw new PveError(500, `only root can set '${key}' config\n`);
    if (!may(who.account, `/vms/${vmid}`, wanted, true)) {
      throw new PveError(403, `Permission check failed (/vms/${vmid}, ${wanted.join("|")})\n`);
    }
  }
}

/** print_net: `virtio=BC:24:11:…,bridge=vmbr0,firewall=1`; a MAC is made up where none is given. */
export function normalNet(value: string): string {
  const properties = parseProperties(value, "model");
  const model = NIC_MODELS.find((name) => properties.has(name)) ?? properties.get("model") ?? "virtio";
  const mac = (properties.get(model) ?? properties.get("macaddr") ?? newMac()).toUpperCase();
  const rest = [...properties].filter(([key]) => key !== model && key !== "model" && key !== "macaddr");
  return printProperties(new Map([[model, mac], ...rest.toSorted(([a], [b]) => a.localeCompare(b))]));
}

/** Checks against the configuration as it is; throws at once in PUT and POST alike. */
export function checkChange(cluster: Cluster, change: Change): Vm {
  const vm = findVm(cluster, change.node, change.vmid);
  if (change.digest !== undefined && change.digest !== "" && change.digest !== digestOf(vm)) {
    throw new PveError(500, "checksum mismatch (file change by other user?)\n");
  }
  if (!change.skiplock) checkLock(vm);
  checkQuorum(cluster);
  const memory = Number(
    change.set.get("memory") ?? vm.pending.get("memory") ?? vm.config.get("memory") ?? 512,
  );
  const balloon = Number(change.set.get("balloon") ?? 0);
  if (balloon > memory)
    throw new PveError(500, "balloon value too large (must be smaller than assigned memory)\n");
  return vm;
}

/** Does the change: everything becomes pending first, and what can be applied now is. */
export function applyChange(cluster: Cluster, work: Pick<Work, "log" | "warn">, change: Change): void {
  const vm = checkChange(cluster, change);
  for (const key of change.revert) {
    vm.pending.delete(key);
    vm.pendingDelete.delete(key);
  }
  // As it is now, whatever waits: PVE reads it once, before all changes (PVE/API2/Qemu.pm, @bootorder).
  const order = bootOrderOf(vm.config.get("boot"));
  for (const key of change.remove) removeOption(cluster, vm, { key, force: change.force, work, order });
  // PVE takes them in any order; this one is the worst: a new CD drive is appended to the old order after the new one was set.
  const options = [...change.set].toSorted(([a], [b]) => Number(b === "boot") - Number(a === "boot"));
  for (const [key, value] of options) setOption(cluster, vm, { key, value, work, order, all: change.set });
  dropEmptyChanges(vm);
  if (vm.run) applyLive(cluster, vm);
  else applyPending(cluster, vm);
  if (startsWithNode(vm))
    noteMacClashes(cluster, vm, { how: "starts with its node", isRival: startsWithNode });
}

function startsWithNode(vm: Vm): boolean {
  return vm.config.get("onboot") === "1";
}

interface Removal {
  key: string;
  force: boolean;
  work: Pick<Work, "log" | "warn">;
  /** The boot order that drives join and leave. */
  order: string[];
}

function bootOrderOf(boot: string | undefined): string[] {
  return splitList(parseProperties(boot ?? "", "legacy").get("order"));
}

function removeOption(cluster: Cluster, vm: Vm, { key, force, work, order }: Removal): void {
  const value = vm.config.get(key) ?? vm.pending.get(key);
  if (value === undefined) {
    work.log(`cannot delete '${key}' - not set in current configuration!`);
    return;
  }
  vm.pending.delete(key);
  leaveBootOrder(vm, key, order);
  if (/^unused\d+$/.test(key)) {
    checkUnusedProtection(vm, value);
    freeVolume(cluster, vm.node, parseDrive(key, value).volid);
    vm.config.delete(key);
    return;
  }
  if (key === "tags" || key === "lock") {
    vm.config.delete(key);
    return;
  }
  if (isDrive(key)) checkProtection(vm, `can't remove drive '${key}'`);
  if (vm.config.has(key)) vm.pendingDelete.set(key, force);
}

function leaveBootOrder(vm: Vm, key: string, order: string[]): void {
  const at = order.indexOf(key);
  if (at < 0) return;
  order.splice(at, 1);
  vm.pending.set("boot", `order=${order.join(";")}`);
}

interface Setting {
  key: string;
  value: string;
  work: Pick<Work, "log" | "warn">;
  order: string[];
  /** What else the call sets. */
  all: ReadonlyMap<string, string>;
}

function setOption(cluster: Cluster, vm: Vm, { key, value, work, order, all }: Setting): void {
  vm.pendingDelete.delete(key);
  if (isDrive(key)) {
    vm.pending.set(key, createDrive(cluster, work, vm, { key, value }));
    joinBootOrder(vm, order, { key, value });
  } else if (key === "tags") vm.pending.set(key, uniqueTags(value));
  else if (key === "cipassword") {
    // Never pending: PVE writes it straight into the configuration.
    vm.plainPassword = isCrypt(value) ? undefined : value;
    vm.config.set(key, isCrypt(value) ? value : crypt(value));
  } else if (key === "boot") vm.pending.set(key, checkedBoot(vm, value, all));
  else if (key === "description") vm.pending.set(key, value.replace(/\s+$/, ""));
  else vm.pending.set(key, value);
}

/** A CD-ROM drive that is not in the order is marked bootable. */
function joinBootOrder(vm: Vm, order: string[], { key, value }: { key: string; value: string }): void {
  if (order.length === 0 || !value.includes("media=cdrom") || order.includes(key)) return;
  order.push(key);
  vm.pending.set("boot", `order=${order.join(";")}`);
}

function checkedBoot(vm: Vm, value: string, all: ReadonlyMap<string, string>): string {
  for (const device of bootOrderOf(value)) {
    const exists = vm.config.has(device) || vm.pending.has(device) || all.has(device);
    if (!exists || vm.pendingDelete.has(device)) {
      throw new PveError(500, `invalid bootorder: device '${device}' does not exist'\n`);
    }
  }
  return value;
}

export function uniqueTags(value: string): string {
  return [...new Set(splitList(value.toLowerCase()))].toSorted().join(";");
}

export function isCrypt(value: string): boolean {
  return /^\$(?:[156]|2[ay])(?:\$.+){2}/.test(value);
}

/** Looks like PVE's `$5$salt$hash`; nobody will ever verify it. */
export function crypt(value: string): string {
  const salt = randomBytes(6).toString("base64url");
  const hash = scryptSync(value, salt, 32, { N: 2 }).toString("base64url");
  return `$5$${salt}$${hash}`;
}

function dropEmptyChanges(vm: Vm): void {
  for (const [key, value] of vm.pending) {
    if (vm.config.get(key) === value) vm.pending.delete(key);
  }
}

function applyLive(cluster: Cluster, vm: Vm): void {
  for (const [key, force] of vm.pendingDelete) {
    if (takesEffectLive(key, { old: vm.config.get(key), wanted: undefined }) && !/^(?:ide|sata)/.test(key)) {
      commitDelete(cluster, vm, { key, force });
    }
  }
  for (const [key, wanted] of vm.pending) {
    if (!takesEffectLive(key, { old: vm.config.get(key), wanted })) continue;
    commitSet(cluster, vm, { key, value: wanted });
  }
}

/** At a real stop and start (or PVE's own reboot), never when the guest reboots itself. */
export function applyPending(cluster: Cluster, vm: Vm): void {
  for (const [key, force] of vm.pendingDelete) commitDelete(cluster, vm, { key, force });
  for (const [key, value] of vm.pending) commitSet(cluster, vm, { key, value });
}

function commitDelete(cluster: Cluster, vm: Vm, { key, force }: { key: string; force: boolean }): void {
  const value = vm.config.get(key);
  vm.config.delete(key);
  vm.pendingDelete.delete(key);
  if (value === undefined || !isDrive(key)) return;
  const drive = parseDrive(key, value);
  if (drive.cloudInit || (force && !drive.cdrom)) freeVolume(cluster, vm.node, drive.volid);
  else if (!drive.cdrom) addUnused(vm, drive.volid);
}

function commitSet(_cluster: Cluster, vm: Vm, { key, value }: { key: string; value: string }): void {
  const old = vm.config.get(key);
  vm.config.set(key, value);
  vm.pending.delete(key);
  if (old === undefined || !isDrive(key)) return;
  const before = parseDrive(key, old);
  if (!before.cdrom && before.volid !== parseDrive(key, value).volid) addUnused(vm, before.volid);
}

/** The values cloud-init is made of, with what the guest would see. */
export function cloudInitValues(vm: Vm): Map<string, string> {
  const own = [...vm.config].filter(([key]) => isCloudInit(key) || key === "name" || /^net\d+$/.test(key));
  return new Map(own);
}
