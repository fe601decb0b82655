/** What came of the servers that lived on: their VMs on PVE against our rows and against what was asked of them. */
import type { Database } from "../../src/database/client.ts";
import type { CloudAddress } from "./address.ts";
import { networkOf, type SimulatedVm, serversByRow, vmsOf } from "./inspect.ts";
import { type Change, changeKey, type Entries, type Life, nextOf, orderKey, readEntries } from "./life.ts";
import type { LifeNews } from "./life-entrance.ts";

/** What the processes that asked for the changes had to tell. */
export interface LifeNotes {
  networks: Map<number, string>;
  /** By the index of their order. */
  refused: Map<number, string>;
  twice: string[];
  /** Rounds that were broken off: PostgreSQL was away, or there is a defect. */
  troubles: string[];
  recognised: number;
  crashes: number;
}

export interface Lived {
  servers: number;
  changes: number;
  succeeded: number;
  /** Ended otherwise. */
  failed: number;
  needAttention: number;
  /** Lives that did not come to their end. */
  unfinished: number;
  rebuilt: number;
  deleted: number;
  /** Deleted, and something is left in the cloud. */
  notGone: string[];
  /** PVE, our row and the last resize that succeeded do not say the same size. */
  wrongSize: string[];
  wrongSnapshots: string[];
  /** Rebuilt, and reached otherwise than before. */
  lostNetwork: string[];
  problems: string[];
}

interface Size {
  vcpus: number;
  memoryMib: number;
  diskGib: number;
}

interface Row extends Size {
  publicId: string;
  id: string;
  state: string;
  externalId: string | null;
  snapshots: string[];
}

const gib = 2 ** 30;
const ordered: Size = { vcpus: 1, memoryMib: 2048, diskGib: 10 };

export function emptyNotes(): LifeNotes {
  return { networks: new Map(), refused: new Map(), twice: [], troubles: [], recognised: 0, crashes: 0 };
}

/** The first that is told of a server counts: it was before the first change. */
export function note(notes: LifeNotes, news: LifeNews, strangers: Map<string, string>): void {
  switch (news.kind) {
    case "network":
      if (!notes.networks.has(news.index)) notes.networks.set(news.index, news.network);
      break;
    case "stranger":
      if (!strangers.has(news.key)) strangers.set(news.key, news.text);
      break;
    case "recognised":
      notes.recognised += 1;
      break;
    case "refused":
      notes.refused.set(news.index, news.what);
      break;
    case "twice":
      notes.twice.push(news.what);
      break;
    case "trouble":
      notes.troubles.push(news.what);
      break;
  }
}

export async function inspectLives(
  database: Database,
  clouds: readonly CloudAddress[],
  { lives, notes }: { lives: readonly Life[]; notes: LifeNotes },
): Promise<Lived> {
  const entries = await readEntries(database);
  const rows = new Map((await readRows(database)).map((row) => [row.publicId, row]));
  const byRow = await serversByRow(database, clouds);
  const vms = (await Promise.all(clouds.filter(({ kind }) => kind === "pve").map(vmsOf))).flat();
  const states = lives.flatMap(({ index, changes }) =>
    changes.flatMap((_, n) => entries.get(changeKey(index, n))?.state ?? []),
  );
  const lived: Lived = {
    servers: lives.length,
    changes: states.length,
    succeeded: states.filter((state) => state === "succeeded").length,
    failed: states.filter((state) => state === "failed" || state === "cancelled").length,
    needAttention: states.filter((state) => state === "needs_attention").length,
    unfinished: lives.filter((life) => nextOf(life, entries).kind !== "over").length,
    rebuilt: 0,
    deleted: 0,
    notGone: [],
    wrongSize: [],
    wrongSnapshots: [],
    lostNetwork: [],
    problems: await problemsOf(database),
  };
  for (const life of lives) {
    const row = rows.get(entries.get(orderKey(life.index))?.serverPublicId ?? "");
    if (entries.get(orderKey(life.index))?.state !== "succeeded" || row === undefined) continue;
    const done = life.changes.slice(0, doneOf(life, entries));
    if (done.some(({ action }) => action === "server.delete")) {
      lived.deleted += 1;
      if ((byRow.get(row.id) ?? []).length > 0 || row.state !== "deleted") lived.notGone.push(row.publicId);
      continue;
    }
    const vm = vms.find(({ vmid }) => String(vmid) === row.externalId);
    // Reported by the check of all orders.
    if (vm !== undefined) compare(lived, { row, vm, done, network: notes.networks.get(life.index) });
  }
  return lived;
}

