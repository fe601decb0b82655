/** Who may do what. Deny by default; every query takes a principal and filters in SQL. */
import { ServiceError } from "./errors.ts";

export const staffRoles = ["viewer", "support", "operator", "admin", "owner"] as const;
export type StaffRole = (typeof staffRoles)[number];

/** The authenticated "who" behind a request. */
export type Principal =
  | { kind: "staff"; id: string; name: string; role: StaffRole }
  | {
      kind: "customer";
      id: string;
      name: string;
      customerId: string;
      /** The chat identity that they are known by here: "slack:U0123". */
      via?: string;
    }
  | { kind: "system"; id: string; name: string };

/** Somebody on a chat platform whom we do not know. No principal, so that whatever takes one is out of their reach. */
export interface Stranger {
  platform: "slack" | "discord";
  userId: string;
}

export type Audience = "staff" | "customer";

/** Each permission's least staff role. Customers have theirs by an action's audience, on their own servers only. */
export const permissions = {
  "server.read": "viewer",
  "customer.read": "viewer",
  // Whoever is linked may do what the customer may, so this takes the role that may change servers.
  "customer.link": "operator",
  "operation.read": "viewer",
  "sync.read": "viewer",
  "server.change": "operator",
  "server.delete": "admin",
  "operation.change": "operator",
  "operation.resolve": "operator",
  "sync.run": "operator",
  "cloud.read": "viewer",
  "cloud.maintain": "operator",
} as const satisfies Record<string, StaffRole>;
export type Permission = keyof typeof permissions;

export function mayUse(
  principal: Principal,
  action: { audience: readonly Audience[]; permission: Permission },
): boolean {
  if (principal.kind === "system") return true;
  if (!action.audience.includes(principal.kind)) return false;
  if (principal.kind === "customer") return true;
  return staffRoles.indexOf(principal.role) >= staffRoles.indexOf(permissions[action.permission]);
}

export function requirePermission(
  principal: Principal,
  action: { name: string; audience: readonly Audience[]; permission: Permission },
): void {
  if (mayUse(principal, action)) return;
  const need = principal.kind === "staff" ? ` It needs the role ${permissions[action.permission]}.` : "";
  throw new ServiceError("forbidden", `You may not use ${commandOf(action.name)}.${need}`, {
    facts: { action: action.name },
  });
}

/**
 * The tenant filter: the customer whose rows this principal may see, or null for everyone's. Pass it as a parameter to
 * `ownRows`; there is no other way to a customer's row.
 */
export function tenantOf(principal: Principal): string | null {
  return principal.kind === "customer" ? principal.customerId : null;
}

/** SQL: rows of one tenant, or all when the parameter is null. `column` is code, never input. */
export function ownRows(column: string, parameter: number): string {
  return `($${parameter}::uuid IS NULL OR ${column} = $${parameter}::uuid)`;
}

/**
 * SQL: the same for operations, called `o`. They are a tenant's while they are on a server that is: after a server has
 * changed hands, its past is neither its old owner's nor its new one's to read, and its buttons are nobody's.
 */
export function ownOperations(parameter: number): string {
  return `(${ownRows("o.customer_id", parameter)} AND (o.server_id IS NULL
    OR EXISTS (SELECT FROM servers own WHERE own.id = o.server_id AND ${ownRows("own.customer_id", parameter)})))`;
}

/** Customers learn that somebody of the team did it, not who. */
export function nameFor(viewer: Audience, person: Pick<Principal, "kind" | "name">): string {
  return viewer === "customer" && person.kind !== "customer" ? "our team" : person.name;
}

/** "server.resize" → "/server resize". */
export function commandOf(actionName: string): string {
  return `/${actionName.replaceAll(".", " ")}`;
}
