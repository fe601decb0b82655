/** The list of actions; nothing else names them. Adding one is a file and a line here. */
import type { Action, ActionRegistry } from "../action.ts";
import { ServiceError } from "../errors.ts";
import { nearest } from "../nearest.ts";
import { accountCode, accountShow, accountUnlink, link } from "./account.ts";
import { serverBuild } from "./build.ts";
import { cloudList, cloudMaintenance } from "./cloud.ts";
import { serverConsole } from "./console.ts";
import { serverDelete } from "./delete.ts";
import { accountSecure, accountUnsecure, accountVerify } from "./factor.ts";
import { help } from "./help.ts";
import { ipAssign, ipRelease } from "./ip.ts";
import { isoList, isoMount, isoUnmount } from "./iso.ts";
import { serverKeys } from "./keys.ts";
import { serverList, serverShow } from "./list.ts";
import { opsList, opsShow } from "./ops.ts";
import { serverPassword } from "./password.ts";
import { serverPower } from "./power.ts";
import { serverProtect } from "./protect.ts";
import { serverProvision } from "./provision.ts";
import { serverRebuild, serverReinstall } from "./rebuild.ts";
import { serverRescue, serverUnrescue } from "./rescue.ts";
import { serverResize } from "./resize.ts";
import { opsAbandon, opsAdopt, opsCancel, opsConfirm, opsRetry } from "./resolve.ts";
import { serverRestart } from "./restart.ts";
import { snapshotCreate, snapshotDelete, snapshotList, snapshotRollback } from "./snapshot.ts";
import { syncRun, syncStatus } from "./sync.ts";
import { serverUndelete } from "./undelete.ts";
import { serverBandwidth, serverUsage } from "./usage.ts";

const actions: readonly Action[] = [
  serverList,
  serverShow,
  serverUsage,
  serverProvision,
  serverBuild,
  serverResize,
  serverPower,
  serverRestart,
  serverPassword,
  serverConsole,
  serverKeys,
  serverRebuild,
  serverReinstall,
  serverRescue,
  serverUnrescue,
  serverProtect,
  serverBandwidth,
  serverDelete,
  serverUndelete,
  isoList,
  isoMount,
  isoUnmount,
  ipAssign,
  ipRelease,
  snapshotCreate,
  snapshotList,
  snapshotRollback,
  snapshotDelete,
  opsList,
  opsShow,
  opsConfirm,
  opsCancel,
  opsRetry,
  opsAdopt,
  opsAbandon,
  syncRun,
  syncStatus,
  cloudList,
  cloudMaintenance,
  link,
  accountShow,
  accountCode,
  accountUnlink,
  accountSecure,
  accountVerify,
  accountUnsecure,
  help,
];

export function createRegistry(list: readonly Action[] = actions): ActionRegistry {
  const byName = new Map(list.map((action) => [action.name, action]));
  if (byName.size !== list.length) throw new Error("two actions have the same name");
  return {
    list: () => list,
    find: (name) => byName.get(name),
    get(name) {
      const found = byName.get(name);
      if (found !== undefined) return found;
      const guess = nearest(name, byName.keys());
      throw new ServiceError(
        "unknown_command",
        `There is no command ${name}.${guess === undefined ? "" : ` Did you mean ${guess}?`}`,
      );
    },
  };
}
