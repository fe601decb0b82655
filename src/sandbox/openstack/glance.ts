import type { Cloud } from "./cloud.ts";
import { type Answer, type Exchange, header, webobError } from "./http.ts";
import { isoSeconds } from "./time.ts";
import type { Image, Token } from "./types.ts";
import { words } from "./words.ts";

/** limit_param_default: a list without limit is cut here, silently but for `next`. */
const DEFAULT_LIMIT = 25;
const MAX_LIMIT = 1000;

const UNAUTHORIZED =
  "This server could not verify that you are authorized to access the document you requested. Either you supplied the wrong credentials (e.g., bad password), or your browser does not understand how to supply the credentials required.";

const SORT_KEYS = [
  "name",
  "status",
  "container_format",
  "disk_format",
  "size",
  "id",
  "created_at",
  "updated_at",
];

export function glanceVersions(exchange: Exchange, path: string): Answer | undefined {
  if (path.startsWith("/v2")) return undefined;
  const minors = ["15", "13", "12", "11", "10", "9", "8", "7", "6", "5", "4", "3", "2", "1", "0"];
  const versions = minors.map((minor, index) => ({
    id: `v2.${minor}`,
    status: index === 0 ? "CURRENT" : "SUPPORTED",
    links: [{ rel: "self", href: `${exchange.origin}/image/v2/` }],
  }));
  // 300 for every path it does not know, 200 only for /versions.
  return { status: path === "/versions" ? 200 : 300, body: { versions } };
}

/** Glance's own 401; unlike Nova's and Neutron's it has no request id either. */
export function glanceUnauthorized(exchange: Exchange): Answer {
  const answer = webobError(exchange, 401, UNAUTHORIZED);
  const challenge = { "WWW-Authenticate": `Keystone uri="${exchange.origin}/identity/v3"` };
  return { ...answer, headers: { ...answer.headers, ...challenge } };
}

export function glance(cloud: Cloud, exchange: Exchange, token: Token, path: string): Answer {
  if (path === "/v2/images") return collection(cloud, exchange, token);
  const id = /^\/v2\/images\/([^/]+)$/.exec(path)?.[1];
  if (id === undefined) return webobError(exchange, 404, "The resource could not be found.");
  return single(cloud, exchange, token, id);
}

function notAllowed(exchange: Exchange, methods: string): Answer {
  const message = `The method ${exchange.method} is not allowed for this resource. `;
  const answer = webobError(exchange, 405, message);
  return { ...answer, headers: { ...answer.headers, Allow: methods } };
}

function visible(token: Token, image: Image): boolean {
  return image.visibility === "public" || image.ownerId === token.projectId || token.admin;
}

function collection(cloud: Cloud, exchange: Exchange, token: Token): Answer {
  if (exchange.method !== "GET") return notAllowed(exchange, "GET, POST");
  const { query } = exchange;
  const limitText = query.get("limit");
  if (limitText !== null && !/^-?\d+$/.test(limitText))
    return webobError(exchange, 400, "limit param must be an integer");
  const limit = limitText === null ? DEFAULT_LIMIT : Math.min(Number(limitText), MAX_LIMIT);
  if (limit < 0) return webobError(exchange, 400, "limit param must be positive");
  const sort = sortOrder(query);
  if ("error" in sort) return webobError(exchange, 400, sort.error);
  const visibility = query.get("visibility");
  if (visibility !== null && !["public", "private", "shared", "community", "all"].includes(visibility))
    return webobError(exchange, 400, `Invalid visibility value: ${visibility}`);
  const all = sortImages(
    [...cloud.images.values()].filter((image) => visible(token, image)),
    sort.keys,
  );
  const marker = query.get("marker");
  const place = marker === null ? -1 : all.findIndex((image) => image.id === marker);
  if (marker !== null && place < 0) return webobError(exchange, 400, `No image found with ID ${marker}`);
  const images = all.slice(place + 1).filter((image) => matches(image, query));
  const shown = images.slice(0, limit);
  return { status: 200, body: imagePage(query, shown, limit) };
}

function imagePage(query: URLSearchParams, shown: Image[], limit: number): Record<string, unknown> {
  const first = new URLSearchParams(query);
  first.delete("marker");
  const last = shown.at(-1);
  const next = new URLSearchParams(first);
  if (last) next.append("marker", last.id);
  const questionMark = first.size > 0 ? "?" : "";
  return {
    images: shown.map(imageView),
    first: `/v2/images${questionMark}${first.toString()}`,
    schema: "/v2/schemas/images",
    // A path without a host; and a full page has it even when nothing follows.
    ...(last && limit > 0 && shown.length === limit ? { next: `/v2/images?${next.toString()}` } : {}),
  };
}

interface SortKey {
  key: string;
  descending: boolean;
}

