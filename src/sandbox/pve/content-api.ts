/** What is on a storage: listed, and deleted. pve-storage's PVE::API2::Storage::Content. */
import { withoutUndefined } from "../defined.ts";
import { check, may } from "./access.ts";
import type { Cluster } from "./cluster.ts";
import * as format from "./formats.ts";
import { type Call, type Method, method } from "./router.ts";
import { integer, needed, string } from "./schema.ts";
import { findVolume, freeVolume, needStorage, storageOf, volumeKey } from "./storage.ts";
import { forkWorker } from "./tasks.ts";
import type { Volume } from "./types.ts";
import { needText, number, PveError, paramError, text } from "./wire.ts";

const node = needed(format.node());

export const contentMethods: Method[] = [
  method("GET", "/nodes/{node}/storage/{storage}/content", {
    permission: {
      path: "/storage/{storage}",
      privileges: ["Datastore.Audit", "Datastore.AllocateSpace"],
      any: true,
    },
    protected: true,
    schema: { node, storage: needed(format.storage()), content: string(), vmid: format.vmid() },
    handler: list,
  }),
  method("DELETE", "/nodes/{node}/storage/{storage}/content/{volume}", {
    permission: "all",
    schema: {
      node,
      storage: format.storage(),
      volume: needed(string()),
      delay: integer({ minimum: 1, maximum: 30 }),
    },
    handler: remove,
  }),
];

/** Silently without what the caller may not read: PVE::Storage::check_volume_access. */
function list({ cluster, node: name, params, who }: Call): object[] {
  const storage = needStorage(cluster, needText(params, "storage"), name);
  const kind = text(params, "content");
  const vmid = number(params, "vmid");
  const sees = (volume: Volume): boolean =>
    volume.content !== "backup" ||
    (may(who.account, `/storage/${storage.id}`, ["Datastore.AllocateSpace"]) &&
      may(who.account, `/vms/${volume.vmid}`, ["VM.Backup"]));
  return [...cluster.volumes.values()]
    .filter((volume) => volume.storage === storage.id && (volume.node === name || volume.node === ""))
    .filter((volume) => kind === undefined || volume.content === kind)
    .filter((volume) => vmid === undefined || volume.vmid === vmid)
    .filter(sees)
    .map((volume) =>
      withoutUndefined({
        volid: volume.volid,
        content: volume.content,
        format: volume.format,
        size: volume.sizeBytes,
        ctime: Math.floor(volume.createdAt / 1000),
        vmid: volume.vmid > 0 ? volume.vmid : undefined,
        parent: volume.base?.split("/").at(-1),
        subtype: volume.content === "backup" ? "qemu" : undefined,
        protected: volume.protected === true ? 1 : undefined,
      }),
    );
}

/** Asks for no more than a right: what is not there, or is protected, is met by the task. */
function remove({ cluster, node: name, params, who }: Call): string {
  const id = needText(params, "storage");
  const given = needText(params, "volume");
  const volid = given.includes(":") ? given : `${id}:${given}`;
  if (storageOf(volid) !== id) {
    throw paramError({ volume: `storage ID mismatch (${storageOf(volid)} != ${id})\n` });
  }
  needStorage(cluster, id, name);
  const owner = /vzdump-(?:qemu|lxc)-(\d+)-/.exec(volid)?.[1];
  if (owner === undefined) {
    check(who.account, `/storage/${id}`, ["Datastore.Allocate"]);
  } else {
    check(who.account, `/storage/${id}`, ["Datastore.AllocateSpace"]);
    check(who.account, `/vms/${owner}`, ["VM.Backup"]);
  }
  const taskId = owner === undefined ? id : `${owner}@${id}`;
  return forkWorker(cluster, { node: name, type: "imgdel", id: taskId, user: who.id }, async (work) => {
    await work.pause(100);
    const volume = findVolume(cluster, name, volid);
    const short = volid.slice(id.length + 1);
    if (volume?.protected === true) {
      throw new PveError(500, `cannot remove protected volume '${short}' on '${id}'\n`);
    }
    if (volume === undefined) work.log(`disk image '/mnt/pve/${id}/${short}' does not exist`);
    freeVolume(cluster, name, volid);
    work.log(`Removed volume '${volid}'`);
  });
}

/** What a backup job or a person leaves on a storage. */
export interface BackupInput {
  vmid: number;
  /** Default: the shared storage for backups. */
  storage?: string | undefined;
  /** Of a storage that is not shared. */
  node?: string | undefined;
  /** Epoch milliseconds; default: now. */
  takenAt?: number | undefined;
  protected?: boolean | undefined;
}

/** A backup that is there at once, past the API; answers its volume id. */
export function addBackup(cluster: Cluster, input: BackupInput): string {
  const { vmid } = input;
  const takenAt = input.takenAt ?? Date.now();
  const storage = cluster.storages.get(input.storage ?? "backups");
  if (!storage?.content.includes("backup")) throw new TypeError(`no backups on ${input.storage}`);
  const home = storage.shared ? "" : (input.node ?? cluster.localNode);
  const stamp = new Date(takenAt).toISOString().slice(0, 19).replace("T", "-");
  const name = `vzdump-qemu-${vmid}-${stamp
    .replaceAll("-", "_")
    .replace(/_(?=\d\d:)/, "-")
    .replaceAll(":", "_")}`;
  const volid = `${storage.id}:backup/${name}.vma.zst`;
  const key = volumeKey(cluster, home, volid);
  if (cluster.volumes.has(key)) throw new TypeError(`${volid} is there already`);
  cluster.volumes.set(key, {
    volid,
    storage: storage.id,
    node: home,
    vmid,
    sizeBytes: 16_310_642,
    format: "vma.zst",
    content: "backup",
    base: undefined,
    createdAt: takenAt,
    protected: input.protected,
  });
  return volid;
}
