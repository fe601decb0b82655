/**
 * What every cloud must do. A provider (`clouds/pve`, `clouds/openstack`) implements this and nothing above it knows
 * Nova's or PVE's words.
 *
 * Reading methods may be called at any time. A change is never one method: it is a procedure, a list of steps that the
 * engine pins on the operation and runs one at a time (core/operations/step.ts), because only then can a crash between
 * "asked" and "answered" be told from "not asked".
 *
 * Every method that talks to the cloud throws ServiceError with one of these codes, and no other:
 * - `unreachable`      no connection, or a gateway said the service is away; nothing was done
 * - `timeout`          no answer to a reading call in time
 * - `unauthorized`     the credential is refused (after one re-authentication)
 * - `cloud_forbidden`  the credential may not do this
 * - `cloud_not_found`  the cloud has no such thing (or not for this credential)
 * - `cloud_conflict`   wrong state, locked or busy
 * - `cloud_quota`      a quota of the project
 * - `capacity`         no host has room
 * - `cloud_invalid`    the cloud refuses the values
 * - `unsupported`      this cloud or this server cannot do it
 * - `cloud_failed`     the cloud tried, and says that it failed
 * - `unknown_outcome`  a changing call whose answer was lost, cut, late or a 5xx: it may or may not have happened
 */
import type { Duplex } from "node:stream";
import { z } from "zod";
import type { Queryable } from "../database/client.ts";
import type { PlannedStep, StepDefinition } from "./operations/step.ts";

export type Provider = "pve" | "openstack";

export const serverStates = [
  "pending",
  "building",
  "active",
  "stopped",
  "paused",
  "suspended",
  "resizing",
  "verify_resize",
  "rebuilding",
  "rescue",
  "error",
  "deleting",
  "deleted",
  "missing",
  "unknown",
] as const;
export type ServerState = (typeof serverStates)[number];

export const powerVerbs = [
  "start",
  "stop",
  "shutdown",
  "reboot",
  "kill",
  "reset",
  "suspend",
  "resume",
] as const;
export type PowerVerb = (typeof powerVerbs)[number];

/** A server as the cloud itself describes it now. */
export interface RemoteServer {
  externalId: string;
  name: string;
  state: ServerState;
  /** The cloud's own words ("RESIZE/resize_migrating"); staff only. */
  providerStatus: string;
  /** A task of the cloud is at work on it. */
  busy: boolean;
  vcpus: number;
  memoryMib: number;
  diskGib: number;
  /** Absent when they were not asked for. */
  addresses?: string[];
  /** Markers of ours found on it, `op=<operation id>.<attempt>`. */
  markers: string[];
  /** Why it is in the state `error`, or why it is `unknown`, in the cloud's words; staff only. */
  fault?: string;
  /** What the provider must know again (PVE: node, SMBIOS uuid, boot disk); kept on the server's row, staff only. */
  data?: Record<string, unknown>;
  /** The cloud itself refuses to delete it; absent where it cannot say. */
  deleteProtected?: boolean;
  /** What stays the same for the life of a server where ids are used again (PVE: the SMBIOS uuid); see servers/identity.ts. */
  identity?: string;
  /** All that it has; only in lists, and only when the cloud says so on the way. Absent says nothing. */
  snapshots?: readonly RemoteSnapshot[];
}

export interface RemoteSnapshot {
  name: string;
  description: string;
  /** The memory is in it, so that going back to it finds the guest running. */
  withMemory: boolean;
  takenAt: Date | null;
  /** As RemoteServer.markers. */
  markers: string[];
}

/** A server's counters since it was switched on. */
export interface TrafficSample {
  externalId: string;
  /** How long it has run, in seconds; 0: it is off. */
  uptimeS: number;
  /** What it has received and sent; nothing while it is off. */
  inBytes: bigint;
  outBytes: bigint;
}

export interface RemoteFlavor {
  externalId: string;
  name: string;
  vcpus: number;
  memoryMib: number;
  diskGib: number;
  isPublic: boolean;
}