function sortOrder(query: URLSearchParams): { keys: SortKey[] } | { error: string } {
  const pairs: [string, string][] = (query.get("sort") ?? "")
    .split(",")
    .filter((part) => part !== "")
    .map((part) => {
      const [key = "", direction = "desc"] = part.split(":");
      return [key, direction];
    });
  const directions = query.getAll("sort_dir");
  query.getAll("sort_key").forEach((key, index) => {
    pairs.push([key, directions[index] ?? directions[0] ?? "desc"]);
  });
  if (pairs.length === 0) pairs.push(["created_at", directions[0] ?? "desc"]);
  for (const [key, direction] of pairs) {
    if (!SORT_KEYS.includes(key))
      return { error: `Invalid sort key: ${key}. It must be one of the following: ${SORT_KEYS.join(", ")}.` };
    if (direction !== "asc" && direction !== "desc") return { error: `Invalid sort direction: ${direction}` };
  }
  return { keys: pairs.map(([key, direction]) => ({ key, descending: direction === "desc" })) };
}

const SORT_FIELDS: Record<string, (image: Image) => string | number> = {
  name: ({ name }) => name,
  status: ({ status }) => status,
  container_format: () => "bare",
  disk_format: ({ diskFormat }) => diskFormat,
  size: ({ sizeBytes }) => sizeBytes,
  id: ({ id }) => id,
  created_at: ({ createdAt }) => Math.floor(createdAt / 1000),
  updated_at: ({ updatedAt }) => Math.floor(updatedAt / 1000),
};

function sortImages(images: Image[], keys: SortKey[]): Image[] {
  return images.toSorted((left, right) => {
    for (const { key, descending } of [...keys, { key: "created_at", descending: true }]) {
      const value = SORT_FIELDS[key];
      if (!value) continue;
      const [a, b] = [value(left), value(right)];
      if (a !== b) return (a < b ? -1 : 1) * (descending ? -1 : 1);
    }
    return left.id < right.id ? 1 : -1;
  });
}

const PAGE_PARAMETERS = words("limit marker sort sort_key sort_dir visibility member_status");

/** Any other parameter filters by that property; one that no image has finds nothing, without an error. */
function matches(image: Image, query: URLSearchParams): boolean {
  const visibility = query.get("visibility");
  if (visibility !== null && visibility !== "all" && visibility !== image.visibility) return false;
  const view = imageView(image);
  for (const [name, value] of query) {
    if (PAGE_PARAMETERS.has(name)) continue;
    if (name === "size_min" && image.sizeBytes < Number(value)) return false;
    if (name === "size_max" && image.sizeBytes > Number(value)) return false;
    if (name === "size_min" || name === "size_max") continue;
    if (name === "tag") return false;
    if (name === "created_at" || name === "updated_at") {
      if (!matchesTime(name === "created_at" ? image.createdAt : image.updatedAt, value)) return false;
      continue;
    }
    const actual = view[name];
    const wanted = value.startsWith("in:") ? value.slice("in:".length).split(",") : [value];
    if (!wanted.includes(String(actual))) return false;
  }
  return true;
}

function matchesTime(time: number, filter: string): boolean {
  const [, operator = "eq", text = ""] = /^(?:(gte|gt|lte|lt|eq|neq):)?(.*)$/.exec(filter) ?? [];
  const [actual, wanted] = [Math.floor(time / 1000), Math.floor(Date.parse(text) / 1000)];
  switch (operator) {
    case "gte":
      return actual >= wanted;
    case "gt":
      return actual > wanted;
    case "lte":
      return actual <= wanted;
    case "lt":
      return actual < wanted;
    default:
      return (actual === wanted) === (operator === "eq");
  }
}

function imageView(image: Image): Record<string, unknown> {
  return {
    ...image.properties,
    name: image.name,
    disk_format: image.diskFormat,
    container_format: "bare",
    visibility: image.visibility,
    size: image.sizeBytes,
    virtual_size: image.virtualSizeBytes,
    status: image.status,
    checksum: image.checksum,
    protected: false,
    min_ram: image.minRamMib,
    min_disk: image.minDiskGib,
    owner: image.ownerId,
    os_hidden: false,
    os_hash_algo: "sha512",
    os_hash_value: image.hash,
    id: image.id,
    created_at: isoSeconds(image.createdAt),
    updated_at: isoSeconds(image.updatedAt),
    tags: [],
    self: `/v2/images/${image.id}`,
    file: `/v2/images/${image.id}/file`,
    schema: "/v2/schemas/image",
    stores: "fs",
  };
}

function single(cloud: Cloud, exchange: Exchange, token: Token, id: string): Answer {
  if (!["GET", "PATCH", "DELETE"].includes(exchange.method))
    return notAllowed(exchange, "GET, PATCH, DELETE");
  const image = cloud.images.get(id);
  if (!image || !visible(token, image)) return webobError(exchange, 404, `No image found with ID ${id}`);
  if (exchange.method === "GET") return { status: 200, body: imageView(image) };
  if (image.ownerId !== token.projectId && !token.admin)
    return webobError(exchange, 403, "You do not own this image");
  if (exchange.method === "DELETE") {
    cloud.images.delete(id);
    return { status: 204 };
  }
  const type = header(exchange, "content-type") ?? "";
  if (!type.startsWith("application/openstack-images-v2."))
    return webobError(exchange, 415, `Unsupported Content-Type: ${type}`);
  return webobError(exchange, 501, "The simulator does not change images.");
}
