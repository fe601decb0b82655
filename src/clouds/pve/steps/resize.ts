import { z } from "zod";
import type { RemoteServer, ResizeOrder } from "../../../core/cloud.ts";
import { isServiceError, reworded, ServiceError } from "../../../core/errors.ts";
import type {
  Issued,
  PlannedStep,
  Probe,
  StepContext,
  StepDefinition,
  StepOutcome,
  Verdict,
} from "../../../core/operations/step.ts";
import { hasAddressNote } from "../address.ts";
import type { PveClient } from "../client.ts";
import type { FoundVm } from "../cluster.ts";
import { lookCondition } from "../condition.ts";
import { coresOf } from "../config.ts";
import { inDoubtAfterAnyWrite, isRefusal } from "../doubt.ts";
import { remoteServerOf } from "../server.ts";
import { powerVm } from "../vm.ts";
import { sizeParameters } from "./configure.ts";
import { planGrowth } from "./disk.ts";
import { isOff, planPower } from "./power.ts";
import { lookAgain, requireShown, set } from "./setting.ts";
import { findTarget, getTarget, requireUnlocked, vanished } from "./target.ts";
import { explained, judgeTask, refusal, taskSinceIntent, waitFor } from "./task.ts";
import { sizeThatWaits } from "./waiting-size.ts";

const Size = z.object({ vcpus: z.number(), memoryMib: z.number(), sockets: z.number().optional() });
const SizeInput = z.object({ externalId: z.string(), after: Size });
const ApplyInput = z.object({ externalId: z.string(), restart: z.enum(["now", "later"]).optional() });

const CALL_TIMEOUT_MS = 2 * 60_000;
const GUEST_S = 60;
const WHAT_IS_STORED =
  "The cloud refused the new CPU and memory, and does not tell what it has stored of them.";

/**
 * The disk first: where it cannot grow, nothing else has been changed. Then CPU and memory, then the restart that makes
 * them count. A part that stays as it is has no step.
 */
export function planResize({ externalId, before, after, sockets, restart }: ResizeOrder): PlannedStep[] {
  const { vcpus, memoryMib, diskGib } = after;
  const growsDisk = diskGib !== before.diskGib;
  const changesSize = vcpus !== before.vcpus || memoryMib !== before.memoryMib || sockets !== undefined;
  const size = { vcpus, memoryMib, ...(sockets === undefined ? {} : { sockets }) };
  const steps: PlannedStep[] = growsDisk ? [planGrowth({ externalId, diskGib })] : [];
  if (growsDisk && !changesSize) return steps;
  const isLater = restart === "later";
  return [
    ...steps,
    { name: "pve.set_size", label: "Set CPU and memory", input: { externalId, after: size } },
    {
      name: "pve.apply_size",
      label: isLater ? "See what waits for a restart" : "Restart it into its new size",
      input: { externalId, ...(isLater ? { restart } : {}) },
    },
  ];
}

/** Off, on, and a look whether anything of its size waits still. */
export function planRestart({ externalId }: { externalId: string }): PlannedStep[] {
  return [
    planPower({ externalId, verb: "stop" }),
    planPower({ externalId, verb: "start" }),
    { name: "pve.check_size", label: "See that its size counts", input: { externalId } },
  ];
}

export function setSizeStep(client: PveClient): StepDefinition {
  // Stored and not looked at is not "failed": it would count one day.
  return inDoubtAfterAnyWrite({
    name: "pve.set_size",
    deadlineMs: 10 * 60_000,
    callTimeoutMs: CALL_TIMEOUT_MS,
    // Stored is as good as had: the next stop and start would apply it.
    pointOfNoReturn:
      "The cloud has the new CPU and memory already. Ask for the size it had afterwards to take them back.",
    evidence: "repeatable",
    issue: (context) => setSize(client, context),
  });
}

async function setSize(client: PveClient, context: StepContext): Promise<Issued> {
  const { after } = SizeInput.parse(context.input);
  const { signal } = context;
  const vm = await getTarget(client, context);
  const before = await remoteServerOf(client, vm, signal, { addresses: false });
  if (isThere(before, vm, after) && (await sizeThatWaits(client, vm, signal)).length === 0) {
    return { kind: "done", ...counted(before, []), note: "CPU and memory are as asked for already." };
  }
  try {
    await set(client, context, vm, sizeParameters(vm, after));
  } catch (error) {
    // A locked VM is refused before anything of it is stored.
    if (!isRefusal(error) || (!context.inDoubt && error.facts["lock"] !== undefined)) throw error;
    try {
      return await refusedInPart(client, { vm, error, signal });
    } catch (unseen) {
      throw isServiceError(unseen) ? reworded(unseen, WHAT_IS_STORED, { code: "unknown_outcome" }) : unseen;
    }
  }
  const now = await lookAgain(client, context, vm);
  const server = await remoteServerOf(client, now, signal, { addresses: false });
  const keys = await sizeThatWaits(client, now, signal);
  if (keys.length > 0) {
    const note = "CPU and memory are stored; they count when the server has been stopped and started.";
    return { kind: "done", ...counted(server, keys), note };
  }
  const { sockets } = coresOf(now.config);
  const shown = `${server.vcpus} CPU in ${sockets} sockets, ${server.memoryMib} MiB`;
  requireShown(client, now, "the new size", isThere(server, now, after) ? [] : [shown]);
  return { kind: "done", ...counted(server, keys), note: "CPU and memory are set." };
}

