import { z } from "zod";
import { ServiceError } from "../../../core/errors.ts";
import type {
  Issued,
  PlannedStep,
  StepContext,
  StepDefinition,
  Verdict,
} from "../../../core/operations/step.ts";
import { guestOs, setGuestPassword } from "../agent.ts";
import type { PveClient } from "../client.ts";
import type { FoundVm } from "../cluster.ts";
import { lookCondition } from "../condition.ts";
import { hasAgent, hasCloudInit } from "../config.ts";
import { inDoubtForGood, isRefusal } from "../doubt.ts";
import { remoteServerOf } from "../server.ts";
import { getStatus, setConfig } from "../vm.ts";
import { activeWhen, renewDrive } from "./cloud-init.ts";
import { defaultUserOf } from "./configure.ts";
import { getTarget, requireUnlocked } from "./target.ts";
import { explained } from "./task.ts";

const Input = z.object({ externalId: z.string(), secretId: z.string() });
/** How long after its start a guest's agent may still be coming up. */
const AGENT_UP_MS = 2 * 60_000;

export function planPassword(externalId: string, secretId: string): PlannedStep {
  return { name: "pve.password", label: "Set the new password", input: { externalId, secretId } };
}

/**
 * In the running guest when its agent answers; else for its next boot, and then that is said. The stored password is set, so
 * doing it twice is doing it once.
 */
export function passwordStep(client: PveClient): StepDefinition {
  return inDoubtForGood({
    name: "pve.password",
    deadlineMs: 10 * 60_000,
    callTimeoutMs: 2 * 60_000,
    evidence: "repeatable",
    issue: (context) => issue(client, context),
    async verify(context): Promise<Verdict> {
      const vm = await getTarget(client, context);
      const { uptime = 0 } = await getStatus(client, vm, context.signal);
      // By what is asked next: an agent may answer a ping and not that.
      const silent = uptime * 1000 < AGENT_UP_MS && (await guestOs(client, vm, context.signal)) === null;
      if (silent) return { kind: "pending", condition: lookCondition(COMING_UP) };
      return { kind: "again", error: stillStarting() };
    },
  });
}

function stillStarting(): ServiceError {
  return new ServiceError("cloud_conflict", "The guest was still starting.", { retryable: true });
}

const COMING_UP = "waiting for the guest agent";

async function issue(client: PveClient, context: StepContext): Promise<Issued> {
  const { secretId } = Input.parse(context.input);
  const { signal } = context;
  const vm = await getTarget(client, context);
  const status = await getStatus(client, vm, signal);
  if (status.qmpstatus === "paused") {
    throw new ServiceError(
      "cloud_conflict",
      "The server is paused, so its password cannot be set, and nothing was changed. Resume it, then try again.",
      { facts: { cloud: client.cloud } },
    );
  }
  const isOff = status.status !== "running";
  const os = !isOff && hasAgent(vm.config) ? await guestOs(client, vm, signal) : null;
  if (os === null) {
    if (!isOff && hasAgent(vm.config) && (status.uptime ?? 0) * 1000 < AGENT_UP_MS) {
      // The end of a wait would say that nothing was done.
      if (context.inDoubt) throw stillStarting();
      return { kind: "wait", reference: {}, condition: lookCondition(COMING_UP), note: COMING_UP };
    }
    return forNextBoot(client, context, { vm, isOff, password: await context.readSecret(secretId) });
  }
  const username = os === "mswindows" ? "Administrator" : defaultUserOf(vm.config);
  const password = await context.readSecret(secretId);
  await setGuestPassword(client, vm, { username, password }, { signal });
  const behind = await keepForLaterBoots(client, context, { vm, password });
  const server = await remoteServerOf(client, vm, signal, { addresses: false });
  return {
    kind: "done",
    server,
    output: { passwordActive: "now", passwordUser: username },
    note: `the guest has taken the new password of ${username}.`,
    ...(behind === null ? {} : { staffNote: behind }),
  };
}

/**
 * cloud-init sets its password anew whenever anything of its data has changed (keys, name, network): what is stored there
 * must not be the password that was just replaced. A refusal takes nothing back from the guest: what staff have to know of it
 * is returned.
 */
async function keepForLaterBoots(
  client: PveClient,
  { signal }: StepContext,
  { vm, password }: { vm: FoundVm; password: string },
): Promise<string | null> {
  if (!hasCloudInit(vm.config)) return null;
  try {
    const options = { signal, secrets: [password] };
    await explained(client, { vm, signal }, () => setConfig(client, vm, { cipassword: password }, options));
    return null;
  } catch (error) {
    // Done again after a lost answer, or in a moment.
    if (!isRefusal(error)) throw error;
    return `The cloud-init data of VM ${vm.vmid} keeps the old password, as far as PVE says (${error.staffDetail ?? error.message}): it comes back when they change. Set the password again later.`;
  }
}

/** cloud-init takes a changed password at the next boot, as a new instance (PVE derives its instance id from the data). */
async function forNextBoot(
  client: PveClient,
  { signal }: StepContext,
  { vm, isOff, password }: { vm: FoundVm; isOff: boolean; password: string },
): Promise<Issued> {
  if (!hasCloudInit(vm.config)) {
    throw new ServiceError(
      "unsupported",
      "The cloud cannot set a password in this server: no guest agent answers in it and it has no cloud-init drive. Change the password inside it.",
      { facts: { cloud: client.cloud }, staffDetail: `${client.cloud}: VM ${vm.vmid}` },
    );
  }
  await requireUnlocked(client, vm, signal);
  const options = { signal, secrets: [password] };
  await explained(client, { vm, signal }, () => setConfig(client, vm, { cipassword: password }, options));
  const { isRenewed, ...notes } = await renewDrive(client, vm, options);
  return {
    kind: "done",
    server: await remoteServerOf(client, vm, signal, { addresses: false }),
    output: { passwordActive: activeWhen({ isOff, isRenewed }), passwordUser: defaultUserOf(vm.config) },
    note: isOff
      ? "it is off, so the new password becomes active at its next start."
      : `no guest agent answers, so the new password becomes active ${isRenewed ? "at the next boot" : "when it is stopped and started"}.`,
    ...notes,
  };
}
