// The cloud-init drive, from which a guest reads at its boot what is stored for it.
import type { PveClient } from "../client.ts";
import type { FoundVm } from "../cluster.ts";
import { isRefusal } from "../doubt.ts";
import { renewCloudInit, type WriteOptions } from "../vm.ts";
import { explained } from "./task.ts";

/**
 * After what it tells was stored. A refusal takes nothing back: PVE makes the drive anew at each start, and fails the start
 * when it cannot. Until then the guest boots with what it had.
 */
export async function renewDrive(
  client: PveClient,
  vm: FoundVm,
  options: WriteOptions,
): Promise<{ isRenewed: boolean; staffNote?: string }> {
  try {
    await explained(client, { vm, signal: options.signal }, () => renewCloudInit(client, vm, options));
    return { isRenewed: true };
  } catch (error) {
    if (!isRefusal(error)) throw error;
    const staffNote = `The cloud-init drive of VM ${vm.vmid} could not be made anew (${error.staffDetail ?? error.message}). PVE does that at the VM's next start, which fails while this is so.`;
    return { isRenewed: false, staffNote };
  }
}

/** When what is stored counts; `after_restart`: a boot from inside the guest is not enough. */
export function activeWhen({ isOff, isRenewed }: { isOff: boolean; isRenewed: boolean }): string {
  if (isOff) return "at_next_start";
  return isRenewed ? "after_next_boot" : "after_restart";
}