export interface RemoteImage {
  externalId: string;
  name: string;
  status: string;
  minMemoryMib: number;
  minDiskGib: number;
  /** Whether a password can be set in the running guest; null when the image does not say. */
  hasAgent: boolean | null;
  defaultUser: string | null;
}

export interface RemoteNetwork {
  externalId: string;
  name: string;
  status: string;
  isExternal: boolean;
  isShared: boolean;
}

export const Size = z.object({ vcpus: z.number(), memoryMib: z.number(), diskGib: z.number() });
export type Size = z.infer<typeof Size>;

/** What is sold, resolved against one cloud's catalogue in the database. */
export const TargetSize = Size.extend({
  /** OpenStack: the flavor's id. PVE applies the sizes directly. */
  flavorId: z.string().optional(),
});
export type TargetSize = z.infer<typeof TargetSize>;

export const ProvisionOrder = z.object({
  name: z.string(),
  size: TargetSize,
  imageId: z.string(),
  networkId: z.string(),
  metadata: z.record(z.string(), z.string()),
  /** The secret that holds the first password; set in the guest at first boot. */
  passwordSecretId: z.string(),
  defaultUser: z.string().nullable(),
  /** Public keys that may log in as the default user, set at first boot (PVE). */
  sshKeys: z.array(z.string()).optional(),
  /** PVE: where to build it; chosen by room when absent. */
  node: z.string().optional(),
  /** PVE: how the vCPUs are split; they divide by it. */
  sockets: z.int().min(1).optional(),
  /** PVE: where its disk goes; chosen by room among those that the node has when absent. */
  storage: z.string().optional(),
  /** PVE: a linked clone shares its template's disk; the cloud's setting when absent. */
  clone: z.enum(["full", "linked"]).optional(),
  /** PVE: a fixed address with its prefix length, and its gateway; by DHCP when absent. */
  address: z.object({ cidr: z.string(), gateway: z.string().optional() }).optional(),
  /** Left off when false; started when absent. */
  start: z.boolean().optional(),
});
export type ProvisionOrder = z.infer<typeof ProvisionOrder>;

/** As options of the command are called. */
export const buildOptions = ["node", "key", "sockets", "storage", "clone", "ip", "gateway", "start"] as const;
export type BuildOption = (typeof buildOptions)[number];

export const ResizeOrder = z.object({
  externalId: z.string(),
  before: TargetSize,
  after: TargetSize,
  /** PVE: how the vCPUs are split; they divide by it. */
  sockets: z.int().min(1).optional(),
  /** PVE: later leaves what needs a restart to one that somebody asks for; now when absent. */
  restart: z.enum(["now", "later"]).optional(),
});
export type ResizeOrder = z.infer<typeof ResizeOrder>;

/** The server gets a new system; its name, size and addresses stay. */
export const RebuildOrder = z.object({
  externalId: z.string(),
  name: z.string(),
  size: TargetSize,
  imageId: z.string(),
  passwordSecretId: z.string(),
  defaultUser: z.string().nullable(),
  sshKeys: z.array(z.string()).optional(),
  /** The old one is deleted first, because there is no room for both; refused while there is room. */
  inPlace: z.boolean(),
});
export type RebuildOrder = z.infer<typeof RebuildOrder>;

/** One that is there. */
export interface SnapshotRef {
  externalId: string;
  name: string;
  /** ISO 8601. One of that name that was taken at another time is another one: refused as `drifted`. */
  takenAt?: string | undefined;
}

/** Procedures on snapshots. */
export interface SnapshotProcedures {
  create(order: {
    externalId: string;
    name: string;
    description: string;
    withMemory: boolean;
  }): PlannedStep[];
  /**
   * Also brings the server back to the power it had. Hands on `rolledBackTo`, the name, and `size`, the server's then, as
   * soon as it has gone back. Limits of CPU and network stay those of now. `neverLarger`: refused where it would bring more CPU or
   * memory than the server has.
   */
  rollback(order: SnapshotRef & { neverLarger?: boolean | undefined }): PlannedStep[];
  remove(order: SnapshotRef): PlannedStep[];
  /** Complete; throws `cloud_not_found` when the server is gone. */
  list(externalId: string, signal?: AbortSignal): Promise<RemoteSnapshot[]>;
}

