import { computeHostId, hostId } from "./cloud.ts";
import type { Answer } from "./http.ts";
import { parseTime } from "./json-schema.ts";
import { findServer, type NovaCall, nextLink, page, parameter, refuse, requireQuery } from "./nova-call.ts";
import { listActions } from "./nova-schemas.ts";
import { isoMicros } from "./time.ts";
import type { ActionEvent, ActionRecord, Server } from "./types.ts";

export interface Actor {
  requestId: string;
  userId: string;
}

export function startAction(
  server: Server,
  action: string,
  actor: Actor,
  startedAt = Date.now(),
): ActionRecord {
  const record: ActionRecord = {
    action,
    requestId: actor.requestId,
    userId: actor.userId,
    projectId: server.projectId,
    startedAt,
    updatedAt: startedAt,
    message: null,
    events: [],
  };
  server.actions.push(record);
  return record;
}

/** Opens an event on the server's current host, or on the conductor. */
export function startEvent(
  record: ActionRecord,
  server: Server,
  event: string,
  where: "compute" | "conductor" = "compute",
): ActionEvent {
  const host = where === "conductor" ? hostId(server.projectId, "conductor") : computeHostId(server);
  const entry: ActionEvent = { event, startedAt: Date.now(), finishedAt: null, result: null, hostId: host };
  record.events.push(entry);
  record.updatedAt = entry.startedAt;
  return entry;
}

/** An event that ends in Error marks its whole action: the only trace a silently failed resize leaves. */
export function finishEvent(record: ActionRecord, event: ActionEvent, result: "Success" | "Error"): void {
  event.finishedAt = Date.now();
  event.result = result;
  record.updatedAt = event.finishedAt;
  if (result === "Error") record.message = "Error";
}

export function listActionRecords(call: NovaCall, id: string): Answer {
  requireQuery(call, listActions(call.version));
  const server = findServer(call, id, { evenDeleted: true });
  let records = server.actions.toReversed();
  if (call.version < 58)
    return {
      status: 200,
      body: { instanceActions: records.map((record) => recordView(call, server, record)) },
    };
  const since = parameter(call, "changes-since");
  const before = parameter(call, "changes-before");
  if (since !== undefined) records = records.filter((record) => record.updatedAt >= parseTime(since));
  if (before !== undefined) records = records.filter((record) => record.updatedAt <= parseTime(before));
  const paged = page(call, records, ({ requestId }) => requestId, {
    // Nova prints None here, whatever the marker was (measured on 26.2).
    missing: () => refuse(400, "Marker None could not be found."),
  });
  const next = paged.nextMarker;
  return {
    status: 200,
    body: {
      instanceActions: paged.items.map((record) => recordView(call, server, record)),
      ...(next === undefined ? {} : { links: nextLink(call, `/servers/${id}/os-instance-actions`, next) }),
    },
  };
}

export function showActionRecord(call: NovaCall, id: string, requestId: string): Answer {
  const server = findServer(call, id, { evenDeleted: true });
  const record = server.actions.find((candidate) => candidate.requestId === requestId);
  if (!record) throw refuse(404, `Action ${requestId} not found`);
  // Members see events from 2.51 on.
  const events =
    call.version >= 51 ? { events: record.events.toReversed().map((event) => eventView(call, event)) } : {};
  return { status: 200, body: { instanceAction: { ...recordView(call, server, record), ...events } } };
}

function recordView(call: NovaCall, server: Server, record: ActionRecord): Record<string, unknown> {
  return {
    action: record.action,
    instance_uuid: server.id,
    request_id: record.requestId,
    user_id: record.userId,
    project_id: record.projectId,
    start_time: isoMicros(record.startedAt),
    message: record.message,
    ...(call.version >= 58 ? { updated_at: isoMicros(record.updatedAt) } : {}),
  };
}

function eventView(call: NovaCall, event: ActionEvent): Record<string, unknown> {
  return {
    event: event.event,
    start_time: isoMicros(event.startedAt),
    finish_time: event.finishedAt === null ? null : isoMicros(event.finishedAt),
    result: event.result,
    ...(call.version >= 62 ? { hostId: event.hostId } : {}),
  };
}
