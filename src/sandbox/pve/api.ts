import { agentMethods } from "./agent.ts";
import { cloneMethods } from "./clone.ts";
import { configMethods } from "./config-api.ts";
import { consoleMethods } from "./console.ts";
import { contentMethods } from "./content-api.ts";
import { firewallMethods } from "./firewall.ts";
import { clusterMethods } from "./nodes-api.ts";
import { powerMethods } from "./power.ts";
import { qemuMethods } from "./qemu.ts";
import type { Method } from "./router.ts";
import { snapshotMethods } from "./snapshots.ts";
import { taskMethods } from "./tasks-api.ts";

/** Every method of PVE's API that is played. */
export const methods: readonly Method[] = [
  ...clusterMethods,
  ...contentMethods,
  ...qemuMethods,
  ...cloneMethods,
  ...configMethods,
  ...powerMethods,
  ...snapshotMethods,
  ...agentMethods,
  ...consoleMethods,
  ...firewallMethods,
  ...taskMethods,
];
