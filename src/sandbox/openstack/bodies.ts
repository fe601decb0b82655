import { z } from "zod";

/** The bodies of Nova's requests, read after Nova's own schema has let them pass. */
const Metadata = z.record(z.string(), z.string());

export const CreateBody = z.object({
  server: z.object({
    name: z.string(),
    flavorRef: z.union([z.string(), z.number()]),
    imageRef: z.string().optional(),
    networks: z
      .union([
        z.string(),
        z.array(
          z.object({
            uuid: z.string().optional(),
            port: z.string().nullish(),
            fixed_ip: z.string().optional(),
          }),
        ),
      ])
      .optional(),
    adminPass: z.string().optional(),
    metadata: Metadata.optional(),
    tags: z.array(z.string()).optional(),
    key_name: z.string().optional(),
    security_groups: z.array(z.object({ name: z.string().optional() })).optional(),
    availability_zone: z.string().optional(),
    config_drive: z.union([z.boolean(), z.string()]).optional(),
    description: z.string().nullish(),
    hostname: z.string().optional(),
    min_count: z.union([z.number(), z.string()]).optional(),
    max_count: z.union([z.number(), z.string()]).optional(),
    return_reservation_id: z.union([z.boolean(), z.string()]).optional(),
    block_device_mapping_v2: z.array(z.unknown()).optional(),
  }),
});
export type CreateInput = z.infer<typeof CreateBody>["server"];

export const UpdateBody = z.object({
  server: z.object({
    name: z.string().optional(),
    description: z.string().nullish(),
    hostname: z.string().optional(),
  }),
});

export const TagsBody = z.object({ tags: z.array(z.string()) });
export const NoBody = z.null();
export const MetadataBody = z.object({ metadata: Metadata });
export const MetaBody = z.object({ meta: Metadata });

export const ResizeInput = z.object({ flavorRef: z.union([z.string(), z.number()]) });
export const RebootInput = z.object({ type: z.string() });
export const PasswordInput = z.object({ adminPass: z.string() });
export const LockInput = z.object({ locked_reason: z.string().optional() }).nullish();
export const ResetStateInput = z.object({ state: z.string().optional() }).nullish();

/** Any JSON object. */
export const JsonObject = z.record(z.string(), z.unknown());
