/** Whoever is no longer a customer's hears nothing more of theirs: what was shown to them is not brought up to date. */
import type { Transaction } from "../../database/client.ts";

export interface RevokedIdentity {
  customerId: string;
  platform: string;
  userId: string;
}

export async function forgetCards(tx: Transaction, revoked: readonly RevokedIdentity[]): Promise<void> {
  if (revoked.length === 0) return;
  await tx.sql(
    `DELETE FROM cards USING operations o, unnest($1::uuid[], $2::text[], $3::text[]) AS r(customer_id, platform, user_id)
      WHERE o.id = cards.operation_id AND o.customer_id = r.customer_id AND cards.platform = r.platform
        AND cards.user_id = r.user_id AND cards.audience = 'customer'`,
    [
      revoked.map(({ customerId }) => customerId),
      revoked.map(({ platform }) => platform),
      revoked.map(({ userId }) => userId),
    ],
  );
}
