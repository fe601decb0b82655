import type { Schema } from "./json-schema.ts";
import { words } from "./words.ts";

/**
 * Nova's request schemas, by microversion
 * (nova 26: api/openstack/compute/schemas/*.py, api/validation/parameter_types.py).
 */
const name: Schema = { type: "string", minLength: 1, maxLength: 255, format: "name" };
const text: Schema = { type: "string" };
const uuid: Schema = { type: "string", format: "uuid" };
const flavorRef: Schema = { type: ["string", "integer"], minLength: 1 };
const boolean: Schema = {
  type: ["boolean", "string"],
  enum: [
    true,
    ...words("True TRUE true 1 ON On on YES Yes yes"),
    false,
    ...words("False FALSE false 0 OFF Off off NO No no"),
  ],
};
const positiveInteger: Schema = {
  type: ["integer", "string"],
  pattern: "^[0-9]*$",
  minimum: 1,
  minLength: 1,
};
const nonNegativeInteger: Schema = { ...positiveInteger, minimum: 0 };
const diskConfig: Schema = { type: "string", enum: ["AUTO", "MANUAL"] };
const description: Schema = { type: ["string", "null"], minLength: 0, maxLength: 255 };
const hostname: Schema = {
  type: "string",
  minLength: 2,
  maxLength: 63,
  pattern: "^[a-zA-Z0-9]+[a-zA-Z0-9-]*[a-zA-Z0-9]+$",
};
const ipv4: Schema = { type: "string", format: "ipv4" };
const ipv6: Schema = { type: "string", format: "ipv6" };
const ipAddress: Schema = { type: "string", oneOf: [{ format: "ipv4" }, { format: "ipv6" }] };
const metadata: Schema = {
  type: "object",
  patternProperties: { "^[a-zA-Z0-9-_:. ]{1,255}$": { type: "string", maxLength: 255 } },
  additionalProperties: false,
};

export const tag: Schema = { type: "string", minLength: 1, maxLength: 60, pattern: "^[^,/]*$" };
export const MAX_TAGS = 50;
const tags: Schema = { type: "array", items: tag, maxItems: MAX_TAGS };

function body(key: string, inner: Schema): Schema {
  return { type: "object", properties: { [key]: inner }, required: [key], additionalProperties: false };
}

function object(properties: Record<string, Schema>, required: string[] = []): Schema {
  return { type: "object", properties, required, additionalProperties: false };
}

function networksSchema(version: number): Schema {
  const strict = version >= 37;
  const properties: Record<string, Schema> = {
    fixed_ip: ipAddress,
    port: { oneOf: [uuid, { type: "null" }] },
    uuid: strict ? uuid : text,
  };
  // Device tags came with 2.32, were lost by mistake in 2.37 and returned in 2.42.
  if (version >= 42 || (version >= 32 && version < 37)) properties["tag"] = tag;
  const rows: Schema = { type: "array", items: { type: "object", properties, additionalProperties: false } };
  return strict ? { oneOf: [rows, { type: "string", enum: ["none", "auto"] }] } : rows;
}

export function createServer(version: number): Schema {
  const properties: Record<string, Schema> = {
    name,
    imageRef: { oneOf: [uuid, { type: "string", maxLength: 0 }] },
    flavorRef,
    adminPass: text,
    metadata,
    networks: networksSchema(version),
    "OS-DCF:diskConfig": diskConfig,
    accessIPv4: ipv4,
    accessIPv6: ipv6,
    ...(version < 57 ? { personality: { type: "array" } } : {}),
    availability_zone: name,
    block_device_mapping: { type: "array" },
    block_device_mapping_v2: { type: "array", items: { type: "object" } },
    config_drive: boolean,
    key_name: name,
    min_count: positiveInteger,
    max_count: positiveInteger,
    return_reservation_id: boolean,
    security_groups: {
      type: "array",
      items: { type: "object", properties: { name }, additionalProperties: false },
    },
    user_data: { type: "string", format: "base64", maxLength: 65_535 },
    ...(version >= 19 ? { description } : {}),
    ...(version >= 52 ? { tags } : {}),
    ...(version >= 63 ? { trusted_image_certificates: { type: ["array", "null"] } } : {}),
    ...(version >= 74 ? { host: text, hypervisor_hostname: text } : {}),
    ...(version >= 90 ? { hostname } : {}),
  };
  const server: Schema = {
    type: "object",
    properties,
    required: ["name", "flavorRef", ...(version >= 37 ? ["networks"] : [])],
    additionalProperties: false,
  };
  const hints: Schema = { type: "object" };
  return {
    type: "object",
    properties: { server, "os:scheduler_hints": hints, "OS-SCH-HNT:scheduler_hints": hints },
    required: ["server"],
    additionalProperties: false,
  };
}

export function updateServer(version: number): Schema {
  return body(
    "server",
    object({
      name,
      "OS-DCF:diskConfig": diskConfig,
      accessIPv4: ipv4,
      accessIPv6: ipv6,
      ...(version >= 19 ? { description } : {}),
      ...(version >= 90 ? { hostname } : {}),
    }),
  );
}

