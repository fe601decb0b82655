/**
 * Servers' screens in the browser: /console/<token> is the page, /console/socket the WebSocket that it opens. The page's first
 * message brings the token, which is used up then; what comes after are the screen's bytes.
 */
import { randomUUID } from "node:crypto";
import type { IncomingMessage, RequestListener } from "node:http";
import type { Duplex } from "node:stream";
import type { Logger } from "pino";
import { WebSocketServer } from "ws";
import type { ConsoleDeps } from "../core/console/session.ts";
import { ServiceError } from "../core/errors.ts";
import { refuseUpgrade } from "../net/upgrade.ts";
import { createPages } from "./page.ts";
import { Visit } from "./visit.ts";

export interface ConsoleServer {
  /** What HTTP hands in: everything below this path. */
  readonly path: "/console";
  readonly listener: RequestListener;
  upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void;
  start(): void;
  /** Looks at all visits: what is too old, too quiet or no longer allowed ends. */
  tick(): Promise<void>;
  /** Tells everybody, and waits a moment until they have heard it. */
  stop(): Promise<void>;
}

export interface ConsoleServerOptions {
  deps: ConsoleDeps;
  /** Under which browsers reach us; only pages from there may connect. */
  address: () => string | undefined;
  log: Logger;
  /** Milliseconds; for tests. */
  now?: () => number;
  limits?: Partial<ConsoleLimits>;
}

export interface ConsoleLimits {
  screens: number;
  screensOfOne: number;
  /** Connected, and not yet with a screen. */
  waiting: number;
}

const LIMITS: ConsoleLimits = { screens: 50, screensOfOne: 3, waiting: 50 };
const TICK_MS = 1_000;
/** noVNC's messages are at most 10 kB. */
const MAX_MESSAGE_BYTES = 64 * 1024;
const GOODBYE_MS = 1_000;
const SOCKET_PATH = "/console/socket";

export function createConsoleServer(options: ConsoleServerOptions): ConsoleServer {
  const { address, log } = options;
  const limits = { ...LIMITS, ...options.limits };
  const visits = new Set<Visit>();
  const webSockets = new WebSocketServer({
    noServer: true,
    perMessageDeflate: false,
    maxPayload: MAX_MESSAGE_BYTES,
    clientTracking: false,
  });
  let timer: NodeJS.Timeout | undefined;
  let stopping = false;

  /** Who has said nothing yet gives way: a page of ours sends its token at once. */
  function hasRoom(): boolean {
    const waiting = [...visits].filter(({ holder }) => holder === undefined);
    if (waiting.length < limits.waiting) return true;
    const silent = waiting.find(({ isSilent }) => isSilent);
    silent?.end("Too many pages are waiting for a screen. Load this one anew.");
    silent?.cut();
    return silent !== undefined;
  }

  function refusalOf({ url, headers }: IncomingMessage): 403 | 404 | 503 | undefined {
    if (url !== SOCKET_PATH) return 404;
    const own = address();
    if (own === undefined || headers.origin !== new URL(own).origin) {
      log.debug({ origin: headers.origin?.slice(0, 200) }, "a page of another address asked for a screen");
      return 403;
    }
    return stopping || !hasRoom() ? 503 : undefined;
  }

  return {
    path: "/console",
    listener: createPages(address),
    upgrade(request, socket, head) {
      const refusal = refusalOf(request);
      if (refusal !== undefined) {
        refuseUpgrade(socket, refusal);
        return;
      }
      webSockets.handleUpgrade(request, socket, head, (webSocket) => {
        const visit = new Visit({
          id: randomUUID(),
          socket: webSocket,
          deps: options.deps,
          log,
          now: options.now ?? Date.now,
          admit: (holder) => requireRoom(visits, holder, limits),
        });
        visits.add(visit);
        void visit.ended.then(() => visits.delete(visit));
      });
    },
    start() {
      timer ??= setInterval(() => {
        for (const visit of visits) void visit.tick();
      }, TICK_MS).unref();
    },
    async tick() {
      await Promise.all([...visits].map((visit) => visit.tick()));
    },
    async stop() {
      stopping = true;
      clearInterval(timer);
      for (const visit of visits) {
        visit.end("Ratatosk is being restarted. Ask for another link with /server console in a minute.");
      }
      const late = setTimeout(() => {
        for (const visit of visits) visit.cut();
      }, GOODBYE_MS);
      await Promise.all([...visits].map((visit) => visit.ended));
      clearTimeout(late);
    },
  };
}

/** Throws ServiceError `busy`. */
function requireRoom(visits: Iterable<Visit>, holder: string, limits: ConsoleLimits): void {
  const shown = [...visits].filter((visit) => visit.holder !== undefined);
  const own = shown.filter((visit) => visit.holder === holder).length;
  if (own >= limits.screensOfOne) {
    throw new ServiceError(
      "busy",
      `You have ${own} screens open already. Close one, then ask for another link with /server console.`,
    );
  }
  if (shown.length >= limits.screens) {
    throw new ServiceError(
      "busy",
      "Too many screens are open at the moment. Ask for another link with /server console later.",
    );
  }
}