/** Procedures that boot a server from other media, and from its own disk again. */
export interface RescueProcedures {
  /** Hands on `rescueSet: true` once it would boot from there. `media`: what to boot from; the cloud's configured one when absent. */
  enter(order: { externalId: string; media?: string | undefined }): PlannedStep[];
  leave(order: { externalId: string }): PlannedStep[];
}

/** Images that the operators let anybody put into a server's CD drive, by names of theirs. One at a time. */
export interface IsoProcedures {
  readonly offered: readonly string[];
  /**
   * `iso`: one of the offered names. `boot`: the server boots from it until it is taken out. Hands on `isoWaits`, what
   * of it counts only when the server has been stopped and started; nothing of a server that is off, and then `isoOff: true`;
   * and `isoSame: true` when all of it was so before.
   */
  mount(order: { externalId: string; iso: string; boot: boolean }): PlannedStep[];
  /** Also brings the boot order back. Hands on as `mount`. */
  unmount(order: { externalId: string }): PlannedStep[];
}

/** Fixed addresses of a server that is there; they count from its next boot on. */
export interface AddressProcedures {
  /**
   * The address of the other version stays. Hands on `addressActive`: "at_next_start" of a server that is off,
   * "after_next_boot", "after_restart" where a boot from inside is not enough, or "now" when it has had it before; and
   * `addressSame: true` when that was asked for before.
   */
  assign(order: { externalId: string; cidr: string; gateway?: string | undefined }): PlannedStep[];
  /** Back to what a server without a fixed address has. Hands on as `assign`, and nothing when there was none. */
  release(order: { externalId: string; versions: readonly (4 | 6)[] }): PlannedStep[];
}

/** One look at a server's screen. */
export interface ConsoleOrder {
  /** Of this look. */
  id: string;
  externalId: string;
  /** As kept on the server's row (RemoteServer.data). */
  serverData: Record<string, unknown>;
  database: Queryable;
  /** Gives up while it is being opened; an open one is closed by its stream. */
  signal: AbortSignal;
}

export interface RemoteConsole {
  /** RFB (RFC 6143) as bytes, both ways; ends when the cloud ends it. */
  stream: Duplex;
  /** For its VNC authentication. */
  password: string;
}

/** A wait that the watcher has still to resolve. */
export interface OpenWait {
  id: string;
  /** What the step's `issue` or `verify` asked to watch; the provider's own shape. */
  condition: unknown;
  /** The call cannot have taken effect before. */
  since: Date;
  /** When a watcher last had an answer about it; null for a new one. */
  observedAt: Date | null;
}

export interface Observation {
  waitId: string;
  /** Absent while it is still going on. */
  result?: { outcome: "settled" | "gone"; detail?: string };
  /** Progress in the words of a person ("copying the disk, 40 %"). */
  note?: string;
}

export interface ConnectionCheck {
  service: string;
  ok: boolean;
  detail: string;
}

/** `ok: null`: it works without, but an operator should know. `detail` says what to do, on further lines. */
export interface Finding extends Omit<ConnectionCheck, "ok"> {
  ok: boolean | null;
}

export interface Cloud {
  /** Its name in the configuration. */
  readonly name: string;
  readonly provider: Provider;
  /** How long after a lost call "absent" still proves nothing (a proxy may hold the request). Milliseconds. */
  readonly settleMs: number;
  /** How often the watcher asks while something is waited for. Milliseconds. */
  readonly watchEveryMs: number;

  /** Sizes come from a catalogue of flavors (OpenStack), or apply directly (PVE). */
  readonly usesFlavors: boolean;
  /** It is made of nodes, one of which can be worked on alone. */
  readonly hasNodes?: true;
  /** What a build may say beyond what every cloud takes; nothing when absent. */
  readonly buildOptions?: readonly BuildOption[];

  /** The definitions of all steps of this cloud; a name, once released, keeps its meaning. */
  readonly steps: readonly StepDefinition[];
  /** The power verbs it has an equivalent for. */
  readonly powerVerbs: readonly PowerVerb[];

