import { z } from "zod";
import type { ResizeOrder } from "../../../core/cloud.ts";
import { ServiceError } from "../../../core/errors.ts";
import type {
  Issued,
  PlannedStep,
  StepContext,
  StepDefinition,
  Verdict,
} from "../../../core/operations/step.ts";
import type { PveClient } from "../client.ts";
import { type FoundVm, findVm } from "../cluster.ts";
import { lookCondition } from "../condition.ts";
import { remoteServerOf } from "../server.ts";
import { pendingKeys, powerVm, setConfig } from "../vm.ts";
import { sizeParameters } from "./configure.ts";
import { planDisk } from "./disk.ts";
import { isOff } from "./power.ts";
import { findTarget, getTarget, requireUnlocked, vanished } from "./target.ts";
import { explained, judgeTask, refusal, waitFor } from "./task.ts";

const Size = z.object({ vcpus: z.number(), memoryMib: z.number() });
const SizeInput = z.object({ externalId: z.string(), after: Size });
const ApplyInput = z.object({ externalId: z.string() });

const CALL_TIMEOUT_MS = 2 * 60_000;
const GUEST_S = 60;
const SIZE_KEYS = new Set(["cores", "sockets", "memory", "balloon"]);

/** CPU and memory, then the disk, then the restart that makes CPU and memory count. */
export function planResize({ externalId, after }: ResizeOrder): PlannedStep[] {
  const { vcpus, memoryMib, diskGib } = after;
  return [
    { name: "pve.set_size", label: "Set CPU and memory", input: { externalId, after: { vcpus, memoryMib } } },
    planDisk({ externalId, diskGib }),
    { name: "pve.apply_size", label: "Restart it into its new size", input: { externalId } },
  ];
}

export function setSizeStep(client: PveClient): StepDefinition {
  return {
    name: "pve.set_size",
    deadlineMs: 10 * 60_000,
    callTimeoutMs: CALL_TIMEOUT_MS,
    evidence: "repeatable",
    async issue(context): Promise<Issued> {
      const { after } = SizeInput.parse(context.input);
      const vm = await getTarget(client, context);
      const { signal } = context;
      const before = await remoteServerOf(client, vm, signal);
      if (isThere(before, after) && (await waiting(client, vm, signal)).length === 0) {
        return { kind: "done", server: before, note: "CPU and memory are as asked for already." };
      }
      await requireUnlocked(client, vm, signal);
      await explained(client, { vm, signal }, () =>
        setConfig(client, vm, sizeParameters(vm, after), { signal }),
      );
      const now = await findVm(client, vm.vmid, { hint: vm.node, signal });
      if (now === null) throw vanished(client);
      const server = await remoteServerOf(client, now, signal);
      if (isThere(server, after)) return { kind: "done", server, note: "CPU and memory are set." };
      if ((await waiting(client, now, signal)).length > 0) {
        return { kind: "done", server, note: "CPU and memory are set; they count from the restart on." };
      }
      throw new ServiceError(
        "cloud_failed",
        "The cloud accepted the new size and shows the old one. Our operators must look at it.",
        { facts: { cloud: client.cloud }, staffDetail: `${client.cloud}: VM ${vm.vmid}` },
      );
    },
  };
}

function isThere(server: { vcpus: number; memoryMib: number }, after: z.infer<typeof Size>): boolean {
  return server.vcpus === after.vcpus && server.memoryMib === after.memoryMib;
}

/** What of the size waits for a real stop and start: a restart from inside the guest does not apply it. */
async function waiting(client: PveClient, vm: FoundVm, signal: AbortSignal): Promise<string[]> {
  return (await pendingKeys(client, vm, signal)).filter((key) => SIZE_KEYS.has(key));
}

/** PVE's own reboot stops the guest and starts it anew, which applies what waits. Nothing waits: nothing is restarted. */
export function applySizeStep(client: PveClient): StepDefinition {
  return {
    name: "pve.apply_size",
    deadlineMs: 15 * 60_000,
    callTimeoutMs: CALL_TIMEOUT_MS,
    pointOfNoReturn: "The server is restarting into its new size.",
    evidence: "repeatable",
    async issue(context): Promise<Issued> {
      ApplyInput.parse(context.input);
      const { signal } = context;
      const vm = await getTarget(client, context);
      const keys = await waiting(client, vm, signal);
      if (keys.length === 0 || (await isOff(client, vm, signal))) {
        const note =
          keys.length === 0 ? "no restart is needed." : "it is off; the size counts from its next start on.";
        return { kind: "done", server: await remoteServerOf(client, vm, signal), note };
      }
      await requireUnlocked(client, vm, signal);
      const upid = await explained(client, { vm, signal }, () =>
        powerVm(client, vm, { call: "reboot", parameters: { timeout: GUEST_S } }, { signal }),
      );
      return upid === null ? { kind: "done" } : waitFor(upid);
    },
    verify: (context) => verifyApplied(client, context),
  };
}

async function verifyApplied(client: PveClient, context: StepContext): Promise<Verdict> {
  const { signal } = context;
  const judged = await judgeTask(client, context, "restart the server");
  if (judged.kind === "running") return judged.verdict;
  const vm = await findTarget(client, context);
  if (vm === null) return { kind: "failed", error: vanished(client) };
  const server = await remoteServerOf(client, vm, signal);
  const keys = await waiting(client, vm, signal);
  if (keys.length === 0 && server.state === "active") return { kind: "done", server };
  if (judged.kind === "failed") {
    if (judged.error.facts["guest"] !== "silent")
      return refusal(client, context, { error: judged.error, vm });
    return { kind: "failed", server, error: notRestarted(client, judged.error, keys) };
  }
  // The task ends when the guest is down; PVE starts it a moment later.
  return { kind: "pending", condition: lookCondition("coming up again") };
}

function notRestarted(client: PveClient, cause: ServiceError, keys: readonly string[]): ServiceError {
  return new ServiceError(
    "cloud_failed",
    "The new CPU and memory are stored, but the guest did not restart, so they do not count yet. Stop and start the server to apply them.",
    {
      cause,
      facts: { cloud: client.cloud, pending: [...keys] },
      ...(cause.staffDetail === undefined ? {} : { staffDetail: cause.staffDetail }),
    },
  );
}
