/** The guest agent: not configured, not running, not up yet, or an error from inside the guest. */

import { pause } from "../pace.ts";
import { findVm } from "./cluster.ts";
import * as format from "./formats.ts";
import { agentAnswers, interfacesOf, isWindows } from "./guest.ts";
import { has } from "./knobs.ts";
import { type Call, type Method, method, type Permission } from "./router.ts";
import { boolean, integer, list, needed, string } from "./schema.ts";
import type { RunState, Vm } from "./types.ts";
import { needText, number, PveError } from "./wire.ts";

const ids = { node: needed(format.node()), vmid: needed(format.vmid()) };

/** Release 9 took VM.Monitor away and gave the agent its own privileges. */
function right(...privileges: string[]): (version: "8.4" | "9.2") => Permission {
  return (version) => ({
    path: "/vms/{vmid}",
    privileges: version === "8.4" ? ["VM.Monitor"] : privileges,
    any: true,
  });
}

const audit = right("VM.GuestAgent.Audit", "VM.GuestAgent.Unrestricted");
const unrestricted = right("VM.GuestAgent.Unrestricted");
const BASE = "/nodes/{node}/qemu/{vmid}/agent";

export const agentMethods: Method[] = [
  method("POST", `${BASE}/ping`, {
    permission: audit,
    schema: ids,
    handler: (call) => simple(call, () => ({})),
  }),
  method("GET", `${BASE}/get-osinfo`, {
    permission: audit,
    protected: true,
    schema: ids,
    handler: (call) => simple(call, osInfo),
  }),
  method("GET", `${BASE}/get-host-name`, {
    permission: audit,
    protected: true,
    schema: ids,
    handler: (call) => simple(call, (vm) => ({ "host-name": vm.guest.hostname })),
  }),
  method("GET", `${BASE}/network-get-interfaces`, {
    permission: audit,
    protected: true,
    schema: ids,
    handler: (call) => simple(call, interfacesOf),
  }),
  method("POST", `${BASE}/set-user-password`, {
    permission: unrestricted,
    schema: {
      ...ids,
      crypted: boolean(),
      password: needed(string({ minLength: 5, maxLength: 1024 })),
      username: needed(string()),
    },
    handler: (call) => simple(call, (vm) => setPassword(call, vm)),
  }),
  method("POST", `${BASE}/exec`, {
    permission: unrestricted,
    schema: { ...ids, command: needed(list()), "input-data": string({ maxLength: 65_536 }) },
    handler: exec,
  }),
  method("GET", `${BASE}/exec-status`, {
    permission: unrestricted,
    protected: true,
    schema: { ...ids, pid: needed(integer()) },
    handler: execStatus,
  }),
];

async function running({ cluster, node, vmid }: Call): Promise<{ vm: Vm; run: RunState }> {
  const vm = findVm(cluster, node, vmid);
  if (!vm.config.has("agent")) throw new PveError(500, "No QEMU guest agent configured\n");
  if (!vm.run) throw new PveError(500, `VM ${vmid} is not running\n`);
  if (agentAnswers(vm)) return { vm, run: vm.run };
  // Each call pings first, for 3 s.
  await pause(cluster, 3000);
  throw new PveError(500, "QEMU guest agent is not running\n");
}

async function simple(call: Call, answer: (vm: Vm) => unknown): Promise<object> {
  const { vm } = await running(call);
  return { result: answer(vm) };
}

function osInfo(vm: Vm): object {
  if (isWindows(vm)) {
    return {
      id: "mswindows",
      name: "Microsoft Windows",
      "pretty-name": "Windows Server 2025",
      version: "2025",
      machine: "x86_64",
    };
  }
  return {
    id: "debian",
    name: "Debian GNU/Linux",
    "pretty-name": "Debian GNU/Linux 12 (bookworm)",
    version: "12 (bookworm)",
    "version-id": "12",
    machine: "x86_64",
    "kernel-release": "6.1.0-40-cloud-amd64",
  };
}

function setPassword({ params }: Call, vm: Vm): object {
  const username = needText(params, "username");
  const failed = "Agent error: child process has failed to set user password:";
  if (has(vm, "sim-fail-password")) throw new PveError(500, `${failed} chpasswd: simulated failure\n\n`);
  const known = vm.guest.users.has(username) || (isWindows(vm) && username === "Administrator");
  if (!known) throw new PveError(500, `${failed} chpasswd: unknown user ${username}\n\n`);
  vm.guest.users.set(username, needText(params, "password"));
  return {};
}

async function exec(call: Call): Promise<object> {
  const { run, vm } = await running(call);
  const given = call.params.get("command");
  const command = Array.isArray(given) ? given : [String(given)];
  const pid = 2000 + run.commands.size;
  const known = /^(?:\/(?:usr\/)?bin\/)?(?:true|false|echo|hostname|cat|sh|bash)$/.test(command[0] ?? "");
  if (!known) {
    throw new PveError(
      500,
      `Agent error: Guest agent command failed, error was 'Failed to execute child process “${command[0]}” (No such file or directory)'\n`,
    );
  }
  const output = command[0]?.endsWith("echo") === true ? `${command.slice(1).join(" ")}\n` : "";
  const text = command[0]?.endsWith("hostname") === true ? `${vm.guest.hostname}\n` : output;
  const exitcode = command[0]?.endsWith("false") === true ? 1 : 0;
  run.commands.set(pid, {
    command,
    exitcode,
    output: text,
    doneAt: Date.now() + 200 * call.cluster.options.speed,
  });
  return { pid };
}

async function execStatus(call: Call): Promise<object> {
  const { run } = await running(call);
  const pid = number(call.params, "pid") ?? 0;
  const found = run.commands.get(pid);
  if (!found) throw new PveError(500, `Agent error: PID ${pid} does not exist\n`);
  if (Date.now() < found.doneAt) return { exited: 0 };
  return {
    exited: 1,
    exitcode: found.exitcode,
    ...(found.output === "" ? {} : { "out-data": found.output }),
  };
}
