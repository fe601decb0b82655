/**
 * Why a call got no (complete) answer:
 * - `refused_address`  the URL, or an address behind its name, is one we do not call; nothing was sent
 * - `dns`              the name does not resolve, or not in time
 * - `connect`          no TCP connection: refused, unreachable, or not in time
 * - `tls`              no trusted TLS session: certificate, name or protocol
 * - `timeout`          the total deadline passed
 * - `reset`            the connection was cut before the answer was complete
 * - `too_large`        the answer exceeds the cap; `partial` has what came before, when its head was readable
 * - `protocol`         what came back is not HTTP
 * - `closed`           this connector was closed
 */
export type ConnectorErrorCode =
  | "refused_address"
  | "dns"
  | "connect"
  | "tls"
  | "timeout"
  | "reset"
  | "too_large"
  | "protocol"
  | "closed";

export interface PostResult {
  status: number;
  /** Lower-case names; repeated headers joined with ", ". */
  headers: Record<string, string>;
  /** As UTF-8, whatever it was; not decompressed. */
  body: string;
  durationMs: number;
}

export class ConnectorError extends Error {
  readonly code: ConnectorErrorCode;
  /** Of `too_large`: status, headers and the body up to the cap. */
  readonly partial: PostResult | undefined;

  constructor(
    code: ConnectorErrorCode,
    message: string,
    options: { cause?: unknown; partial?: PostResult } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = "ConnectorError";
    this.code = code;
    this.partial = options.partial;
  }
}
