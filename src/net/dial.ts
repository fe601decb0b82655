/** Opens the sockets of the connector: decides which addresses may be reached, and dials exactly those. */

import type { LookupAddress } from "node:dns";
import { lookup } from "node:dns/promises";
import net from "node:net";
import { networkInterfaces } from "node:os";
import tls from "node:tls";
import type { buildConnector } from "undici";
import { type AddressRange, isInRanges, isPublicAddress } from "./address.ts";
import { ConnectorError } from "./connector-error.ts";

export interface DialRules {
  /** Ranges that may be reached although they are not public, and without TLS. */
  readonly allowed: readonly AddressRange[];
  /** Plain http to public addresses too. */
  readonly allowHttp: boolean;
  /** Ports of this machine that are never called: our own. Asked at each connection, because a port may be chosen late. */
  readonly ownPorts: () => readonly number[];
  /** DNS, TCP and TLS together. */
  readonly connectTimeoutMs: number;
  /** Trusted beside the usual certificate authorities (PEM). */
  readonly ca: readonly string[];
  readonly resolve: (hostname: string) => Promise<LookupAddress[]>;
}

interface Target {
  readonly hostname: string;
  readonly secure: boolean;
  readonly port: number;
}

/** The system's resolver (hosts file included), all addresses. */
export function resolveAll(hostname: string): Promise<LookupAddress[]> {
  return lookup(hostname, { all: true });
}

/** What can be judged of a URL without DNS. Throws ConnectorError `refused_address`. */
export function checkUrl(text: string, rules: DialRules): URL {
  let url: URL;
  try {
    url = new URL(text);
  } catch (error) {
    throw new ConnectorError("refused_address", "The URL cannot be read.", { cause: error });
  }
  if (url.protocol !== "https:" && url.protocol !== "http:") {
    throw new ConnectorError("refused_address", `Only https URLs are called, not ${url.protocol}`);
  }
  if (url.username !== "" || url.password !== "") {
    throw new ConnectorError("refused_address", "A URL with a name or password in it is not called.");
  }
  // An IP literal never reaches a resolver (undici and net.connect dial it as it is), so it is judged here and in dial().
  // The URL parser has turned octal, hexadecimal, decimal and full-width spellings into the usual one.
  const hostname = unbracketed(url.hostname);
  if (net.isIP(hostname) !== 0) {
    vet([hostname], targetOf(url.protocol, hostname, url.port), rules);
  }
  return url;
}

/** Resolves and judges as a call would, and opens nothing. Throws ConnectorError. */
export async function vetUrl(text: string, rules: DialRules): Promise<string[]> {
  const { protocol, hostname, port } = checkUrl(text, rules);
  const target = targetOf(protocol, unbracketed(hostname), port);
  const addresses = (await addressesOf(target, rules)).map(({ address }) => address);
  vet(addresses, target, rules);
  return addresses;
}

/** undici's `connect`: resolves, refuses when ANY address is forbidden, and dials only addresses judged here. */
export function dialer(rules: DialRules): buildConnector.connector {
  return (options, callback) => {
    const target = targetOf(options.protocol, unbracketed(options.hostname), options.port);
    const deadline = performance.now() + rules.connectTimeoutMs;
    // undici wants a callback and never gets two.
    // oxlint-disable promise/no-callback-in-promise
    dial(target, rules, deadline).then(
      (socket) => callback(null, socket),
      (error: unknown) => callback(asError(error), null),
    );
  };
}

async function dial(target: Target, rules: DialRules, deadline: number): Promise<net.Socket> {
  const addresses = await addressesOf(target, rules);
  vet(
    addresses.map(({ address }) => address),
    target,
    rules,
  );
  return await open(target, addresses, {
    ca: rules.ca,
    timeoutMs: Math.max(1, deadline - performance.now()),
  });
}

