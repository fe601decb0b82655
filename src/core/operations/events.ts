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

/**
 * Records a fact in the caller's transaction. A server's events are numbered without gaps by its own counter; the row
 * lock that this takes orders concurrent writers, so call it after the state changes and, for several servers, in id
 * order. Before it, change the server's row: the event tells the row as it then is.
 */
export async function recordEvent(database: Queryable, draft: EventDraft): Promise<void> {
  const { type, serverId, operationId = null, customerId = null, data = {}, staffData = {} } = draft;
  if (serverId === null) {
    await database.sql(
      `INSERT INTO events (id, type, operation_id, customer_id, data, staff_data)
       VALUES ($1, $2, $3, $4, $5::jsonb, $6::jsonb)`,
      [newId(), type, operationId, customerId, data, staffData],
    );
    return;
  }
  // Whose endpoints hear of it: nobody's when an operation of one customer ends on what is by now another's server.
  const recorded = await database.sql(
    `WITH numbered AS (
       UPDATE servers SET event_seq = event_seq + 1 WHERE id = $3 RETURNING *),
     facts AS (
       SELECT s.*, (SELECT o.customer_id FROM operations o WHERE o.id = $4) AS operation_customer_id,
         jsonb_build_object('id', s.public_id, 'name', s.name, 'state', s.state, 'plan', s.plan_code, 'image', s.image_name,
           'vcpus', s.vcpus, 'memoryMib', s.memory_mib, 'diskGib', s.disk_gib, 'addresses', to_jsonb(s.addresses),
           'customer', (SELECT k.ref FROM customers k WHERE k.id = s.customer_id)) AS server,
         jsonb_build_object('cloud', c.name, 'provider', c.provider, 'externalId', s.external_id,
           'providerStatus', s.provider_status, 'metadata', s.metadata) AS staff
       FROM numbered s JOIN clouds c ON c.id = s.cloud_id)
     INSERT INTO events (id, type, server_id, sequence, operation_id, customer_id, data, staff_data)
     SELECT $1, $2, id, event_seq, $4,
       CASE WHEN operation_customer_id IS NULL OR operation_customer_id = customer_id THEN customer_id END,
       jsonb_build_object('server', server) || $5::jsonb, staff || $6::jsonb
     FROM facts RETURNING id`,
    [newId(), type, serverId, operationId, data, staffData],
  );
  if (recorded.length === 0) throw new Error(`event for a server that does not exist: ${serverId}`);
}
