/** Who is asking, and what they may: PVE::AccessControl as far as clients meet it. */
import { createHmac, timingSafeEqual } from "node:crypto";
import type { Cluster } from "./cluster.ts";
import type { Account } from "./types.ts";
import { type Exchange, PlainRefusal, PveError } from "./wire.ts";

export interface Who {
  account: Account;
  /** `user@realm` or `user@realm!token`: what a UPID ends with. */
  id: string;
  token: boolean;
}

/** PVE::AccessControl::$ticket_lifetime. */
const TICKET_SECONDS = 7200;

export const AUDIT = ["Datastore.Audit", "Pool.Audit", "SDN.Audit", "Sys.Audit", "VM.Audit"] as const;

/** Role names of old and new releases side by side; which one a call asks for depends on the version. */
export const OPERATOR = [
  ...AUDIT,
  "Datastore.AllocateSpace",
  "Datastore.AllocateTemplate",
  "SDN.Use",
  "VM.Allocate",
  "VM.Backup",
  "VM.Clone",
  "VM.Config.CDROM",
  "VM.Config.CPU",
  "VM.Config.Cloudinit",
  "VM.Config.Disk",
  "VM.Config.HWType",
  "VM.Config.Memory",
  "VM.Config.Network",
  "VM.Config.Options",
  "VM.Console",
  "VM.GuestAgent.Audit",
  "VM.GuestAgent.Unrestricted",
  "VM.Migrate",
  "VM.Monitor",
  "VM.PowerMgmt",
  "VM.Snapshot",
  "VM.Snapshot.Rollback",
] as const;

export function unauthorized(reason: string): PlainRefusal {
  return new PlainRefusal({ status: 401, reason });
}

/** By token or ticket; throws the 401 whose text is in the reason phrase alone. */
export function authenticate(cluster: Cluster, exchange: Exchange): Who {
  const authorization = exchange.headers.authorization;
  const [, token] = /^PVEAPIToken[=: ](.+)$/.exec(authorization ?? "") ?? [];
  if (token !== undefined) return byToken(cluster, token);
  const ticket = ticketOf(exchange);
  if (ticket === undefined) throw unauthorized("No ticket");
  const account = byTicket(cluster, ticket);
  if (!account) throw unauthorized("Authentication failed!");
  if (exchange.method !== "GET") checkCsrf(cluster, account.id, exchange.headers["csrfpreventiontoken"]);
  return { account, id: account.id, token: false };
}

function byToken(cluster: Cluster, token: string): Who {
  const at = token.indexOf("=");
  const account = cluster.accounts.get(token.slice(0, at));
  const secret = token.slice(at + 1);
  if (at < 0 || !account?.id.includes("!") || !account.enabled || account.secret !== secret) {
    throw unauthorized("Authentication failed!");
  }
  return { account, id: account.id, token: true };
}

function ticketOf(exchange: Exchange): string | undefined {
  const fromHeader = /^PVEAuthCookie[=: ](.+)$/.exec(exchange.headers.authorization ?? "")?.[1];
  const fromCookie = /(?:^|;\s*)PVEAuthCookie=([^;]*)/.exec(exchange.headers.cookie ?? "")?.[1];
  const raw = fromHeader ?? fromCookie;
  if (raw === undefined || raw === "") return undefined;
  try {
    return decodeURIComponent(raw);
  } catch {
    return raw;
  }
}

function byTicket(cluster: Cluster, ticket: string): Account | undefined {
  const [, id = "", time = "", signature = ""] = /^PVE:([^:]+):([0-9A-F]{8})::(.+)$/.exec(ticket) ?? [];
  const account = cluster.accounts.get(id);
  const age = Date.now() / 1000 - Number.parseInt(time, 16);
  if (!account?.enabled || !(age > -300 && age < TICKET_SECONDS)) return undefined;
  return equal(signature, sign(cluster, `PVE:${id}:${time}`)) ? account : undefined;
}

function checkCsrf(cluster: Cluster, id: string, given: string | string[] | undefined): void {
  const [, time = "", signature = ""] = /^([0-9A-F]{8}):(.+)$/.exec(String(given)) ?? [];
  if (!equal(signature, sign(cluster, `${time}:${id}`))) {
    throw unauthorized("Permission denied - invalid csrf token");
  }
}

/** POST /access/ticket: a password, or a ticket that is still good, for a new ticket. */
export function login(cluster: Cluster, username: string, password: string): object {
  const account = cluster.accounts.get(username);
  const renewed = account ? byTicket(cluster, password)?.id === account.id : false;
  const good =
    account?.enabled === true && !username.includes("!") && (renewed || account.secret === password);
  if (!good) throw new PveError(401, "authentication failure\n");
  const time = Math.floor(Date.now() / 1000)
    .toString(16)
    .toUpperCase()
    .padStart(8, "0");
  return {
    username,
    ticket: `PVE:${username}:${time}::${sign(cluster, `PVE:${username}:${time}`)}`,
    CSRFPreventionToken: `${time}:${sign(cluster, `${time}:${username}`)}`,
    cap: { vms: Object.fromEntries([...privilegesAt(account, "/vms")].map((name) => [name, 1])) },
  };
}

function sign(cluster: Cluster, text: string): string {
  return createHmac("sha256", cluster.ticketKey).update(text).digest("base64");
}

function equal(left: string, right: string): boolean {
  const [a, b] = [Buffer.from(left), Buffer.from(right)];
  return a.length === b.length && timingSafeEqual(a, b);
}

/** The entry of the longest path above decides, as an ACL on a deeper path replaces what is inherited. */
export function privilegesAt(account: Account, path: string): ReadonlySet<string> {
  if (account.id === "root@pam") return new Set(OPERATOR);
  const above = [...account.acl.keys()]
    .filter((entry) => entry === "/" || path === entry || path.startsWith(`${entry}/`))
    .toSorted((left, right) => right.length - left.length)[0];
  return (above === undefined ? undefined : account.acl.get(above)) ?? new Set();
}

export function may(account: Account, path: string, privileges: readonly string[], any = false): boolean {
  if (account.id === "root@pam") return true;
  const held = privilegesAt(account, path);
  if (held.has("*")) return true;
  return any ? privileges.some((name) => held.has(name)) : privileges.every((name) => held.has(name));
}

export function check(account: Account, path: string, privileges: readonly string[], any = false): void {
  if (!may(account, path, privileges, any)) {
    throw new PveError(403, `Permission check failed (${path}, ${[...new Set(privileges)].join("|")})\n`);
  }
}

/** GET /access/permissions. */
export function permissionsOf(account: Account): Record<string, Record<string, 1>> {
  const everywhere: [string, Set<string>][] = [["/", new Set<string>(OPERATOR)]];
  const entries = account.id === "root@pam" ? everywhere : [...account.acl];
  const shown = entries
    .filter(([, privileges]) => privileges.size > 0)
    .map(([path, privileges]) => {
      const names = privileges.has("*") ? OPERATOR : [...privileges];
      return [path, Object.fromEntries(names.map((name) => [name, 1]))];
    });
  return Object.fromEntries(shown);
}
