// PVE's calls that a guest's agent answers. Whoever is root in the guest decides what that is: so nothing it says, and no
// silence of it, tells anything about PVE or about the VM, and of what it says only that is used which can be checked.
import { z } from "zod";
import { isServiceError, type ServiceError } from "../../core/errors.ts";
import { usableAddresses } from "./address.ts";
import type { Call, PveClient } from "./client.ts";
import { AgentAnswer, AgentInterfaces, AgentOs } from "./schema.ts";
import { ofFound, pathOf, type VmAddress, type WriteOptions } from "./vm.ts";

/** Whether the guest agent answers. PVE itself waits 3 s for it. */
export async function pingAgent(client: PveClient, at: VmAddress, signal?: AbortSignal): Promise<boolean> {
  return (await ask(client, at, { method: "POST", call: "ping", schema: AgentAnswer, signal })) !== null;
}

/** Null when the agent does not answer as it should. Addresses of these cards only. */
export async function agentAddresses(
  client: PveClient,
  at: VmAddress,
  { macs, signal }: { macs: readonly string[]; signal?: AbortSignal | undefined },
): Promise<string[] | null> {
  const question = { call: "network-get-interfaces", schema: AgentInterfaces, since: at.since, signal };
  const answer = await ask(client, at, { method: "GET", ...question }).catch((error: unknown) => {
    // A server without a known address is still a server; the connection test names the privilege that is missing.
    if (!isServiceError(error, "cloud_forbidden")) throw error;
    note(client, at, "the credential may not ask the guest agent");
    return null;
  });
  if (answer === null) return null;
  // A guest's own bridges and tunnels (docker0) are nobody's address.
  const own = answer.result.filter((card) => macs.includes((card["hardware-address"] ?? "").toLowerCase()));
  return usableAddresses(
    own.flatMap((card) => (card["ip-addresses"] ?? []).map((address) => address["ip-address"])),
  );
}

/** The guest's operating system by the agent ("debian", "mswindows"); null when it does not answer as it should. */
export async function guestOs(
  client: PveClient,
  at: VmAddress,
  signal?: AbortSignal,
): Promise<string | null> {
  const answer = await ask(client, at, { method: "GET", call: "get-osinfo", schema: AgentOs, signal });
  return answer === null ? null : (answer.result.id ?? "");
}

export async function setGuestPassword(
  client: PveClient,
  at: VmAddress,
  { username, password }: { username: string; password: string },
  options: WriteOptions,
): Promise<void> {
  const path = `${pathOf(at)}/agent/set-user-password`;
  const parameters = { username, password };
  await ofFound(() => client.call({ method: "POST", path, parameters, ...options, secrets: [password] }));
}

interface Question<T> extends Pick<Call, "since" | "signal"> {
  method: "GET" | "POST";
  call: string;
  schema: z.ZodType<T>;
}

/** An agent that answers does so in moments, after the 3 s of PVE's ping at most; a slow one must not hold a whole list up. */
const ANSWER_MS = 7_000;

/**
 * Null for every refusal and every answer of another shape: they are the guest's words, also where PVE's own error quotes
 * them, or its slowness. Throws what is about our credential, and what comes of our own giving up.
 */
async function ask<T>(
  client: PveClient,
  at: VmAddress,
  { method, call, schema, since, signal }: Question<T>,
): Promise<T | null> {
  const timeoutMs = Math.min(client.options.timeoutMs ?? ANSWER_MS, ANSWER_MS);
  const request = { path: `${pathOf(at)}/agent/${call}`, signal, since, timeoutMs };
  let answer: unknown;
  try {
    answer =
      method === "GET"
        ? await client.read(request, z.unknown())
        : await client.call({ ...request, method, changing: false });
  } catch (error) {
    if (!isServiceError(error) || isOurs(error) || signal?.aborted === true) throw error;
    if (!isSilent(error)) note(client, at, error.staffDetail ?? error.message);
    return null;
  }
  const result = schema.safeParse(answer);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  note(client, at, `${call}: unexpected shape at ${issue?.path.slice(0, 6).join(".") ?? "its top"}`);
  return null;
}

/** It is about our credential. */
function isOurs({ code }: ServiceError): boolean {
  return code === "unauthorized" || code === "cloud_forbidden";
}

/** As of most guests at times: it has no agent yet, or does not run. */
function isSilent({ facts: { agent, already } }: ServiceError): boolean {
  return agent === "silent" || already === "stopped";
}

const NOTED_MS = 60 * 60_000;
const noted = new WeakMap<PveClient, Map<number, number>>();

/** Once an hour for each VM: a guest that is asked every second must not fill the log. */
function note(client: PveClient, { vmid }: VmAddress, reason: string): void {
  const times = noted.get(client) ?? new Map<number, number>();
  noted.set(client, times);
  const now = client.recent.now();
  const isNew = now - (times.get(vmid) ?? Number.NEGATIVE_INFINITY) >= NOTED_MS;
  if (isNew) times.set(vmid, now);
  client.log[isNew ? "warn" : "debug"](
    { cloud: client.cloud, vmid, reason },
    "what a guest's agent answers is not used",
  );
}