async function addressesOf({ hostname }: Target, rules: DialRules): Promise<LookupAddress[]> {
  const family = net.isIP(hostname);
  if (family !== 0) return [{ address: hostname, family }];
  const { promise: tooLate, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(
    () => reject(new ConnectorError("dns", `${hostname} was not resolved in ${rules.connectTimeoutMs} ms.`)),
    rules.connectTimeoutMs,
  );
  try {
    const addresses = await Promise.race([rules.resolve(hostname), tooLate]);
    if (addresses.length === 0) throw new ConnectorError("dns", `${hostname} has no address.`);
    return addresses;
  } catch (error) {
    if (error instanceof ConnectorError) throw error;
    throw new ConnectorError("dns", `${hostname} does not resolve (${codeOf(error)}).`, { cause: error });
  } finally {
    clearTimeout(timer);
  }
}

function vet(addresses: readonly string[], target: Target, rules: DialRules): void {
  const own = rules.ownPorts().includes(target.port) ? addressesOfThisMachine() : undefined;
  for (const address of addresses) {
    const allowed = isInRanges(address, rules.allowed);
    if (!allowed && !isPublicAddress(address)) {
      throw new ConnectorError(
        "refused_address",
        `${target.hostname} is at ${address}, which is not a public address. ` +
          "If it is meant, allow its range in the configuration.",
      );
    }
    if (!allowed && !target.secure && !rules.allowHttp) {
      throw new ConnectorError("refused_address", `${target.hostname} is only called over https.`);
    }
    if (own?.(address) === true) {
      throw new ConnectorError(
        "refused_address",
        `${target.hostname}:${target.port} is this program itself.`,
      );
    }
  }
}

function addressesOfThisMachine(): (address: string) => boolean {
  const mine = new Set(
    Object.values(networkInterfaces()).flatMap((list) => (list ?? []).map(({ address }) => address)),
  );
  return (address) =>
    mine.has(address) ||
    address.startsWith("127.") ||
    address.startsWith("0.") ||
    address === "::1" ||
    address === "::";
}

function open(
  target: Target,
  addresses: LookupAddress[],
  { ca, timeoutMs }: { ca: readonly string[]; timeoutMs: number },
): Promise<net.Socket> {
  const { promise, resolve, reject } = Promise.withResolvers<net.Socket>();
  const { hostname, port, secure } = target;
  const common = {
    host: hostname,
    port,
    // The addresses judged above, whatever the name resolves to by now (DNS rebinding).
    lookup: vettedLookup(addresses),
    autoSelectFamily: true,
    noDelay: true,
    keepAlive: true,
  };
  const socket = secure
    ? tls.connect({
        ...common,
        ...(net.isIP(hostname) === 0 && { servername: hostname }),
        ALPNProtocols: ["http/1.1"],
        ...(ca.length > 0 && { ca: [...tls.rootCertificates, ...ca] }),
      })
    : net.connect(common);

  let reached = false;
  const fail = (error: unknown): void => {
    clearTimeout(timer);
    socket.destroy();
    reject(asDialError(error, target, reached));
  };
  const timer = setTimeout(() => fail(new Error("no answer in time")), timeoutMs);
  socket.once("connect", () => {
    reached = true;
  });
  // Stays: an error in the moment before undici listens would end the process.
  socket.on("error", fail);
  socket.once(secure ? "secureConnect" : "connect", () => {
    clearTimeout(timer);
    resolve(socket);
  });
  return promise;
}

function vettedLookup(addresses: LookupAddress[]): net.LookupFunction {
  return (_hostname, options, callback) => {
    const [first] = addresses;
    if (options.all === true || first === undefined) callback(null, addresses);
    else callback(null, first.address, first.family);
  };
}

function asDialError(error: unknown, { hostname, port, secure }: Target, reached: boolean): ConnectorError {
  const reason = error instanceof Error && error.message !== "" ? error.message : codeOf(error);
  return secure && reached
    ? new ConnectorError("tls", `No trusted TLS session with ${hostname}: ${reason}`, { cause: error })
    : new ConnectorError("connect", `No connection to ${hostname}:${port}: ${reason}`, { cause: error });
}

function targetOf(protocol: string, hostname: string, port: string): Target {
  const secure = protocol === "https:";
  return { hostname, secure, port: port === "" ? (secure ? 443 : 80) : Number(port) };
}

function unbracketed(hostname: string): string {
  return hostname.startsWith("[") ? hostname.slice(1, -1) : hostname;
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}

function codeOf(error: unknown): string {
  return error instanceof Error && "code" in error ? String(error.code) : "unknown error";
}
