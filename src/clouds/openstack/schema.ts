// Only the fields that are used. Everything but the id is optional: a server in an unreachable cell is listed with little more
// than its id and status UNKNOWN (https://docs.openstack.org/api-guide/compute/down_cells.html).
import { z } from "zod";

export const NovaFlavorOfServer = z.looseObject({
  id: z.string().optional(),
  original_name: z.string().optional(),
  vcpus: z.number().optional(),
  ram: z.number().optional(),
  disk: z.number().optional(),
});

export const NovaServer = z.looseObject({
  id: z.string(),
  name: z.string().optional(),
  status: z.string().optional(),
  created: z.string().optional(),
  updated: z.string().optional(),
  "OS-EXT-STS:task_state": z.string().nullish(),
  "OS-EXT-STS:vm_state": z.string().nullish(),
  flavor: NovaFlavorOfServer.optional(),
  // "" for a server that was booted from a volume.
  image: z.union([z.string(), z.looseObject({ id: z.string() })]).nullish(),
  addresses: z.record(z.string(), z.array(z.looseObject({ addr: z.string() }))).optional(),
  metadata: z.record(z.string(), z.string()).optional(),
  tags: z.array(z.string()).optional(),
  fault: z.looseObject({ code: z.number().optional(), message: z.string().optional() }).optional(),
  locked: z.boolean().nullish(),
  "os-extended-volumes:volumes_attached": z
    .array(z.looseObject({ id: z.string(), delete_on_termination: z.boolean().optional() }))
    .optional(),
});
export type NovaServer = z.infer<typeof NovaServer>;

export const NovaServerAnswer = z.looseObject({ server: NovaServer });
export const NovaCreated = z.looseObject({ server: z.looseObject({ id: z.string() }) });

export const NovaFlavor = z.looseObject({
  id: z.string(),
  name: z.string(),
  vcpus: z.number(),
  ram: z.number(),
  disk: z.number(),
  "os-flavor-access:is_public": z.boolean().optional(),
  "OS-FLV-DISABLED:disabled": z.boolean().optional(),
});
export type NovaFlavor = z.infer<typeof NovaFlavor>;
export const NovaFlavorAnswer = z.looseObject({ flavor: NovaFlavor });

// -1 means without limit.
export const NovaLimits = z.looseObject({
  limits: z.looseObject({
    absolute: z.looseObject({
      maxTotalInstances: z.number().optional(),
      totalInstancesUsed: z.number().optional(),
      maxTotalCores: z.number().optional(),
      totalCoresUsed: z.number().optional(),
      maxTotalRAMSize: z.number().optional(),
      totalRAMUsed: z.number().optional(),
    }),
  }),
});

export const NovaActionEvent = z.looseObject({
  event: z.string(),
  finish_time: z.string().nullish(),
  result: z.string().nullish(),
});

export const NovaAction = z.looseObject({
  action: z.string(),
  request_id: z.string(),
  start_time: z.string().optional(),
  message: z.string().nullish(),
  events: z.array(NovaActionEvent).optional(),
});
export type NovaAction = z.infer<typeof NovaAction>;
export const NovaActionAnswer = z.looseObject({ instanceAction: NovaAction });

const VersionEntry = z.looseObject({
  id: z.string().optional(),
  status: z.string().optional(),
  version: z.string().optional(),
  min_version: z.string().optional(),
});
/** The compute root answers one version at /v2.1 and a list at /. */
export const NovaVersions = z.looseObject({
  version: VersionEntry.optional(),
  versions: z.array(VersionEntry).optional(),
});

export const GlanceImage = z.looseObject({
  id: z.string(),
  name: z.string().nullish(),
  status: z.string().optional(),
  min_ram: z.number().nullish(),
  min_disk: z.number().nullish(),
  hw_qemu_guest_agent: z.string().nullish(),
  os_admin_user: z.string().nullish(),
  /** Nova sets it on what it makes of a server: "snapshot", "backup". */
  image_type: z.string().nullish(),
});
export type GlanceImage = z.infer<typeof GlanceImage>;

export const NeutronNetwork = z.looseObject({
  id: z.string(),
  name: z.string().nullish(),
  status: z.string().optional(),
  shared: z.boolean().optional(),
  "router:external": z.boolean().optional(),
  subnets: z.array(z.string()).optional(),
});
export type NeutronNetwork = z.infer<typeof NeutronNetwork>;
export const NeutronNetworkAnswer = z.looseObject({ network: NeutronNetwork });

export const NeutronPort = z.looseObject({ id: z.string(), name: z.string().nullish() });
export const NeutronFloatingIp = z.looseObject({
  id: z.string(),
  floating_ip_address: z.string().optional(),
  port_id: z.string().nullish(),
});

const Endpoint = z.looseObject({
  interface: z.string().optional(),
  region: z.string().nullish(),
  region_id: z.string().nullish(),
  url: z.string(),
});
export const CatalogueEntry = z.looseObject({ type: z.string(), endpoints: z.array(Endpoint) });
export type CatalogueEntry = z.infer<typeof CatalogueEntry>;

export const KeystoneToken = z.looseObject({
  token: z.looseObject({
    expires_at: z.string(),
    project: z.looseObject({ id: z.string(), name: z.string().optional() }).optional(),
    catalog: z.array(CatalogueEntry).optional(),
  }),
});
