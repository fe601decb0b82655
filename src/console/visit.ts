/** One browser that is connected: first it must bring a good token, then it has the screen, until something ends that. */
import type { Duplex } from "node:stream";
import type { Logger } from "pino";
import type { RawData, WebSocket } from "ws";
import { z } from "zod";
import type { Principal } from "../core/access.ts";
import {
  type ConsoleDeps,
  type ConsoleSession,
  openConsole,
  requireStillAllowed,
} from "../core/console/session.ts";
import { problemOf, ServiceError } from "../core/errors.ts";
import { bytesOf, relay } from "./relay.ts";

const MINUTE_MS = 60_000;
const TOKEN_WITHIN_MS = 10_000;
const OPEN_WITHIN_MS = 30_000;
const IDLE_MS = 15 * MINUTE_MS;
const LONGEST_MS = 120 * MINUTE_MS;
const CHECK_EVERY_MS = 30_000;
/** So long nobody could tell whether it is still allowed. */
const UNCHECKED_MS = 2 * MINUTE_MS;
const PING_EVERY_MS = 30_000;
/** From the last word to the end of the connection. */
const GOODBYE_MS = 2_000;
const AGAIN = "Ask for another link with /server console.";
const NOT_UNDERSTOOD = "The page said something that is not understood. Load it anew.";

const Opening = z.strictObject({ token: z.string().max(200) });
const Beside = z.strictObject({ active: z.literal(true) });

export interface VisitOptions {
  id: string;
  socket: WebSocket;
  deps: ConsoleDeps;
  log: Logger;
  now: () => number;
  /** Throws ServiceError `busy` when this holder, or everybody together, has as many screens as may be. */
  admit(holder: string): void;
}

interface Shown {
  session: ConsoleSession;
  stream: Duplex;
  since: number;
  lastActiveAt: number;
  lastAllowedAt: number;
  isBeingLookedAt: boolean;
}

export class Visit {
  /** "staff:sam"; undefined until the token was found good. */
  holder: string | undefined;
  readonly ended: Promise<void>;
  readonly #options: VisitOptions;
  readonly #opening = new AbortController();
  readonly #cameAt: number;
  #tokenAt: number | undefined;
  #shown: Shown | undefined;
  #isEnding = false;
  #pingedAt: number;
  #hasAnswered = true;

