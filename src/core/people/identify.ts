/** Who somebody is: staff from the configuration, customers by the chat identities that are linked to them. */
import type { Queryable } from "../../database/client.ts";
import type { Principal, StaffRole, Stranger } from "../access.ts";
import { ServiceError } from "../errors.ts";
import { nearest } from "../nearest.ts";

export interface StaffMember {
  id: string;
  name: string;
  role: StaffRole;
  slack: readonly string[];
  discord: readonly string[];
}

export interface People {
  /** Null for a stranger, and for a customer whose account is closed. */
  identify(platform: "slack" | "discord", userId: string): Promise<Principal | null>;
  findStaff(id: string): Principal | null;
  /** `staff:sam`, `customer:ada`. Throws `invalid_input` for another shape, `not_found` with the nearest name. */
  parsePrincipal(text: string): Promise<Principal>;
}

export interface PeopleOptions {
  database: Queryable;
  staff: readonly StaffMember[];
}

export function createPeople({ database, staff }: PeopleOptions): People {
  const members = new Map(staff.map((member) => [member.id, principalOf(member)]));
  const staffIds = new Map<string, string>();
  for (const platform of ["slack", "discord"] as const) {
    for (const member of staff)
      for (const id of member[platform]) staffIds.set(`${platform}:${id}`, member.id);
  }
  const findStaff = (id: string): Principal | null => members.get(id) ?? null;

  return {
    findStaff,

    async identify(platform, userId) {
      const staffId = staffIds.get(`${platform}:${userId}`);
      if (staffId !== undefined) return findStaff(staffId);
      return findLinked(database, { platform, userId });
    },

    async parsePrincipal(text) {
      const [, kind, id = ""] = /^(staff|customer):(.+)$/.exec(text.trim()) ?? [];
      if (kind === "staff") {
        const found = findStaff(id);
        if (found !== null) return found;
        const guess = nearest(id, members.keys());
        throw new ServiceError(
          "not_found",
          `Nobody of the staff has the id "${id}". ${guess === undefined ? "Add them under staff in ratatosk.yaml." : `Did you mean staff:${guess}?`}`,
        );
      }
      if (kind === "customer") {
        const found = await findCustomer(database, id);
        if (found !== null) return found;
        throw new ServiceError(
          "not_found",
          `No open customer has the reference "${id}". See customers in ratatosk.yaml.`,
        );
      }
      throw new ServiceError("invalid_input", `Say who as "staff:<id>" or "customer:<ref>", not "${text}".`);
    },
  };
}

function principalOf({ id, name, role }: StaffMember): Principal {
  return { kind: "staff", id, name, role };
}

/** Asked each time, so that linking and unlinking count at once, in every process. */
async function findLinked(database: Queryable, { platform, userId }: Stranger): Promise<Principal | null> {
  const [row] = await database.sql<{ id: string; ref: string; name: string }>(
    `SELECT c.id, c.ref, c.name FROM identities i JOIN customers c ON c.id = i.customer_id
      WHERE i.platform = $1 AND i.user_id = $2 AND i.revoked_at IS NULL AND c.closed_at IS NULL`,
    [platform, userId],
  );
  if (row === undefined) return null;
  return {
    kind: "customer",
    id: row.ref,
    name: row.name,
    customerId: row.id,
    via: identityOf({ platform, userId }),
  };
}

/** "slack:U0123": as people see and type it. */
export function identityOf({ platform, userId }: Stranger): string {
  return `${platform}:${userId}`;
}

async function findCustomer(database: Queryable, ref: string): Promise<Principal | null> {
  const [row] = await database.sql<{ id: string; name: string }>(
    "SELECT id, name FROM customers WHERE ref = $1 AND closed_at IS NULL",
    [ref],
  );
  return row === undefined ? null : { kind: "customer", id: ref, name: row.name, customerId: row.id };
}
