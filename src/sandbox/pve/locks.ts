/** The file lock of each VM, /var/lock/qemu-server/lock-VMID.conf: held by a worker, gone with it. */
import type { Cluster } from "./cluster.ts";
import type { Work } from "./tasks.ts";
import { PveError } from "./wire.ts";

export interface Lock {
  exclusive: boolean;
  holders: number;
  waiting: { exclusive: boolean; enter: () => void }[];
}

/** At speed 0 everything takes a few milliseconds, but not the event loop's queue: a floor keeps time-outs honest. */
const LEAST_WAIT_MS = 400;

/**
 * Runs `action` under the lock. A worker that cannot have it within the time fails as PVE's does, and the
 * lock of a worker that is killed is free again.
 */
export async function withLock<T>(
  cluster: Cluster,
  work: Work,
  want: { vmid: number; timeoutMs: number; shared?: boolean },
  action: () => Promise<T> | T,
): Promise<T> {
  const exclusive = want.shared !== true;
  const release = await acquire(cluster, work, { ...want, exclusive });
  work.onDeath(release);
  try {
    return await action();
  } finally {
    release();
  }
}

async function acquire(
  cluster: Cluster,
  work: Pick<Work, "log">,
  want: { vmid: number; timeoutMs: number; exclusive: boolean },
): Promise<() => void> {
  const lock = cluster.locks.get(want.vmid) ?? { exclusive: false, holders: 0, waiting: [] };
  cluster.locks.set(want.vmid, lock);
  if (free(lock, want.exclusive)) {
    lock.holders += 1;
    lock.exclusive = want.exclusive;
  } else {
    work.log("trying to acquire lock...");
    await waitFor(cluster, lock, want);
    work.log(" OK");
  }
  let held = true;
  return () => {
    if (!held) return;
    held = false;
    leave(cluster, lock, want.vmid);
  };
}

/** Held by something that is no worker: qmeventd's clean-up, or a synchronous call. */
export async function holdLock(cluster: Cluster, vmid: number): Promise<() => void> {
  return acquire(cluster, { log: () => undefined }, { vmid, timeoutMs: 10_000, exclusive: true });
}

function free(lock: Lock, exclusive: boolean): boolean {
  return lock.holders === 0 || (!exclusive && !lock.exclusive);
}

function waitFor(
  cluster: Cluster,
  lock: Lock,
  want: { vmid: number; timeoutMs: number; exclusive: boolean },
): Promise<void> {
  return new Promise((resolve, reject) => {
    const waiter = {
      exclusive: want.exclusive,
      enter: (): void => {
        cluster.timers.delete(timer);
        clearTimeout(timer);
        resolve();
      },
    };
    const timer = setTimeout(
      () => {
        cluster.timers.delete(timer);
        lock.waiting.splice(lock.waiting.indexOf(waiter), 1);
        reject(
          new PveError(500, `can't lock file '/var/lock/qemu-server/lock-${want.vmid}.conf' - got timeout\n`),
        );
      },
      Math.max(LEAST_WAIT_MS, want.timeoutMs * cluster.options.speed),
    );
    cluster.timers.add(timer);
    lock.waiting.push(waiter);
  });
}

function leave(cluster: Cluster, lock: Lock, vmid: number): void {
  lock.holders -= 1;
  if (lock.holders > 0) return;
  lock.exclusive = false;
  let next = lock.waiting.shift();
  if (!next) cluster.locks.delete(vmid);
  // Granted here and now: between this and the waiter's next step nobody may slip in.
  while (next) {
    lock.holders += 1;
    lock.exclusive = next.exclusive;
    next.enter();
    next = !lock.exclusive && lock.waiting[0]?.exclusive === false ? lock.waiting.shift() : undefined;
  }
}
