import { MetaBody, MetadataBody, NoBody, TagsBody } from "./bodies.ts";
import type { Answer } from "./http.ts";
import { checkBody } from "./json-schema.ts";
import { findServer, type NovaCall, refuse, requireBody } from "./nova-call.ts";
import { MAX_TAGS, metaBody, metadataBody, noBody, replaceTags, tag as tagSchema } from "./nova-schemas.ts";
import type { Server } from "./types.ts";

const CHANGEABLE = new Set(["active", "paused", "suspended", "stopped"]);

function taggedServer(call: NovaCall, id: string): Server {
  return findServer(call, id, { unknownText: `Instance ${id} has no mapping to a cell.` });
}

function requireState(server: Server, verb: string): void {
  if (CHANGEABLE.has(server.vmState)) return;
  throw refuse(409, `Cannot '${verb}' instance ${server.id} while it is in vm_state ${server.vmState}`);
}

/** Tags are a sorted set. They do not move `updated` on: changes-since never shows a tag. */
export function normalTags(tags: readonly string[]): string[] {
  return [...new Set(tags)].toSorted();
}

export function listTags(call: NovaCall, id: string): Answer {
  return { status: 200, body: { tags: taggedServer(call, id).tags } };
}

export function putTags(call: NovaCall, id: string): Answer {
  const { tags } = requireBody(call, replaceTags, TagsBody);
  const server = taggedServer(call, id);
  requireState(server, "update tags");
  server.tags = normalTags(tags);
  return { status: 200, body: { tags: server.tags } };
}

export function deleteTags(call: NovaCall, id: string): Answer {
  const server = taggedServer(call, id);
  requireState(server, "delete tags");
  server.tags = [];
  return { status: 204 };
}

export function showTag(call: NovaCall, id: string, tag: string): Answer {
  if (!taggedServer(call, id).tags.includes(tag)) throw refuse(404, `Server ${id} has no tag '${tag}'`);
  return { status: 204 };
}

export function putTag(call: NovaCall, id: string, tag: string): Answer {
  requireBody(call, noBody, NoBody);
  const server = taggedServer(call, id);
  requireState(server, "update tag");
  const error = checkBody(tagSchema, tag);
  if (error !== undefined)
    throw refuse(
      400,
      `Tag '${tag}' is invalid. It must be a non empty string without characters '/' and ','. Validation error message: ${error}`,
    );
  if (server.tags.length >= MAX_TAGS)
    throw refuse(400, `The number of tags exceeded the per-server limit ${MAX_TAGS}`);
  if (server.tags.includes(tag)) return { status: 204 };
  server.tags = normalTags([...server.tags, tag]);
  return { status: 201, headers: { Location: `${call.base}/servers/${id}/tags/${tag}` } };
}

export function deleteTag(call: NovaCall, id: string, tag: string): Answer {
  const server = taggedServer(call, id);
  requireState(server, "delete tag");
  if (!server.tags.includes(tag)) throw refuse(404, `Instance ${id} has no tag '${tag}'`);
  server.tags = server.tags.filter((candidate) => candidate !== tag);
  return { status: 204 };
}

const MAX_METADATA = 128;

export function requireMetadataQuota(metadata: Record<string, string>): void {
  if (Object.keys(metadata).length > MAX_METADATA)
    throw refuse(403, `Maximum number of metadata items exceeds ${MAX_METADATA}`);
}

function changeableServer(call: NovaCall, id: string): Server {
  const server = findServer(call, id);
  if (server.locked && !call.token.admin) throw refuse(409, `Instance ${id} is locked`);
  requireState(server, "update metadata");
  return server;
}

function setMetadata(server: Server, metadata: Record<string, string>): void {
  requireMetadataQuota(metadata);
  server.metadata = metadata;
  server.updatedAt = Date.now();
}

export function showMetadata(call: NovaCall, id: string): Answer {
  return { status: 200, body: { metadata: findServer(call, id).metadata } };
}

export function addMetadata(call: NovaCall, id: string): Answer {
  const { metadata } = requireBody(call, metadataBody, MetadataBody);
  const server = changeableServer(call, id);
  setMetadata(server, { ...server.metadata, ...metadata });
  return { status: 200, body: { metadata: server.metadata } };
}

export function replaceMetadata(call: NovaCall, id: string): Answer {
  const { metadata } = requireBody(call, metadataBody, MetadataBody);
  const server = changeableServer(call, id);
  setMetadata(server, metadata);
  return { status: 200, body: { metadata: server.metadata } };
}

export function showMetadataItem(call: NovaCall, id: string, key: string): Answer {
  const value = findServer(call, id).metadata[key];
  if (value === undefined) throw refuse(404, "Metadata item was not found");
  return { status: 200, body: { meta: { [key]: value } } };
}

export function putMetadataItem(call: NovaCall, id: string, key: string): Answer {
  const { meta } = requireBody(call, metaBody, MetaBody);
  if (meta[key] === undefined) throw refuse(400, "Request body and URI mismatch");
  const server = changeableServer(call, id);
  setMetadata(server, { ...server.metadata, ...meta });
  return { status: 200, body: { meta } };
}

/** Unlike setting one, deleting an item does not move `updated` on (measured). */
export function deleteMetadataItem(call: NovaCall, id: string, key: string): Answer {
  const server = findServer(call, id);
  if (server.metadata[key] === undefined) throw refuse(404, "Metadata item was not found");
  changeableServer(call, id);
  server.metadata = Object.fromEntries(Object.entries(server.metadata).filter(([name]) => name !== key));
  return { status: 204 };
}
