// The parts of PVE's answers that are used. PVE writes numbers as numbers or as text, depending on the place.
import { z } from "zod";

const number = z.coerce.number();
const flag = z.union([z.boolean(), number]).transform(Boolean);

export const ClusterResource = z.looseObject({
  type: z.string(),
  node: z.string().optional(),
  /** Of nodes: online, offline, unknown. Of VMs: a few seconds old. */
  status: z.string().optional(),
  vmid: number.optional(),
  name: z.string().optional(),
  template: flag.optional(),
  tags: z.string().optional(),
  lock: z.string().optional(),
  maxcpu: number.optional(),
  maxmem: number.optional(),
  maxdisk: number.optional(),
  mem: number.optional(),
  storage: z.string().optional(),
  shared: flag.optional(),
});
export type ClusterResource = z.infer<typeof ClusterResource>;
export const ClusterResources = z.array(ClusterResource);

/** Keys of many kinds; the drives and cards are read by config.ts. */
export const VmConfig = z.record(
  z.string(),
  z.union([z.string(), z.number(), z.boolean()]).transform(String),
);
export type VmConfig = z.infer<typeof VmConfig>;

export const VmStatus = z.looseObject({
  status: z.string(),
  qmpstatus: z.string().optional(),
  lock: z.string().optional(),
  name: z.string().optional(),
  cpus: number.optional(),
  maxmem: number.optional(),
  uptime: number.optional(),
  /** Of QEMU, while it runs. */
  pid: number.optional(),
  agent: flag.optional(),
});
export type VmStatus = z.infer<typeof VmStatus>;

export const Pending = z.array(
  z.looseObject({
    key: z.string(),
    value: z.union([z.string(), z.number(), z.boolean()]).optional(),
    pending: z.union([z.string(), z.number(), z.boolean()]).optional(),
    delete: number.optional(),
  }),
);

/** `snapstate` while it is being taken or deleted, and after that was broken off. */
export const Snapshots = z.array(
  z.looseObject({
    name: z.string(),
    description: z.string().optional(),
    /** Seconds; absent for the entry "current". */
    snaptime: number.optional(),
    vmstate: flag.optional(),
    parent: z.string().optional(),
    snapstate: z.string().optional(),
  }),
);
export type Snapshots = z.infer<typeof Snapshots>;
export const Feature = z.looseObject({ hasFeature: flag });
export const StorageContent = z.array(z.looseObject({ volid: z.string() }));

export const Task = z.looseObject({
  upid: z.string(),
  type: z.string(),
  id: z.string().nullish(),
  starttime: number,
  endtime: number.optional(),
  /** Its exit status; absent or RUNNING while it runs. */
  status: z.string().optional(),
});
export type Task = z.infer<typeof Task>;
export const Tasks = z.array(Task);

export const TaskStatus = z.looseObject({ status: z.string(), exitstatus: z.string().optional() });
export type TaskStatus = z.infer<typeof TaskStatus>;

export const TaskLog = z.array(z.looseObject({ t: z.string() }));

export const Interfaces = z.array(
  z.looseObject({ iface: z.string(), type: z.string().optional(), active: flag.optional() }),
);

export const FirewallOptions = z.looseObject({ enable: flag.optional() });

/** Of a guest's agent; it is looked through no further than this, however much it says. */
function first(most: number) {
  return z.array(z.unknown()).transform((items) => items.slice(0, most));
}

export const AgentInterfaces = z.object({
  result: first(1024).pipe(
    z.array(
      z.object({
        name: z.string(),
        "hardware-address": z.string().optional(),
        "ip-addresses": first(128)
          .pipe(z.array(z.object({ "ip-address": z.string() })))
          .optional(),
      }),
    ),
  ),
});

export const AgentOs = z.object({ result: z.object({ id: z.string().optional() }) });
/** Of a call that tells nothing but that it was answered. */
export const AgentAnswer = z.object({ result: z.unknown() });

export const VncProxy = z.object({
  // A string in answers of some versions, as every number of PVE may be.
  port: z.coerce.number().int(),
  ticket: z.string(),
  password: z.string(),
});
export type VncProxy = z.infer<typeof VncProxy>;

export const Ticket = z.looseObject({ ticket: z.string(), CSRFPreventionToken: z.string() });
export const Version = z.looseObject({ version: z.string() });
/** Privileges by path; 1 where they hold below it, too. */
export const Permissions = z.record(z.string(), z.record(z.string(), z.unknown()));
export type Permissions = z.infer<typeof Permissions>;

export const BackupStorages = z.array(
  z.looseObject({
    storage: z.string(),
    shared: flag.optional(),
    enabled: flag.optional(),
    active: flag.optional(),
  }),
);
const BackupRow = z.looseObject({
  volid: z.string(),
  ctime: number.optional(),
  /** qemu or lxc. */
  subtype: z.string().optional(),
  protected: flag.optional(),
});
export type BackupRow = z.infer<typeof BackupRow>;
export const BackupRows = z.array(BackupRow);
