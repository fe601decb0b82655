import type { Queryable } from "../../database/client.ts";
import { newId } from "../../database/id.ts";

export interface EventDraft {
  /** "server.resize.succeeded" */
  type: string;
  serverId: string | null;
  operationId?: string | null;
  customerId?: string | null;
  /** What a customer's endpoint may see. No secrets. */
  data?: Record<string, unknown>;
  /** Added for our own endpoints: the cloud, external ids, request ids. No secrets. */
  staffData?: Record<string, unknown>;
}

/** The facts of a server that go with each of its events. */
async function describe(database: Queryable, serverId: string, operationId: string | null) {
  const rows = await database.sql<{
    sequence: bigint;
    customerId: string | null;
    operationCustomerId: string | null;
    server: Record<string, unknown>;
    staff: Record<string, unknown>;
  }>(
    `UPDATE servers s SET event_seq = s.event_seq + 1
     FROM clouds c WHERE s.id = $1 AND c.id = s.cloud_id
     RETURNING s.event_seq AS sequence, s.customer_id AS "customerId",
       (SELECT o.customer_id FROM operations o WHERE o.id = $2) AS "operationCustomerId",
       jsonb_build_object('id', s.public_id, 'name', s.name, 'state', s.state, 'plan', s.plan_code, 'image', s.image_name,
         'vcpus', s.vcpus, 'memoryMib', s.memory_mib, 'diskGib', s.disk_gib, 'addresses', to_jsonb(s.addresses),
         'customer', (SELECT ref FROM customers WHERE id = s.customer_id)) AS server,
       jsonb_build_object('cloud', c.name, 'provider', c.provider, 'externalId', s.external_id,
         'providerStatus', s.provider_status, 'metadata', s.metadata) AS staff`,
    [serverId, operationId],
  );
  const row = rows[0];
  if (row === undefined) throw new Error(`event for a server that does not exist: ${serverId}`);
  return row;
}

/** Whose endpoints hear of it: nobody's when an operation of one customer ends on what is by now another's server. */
function ownerOf({ customerId, operationCustomerId }: Awaited<ReturnType<typeof describe>>): string | null {
  return operationCustomerId === null || operationCustomerId === customerId ? customerId : null;
}

/**
 * Records a fact in the caller's transaction. A server's events are numbered without gaps by its own counter; the row
 * lock that this takes orders concurrent writers, so call it after the state changes and, for several servers, in id
 * order. Before it, change the server's row: the event tells the row as it then is.
 */
export async function recordEvent(database: Queryable, draft: EventDraft): Promise<void> {
  const about =
    draft.serverId === null ? null : await describe(database, draft.serverId, draft.operationId ?? null);
  await database.sql(
    `INSERT INTO events (id, type, server_id, sequence, operation_id, customer_id, data, staff_data)
     VALUES ($1, $2, $3, $4, $5, $6, $7::jsonb, $8::jsonb)`,
    [
      newId(),
      draft.type,
      draft.serverId,
      about?.sequence ?? null,
      draft.operationId ?? null,
      about === null ? (draft.customerId ?? null) : ownerOf(about),
      { ...(about ? { server: about.server } : {}), ...draft.data },
      { ...about?.staff, ...draft.staffData },
    ],
  );
}
