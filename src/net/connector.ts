/**
 * The one way out to addresses that others write down (webhooks). Pooled keep-alive connections; no redirects, no
 * proxy from the environment, a total deadline and a cap on everything.
 */
import type { LookupAddress } from "node:dns";
import { Agent, Pool } from "undici";
import { parseRanges } from "./address.ts";
import { ConnectorError, type PostResult } from "./connector-error.ts";
import { checkUrl, type DialRules, dialer, resolveAll, vetUrl } from "./dial.ts";
import { CountingClient, Exchange } from "./exchange.ts";

export { ConnectorError, type ConnectorErrorCode, type PostResult } from "./connector-error.ts";

export interface ConnectorOptions {
  /** Ranges (CIDR) that may be called although they are not public; plain http is fine there. Default: none. */
  readonly allow?: readonly string[];
  /** Also plain http to public addresses. Default: false. */
  readonly allowHttp?: boolean;
  /** The ports this program listens on, which are never called on this machine's own addresses. */
  readonly ownPorts?: () => readonly number[];
  /** DNS, TCP and TLS together. Default: 5000. */
  readonly connectTimeoutMs?: number;
  /** How much of an answer's body is read. Default: 65536. */
  readonly maxBodyBytes?: number;
  /** Connections per origin. Default: 16. */
  readonly maxConnections?: number;
  /** Certificate authorities (PEM) trusted beside the usual ones. */
  readonly ca?: readonly string[];
  /** Throws when a call is not allowed now (inside a database transaction). */
  readonly guard?: () => void;
  /** All addresses of a name. Default: the system's resolver. */
  readonly resolve?: (hostname: string) => Promise<LookupAddress[]>;
}

export interface PostRequest {
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  /** Sent as it is. */
  readonly body: Buffer;
  /** From now to the last byte of the answer. */
  readonly timeoutMs: number;
}

export interface Connector {
  /** Throws ConnectorError; any complete answer, whatever its status, is a result. A malformed header throws as it is. */
  post(request: PostRequest): Promise<PostResult>;
  /** The addresses that a call would dial; sends nothing. Throws ConnectorError for a name or address that is refused. */
  vet(url: string): Promise<string[]>;
  /** Cuts what is under way. */
  close(): Promise<void>;
}

const MAX_HEADER_BYTES = 16 * 1024;
const KEEP_ALIVE_MS = 30_000;

/** Throws an Error when a range cannot be read. */
export function createConnector(options: ConnectorOptions = {}): Connector {
  const rules: DialRules = {
    allowed: parseRanges(options.allow ?? []),
    allowHttp: options.allowHttp ?? false,
    ownPorts: options.ownPorts ?? (() => []),
    connectTimeoutMs: options.connectTimeoutMs ?? 5_000,
    ca: options.ca ?? [],
    resolve: options.resolve ?? resolveAll,
  };
  const maxBodyBytes = options.maxBodyBytes ?? 64 * 1024;
  const agent = new Agent({
    factory: (origin, poolOptions: object) =>
      new Pool(origin, {
        ...poolOptions,
        connections: options.maxConnections ?? 16,
        factory: (clientOrigin, clientOptions) => new CountingClient(clientOrigin, clientOptions),
      }),
    connect: dialer(rules),
    allowH2: false,
    pipelining: 1,
    // The total deadline bounds both; undici's bodyTimeout only sees silence, not a drip.
    headersTimeout: 0,
    bodyTimeout: 0,
    maxHeaderSize: MAX_HEADER_BYTES,
    keepAliveTimeout: KEEP_ALIVE_MS,
    keepAliveMaxTimeout: KEEP_ALIVE_MS,
  });

  async function send(url: URL, request: PostRequest, startedAt: number): Promise<PostResult> {
    for (let mayResend = true; ; mayResend = false) {
      const exchange = new Exchange({ startedAt, maxBodyBytes });
      const leftMs = request.timeoutMs - (performance.now() - startedAt);
      const timer = setTimeout(
        () =>
          exchange.fail(new ConnectorError("timeout", `No complete answer within ${request.timeoutMs} ms.`)),
        Math.max(0, leftMs),
      );
      try {
        agent.dispatch(
          {
            origin: url.origin,
            path: url.pathname + url.search,
            method: "POST",
            headers: { ...request.headers },
            body: request.body,
          },
          exchange,
        );
        return await exchange.answer;
      } catch (error) {
        if (mayResend && exchange.failedOnStaleConnection) continue;
        throw error;
      } finally {
        clearTimeout(timer);
      }
    }
  }

  return {
    async post(request) {
      options.guard?.();
      return await send(checkUrl(request.url, rules), request, performance.now());
    },
    vet: (url) => vetUrl(url, rules),
    async close() {
      await agent.destroy();
    },
  };
}
