/** The bytes in between: nothing lost or turned round, and whoever is slower holds the other up. */
import { EventEmitter, once } from "node:events";
import { Duplex, PassThrough } from "node:stream";
import { setImmediate as turn } from "node:timers/promises";
import { expect, it } from "vitest";
import { WebSocket, WebSocketServer } from "ws";
import { relay } from "../../src/console/relay.ts";

const MIB = 2 ** 20;

/** As much of a WebSocket as the relay sees; what it is given waits until it is let go. */
class SlowSocket extends EventEmitter {
  bufferedAmount = 0;
  isPaused = false;
  readonly #waiting: { bytes: number; done: () => void }[] = [];

  send(chunk: Buffer, _options: unknown, done: () => void): void {
    this.bufferedAmount += chunk.length;
    this.#waiting.push({ bytes: chunk.length, done });
  }

  pause(): void {
    this.isPaused = true;
  }

  resume(): void {
    this.isPaused = false;
  }

  letGo(): void {
    for (const { bytes, done } of this.#waiting.splice(0)) {
      this.bufferedAmount -= bytes;
      done();
    }
  }
}

it("a browser that does not read holds the cloud up, and little waits in between", async () => {
  const socket = new SlowSocket();
  const stream = new PassThrough({ highWaterMark: 64 * 1024 });
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- it has what the relay uses
  relay({
    socket: socket as unknown as WebSocket,
    stream,
    onText: () => undefined,
    onCloudEnd: () => undefined,
  });
  let written = 0;
  const chunk = Buffer.alloc(64 * 1024);
  for (let round = 0; round < 200; round += 1) {
    if (!stream.writableNeedDrain) {
      stream.write(chunk);
      written += chunk.length;
    }
    await turn();
  }
  expect(written).toBeGreaterThan(MIB);
  expect(written).toBeLessThan(2 * MIB);
  expect(stream.isPaused()).toBe(true);
  socket.letGo();
  await turn();
  expect(stream.isPaused()).toBe(false);
});

it("a cloud that takes nothing holds the browser up", async () => {
  const socket = new SlowSocket();
  let take: (() => void) | undefined;
  const stream = new Duplex({
    highWaterMark: 16,
    read: () => undefined,
    write: (_chunk, _encoding, done) => {
      take = done;
    },
  });
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- it has what the relay uses
  relay({
    socket: socket as unknown as WebSocket,
    stream,
    onText: () => undefined,
    onCloudEnd: () => undefined,
  });
  socket.emit("message", Buffer.alloc(32), true);
  expect(socket.isPaused).toBe(true);
  const drained = once(stream, "drain");
  take?.();
  await drained;
  expect(socket.isPaused).toBe(false);
});

it("what goes through a real WebSocket comes out as it went in, both ways, and words go another way", async () => {
  const server = new WebSocketServer({ port: 0, host: "127.0.0.1" });
  await once(server, "listening");
  const address = server.address();
  const port = typeof address === "object" && address !== null ? address.port : 0;
  const words: string[] = [];
  const ended = Promise.withResolvers<void>();
  const far = new PassThrough();
  server.on("connection", (socket) =>
    relay({ socket, stream: far, onText: (text) => words.push(text), onCloudEnd: () => ended.resolve() }),
  );
  const browser = new WebSocket(`ws://127.0.0.1:${port}`);
  await once(browser, "open");
  const sent = Buffer.from(Array.from({ length: 100_000 }, (_, index) => (index * 7) % 256));
  let got = Buffer.alloc(0);
  const whole = Promise.withResolvers<void>();
  browser.on("message", (data) => {
    got = Buffer.concat([got, Buffer.isBuffer(data) ? data : Buffer.alloc(0)]);
    if (got.length >= sent.length) whole.resolve();
  });
  browser.send("a word");
  for (let start = 0; start < sent.length; start += 9_999) browser.send(sent.subarray(start, start + 9_999));
  await whole.promise;
  expect(Buffer.compare(got, sent)).toBe(0);
  expect(words).toEqual(["a word"]);
  far.destroy();
  await ended.promise;
  browser.terminate();
  server.close();
});
