// The screen of a VM: PVE opens a port for it (vncproxy), for ten seconds and one visitor, and hands its bytes over a WebSocket
// (vncwebsocket). https://git.proxmox.com/?p=qemu-server.git;a=blob;f=src/PVE/API2/Qemu.pm
import type { Duplex } from "node:stream";
import { createWebSocketStream, type WebSocket } from "ws";
import type { ConsoleOrder, RemoteConsole } from "../../core/cloud.ts";
import { isServiceError, reworded, ServiceError } from "../../core/errors.ts";
import type { PveClient } from "./client.ts";
import { VncProxy } from "./schema.ts";
import { getTarget } from "./steps/target.ts";
import { pathOf } from "./vm.ts";

/** The port is closed when nobody has come after this long (vncproxy's $timeout); there is no use in trying longer. */
const TIMEOUT_MS = 10_000;
/** pveproxy's frames are at most 128 kB (websocket_proxy's $max_payload_size). */
const MAX_MESSAGE_BYTES = 256 * 1024;
const PING_MS = 30_000;

/** Nothing in PVE is changed by it: after a lost answer another one is asked for. */
export async function openConsole(client: PveClient, order: ConsoleOrder): Promise<RemoteConsole> {
  const { id, externalId, serverData, database, signal } = order;
  const vm = await getTarget(client, {
    input: { externalId },
    reference: null,
    externalId,
    serverData,
    database,
    signal,
    operation: { id, output: {} },
  });
  const { port, ticket, password } = await askForPort(client, pathOf(vm), signal);
  const socket = await client.openSocket({
    path: `${pathOf(vm)}/vncwebsocket`,
    parameters: { port, vncticket: ticket },
    timeoutMs: TIMEOUT_MS,
    maxMessageBytes: MAX_MESSAGE_BYTES,
    signal,
    secrets: [ticket, password],
  });
  return { stream: streamOf(socket), password };
}

async function askForPort(client: PveClient, path: string, signal: AbortSignal): Promise<VncProxy> {
  try {
    const data = await client.call({
      method: "POST",
      path: `${path}/vncproxy`,
      // 9.2 and 8.4 make a password for a WebSocket anyway, and call the second one deprecated; older ones make it when asked.
      parameters: { websocket: true, "generate-password": true },
      changing: false,
      timeoutMs: TIMEOUT_MS,
      signal,
    });
    const answer = VncProxy.safeParse(data);
    if (answer.success) return answer.data;
    throw new ServiceError("unreachable", "The cloud's answer cannot be understood, so it was not used.", {
      facts: { cloud: client.cloud },
      staffDetail: `${client.cloud}: POST ${path}/vncproxy: unexpected shape`,
    });
  } catch (error) {
    if (!isServiceError(error, "cloud_failed")) throw error;
    throw reworded(
      error,
      "The cloud shows no screen of this server. If it is off, start it; then ask with /server console again.",
    );
  }
}

/** Ends when either side ends it; a break is an end, too. */
function streamOf(socket: WebSocket): Duplex {
  const stream = createWebSocketStream(socket);
  // So that nothing between us takes a still screen for a dead connection.
  const timer = setInterval(() => socket.ping(), PING_MS);
  timer.unref();
  socket.once("close", () => clearInterval(timer));
  // Whoever reads it learns by its "close".
  stream.on("error", () => stream.destroy());
  return stream;
}