function doneOf({ index, changes }: Life, entries: Entries): number {
  const at = changes.findIndex((_, n) => entries.get(changeKey(index, n))?.state !== "succeeded");
  return at < 0 ? changes.length : at;
}

function compare(
  lived: Lived,
  {
    row,
    vm,
    done,
    network,
  }: { row: Row; vm: SimulatedVm; done: readonly Change[]; network: string | undefined },
): void {
  const has = sizeOf(vm);
  const wanted = sizeAfter(done);
  const said = [has, row, wanted].map(({ vcpus, memoryMib, diskGib }) => `${vcpus}/${memoryMib}/${diskGib}`);
  const waits = Object.keys(vm.pending);
  if (new Set(said).size > 1 || waits.length > 0) {
    lived.wrongSize.push(`${row.publicId}: PVE, row, asked: ${said.join(", ")} ${waits.join()}`);
  }
  const [there, known] = [vm.snapshots.toSorted().join(), row.snapshots.toSorted().join()];
  if (there !== known) lived.wrongSnapshots.push(`${row.publicId}: PVE has "${there}", our rows "${known}"`);
  if (!done.some(({ action }) => action === "server.rebuild")) return;
  lived.rebuilt += 1;
  if (network !== networkOf(vm)) {
    lived.lostNetwork.push(`${row.publicId}: was ${network ?? "not noted"}, is ${networkOf(vm)}`);
  }
}

function sizeOf({ config, disks }: SimulatedVm): Size {
  return {
    vcpus: Number(config["cores"] ?? 1) * Number(config["sockets"] ?? 1),
    memoryMib: Number(config["memory"]),
    diskGib: (disks["scsi0"]?.sizeBytes ?? 0) / gib,
  };
}

function sizeAfter(done: readonly Change[]): Size {
  let size = ordered;
  let kept = ordered;
  for (const { action, options } of done) {
    if (action === "snapshot.create") kept = size;
    if (action === "snapshot.rollback") size = kept;
    if (action !== "server.resize") continue;
    const { cpu, memory, disk } = options;
    size = {
      vcpus: cpu === undefined ? size.vcpus : Number(cpu),
      memoryMib: memory === undefined ? size.memoryMib : Number.parseInt(memory, 10) * 1024,
      diskGib: disk === undefined ? size.diskGib : Number.parseInt(disk, 10),
    };
  }
  return size;
}

function readRows(database: Database): Promise<Row[]> {
  return database.sql<Row>(
    `SELECT s.id, s.public_id AS "publicId", s.state, s.external_id AS "externalId", s.vcpus, s.memory_mib AS "memoryMib",
       s.disk_gib AS "diskGib", ARRAY(SELECT name FROM snapshots n WHERE n.server_id = s.id) AS snapshots
     FROM servers s`,
  );
}

async function problemsOf(database: Database): Promise<string[]> {
  const rows = await database.sql<{ line: string }>(
    `SELECT idempotency_key || ' ' || action || ' ' || state || ': ' || (problem->>'code') || ' '
       || COALESCE(problem->>'staffDetail', problem->>'message') AS line
     FROM operations WHERE idempotency_key LIKE 'life:%' AND state IN ('failed', 'needs_attention')`,
  );
  return rows.map(({ line }) => line);
}
