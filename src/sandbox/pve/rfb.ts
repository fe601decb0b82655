/** QEMU's VNC server, as far as a viewer meets it: RFB 3.8 with VNC authentication, raw rectangles (RFC 6143). */
import { createCipheriv, randomBytes, timingSafeEqual } from "node:crypto";
import type { Duplex } from "node:stream";
import { HEIGHT, type Screen, WIDTH } from "./screen.ts";

const VERSION = "RFB 003.008\n";
const VNC_AUTHENTICATION = 2;
const RAW = 0;

export interface RfbServer {
  password: string;
  name: string;
  screen: Screen;
  /** A key was pressed, by its X11 keysym; the screen may be another one then. */
  onKey(keysym: number): void;
}

interface PixelFormat {
  bigEndian: boolean;
  /** Shifts of red, green, blue. */
  shifts: readonly [number, number, number];
}

class Refusal extends Error {}

/** Resolves when the viewer has gone, or was sent away. */
export async function serveRfb(stream: Duplex, server: RfbServer): Promise<void> {
  const read = reader(stream);
  try {
    await handshake(stream, read, server.password);
    await serveScreen(stream, read, server);
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
  } finally {
    stream.end();
  }
}

type Read = (bytes: number) => Promise<Buffer>;

/** Throws Refusal at the end of the stream. */
function reader(stream: Duplex): Read {
  const chunks = stream[Symbol.asyncIterator]();
  let kept = Buffer.alloc(0);
  return async (bytes) => {
    while (kept.length < bytes) {
      // oxlint-disable-next-line no-await-in-loop -- one after the other
      const next = await chunks.next().catch(() => ({ done: true, value: undefined }));
      if (next.done === true) throw new Refusal("the viewer has gone");
      const chunk: unknown = next.value;
      if (Buffer.isBuffer(chunk)) kept = Buffer.concat([kept, chunk]);
    }
    const taken = kept.subarray(0, bytes);
    kept = kept.subarray(bytes);
    return taken;
  };
}

async function handshake(stream: Duplex, read: Read, password: string): Promise<void> {
  stream.write(VERSION);
  const version = (await read(VERSION.length)).toString("latin1");
  if (version !== VERSION) throw new Refusal(`unknown version ${version}`);
  stream.write(Buffer.of(1, VNC_AUTHENTICATION));
  const [type] = await read(1);
  if (type !== VNC_AUTHENTICATION) throw refuse(stream, "invalid security type");
  const challenge = randomBytes(16);
  stream.write(challenge);
  const response = await read(16);
  if (!timingSafeEqual(response, vncResponse(challenge, password)))
    throw refuse(stream, "Authentication failed");
  stream.write(uint32(0));
}

function refuse(stream: Duplex, reason: string): Refusal {
  const text = Buffer.from(reason, "latin1");
  stream.write(Buffer.concat([uint32(1), uint32(text.length), text]));
  return new Refusal(reason);
}

/**
 * DES with the password's first eight characters as key, the bits of each byte turned round. OpenSSL 3 has no plain DES any
 * more; three times the same key is it.
 */
export function vncResponse(challenge: Buffer, password: string): Buffer {
  const key = Buffer.alloc(8);
  Buffer.from(password, "latin1").copy(key, 0, 0, 8);
  const turned = Buffer.from(
    key.map((byte) => Number.parseInt(byte.toString(2).padStart(8, "0").split("").toReversed().join(""), 2)),
  );
  const cipher = createCipheriv("des-ede3-ecb", Buffer.concat([turned, turned, turned]), null);
  cipher.setAutoPadding(false);
  return Buffer.concat([cipher.update(challenge), cipher.final()]);
}

async function serveScreen(stream: Duplex, read: Read, server: RfbServer): Promise<void> {
  // ClientInit: whether others may look on, which is always so here.
  await read(1);
  stream.write(serverInit(server.name));
  let format: PixelFormat = { bigEndian: false, shifts: [16, 8, 0] };
  // An incremental update is answered when there is something new.
  let [isWaiting, isNew] = [false, true];
  for (;;) {
    // oxlint-disable-next-line no-await-in-loop -- a protocol: one message after the other
    const message = await nextMessage(read);
    switch (message.kind) {
      case "format":
        format = message.format;
        break;
      case "update":
        isWaiting = true;
        isNew ||= !message.incremental;
        break;
      case "key":
        if (!message.down) break;
        server.onKey(message.keysym);
        isNew = true;
        break;
      case "other":
        break;
    }
    if (!isWaiting || !isNew) continue;
    [isWaiting, isNew] = [false, false];
    send(stream, update(server.screen, format));
  }
}

type Message =
  | { kind: "format"; format: PixelFormat }
  | { kind: "update"; incremental: boolean }
  | { kind: "key"; down: boolean; keysym: number }
  | { kind: "other" };

async function nextMessage(read: Read): Promise<Message> {
  const [type = -1] = await read(1);
  switch (type) {
    case 0:
      return { kind: "format", format: formatOf(await read(19)) };
    case 2: {
      const head = await read(3);
      await read(4 * head.readUInt16BE(1));
      return { kind: "other" };
    }
    case 3: {
      const body = await read(9);
      return { kind: "update", incremental: body[0] === 1 };
    }
    case 4: {
      const body = await read(7);
      return { kind: "key", down: body[0] === 1, keysym: body.readUInt32BE(3) };
    }
    case 5:
      await read(5);
      return { kind: "other" };
    case 6: {
      const head = await read(7);
      await read(head.readUInt32BE(3));
      return { kind: "other" };
    }
    default:
      throw new Refusal(`unknown message ${type}`);
  }
}

function formatOf(body: Buffer): PixelFormat {
  // Three bytes of padding; then bits per pixel, depth, big endian, true colour, three maxima, three shifts.
  const [bits, trueColour] = [body[3], body[6]];
  if (bits !== 32 || trueColour === 0) throw new Refusal("a pixel format that is not played");
  return { bigEndian: body[5] !== 0, shifts: [body[13] ?? 0, body[14] ?? 0, body[15] ?? 0] };
}

function serverInit(name: string): Buffer {
  const text = Buffer.from(name, "utf8");
  const head = Buffer.alloc(20);
  head.writeUInt16BE(WIDTH, 0);
  head.writeUInt16BE(HEIGHT, 2);
  head.set([32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0], 4);
  return Buffer.concat([head, uint32(text.length), text]);
}

/** What pveproxy has read of it at a time is one frame of its WebSocket: 128 kB at most. */
const FRAME_BYTES = 128 * 1024;

function send(stream: Duplex, bytes: Buffer): void {
  for (let start = 0; start < bytes.length; start += FRAME_BYTES) {
    stream.write(bytes.subarray(start, start + FRAME_BYTES));
  }
}

function update({ pixels }: Screen, { bigEndian, shifts }: PixelFormat): Buffer {
  const head = Buffer.alloc(16);
  head.writeUInt16BE(1, 2);
  head.writeUInt16BE(WIDTH, 8);
  head.writeUInt16BE(HEIGHT, 10);
  head.writeInt32BE(RAW, 12);
  const body = Buffer.alloc(4 * pixels.length);
  const [red, green, blue] = shifts;
  for (const [index, colour] of pixels.entries()) {
    const value =
      (((colour >> 16) & 255) << red) | (((colour >> 8) & 255) << green) | ((colour & 255) << blue);
    if (bigEndian) body.writeUInt32BE(value >>> 0, 4 * index);
    else body.writeUInt32LE(value >>> 0, 4 * index);
  }
  return Buffer.concat([head, body]);
}

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}
