/** vncproxy and vncwebsocket: a port for one visitor who comes within ten seconds, and a ticket that is bound to it. */
import { createHmac, randomInt } from "node:crypto";
import type { Duplex } from "node:stream";
import { pauseExactly } from "../pace.ts";
import { unauthorized, type Who } from "./access.ts";
import { type Cluster, findVm, isOffline } from "./cluster.ts";
import * as format from "./formats.ts";
import { serveRfb } from "./rfb.ts";
import { type Call, type Method, method } from "./router.ts";
import { boolean, integer, needed, string } from "./schema.ts";
import { createScreen } from "./screen.ts";
import { forkWorker } from "./tasks.ts";
import type { Vm } from "./types.ts";
import { needText, number, PveError } from "./wire.ts";

const ids = { node: needed(format.node()), vmid: needed(format.vmid()) };
const permission = { path: "/vms/{vmid}", privileges: ["VM.Console"] };
const FIRST_PORT = 5900;
const LAST_PORT = 5999;
/** vncproxy's $timeout. */
const WAIT_MS = 10_000;
/** PVE::AccessControl's $verify_short_lived_ticket. */
const TICKET_SECONDS = 40;
const LOOK_MS = 20;

/** What vncproxy listens on. */
export interface VncPort {
  vm: Vm;
  password: string;
  /** Whoever comes first; undefined once somebody has. */
  accept: ((visitor: Duplex) => void) | undefined;
}

export const consoleMethods: Method[] = [
  method("POST", "/nodes/{node}/qemu/{vmid}/vncproxy", {
    permission,
    schema: { ...ids, "generate-password": boolean(), websocket: boolean() },
    // The node that was asked opens the port, wherever the VM is.
    proxied: false,
    handler: openPort,
  }),
  method("GET", "/nodes/{node}/qemu/{vmid}/vncwebsocket", {
    permission,
    schema: {
      ...ids,
      port: needed(integer({ minimum: FIRST_PORT, maximum: LAST_PORT })),
      vncticket: needed(string({ maxLength: 512 })),
    },
    proxied: false,
    handler: (call) => {
      const port = number(call.params, "port") ?? 0;
      verifyTicket(call, port);
      findVm(call.cluster, call.node, call.vmid);
      return { port: String(port) };
    },
  }),
];

async function openPort(call: Call): Promise<object> {
  const { cluster, node, vmid, who } = call;
  const vm = findVm(cluster, node, vmid);
  const port = nextPort(cluster);
  const { promise: listening, resolve: listen } = Promise.withResolvers<true>();
  const password = newPassword();
  const upid = forkWorker(
    cluster,
    { node: cluster.localNode, type: "vncproxy", id: String(vmid), user: who.id },
    async () => {
      // Measured on 9.2.11: nobody listens for a VM that is off.
      if (vm.run === undefined) throw new PveError(500, "Failed to run vncproxy.\n");
      const { promise: visited, resolve: accept } = Promise.withResolvers<Duplex>();
      const own: VncPort = { vm, password, accept };
      cluster.vncPorts.set(port, own);
      listen(true);
      try {
        const waitMs = cluster.traps.vncWaitMs ?? WAIT_MS;
        const visitor = await Promise.race([visited, pauseExactly(cluster, waitMs)]);
        if (visitor === undefined) throw new PveError(500, "connection timed out\n");
        await show(cluster, own, visitor);
      } finally {
        cluster.vncPorts.delete(port);
      }
    },
  );
  // PVE::Tools::wait_for_vnc_port; nobody else needs a test to wait for what never comes.
  const patienceMs = vm.run === undefined ? 5000 * cluster.options.speed : 5000;
  const inTime = await Promise.race([listening, pauseExactly(cluster, patienceMs)]);
  if (inTime === undefined)
    throw new PveError(500, `Timeout while waiting for port '${port}' to get ready!\n`);
  // The password before it is a hack of theirs, for clients that take the ticket's first eight characters for it.
  const ticket = `${password}:${signedTicket(cluster, who, { vmid, port, time: nowSeconds() })}`;
  return { user: who.id, ticket, port, upid, cert: "-----BEGIN CERTIFICATE-----\n", password };
}

/** Until the viewer goes, or what it looks at. */
async function show(cluster: Cluster, { vm, password }: VncPort, visitor: Duplex): Promise<void> {
  const { run } = vm;
  // The tunnel to another node is made only now.
  if (run === undefined || isOffline(cluster, vm.node)) {
    visitor.destroy();
    throw new PveError(500, "Failed to run vncproxy.\n");
  }
  const screen = createScreen();
  const name = vm.config.get("name") ?? `VM ${vm.vmid}`;
  const print = () =>
    screen.print(["A simulated server", "", `${name} login: ${vm.guest.typed}_`, "", "", "Ratatosk sandbox"]);
  print();
  const served = serveRfb(visitor, {
    password,
    name: `QEMU (${name})`,
    screen,
    onKey(keysym) {
      if (keysym >= 0x20 && keysym < 0x7f) vm.guest.typed += String.fromCharCode(keysym);
      if (keysym === 0xff_0d) vm.guest.typed = "";
      print();
    },
  }).then(() => "gone" as const);
  for (;;) {
    // oxlint-disable-next-line no-await-in-loop -- a look at whether the VM is still that one
    if ((await Promise.race([served, pauseExactly(cluster, LOOK_MS)])) === "gone") return;
    if (vm.run !== run || cluster.vms.get(vm.vmid) !== vm) break;
  }
  visitor.destroy();
  await served;
}

function nextPort(cluster: Cluster): number {
  for (let port = FIRST_PORT; port <= LAST_PORT; port += 1) if (!cluster.vncPorts.has(port)) return port;
  throw new PveError(500, "unable to find free port (5900-6000)\n");
}

/** PVE::Ticket::generate_vnc_password: eight characters from "!" to "`". */
function newPassword(): string {
  return Array.from({ length: 8 }, () => String.fromCharCode(randomInt(0x21, 0x61))).join("");
}

interface Bound {
  vmid: number;
  port: number;
  time: number;
}

function signedTicket(cluster: Cluster, who: Who, { vmid, port, time }: Bound): string {
  const stamp = time.toString(16).toUpperCase().padStart(8, "0");
  const secret = `PVEVNC:${stamp}:${who.id}:/vms/${vmid}:${port}`;
  return `PVEVNC:${stamp}::${createHmac("sha256", cluster.ticketKey).update(secret).digest("base64")}`;
}

/** Of this user, this VM and this port, and not older than 40 s. */
function verifyTicket({ cluster, who, vmid, params }: Call, port: number): void {
  const given = needText(params, "vncticket").replace(/^.{8}:(?=PVEVNC:)/u, "");
  const [, stamp = ""] = /^PVEVNC:([0-9A-F]{8})::/.exec(given) ?? [];
  const time = Number.parseInt(stamp, 16);
  const age = nowSeconds() - time;
  const good =
    age >= -20 && age <= TICKET_SECONDS && given === signedTicket(cluster, who, { vmid, port, time });
  if (!good) throw unauthorized("permission denied - invalid PVEVNC ticket");
}

function nowSeconds(): number {
  return Math.floor(Date.now() / 1000);
}