export const replaceTags: Schema = body("tags", tags);
export const noBody: Schema = { type: "null" };
export const metadataBody: Schema = body("metadata", metadata);
export const metaBody: Schema = body("meta", { ...metadata, minProperties: 1, maxProperties: 1 });

/** Actions whose body Nova checks; the others take anything. */
export function actionSchema(action: string, version: number): Schema | undefined {
  switch (action) {
    case "resize":
      return body("resize", object({ flavorRef, "OS-DCF:diskConfig": diskConfig }, ["flavorRef"]));
    case "reboot": {
      const type: Schema = { type: "string", enum: ["HARD", "Hard", "hard", "SOFT", "Soft", "soft"] };
      return body("reboot", object({ type }, ["type"]));
    }
    case "changePassword":
      return body("changePassword", object({ adminPass: text }, ["adminPass"]));
    case "lock": {
      if (version < 73) return undefined;
      const reason: Schema = { type: "string", minLength: 1, maxLength: 255 };
      return body("lock", { ...object({ locked_reason: reason }), type: ["object", "null"] });
    }
    default:
      return undefined;
  }
}

function list(items: Schema): Schema {
  return { type: "array", items };
}

const anyText = list(text);
const regex = list({ type: "string", format: "regex" });
const paging: Record<string, Schema> = { limit: list(nonNegativeInteger), marker: anyText };

const IGNORED_SORT_KEYS = words(
  "architecture cell_name cleaned default_ephemeral_device default_swap_device deleted deleted_at",
  "disable_terminate ephemeral_gb ephemeral_key_uuid id key_data launched_on memory_mb os_type",
  "reservation_id root_gb shutdown_terminate user_data vcpus vm_mode",
);
const SORT_KEYS = words(
  "access_ip_v4 access_ip_v6 auto_disk_config availability_zone config_drive created_at display_description",
  "display_name host hostname image_ref instance_type_id kernel_id key_name launch_index launched_at locked_by",
  "node power_state progress project_id ramdisk_id root_device_name task_state terminated_at updated_at user_id",
  "uuid vm_state",
);

const PLAIN_FILTERS = words(
  "user_id project_id tenant_id launch_index image_ref image vm_state task_state host uuid sort_dir all_tenants",
  "soft_deleted deleted status block_device_mapping services metadata system_metadata info_cache",
  "security_groups pci_devices",
);
const EXPRESSION_FILTERS = words(
  "kernel_id ramdisk_id hostname key_name power_state node flavor reservation_id launched_at terminated_at",
  "availability_zone name display_name description display_description locked_by root_device_name config_drive",
  "access_ip_v4 access_ip_v6 auto_disk_config progress ip ip6 created_at",
);
const TAG_FILTERS = words("tags tags-any not-tags not-tags-any");

export function listServers(version: number): Schema {
  const plain = [...PLAIN_FILTERS, ...(version >= 73 ? ["locked"] : [])];
  const expressions = [...EXPRESSION_FILTERS, ...(version >= 26 ? TAG_FILTERS : [])];
  const sortKeys = [
    ...SORT_KEYS,
    ...(version >= 73 ? ["locked"] : []),
    ...(version >= 75 ? [] : IGNORED_SORT_KEYS),
  ];
  const time = list({ type: "string", format: "date-time" });
  return {
    type: "object",
    properties: {
      ...Object.fromEntries(plain.map((key) => [key, anyText])),
      ...Object.fromEntries(expressions.map((key) => [key, regex])),
      sort_key: list({ type: "string", enum: sortKeys }),
      "changes-since": time,
      ...(version >= 66 ? { "changes-before": time } : {}),
      ...paging,
    },
    patternProperties: { "^_": anyText },
    additionalProperties: version < 75,
  };
}

export function listActions(version: number): Schema {
  if (version < 58) return {};
  const time = list({ type: "string", format: "date-time" });
  return object({ ...paging, "changes-since": time, ...(version >= 66 ? { "changes-before": time } : {}) });
}

const FLAVOR_SORT_KEYS = words(
  "created_at description disabled ephemeral_gb flavorid id is_public memory_mb name root_gb rxtx_factor swap",
  "updated_at vcpu_weight vcpus",
);

export function listFlavors(version: number): Schema {
  return {
    type: "object",
    properties: {
      ...paging,
      is_public: anyText,
      minRam: anyText,
      minDisk: anyText,
      sort_key: list({ type: "string", enum: [...FLAVOR_SORT_KEYS] }),
      sort_dir: anyText,
    },
    additionalProperties: version < 75,
  };
}

export function listKeyPairs(version: number): Schema {
  const properties = { user_id: anyText, ...(version >= 35 ? paging : {}) };
  return { type: "object", properties, additionalProperties: version < 75 };
}

export function showLimits(version: number): Schema {
  return { type: "object", properties: { tenant_id: anyText }, additionalProperties: version < 75 };
}
