/** A browser with the page's manners, without a screen: what it is told, and RFB by hand. */
import { once } from "node:events";
import { WebSocket } from "ws";
import { vncResponse } from "../../src/sandbox/pve/rfb.ts";

export interface Told {
  state: string;
  reason?: string;
  server?: string;
  password?: string;
}

export interface Browser {
  socket: WebSocket;
  /** The next thing that the page is told; null when the connection has ended without a word. */
  told(): Promise<Told | null>;
  /** So many bytes of the screen. */
  bytes(count: number): Promise<Buffer>;
  send(bytes: Buffer): void;
  say(message: unknown): void;
  close(): Promise<void>;
}

export interface Visiting {
  url: string;
  token?: string;
  origin?: string;
  path?: string;
}

/** Rejects with "Unexpected server response: 403" where a browser would only say that it failed. */
export async function visit({
  url,
  token,
  origin = url,
  path = "/console/socket",
}: Visiting): Promise<Browser> {
  const socket = new WebSocket(`${url.replace(/^http/, "ws")}${path}`, { origin, perMessageDeflate: false });
  const texts: Told[] = [];
  const kept: Buffer[] = [];
  const state = { isOver: false, bytes: 0 };
  let wake = Promise.withResolvers<void>();
  const stir = () => {
    wake.resolve();
    wake = Promise.withResolvers();
  };
  socket.on("message", (data, isBinary) => {
    const bytes = Buffer.isBuffer(data) ? data : Buffer.alloc(0);
    if (isBinary) {
      kept.push(bytes);
      state.bytes += bytes.length;
    } else texts.push(JSON.parse(bytes.toString("utf8")));
    stir();
  });
  socket.on("close", () => {
    state.isOver = true;
    stir();
  });
  await once(socket, "open");
  socket.on("error", () => undefined);
  if (token !== undefined) socket.send(JSON.stringify({ token }));
  return {
    socket,
    async told() {
      while (texts.length === 0 && !state.isOver) await wake.promise;
      return texts.shift() ?? null;
    },
    async bytes(count) {
      while (state.bytes < count) {
        if (state.isOver) throw new Error(`the screen ended after ${state.bytes} of ${count} bytes`);
        await wake.promise;
      }
      const all = Buffer.concat(kept);
      kept.splice(0, kept.length, all.subarray(count));
      state.bytes -= count;
      return all.subarray(0, count);
    },
    send: (bytes) => socket.send(bytes),
    say: (message) => socket.send(JSON.stringify(message)),
    async close() {
      socket.terminate();
      while (!state.isOver) await wake.promise;
    },
  };
}

/** The handshake of RFB 3.8 with VNC authentication: the status, and what the screen is called. */
export async function shakeHands(
  browser: Browser,
  password: string,
): Promise<{ status: number; name: string }> {
  const version = await browser.bytes(12);
  browser.send(version);
  const [count = 0] = await browser.bytes(1);
  await browser.bytes(count);
  browser.send(Buffer.of(2));
  browser.send(vncResponse(await browser.bytes(16), password));
  const status = (await browser.bytes(4)).readUInt32BE(0);
  if (status !== 0) return { status, name: "" };
  browser.send(Buffer.of(1));
  const head = await browser.bytes(24);
  const name = (await browser.bytes(head.readUInt32BE(20))).toString("utf8");
  return { status, name };
}

/** The whole screen, as raw pixels. */
export async function wholeScreen(browser: Browser): Promise<Buffer> {
  const request = Buffer.alloc(10);
  request[0] = 3;
  request.writeUInt16BE(0xffff, 6);
  request.writeUInt16BE(0xffff, 8);
  browser.send(request);
  const head = await browser.bytes(16);
  return browser.bytes(4 * head.readUInt16BE(8) * head.readUInt16BE(10));
}

export async function press(browser: Browser, text: string): Promise<void> {
  for (const letter of text) {
    const key = Buffer.alloc(8);
    key.set([4, 1]);
    key.writeUInt32BE(letter.charCodeAt(0), 4);
    browser.send(key);
  }
}
