// MAC addresses: PVE gives each card its own, and lets anybody write the same one into two VMs.
import type { Cluster } from "./cluster.ts";
import type { Vm } from "./types.ts";

/** "virtio=BC:24:11:00:00:01,bridge=vmbr0" */
export function macOf(card: string): string {
  return card.split(",")[0]?.split("=")[1] ?? "";
}

/** The MAC addresses that a VM's cards have. */
function macsOf(vm: Vm): string[] {
  return [...vm.config].filter(([key]) => /^net\d+$/.test(key)).map(([, value]) => macOf(value));
}

interface Clash {
  how: string;
  isRival: (other: Vm) => boolean;
}

/** PVE lets two VMs have one MAC address; what runs, or would, is in each other's way. */
export function noteMacClashes(cluster: Cluster, vm: Vm, { how, isRival }: Clash): void {
  const macs = new Set(macsOf(vm));
  for (const other of cluster.vms.values()) {
    if (other === vm || !isRival(other)) continue;
    const shared = macsOf(other).filter((mac) => macs.has(mac));
    cluster.macClashes.push(...shared.map((mac) => `VM ${vm.vmid} ${how} with ${mac} of VM ${other.vmid}`));
  }
}
