/**
 * Which server an address was given to. Two servers with one address take each other off the network, so an address is
 * claimed in the transaction that enters an operation, and the loser of two is refused there.
 */
import type { Queryable, Transaction } from "../../database/client.ts";
import { ServiceError } from "../errors.ts";
import { liveStatesInSql } from "../operations/state.ts";
import { named } from "./change.ts";

interface Wish {
  /** The name of its cloud. */
  cloud: string;
  /** Without prefix length, as servers/address.ts writes it. */
  address: string;
  /** Whose it may be already; null before the server has a row. */
  serverId: string | null;
}

/** Throws `conflict` with the server that has it. Only staff ask for addresses: the sentence names whoever it is. */
export async function requireFreeAddress(database: Queryable, wish: Wish): Promise<void> {
  const rows = await database.sql<{ publicId: string; name: string; customer: string | null }>(
    `SELECT s.public_id AS "publicId", s.name, k.name AS customer
     FROM servers s JOIN clouds c ON c.id = s.cloud_id LEFT JOIN customers k ON k.id = s.customer_id
     WHERE c.name = $1 AND s.deleted_at IS NULL AND s.id IS DISTINCT FROM $3::uuid
       AND ($2 = ANY(s.addresses) OR EXISTS (
         SELECT FROM address_claims a WHERE a.cloud_id = c.id AND a.address = $2 AND a.server_id = s.id
           AND (a.held_at IS NOT NULL OR EXISTS (SELECT FROM operations o
             WHERE o.server_id = s.id AND o.action = 'ip.assign' AND o.state IN (${liveStatesInSql})))))
     ORDER BY s.created_at LIMIT 1`,
    [wish.cloud, wish.address, wish.serverId],
  );
  const owner = rows[0];
  if (owner === undefined) return;
  const of = owner.customer === null ? "" : ` of ${owner.customer}`;
  throw new ServiceError(
    "conflict",
    `${wish.address} belongs to ${named(owner)}${of}. Choose another address, or release it there first (/ip release).`,
    { facts: { option: "ip", serverId: owner.publicId } },
  );
}

/**
 * In the transaction that enters the operation. `held`: for good, as a new server's, whose failure deletes it; otherwise
 * for as long as the operation lives, which settles it. Throws as `requireFreeAddress`.
 */
export async function claimAddress(
  tx: Transaction,
  wish: Wish & { serverId: string; held: boolean },
): Promise<void> {
  const { cloud, address, serverId, held } = wish;
  // Waits for whoever is about to claim it. What they have entered only the next statement sees.
  const rows = await tx.sql<{ serverId: string }>(
    `INSERT INTO address_claims (cloud_id, address, server_id, held_at)
     SELECT c.id, $2, $3, CASE WHEN $4 THEN clock() END FROM clouds c WHERE c.name = $1
     ON CONFLICT (cloud_id, address) DO UPDATE SET address = EXCLUDED.address RETURNING server_id AS "serverId"`,
    [cloud, address, serverId, held],
  );
  await requireFreeAddress(tx, wish);
  if (rows[0]?.serverId === serverId) return;
  await tx.sql(
    `UPDATE address_claims a SET server_id = $3, held_at = CASE WHEN $4 THEN clock() END, created_at = clock()
     FROM clouds c WHERE c.id = a.cloud_id AND c.name = $1 AND a.address = $2`,
    [cloud, address, serverId, held],
  );
}

/** What the cloud has by now: of these versions the server of this operation holds `kept`, and nothing else. */
export async function settleClaims(
  database: Queryable,
  { operationId, kept, versions }: { operationId: string; kept: string | null; versions: readonly (4 | 6)[] },
): Promise<void> {
  await database.sql(
    `DELETE FROM address_claims a USING operations o
     WHERE o.id = $1 AND a.server_id = o.server_id AND a.address IS DISTINCT FROM $2
       AND CASE WHEN position(':' IN a.address) > 0 THEN 6 ELSE 4 END = ANY($3::int[])`,
    [operationId, kept, [...versions]],
  );
  await database.sql(
    `UPDATE address_claims a SET held_at = clock() FROM operations o
     WHERE o.id = $1 AND a.server_id = o.server_id AND a.address = $2 AND a.held_at IS NULL`,
    [operationId, kept],
  );
}
