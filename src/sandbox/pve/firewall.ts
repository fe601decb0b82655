/** A VM's firewall, as far as addresses are filtered with it: options and IP sets. */

import { createHash } from "node:crypto";
import { withoutUndefined } from "../defined.ts";
import { findVm } from "./cluster.ts";
import * as format from "./formats.ts";
import { type Call, type Method, method } from "./router.ts";
import { boolean, needed, oneOf, string } from "./schema.ts";
import type { Firewall } from "./types.ts";
import { flag, needText, type Params, PveError, paramError, splitList, text } from "./wire.ts";

const ids = { node: needed(format.node()), vmid: needed(format.vmid()) };
const audit = { path: "/vms/{vmid}", privileges: ["VM.Audit"] };
const network = { path: "/vms/{vmid}", privileges: ["VM.Config.Network"] };
const setName = string({ pattern: /[A-Za-z][A-Za-z0-9\-_]+/, minLength: 2, maxLength: 64 });
const name = needed(setName);
const cidr = needed(string({ format: format.addressOrAlias }));
const digest = string({ maxLength: 64 });
const level = oneOf("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug", "nolog");
const policy = oneOf("ACCEPT", "REJECT", "DROP");
const BASE = "/nodes/{node}/qemu/{vmid}/firewall";
/** The firewall's configuration is in the cluster's file system: any node answers. */
const anywhere = { proxied: false };

const optionRules = {
  dhcp: boolean(),
  enable: boolean(),
  ipfilter: boolean(),
  log_level_in: level,
  log_level_out: level,
  macfilter: boolean(),
  ndp: boolean(),
  policy_in: policy,
  policy_out: policy,
  radv: boolean(),
};

export const firewallMethods: Method[] = [
  method("GET", `${BASE}/options`, {
    permission: audit,
    schema: ids,
    handler: (call) => {
      const { options } = firewallOf(call);
      const shown = [...options].map(([key, value]) => [key, /^[01]$/.test(value) ? Number(value) : value]);
      return { ...Object.fromEntries(shown), digest: digestOf(options) };
    },
  }),
  method("PUT", `${BASE}/options`, {
    permission: network,
    schema: { ...ids, ...optionRules, delete: string({ format: format.configIdList }), digest },
    handler: (call) => {
      const { options } = firewallOf(call);
      checkDigest(call.params, options);
      for (const key of splitList(text(call.params, "delete"))) options.delete(key);
      for (const key of Object.keys(optionRules)) {
        const value = text(call.params, key);
        if (value !== undefined) options.set(key, value);
      }
    },
  }),
  method("GET", `${BASE}/ipset`, {
    ...anywhere,
    permission: audit,
    schema: ids,
    handler: (call) => {
      const { ipsets } = firewallOf(call);
      return [...ipsets].map(([key, { comment }]) =>
        withoutUndefined({
          name: key,
          digest: digestOf(ipsets),
          comment: comment === "" ? undefined : comment,
        }),
      );
    },
  }),
  method("POST", `${BASE}/ipset`, {
    ...anywhere,
    permission: network,
    schema: { ...ids, name, comment: string(), digest, rename: setName },
    handler: makeSet,
  }),
  method("GET", `${BASE}/ipset/{name}`, {
    ...anywhere,
    permission: audit,
    schema: { ...ids, name },
    handler: (call) => {
      const { entries } = findSet(call);
      return [...entries].map(([key, { comment, nomatch }]) =>
        withoutUndefined({
          cidr: key,
          digest: digestOf(entries),
          comment: comment === "" ? undefined : comment,
          nomatch: nomatch ? 1 : undefined,
        }),
      );
    },
  }),
  method("POST", `${BASE}/ipset/{name}`, {
    ...anywhere,
    permission: network,
    schema: { ...ids, name, cidr, comment: string(), nomatch: boolean() },
    handler: (call) => {
      const { entries } = findSet(call);
      const key = needText(call.params, "cidr");
      if (entries.has(key)) throw paramError({ cidr: `address '${key}' already exists` });
      if (/^[a-z]/i.test(key) && !key.includes(":")) throw new PveError(500, `no such alias '${key}'\n`);
      entries.set(key, {
        comment: text(call.params, "comment") ?? "",
        nomatch: flag(call.params, "nomatch") === true,
      });
    },
  }),
  method("DELETE", `${BASE}/ipset/{name}`, {
    ...anywhere,
    permission: network,
    schema: { ...ids, name, force: boolean() },
    handler: (call) => {
      const key = needText(call.params, "name");
      const found = firewallOf(call).ipsets.get(key);
      if (found && found.entries.size > 0 && flag(call.params, "force") !== true) {
        throw new PveError(500, `IPSet '${key}' is not empty\n`);
      }
      firewallOf(call).ipsets.delete(key);
    },
  }),
  method("DELETE", `${BASE}/ipset/{name}/{cidr}`, {
    ...anywhere,
    permission: network,
    schema: { ...ids, name, cidr, digest },
    handler: (call) => {
      findSet(call).entries.delete(needText(call.params, "cidr"));
    },
  }),
];

function firewallOf({ cluster, node, vmid }: Call): Firewall {
  return findVm(cluster, node, vmid).firewall;
}

function findSet(call: Call): {
  comment: string;
  entries: Map<string, { comment: string; nomatch: boolean }>;
} {
  const key = needText(call.params, "name");
  const found = firewallOf(call).ipsets.get(key);
  if (!found) throw new PveError(500, `no such IPSet '${key}'\n`);
  return found;
}

function makeSet(call: Call): void {
  const { ipsets } = firewallOf(call);
  const key = needText(call.params, "name");
  const from = text(call.params, "rename");
  if (from === undefined) {
    if (ipsets.has(key)) throw paramError({ name: `IPSet '${key}' already exists` });
    ipsets.set(key, { comment: text(call.params, "comment") ?? "", entries: new Map() });
    return;
  }
  const found = ipsets.get(from);
  if (!found) throw paramError({ name: `IPSet '${from}' does not exist` });
  if (from !== key && ipsets.has(key)) throw paramError({ name: `IPSet '${key}' already exists` });
  ipsets.delete(from);
  ipsets.set(key, { ...found, comment: text(call.params, "comment") ?? found.comment });
}

function checkDigest(params: Params, section: ReadonlyMap<string, unknown>): void {
  const given = text(params, "digest");
  if (given !== undefined && given !== digestOf(section)) {
    throw new PveError(500, "detected modified configuration - file changed by other user? Try again.\n");
  }
}

function digestOf(section: ReadonlyMap<string, unknown>): string {
  return createHash("sha1")
    .update(JSON.stringify([...section]))
    .digest("hex");
}
