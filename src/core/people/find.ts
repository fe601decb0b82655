import type { Queryable } from "../../database/client.ts";
import type { Principal } from "../access.ts";
import { ServiceError } from "../errors.ts";
import { nearest } from "../nearest.ts";
import { shortened } from "../option-values.ts";

export interface Customer {
  id: string;
  ref: string;
  name: string;
}

/** Customers get themselves, whatever was typed. Throws `not_found` with the nearest one, `conflict` when a name is ambiguous. */
export async function findCustomer(
  database: Queryable,
  principal: Principal,
  typed: string | undefined,
): Promise<Customer> {
  if (principal.kind === "customer") {
    const own = await database.sql<Customer>(
      `SELECT id, ref, name FROM customers WHERE id = $1 AND closed_at IS NULL`,
      [principal.customerId],
    );
    if (own[0] === undefined) throw new ServiceError("forbidden", "This account is closed. Ask our team.");
    return own[0];
  }
  const rows = await database.sql<Customer>(
    `SELECT id, ref, name FROM customers WHERE closed_at IS NULL ORDER BY ref`,
  );
  const lower = (typed ?? "").toLowerCase();
  const matches = rows.filter((row) => row.ref.toLowerCase() === lower || row.name.toLowerCase() === lower);
  const found = matches.find((row) => row.ref.toLowerCase() === lower) ?? matches[0];
  if (found !== undefined && (found.ref.toLowerCase() === lower || matches.length === 1)) return found;
  if (matches.length > 1) {
    const which = matches.map((row) => row.ref).join(", ");
    throw new ServiceError(
      "conflict",
      `Several customers are called "${typed}". Say which one by its reference: ${which}.`,
    );
  }
  const guess = nearest(
    typed ?? "",
    rows.flatMap((row) => [row.ref, row.name]),
  );
  throw new ServiceError(
    "not_found",
    `No customer "${shortened(typed ?? "")}".${guess === undefined ? "" : ` Did you mean ${guess}?`}`,
    {
      facts: { option: "customer" },
    },
  );
}
