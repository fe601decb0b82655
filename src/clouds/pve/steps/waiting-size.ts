// A size that PVE has stored, and that counts only when the VM has been stopped and started.
import type { RemoteServer } from "../../../core/cloud.ts";
import type { StepContext } from "../../../core/operations/step.ts";
import type { PveClient } from "../client.ts";
import type { FoundVm } from "../cluster.ts";
import { isRefusal } from "../doubt.ts";
import { pendingKeys } from "../vm.ts";

/** Of a VM's configuration. */
export const SIZE_KEYS = new Set(["cores", "sockets", "memory", "balloon"]);

/** The keys that wait for a real stop and start: a restart from inside the guest does not apply them. */
export async function sizeThatWaits(client: PveClient, vm: FoundVm, signal: AbortSignal): Promise<string[]> {
  return (await pendingKeys(client, vm, signal)).filter((key) => SIZE_KEYS.has(key));
}

/**
 * Where our row says that one waits, or `always`, PVE is asked whether it does still: after whatever may have applied or
 * dropped it. That is done, whatever PVE says to this question.
 */
export async function withWaitingSize(
  client: PveClient,
  { serverData, signal }: Pick<StepContext, "serverData" | "signal">,
  { vm, server, always = false }: { vm: FoundVm; server: RemoteServer; always?: boolean },
): Promise<RemoteServer> {
  if (!always && serverData["sizeWaits"] !== true) return server;
  try {
    const keys = await sizeThatWaits(client, vm, signal);
    return { ...server, data: { ...server.data, sizeWaits: keys.length > 0 } };
  } catch (error) {
    if (!isRefusal(error)) throw error;
    client.log.warn(
      { err: error, cloud: client.cloud, vmid: vm.vmid },
      "whether a size waits could not be told",
    );
    return server;
  }
}
