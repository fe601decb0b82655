/**
 * The process that asks for the changes of those servers that live on, as chat would: each one when the one before has
 * succeeded. It may die right after a commit; the next process asks once more for the last change of each server.
 */
import { setTimeout as delay } from "node:timers/promises";
import { createEntrance } from "../../src/core/dispatch.ts";
import { isServiceError } from "../../src/core/errors.ts";
import type { Entrance } from "../../src/core/request.ts";
import { askSimulator, type CloudAddress } from "./address.ts";
import { build, type RigConfig } from "./build.ts";
import { networkOf, type SimulatedVm, vmsOf } from "./inspect.ts";
import { type Change, changeKey, type Entries, type Life, nextOf, orderKey, readEntries } from "./life.ts";

export type LifeNews =
  /** How the VM is reached, before anything is done to it; a rebuild must keep that. */
  | { kind: "network"; index: number; network: string }
  /** Somebody else's VM, made because of ours. */
  | { kind: "stranger"; key: string; text: string }
  /** Asked a second time, and answered with the first one. */
  | { kind: "recognised" }
  /** The entrance refused what was planned. */
  | { kind: "refused"; index: number; what: string }
  /** A round was broken off; the next one does the same again. */
  | { kind: "trouble"; what: string }
  /** Asked a second time, and entered a second time. */
  | { kind: "twice"; what: string };

const config = JSON.parse(process.env["RIG_CONFIG"] ?? "") as RigConfig;
const { database, engine, close } = await build(config, () => undefined);
const rita = { kind: "staff", id: "rita", name: "Rita", role: "admin" } as const;
const pollMs = 400;
/** Every so manieth rebuild meets a stranger with our MAC address. */
const strangerEvery = 2;
const strangersFrom = 300_000;

let commits = 0;
const entrance = createEntrance({
  engine: {
    ...engine,
    wake: {
      ...engine.wake,
      nudge(topic) {
        if (topic === "operations") commits += 1;
        if (config.crashAt?.point === "after_commit" && commits === config.crashAt.nth) {
          process.kill(process.pid, "SIGKILL");
        }
        engine.wake.nudge(topic);
      },
    },
  },
  identify: () => Promise.resolve(null),
});

const told = new Set<number>();
const refused = new Set<number>();
const askedAgain = new Set<number>();
let lives: readonly Life[] = [];
const stopping = new AbortController();

function tell(news: LifeNews): void {
  process.send?.(news);
}

/** PostgreSQL may be away for a moment; then the next round does it. */
async function round(all: readonly Life[], { isFirst }: { isFirst: boolean }): Promise<void> {
  const entries = await readEntries(database);
  const open = all.filter((life) => !refused.has(life.index) && nextOf(life, entries).kind !== "over");
  if (isFirst) for (const life of all) await askAgain(entrance, life, entries);
  for (const life of open) {
    const next = nextOf(life, entries);
    if (next.kind !== "ask" && next.kind !== "confirm") continue;
    if (next.kind === "ask") await prepare(life, next.change, entries);
    await carryOut(entrance, life, { ...next, entries });
  }
}

async function carryOut(
  to: Entrance,
  { index }: Life,
  { kind, n, change, entries }: { kind: "ask" | "confirm"; n: number; change: Change; entries: Entries },
): Promise<void> {
  try {
    if (kind === "ask") await ask(to, { index, n, change, entries });
    else {
      const key = changeKey(index, n);
      const operation = entries.get(key)?.publicId ?? "";
      await to.dispatch({
        ...asRita,
        action: "ops.confirm",
        options: { operation },
        idempotencyKey: `${key}:yes`,
      });
    }
  } catch (error) {
    if (
      !isServiceError(error, "wrong_state", "nothing_to_change", "conflict", "invalid_input", "unsupported")
    )
      throw error;
    refused.add(index);
    tell({ kind: "refused", index, what: `${index} ${change.action}: ${error.message}` });
  }
}

const asRita = { principal: rita, source: "console", origin: null } as const;

async function ask(
  to: Entrance,
  { index, n, change, entries }: { index: number; n: number; change: Change; entries: Entries },
): Promise<boolean> {
  const server = entries.get(orderKey(index))?.serverPublicId ?? "";
  const answer = await to.dispatch({
    ...asRita,
    action: change.action,
    options: { server, ...change.options },
    idempotencyKey: changeKey(index, n),
  });
  if (answer.kind !== "operation") throw new Error(`${change.action}: ${JSON.stringify(answer)}`);
  return answer.existing;
}

/** What another process may have asked for without living to see the answer. */
async function askAgain(to: Entrance, life: Life, entries: Entries): Promise<void> {
  const { index, changes } = life;
  const n = changes.findLastIndex((_, at) => entries.has(changeKey(index, at)));
  const change = changes[n];
  if (change === undefined || askedAgain.has(index)) return;
  const existing = await ask(to, { index, n, change, entries });
  askedAgain.add(index);
  tell(existing ? { kind: "recognised" } : { kind: "twice", what: changeKey(index, n) });
}

/** Notes how it is reached, and sometimes lets a stranger have its MAC address. */
async function prepare({ index }: Life, change: Change, entries: Entries): Promise<void> {
  const cloud = config.clouds.find(({ kind }) => kind === "pve");
  if (cloud === undefined || told.has(index)) return;
  const vms = await vmsOf(cloud);
  const vm = vms.find(({ vmid }) => String(vmid) === entries.get(orderKey(index))?.externalId);
  if (vm === undefined) throw new Error(`order ${index} has succeeded, and has no VM`);
  tell({ kind: "network", index, network: networkOf(vm) });
  told.add(index);
  if (change.action === "server.rebuild" && index % strangerEvery === 0)
    await addTwin(cloud, index, { vm, vms });
}

async function addTwin(
  cloud: CloudAddress,
  index: number,
  { vm, vms }: { vm: SimulatedVm; vms: readonly SimulatedVm[] },
): Promise<void> {
  const vmid = strangersFrom + index;
  if (!vms.some((one) => one.vmid === vmid)) {
    await askSimulator(cloud, { method: "POST", path: "vms", body: { vmid, name: vm.name, running: false } });
  }
  const body = { config: { net0: vm.config["net0"] } };
  const answered = await askSimulator(cloud, { method: "PUT", path: `vms/${vmid}`, body });
  const { vm: stranger } = answered as { vm: SimulatedVm };
  tell({ kind: "stranger", key: `${vmid} ${stranger.name}`, text: JSON.stringify(stranger) });
}

process.on("message", (message: "stop" | Life[]) => {
  if (message === "stop") stopping.abort();
  else lives = message;
});
process.on("disconnect", () => process.exit(0));
process.send?.("ready");

for (let first = true; !stopping.signal.aborted; ) {
  try {
    const known = lives;
    await round(known, { isFirst: first });
    // They are told a moment after the start.
    if (known.length > 0) first = false;
  } catch (error) {
    tell({ kind: "trouble", what: String(error) });
  }
  await delay(pollMs);
}
await close();
process.disconnect();