  constructor(options: VisitOptions) {
    this.#options = options;
    const { socket, now, log, id } = options;
    this.#cameAt = now();
    this.#pingedAt = this.#cameAt;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.ended = promise;
    socket.on("pong", () => {
      this.#hasAnswered = true;
    });
    // "close" follows.
    socket.on("error", (error) => log.debug({ err: error, session: id }, "a screen's connection broke"));
    socket.once("close", () => {
      this.end("The page was closed.");
      resolve();
    });
    socket.once("message", (data: RawData, isBinary: boolean) => this.#begin(data, isBinary));
  }

  /** It has brought no token yet. */
  get isSilent(): boolean {
    return this.#tokenAt === undefined && !this.#isEnding;
  }

  /** Ends it when it is too old, too quiet, not answered or no longer allowed. */
  async tick(): Promise<void> {
    if (this.#isEnding) return;
    if (this.#shown === undefined) this.#endLateOpening();
    else await this.#look(this.#shown);
    if (!this.#isEnding) this.#ping();
  }

  /** With a sentence that the page shows. */
  end(reason: string): void {
    if (this.#isEnding) return;
    this.#isEnding = true;
    const { socket, log, id, now } = this.#options;
    this.#opening.abort();
    this.#tell({ state: "ended", reason });
    socket.close(1000);
    const shown = this.#shown;
    if (shown !== undefined) {
      shown.stream.destroy();
      const seconds = Math.round((now() - shown.since) / 1000);
      const server = shown.session.server.publicId;
      log.info({ session: id, server, holder: this.holder, seconds, reason }, "a screen was closed");
    }
    setTimeout(() => this.cut(), GOODBYE_MS).unref();
  }

  /** Without a word. */
  cut(): void {
    this.#options.socket.terminate();
  }

  #begin(data: RawData, isBinary: boolean): void {
    const message = isBinary ? undefined : Opening.safeParse(parsed(bytesOf(data).toString("utf8")));
    if (message?.success !== true) {
      this.end(NOT_UNDERSTOOD);
      return;
    }
    this.#tokenAt = this.#options.now();
    void this.#open(message.data.token);
  }

  async #open(token: string): Promise<void> {
    const { deps, id, log, now, admit } = this.#options;
    try {
      const { session, stream, password } = await openConsole(
        deps,
        { id, token, signal: this.#opening.signal },
        // Counted from here on, before the cloud is asked: of several at once none slips through.
        (principal) => {
          const holder = nameOf(principal);
          admit(holder);
          this.holder = holder;
        },
      );
      if (this.#isEnding) {
        stream.destroy();
        return;
      }
      const since = now();
      this.#shown = {
        session,
        stream,
        since,
        lastActiveAt: since,
        lastAllowedAt: since,
        isBeingLookedAt: false,
      };
      log.info({ session: id, server: session.server.publicId, holder: this.holder }, "a screen was opened");
      this.#tell({ state: "open", server: session.server.name, password });
      this.#relay(stream);
    } catch (error) {
      this.end(this.#sentenceOf(error));
    }
  }

  #relay(stream: Duplex): void {
    relay({
      socket: this.#options.socket,
      stream,
      onText: (text) => {
        if (!Beside.safeParse(parsed(text)).success) this.end(NOT_UNDERSTOOD);
        else if (this.#shown !== undefined) this.#shown.lastActiveAt = this.#options.now();
      },
      onCloudEnd: () =>
        this.end(
          `The screen has ended: the server was switched off or restarted, or its cloud broke the connection. ${AGAIN}`,
        ),
    });
  }

  #sentenceOf(error: unknown): string {
    const { log, id } = this.#options;
    const { code, message, staffDetail } = problemOf(error);
    if (code === "internal") log.error({ err: error, session: id }, "a screen could not be opened");
    else log.warn({ session: id, code, staffDetail, holder: this.holder }, "a screen was not opened");
    return message.includes("/server console") ? message : `${message} ${AGAIN}`;
  }

  #endLateOpening(): void {
    const limit =
      this.#tokenAt === undefined ? this.#cameAt + TOKEN_WITHIN_MS : this.#tokenAt + OPEN_WITHIN_MS;
    if (this.#options.now() >= limit) this.end(`The screen could not be opened in time. ${AGAIN}`);
  }

  async #look(shown: Shown): Promise<void> {
    const now = this.#options.now();
    if (now - shown.since >= LONGEST_MS) this.end(`Closed after 2 hours. ${AGAIN}`);
    else if (now - shown.lastActiveAt >= IDLE_MS)
      this.end(`Closed after 15 minutes without a key or a click. ${AGAIN}`);
    else if (now - shown.lastAllowedAt >= CHECK_EVERY_MS && !shown.isBeingLookedAt)
      await this.#askAgain(shown, now);
    if (this.#options.now() - shown.lastAllowedAt >= UNCHECKED_MS) {
      this.end(`Closed, because it could not be checked any more that you may use this server. ${AGAIN}`);
    }
  }

  async #askAgain(shown: Shown, askedAt: number): Promise<void> {
    const { deps, log, id } = this.#options;
    shown.isBeingLookedAt = true;
    try {
      await requireStillAllowed(deps, shown.session);
      shown.lastAllowedAt = askedAt;
    } catch (error) {
      if (error instanceof ServiceError) this.end(error.message);
      else log.error({ err: error, session: id }, "nobody could tell whether a screen may still be shown");
    } finally {
      shown.isBeingLookedAt = false;
    }
  }

  #ping(): void {
    const now = this.#options.now();
    if (now - this.#pingedAt < PING_EVERY_MS) return;
    if (!this.#hasAnswered) {
      this.cut();
      return;
    }
    this.#pingedAt = now;
    this.#hasAnswered = false;
    this.#options.socket.ping();
  }

  #tell(message: Record<string, unknown>): void {
    const { socket } = this.#options;
    if (socket.readyState === socket.OPEN) socket.send(JSON.stringify(message));
  }
}

function nameOf({ kind, id }: Principal): string {
  return `${kind}:${id}`;
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
