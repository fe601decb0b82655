/**
 * Operations in the middle of their builds, written by SQL as copies of one that was ordered: entering ten thousand would
 * take longer than the bench.
 */
import type { Database } from "../src/database/client.ts";
import { newId } from "../src/database/id.ts";
import type { Build } from "./waits-simulator.ts";

const atOnce = 2_000;

export async function insertWaiting(
  database: Database,
  templateId: string,
  builds: readonly Build[],
): Promise<void> {
  // The copied one itself rests.
  await database.sql(`UPDATE operations SET state = 'cancelled', next_run_at = NULL WHERE id = $1`, [
    templateId,
  ]);
  for (let from = 0; from < builds.length; from += atOnce) {
    await insertSome(database, templateId, builds.slice(from, from + atOnce));
  }
  await database.sql("ANALYZE");
}

async function insertSome(database: Database, templateId: string, builds: readonly Build[]): Promise<void> {
  const rows = builds.map(({ serverId }) => ({ id: newId(), row: newId(), wait: newId(), remote: serverId }));
  const values = [templateId, JSON.stringify(rows)];
  const copies = `jsonb_to_recordset($2::jsonb) AS c(id uuid, "row" uuid, wait uuid, remote text), operations t`;
  await database.transaction(async (tx) => {
    await tx.sql(
      `INSERT INTO servers (id, public_id, customer_id, cloud_id, name, plan_code, image_name, state, vcpus, memory_mib, disk_gib,
         addresses)
       SELECT c."row", 'srv-' || left(c.remote, 13), s.customer_id, s.cloud_id, 'b-' || c.remote, s.plan_code, s.image_name,
         'building', s.vcpus, s.memory_mib, s.disk_gib, '{}'
       FROM ${copies} JOIN servers s ON s.id = t.server_id WHERE t.id = $1`,
      values,
    );
    await tx.sql(
      `INSERT INTO operations (id, public_id, action, spec_version, state, input, plan, plan_hash, output, server_id, customer_id,
         cloud_id, lock_key, idempotency_key, request_hash, requester_kind, requester_id, requester_name, source, fence,
         next_run_at, started_at)
       SELECT c.id, 'op-' || left(c.remote, 13), t.action, t.spec_version, 'waiting', t.input, t.plan, t.plan_hash,
         '{"stateBefore": "pending"}'::jsonb, c."row", t.customer_id, t.cloud_id, 'server:' || c."row", 'bench:' || c.id,
         t.request_hash, t.requester_kind, t.requester_id, t.requester_name, t.source, 1,
         clock() + interval '1 day', clock()
       FROM ${copies} WHERE t.id = $1`,
      values,
    );
    // The first step looks whether it can be done, the second one builds.
    await tx.sql(
      `INSERT INTO operation_steps (operation_id, seq, name, label, state, input, attempt, reference, issued_at, call_deadline,
         deadline_at, started_at, finished_at)
       SELECT c.id, s.seq, s.name, s.label, CASE WHEN s.seq = 1 THEN 'done' ELSE 'waiting' END, s.input, 1,
         CASE WHEN s.seq = 1 THEN NULL ELSE jsonb_build_object('serverId', c.remote) END, clock(),
         clock() + interval '1 minute', clock() + interval '1 day', clock(), CASE WHEN s.seq = 1 THEN clock() END
       FROM ${copies} JOIN operation_steps s ON s.operation_id = t.id WHERE t.id = $1`,
      values,
    );
    await tx.sql(
      `INSERT INTO waits (id, operation_id, step_seq, cloud_id, condition, since, deadline_at)
       SELECT c.wait, c.id, 2, t.cloud_id, jsonb_build_object('kind', 'server', 'serverId', c.remote, 'leave', '["BUILD"]'::jsonb),
         clock(), clock() + interval '1 day'
       FROM ${copies} WHERE t.id = $1`,
      values,
    );
    await tx.sql(
      `INSERT INTO slots (cloud_id, n, operation_id)
       SELECT t.cloud_id, (SELECT max(n) FROM slots) + row_number() OVER (), c.id FROM ${copies} WHERE t.id = $1`,
      values,
    );
  });
}