/** PVE stores all of it before it tries what a running guest takes at once: a refusal may leave a part behind. */
async function refusedInPart(
  client: PveClient,
  { vm, error, signal }: { vm: FoundVm; error: ServiceError; signal: AbortSignal },
): Promise<Issued> {
  const keys = await sizeThatWaits(client, vm, signal);
  const { server, output } = counted(await remoteServerOf(client, vm, signal), keys);
  const failed = { kind: "failed" as const, ...(server === undefined ? {} : { server }) };
  if (keys.length === 0) return { ...failed, error };
  return {
    ...failed,
    ...(output === undefined ? {} : { output }),
    error: reworded(
      error,
      "The cloud refused the new CPU and memory after it had stored them. What is stored counts when the server is stopped and started; ask for the old size again to take it back.",
      { facts: { pending: keys }, retryable: false },
    ),
  };
}

/** What runs now, and whether a new size waits behind it: for the row, and for what the end says. */
function counted(server: RemoteServer, keys: readonly string[]): Pick<StepOutcome, "server" | "output"> {
  const { vcpus, memoryMib, diskGib } = server;
  const isWaiting = keys.length > 0;
  return {
    server: { ...server, data: { ...server.data, sizeWaits: isWaiting } },
    output: { size: { vcpus, memoryMib, diskGib }, cpuAndMemory: isWaiting ? "at_restart" : "now" },
  };
}

function isThere(server: RemoteServer, { config }: FoundVm, after: z.infer<typeof Size>): boolean {
  const sockets = after.sockets === undefined || after.sockets === coresOf(config).sockets;
  return server.vcpus === after.vcpus && server.memoryMib === after.memoryMib && sockets;
}

/**
 * PVE's own reboot stops the guest and starts it anew, which applies what waits. Nothing waits: nothing is restarted. After a
 * lost answer the task list tells, because a second reboot would be one more.
 */
export function applySizeStep(client: PveClient): StepDefinition {
  return {
    name: "pve.apply_size",
    deadlineMs: 15 * 60_000,
    callTimeoutMs: CALL_TIMEOUT_MS,
    pointOfNoReturn: "The server is restarting into its new size.",
    evidence: "record",
    issue: (context) => applySize(client, context),
    async probe(context): Promise<Probe> {
      const vm = await findTarget(client, context);
      if (vm === null) return { effect: "absent" };
      return taskSinceIntent(client, context, { vm, types: ["qmreboot"] });
    },
    verify: (context) => verifyApplied(client, context),
  };
}

async function applySize(client: PveClient, context: StepContext): Promise<Issued> {
  const { restart = "now" } = ApplyInput.parse(context.input);
  const { signal } = context;
  const vm = await getTarget(client, context);
  const keys = await sizeThatWaits(client, vm, signal);
  const off = await isOff(client, vm, signal);
  if (keys.length === 0 || off || restart === "later") {
    const server = await remoteServerOf(client, vm, signal, { addresses: false });
    return { kind: "done", ...counted(server, keys), note: whyNot(keys, off) };
  }
  await requireUnlocked(client, vm, signal);
  const upid = await explained(client, { vm, signal }, () =>
    powerVm(client, vm, { call: "reboot", parameters: { timeout: GUEST_S } }, { signal }),
  );
  if (upid !== null) return waitFor(upid);
  throw new ServiceError(
    "unknown_outcome",
    "The cloud's answer cannot be understood, so it is not known yet whether the server restarts.",
    { facts: { cloud: client.cloud } },
  );
}

function whyNot(keys: readonly string[], off: boolean): string {
  if (off) return "it is off; the new size counts from its next start on.";
  if (keys.length === 0) return "no restart is needed.";
  return "it was not restarted, so it has its old CPU and memory until it is stopped and started.";
}

async function verifyApplied(client: PveClient, context: StepContext): Promise<Verdict> {
  const { signal } = context;
  const judged = await judgeTask(client, context, "restart the server");
  if (judged.kind === "running") return judged.verdict;
  const vm = await findTarget(client, context);
  if (vm === null) return { kind: "failed", error: vanished(client) };
  const server = await remoteServerOf(client, vm, signal, { addresses: false });
  const keys = await sizeThatWaits(client, vm, signal);
  if (keys.length === 0 && server.state === "active") {
    return { kind: "done", ...counted(server, keys), note: "it has restarted, and its new size counts." };
  }
  if (judged.kind === "failed") {
    if (judged.error.facts["guest"] !== "silent")
      return refusal(client, context, { error: judged.error, vm });
    return { kind: "failed", server, error: notRestarted(judged.error, keys) };
  }
  // The task ends when the guest is down; PVE starts it a moment later.
  return { kind: "pending", condition: lookCondition("coming up again") };
}

function notRestarted(cause: ServiceError, keys: readonly string[]): ServiceError {
  return reworded(
    cause,
    "The new CPU and memory are stored, but the guest did not restart, so they do not count yet. Stop and start the server to apply them.",
    { code: "cloud_failed", facts: { pending: [...keys] } },
  );
}

/** Changes nothing. */
export function checkSizeStep(client: PveClient): StepDefinition {
  return {
    name: "pve.check_size",
    deadlineMs: 5 * 60_000,
    callTimeoutMs: CALL_TIMEOUT_MS,
    evidence: "repeatable",
    async issue(context): Promise<Issued> {
      const { signal } = context;
      const vm = await getTarget(client, context);
      // Another address may have waited, too.
      const server = await remoteServerOf(client, vm, signal, { addresses: hasAddressNote(vm.config) });
      const keys = await sizeThatWaits(client, vm, signal);
      if (keys.length === 0) {
        return { kind: "done", ...counted(server, keys), note: "nothing of its size waits any more." };
      }
      const error = new ServiceError(
        "cloud_failed",
        "The server was stopped and started, and a part of its new size waits still. Our operators must look at it.",
        {
          facts: { cloud: client.cloud },
          staffDetail: `${client.cloud}: VM ${vm.vmid}: ${keys.join(", ")} pending`,
        },
      );
      return { kind: "failed", error, server };
    },
  };
}