  provision(order: ProvisionOrder): PlannedStep[];
  resize(order: ResizeOrder): PlannedStep[];
  power(order: { externalId: string; verb: PowerVerb }): PlannedStep[];
  password(order: { externalId: string; secretId: string }): PlannedStep[];
  /** `backups`: those of the server in the cloud's own storages go, too. */
  remove(order: { externalId: string; backups?: boolean }): PlannedStep[];

  // What only some clouds can do. Absent: an action refuses it as `unsupported` when it is planned.
  /** Ends with a step that reports `replaces` when the new system is another server of the cloud. */
  rebuild?(order: RebuildOrder): PlannedStep[];
  readonly snapshots?: SnapshotProcedures;
  readonly rescue?: RescueProcedures;
  readonly isos?: IsoProcedures;
  readonly addresses?: AddressProcedures;
  /** A password reaches a server without a guest agent, or one that is off, at its next boot. */
  readonly passwordAtBoot?: true;
  /** Who may log in as the default user, from the next boot on. */
  keys?(order: { externalId: string; sshKeys: readonly string[] }): PlannedStep[];
  /** The cloud itself refuses to delete it, whoever asks. */
  protect?(order: { externalId: string; on: boolean }): PlannedStep[];
  /** The screen of a running server. Looks first that it is this one, as before a change. */
  console?(order: ConsoleOrder): Promise<RemoteConsole>;
  /** A real stop and start, so that what waits for one counts. */
  restart?(order: { externalId: string }): PlannedStep[];
  /**
   * The counters of all servers of which it has some, by one call. The figures of a server are of one moment, which may be up to
   * five minutes ago. Whose server it is they do not say.
   */
  traffic?(signal?: AbortSignal): Promise<TrafficSample[]>;

  /** What outlives the deletion of a server, one sentence each. */
  readonly survivesRemoval: readonly string[];
  /** What is gone with it besides its disk. */
  readonly goesWithRemoval?: readonly string[];
  /** `remove` can take the server's backups along. */
  readonly removesBackups?: true;

  /** Can the order be carried out now: quota, image, network, size. Changes nothing. */
  preflightProvision(
    order: ProvisionOrder,
    signal: AbortSignal,
    /** `avoid`: nodes that take nothing new. */
    circumstances?: { avoid: ReadonlySet<string> },
  ): Promise<void>;
  /**
   * Throws `cloud_not_found`. `before`: the id of an operation that looks before it changes the server; it has no use for
   * addresses, and what was read now may serve its next step.
   */
  inspect(externalId: string, signal?: AbortSignal, options?: { before?: string }): Promise<RemoteServer>;
  /** Every server that carries a marker of this operation, whatever the attempt; oldest first. */
  findByMarker(operationId: string, signal?: AbortSignal): Promise<RemoteServer[]>;

  /**
   * Complete lists. A page that fails fails the whole: a shorter list is never returned as complete. A server of which no more
   * can be told than that it is there is in it as `unknown`, with why as its `fault`.
   */
  listServers(signal?: AbortSignal): Promise<RemoteServer[]>;
  listFlavors(signal?: AbortSignal): Promise<RemoteFlavor[]>;
  listImages(signal?: AbortSignal): Promise<RemoteImage[]>;
  listNetworks(signal?: AbortSignal): Promise<RemoteNetwork[]>;

  /** One look at the cloud for all open waits (OpenStack: one changes-since list; PVE: one task list a node). */
  watch(waits: readonly OpenWait[], signal?: AbortSignal): Promise<Observation[]>;

  /** Tries the credential against each service; never throws. */
  check(): Promise<ConnectionCheck[]>;
  /** What the configuration promises and the cloud does not keep; for the doctor. Changes nothing, never throws. */
  examine?(): Promise<Finding[]>;
  close(): Promise<void>;
}

/** The configured clouds by name. */
export interface Clouds {
  /** Throws ServiceError `configuration` for a name that is no longer configured. */
  get(name: string): Cloud;
  list(): Cloud[];
}
