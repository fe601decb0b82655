/** Who somebody is: staff from the configuration, customers by the ids that the configuration names for them. */
import type { Queryable } from "../../database/client.ts";
import type { Principal, StaffRole } from "../access.ts";
import { ServiceError } from "../errors.ts";
import { nearest } from "../nearest.ts";

export interface StaffMember {
  id: string;
  name: string;
  role: StaffRole;
  slack: readonly string[];
  discord: readonly string[];
}

export interface CustomerIdentity {
  ref: string;
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
  customers: readonly CustomerIdentity[];
}

export function createPeople({ database, staff, customers }: PeopleOptions): People {
  const members = new Map(staff.map((member) => [member.id, principalOf(member)]));
  const refs = new Map<string, string>();
  const staffIds = new Map<string, string>();
  for (const platform of ["slack", "discord"] as const) {
    for (const customer of customers)
      for (const id of customer[platform]) refs.set(`${platform}:${id}`, customer.ref);
    for (const member of staff)
      for (const id of member[platform]) staffIds.set(`${platform}:${id}`, member.id);
  }
  const findStaff = (id: string): Principal | null => members.get(id) ?? null;

  return {
    findStaff,

    async identify(platform, userId) {
      const key = `${platform}:${userId}`;
      const staffId = staffIds.get(key);
      if (staffId !== undefined) return findStaff(staffId);
      const ref = refs.get(key);
      return ref === undefined ? null : findCustomer(database, ref);
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

async function findCustomer(database: Queryable, ref: string): Promise<Principal | null> {
  const [row] = await database.sql<{ id: string; name: string }>(
    "SELECT id, name FROM customers WHERE ref = $1 AND closed_at IS NULL",
    [ref],
  );
  return row === undefined ? null : { kind: "customer", id: ref, name: row.name, customerId: row.id };
}
