/** vncproxy and vncwebsocket of the simulator are as strict as PVE's. */
import { once } from "node:events";
import { afterEach, beforeEach, expect, it } from "vitest";
import { createWebSocketStream, WebSocket } from "ws";
import { z } from "zod";
import { type PveSimulator, type PveToken, startPveSimulator } from "../../src/sandbox/pve/index.ts";
import { vncResponse } from "../../src/sandbox/pve/rfb.ts";

let simulator: PveSimulator;

beforeEach(async () => {
  simulator = await startPveSimulator({ speed: 0, tls: false });
  simulator.addStranger({ vmid: 300, running: true });
  simulator.addStranger({ vmid: 301, running: true });
});
afterEach(() => simulator.close());

const Answer = z.object({
  message: z.string().optional(),
  data: z
    .object({
      port: z.number(),
      ticket: z.string(),
      password: z.string(),
      upid: z.string(),
      user: z.string(),
    })
    .nullable(),
});

const headersOf = ({ id, secret }: PveToken) => ({ Authorization: `PVEAPIToken=${id}=${secret}` });
const BASE = "/api2/json/nodes/n1/qemu";

async function proxy(vmid = 300, token = simulator.tokens.operator) {
  const answer = await fetch(`${simulator.url}${BASE}/${vmid}/vncproxy`, {
    method: "POST",
    headers: { ...headersOf(token), "Content-Type": "application/x-www-form-urlencoded" },
    body: "websocket=1&generate-password=1",
  });
  const { data, message } = Answer.parse(await answer.json());
  return { status: answer.status, message, port: 0, ticket: "", password: "", upid: "", user: "", ...data };
}

function connect(port: number, ticket: string, { vmid = 300, token = simulator.tokens.operator } = {}) {
  const query = `port=${port}&vncticket=${encodeURIComponent(ticket)}`;
  const url = `${simulator.url.replace("http", "ws")}${BASE}/${vmid}/vncwebsocket?${query}`;
  return new WebSocket(url, { headers: headersOf(token), perMessageDeflate: false });
}

const refused = async (socket: WebSocket) => {
  const [error] = await once(socket, "error");
  return String(error);
};

it("the ticket is of one user, one VM and one port, and a task waits for its visitor", async () => {
  const { port, ticket, upid, password, user } = await proxy();
  expect({ user, port }).toEqual({ user: simulator.tokenId, port: 5900 });
  expect(password).toMatch(/^[!-`]{8}$/);
  expect(simulator.state.tasks.find((task) => task.upid === upid)).toMatchObject({
    type: "vncproxy",
    status: "running",
  });
  const other = await proxy(301);
  expect(other.port).toBe(5901);
  expect(await refused(connect(port, ticket, { token: simulator.tokens.root }))).toContain("401");
  expect(await refused(connect(other.port, ticket))).toContain("401");
  expect(await refused(connect(port, ticket, { vmid: 301 }))).toContain("401");
  expect(await refused(connect(port, `${ticket}x`))).toContain("401");
  expect(await refused(connect(80, ticket))).toContain("400");
  expect(await refused(connect(port, ticket, { token: simulator.tokens.readonly }))).toContain("403");
  const socket = connect(port, ticket);
  await once(socket, "open");
  socket.terminate();
});

it("one visitor and no more; when they go, the task is over", async () => {
  const { port, ticket, upid } = await proxy();
  const first = connect(port, ticket);
  await once(first, "open");
  const second = connect(port, ticket);
  second.on("error", () => undefined);
  first.terminate();
  await expect
    .poll(() => simulator.state.tasks.find((task) => task.upid === upid)?.exitstatus, { timeout: 10_000 })
    .toBe("OK");
  expect(second.readyState).toBe(second.CONNECTING);
  second.terminate();
});

it("nobody comes in time: the task ends so, and the port is free again", async () => {
  simulator.state.traps = { vncWaitMs: 5 };
  const { upid, port } = await proxy();
  await expect
    .poll(() => simulator.state.tasks.find((task) => task.upid === upid)?.exitstatus, { timeout: 10_000 })
    .toBe("connection timed out");
  expect((await proxy()).port).toBe(port);
});

it("a VM that is off, one that is not there, a credential without VM.Console", async () => {
  simulator.changeVm(300, { running: false });
  expect(await proxy()).toMatchObject({
    status: 500,
    message: "Timeout while waiting for port '5900' to get ready!\n",
  });
  expect(await proxy(999)).toMatchObject({ status: 500, message: expect.stringContaining("does not exist") });
  expect(await proxy(301, simulator.tokens.readonly)).toMatchObject({ status: 403 });
});

it("the password is checked as VNC does, and a wrong one is told", async () => {
  for (const [given, status] of [
    ["right", 0],
    ["wrong", 1],
  ] as const) {
    const { port, ticket, password } = await proxy();
    const socket = connect(port, ticket);
    const stream = createWebSocketStream(socket);
    const [version] = await once(stream, "data");
    expect(String(version)).toBe("RFB 003.008\n");
    stream.write(version);
    const [types] = await once(stream, "data");
    expect([...types]).toEqual([1, 2]);
    stream.write(Buffer.of(2));
    const [challenge] = await once(stream, "data");
    stream.write(vncResponse(challenge, given === "right" ? password : "12345678"));
    const [result] = await once(stream, "data");
    expect(result.readUInt32BE(0)).toBe(status);
    socket.terminate();
  }
});

it("DES as VNC has it: the known answer of RFC 6143's cipher with the bits of the key turned round", () => {
  // Key 0x0E329232EA6D0D73 enciphers 0x8787878787878787 to zeros (a common test of DES); turned round it is this password.
  const key = Buffer.from("0E329232EA6D0D73", "hex").map((byte) =>
    Number.parseInt(byte.toString(2).padStart(8, "0").split("").toReversed().join(""), 2),
  );
  const challenge = Buffer.from("8787878787878787".repeat(2), "hex");
  expect(vncResponse(challenge, Buffer.from(key).toString("latin1"))).toEqual(Buffer.alloc(16));
});
