/**
 * Links to a server's screen. The token is good once, for a minute, for one server as it is now, in the name of whoever asked;
 * the database has only its hash. Fetching the page does not use it up, because chat platforms fetch what they preview.
 */
import { createHash, randomBytes } from "node:crypto";
import type { Queryable, Transaction } from "../../database/client.ts";
import type { Principal } from "../access.ts";
import type { Source } from "../action.ts";
import { ServiceError } from "../errors.ts";

export const CONSOLE_LINK_SECONDS = 60;
const TOKEN_BYTES = 32;

export interface ConsoleLink {
  serverId: string;
  /** What the server was in its cloud, and whose, when it was asked for. */
  externalId: string;
  customerId: string | null;
  principalKind: Principal["kind"];
  principalId: string;
  /** The chat identity that a customer was known by. */
  via: string | null;
  source: Source;
}

/** Hexadecimal, so that no platform's markup finds anything in it. */
export async function makeConsoleLink(tx: Transaction, link: ConsoleLink): Promise<string> {
  const token = randomBytes(TOKEN_BYTES).toString("hex");
  await tx.sql(
    `INSERT INTO console_links (hash, server_id, external_id, customer_id, principal_kind, principal_id, via, source, expires_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, clock() + make_interval(secs => $9))`,
    [
      hashOf(token),
      link.serverId,
      link.externalId,
      link.customerId,
      link.principalKind,
      link.principalId,
      link.via,
      link.source,
      CONSOLE_LINK_SECONDS,
    ],
  );
  return token;
}

export function isConsoleToken(text: string): boolean {
  return /^[0-9a-f]{64}$/.test(text);
}

/** Uses it up: one statement, so that of several at once one gets it. Throws `expired`, whatever is wrong with it. */
export async function takeConsoleLink(database: Queryable, token: string): Promise<ConsoleLink> {
  const [link] = isConsoleToken(token)
    ? await database.sql<ConsoleLink>(
        `UPDATE console_links SET used_at = clock() WHERE hash = $1 AND used_at IS NULL AND expires_at > clock()
         RETURNING server_id AS "serverId", external_id AS "externalId", customer_id AS "customerId",
           principal_kind AS "principalKind", principal_id AS "principalId", via, source`,
        [hashOf(token)],
      )
    : [];
  if (link !== undefined) return link;
  throw new ServiceError(
    "expired",
    "This link was used or has expired: ask for another with /server console.",
  );
}

/** Those that nobody can use any more. */
export async function dropOldConsoleLinks(database: Queryable): Promise<number> {
  const dropped = await database.sql(
    `DELETE FROM console_links WHERE expires_at < clock() - interval '1 hour' RETURNING 1 AS one`,
  );
  return dropped.length;
}

function hashOf(token: string): Buffer {
  return createHash("sha256").update(`ratatosk console ${token}`).digest();
}
