/** How a stranger becomes known as a customer: somebody of the team makes a code, the stranger sends it. */
import type { Queryable, Transaction } from "../../database/client.ts";
import { newId } from "../../database/id.ts";
import type { Principal, Stranger } from "../access.ts";
import { recordAudit } from "../audit/record.ts";
import { ServiceError } from "../errors.ts";
import type { Engine } from "../operations/engine.ts";
import { recordEvent } from "../operations/events.ts";
import type { Entrance } from "../request.ts";
import type { View } from "../view.ts";
import type { Customer } from "./find.ts";
import { identityOf } from "./identify.ts";
import { generateLinkCode, hashLinkCode, isLinkCode, readLinkCode, writeLinkCode } from "./link-code.ts";
import { forgetCards, type RevokedIdentity } from "./revoke.ts";

/** The action's name, which a stranger may use, too. */
export const LINK = "link";

export const LINK_CODE_MINUTES = 10;
/** So many wrong tries within that time are a person's mistakes; what comes after them is not looked at. */
const MOST_TRIES = 5;
const TOO_MANY = "too_many_tries";
// With a hash of the person: their tries are judged one after the other. Two numbers are a lock of their own kind.
const LOCK = 72_707_374;
const MOST_COLLISIONS = 20;

/** Answers with the code; what is stored of it cannot be turned back. */
export async function makeLinkCode(
  tx: Transaction,
  customer: Pick<Customer, "id">,
  by: Pick<Principal, "id">,
): Promise<string> {
  await tx.sql(`DELETE FROM link_codes WHERE expires_at <= clock()`);
  for (let tried = 0; tried < MOST_COLLISIONS; tried += 1) {
    const code = generateLinkCode();
    // oxlint-disable-next-line no-await-in-loop -- nearly always the first one is free
    const made = await tx.sql(
      `INSERT INTO link_codes (selector, customer_id, hash, created_by, expires_at)
       VALUES ($1, $2, $3, $4, clock() + $5::int * interval '1 minute')
       ON CONFLICT (selector) DO NOTHING RETURNING selector`,
      [code.selector, customer.id, hashLinkCode(code), by.id, LINK_CODE_MINUTES],
    );
    if (made.length > 0) return writeLinkCode(code);
  }
  throw new Error("no free selector for a link code was found");
}

export interface Linking {
  engine: Engine;
  identify: Entrance["identify"];
}

/**
 * Throws ServiceError: `not_found` with the same words for a wrong, used, old or tried-out code and for too many tries,
 * `conflict` for somebody who is known already.
 */
export async function linkStranger(
  { engine, identify }: Linking,
  stranger: Stranger,
  typed: string,
): Promise<View> {
  const known = await identify(stranger.platform, stranger.userId);
  if (known !== null) throw alreadyKnown(known);
  const customer = await engine.database.transaction(async (tx) => {
    await tx.sql(`SELECT pg_advisory_xact_lock($1::int, hashtext($2))`, [LOCK, identityOf(stranger)]);
    if ((await wrongTries(tx, stranger)) >= MOST_TRIES) return refuse(tx, stranger, TOO_MANY);
    const found = await redeem(tx, typed);
    if (found === null) return refuse(tx, stranger, "code_not_valid");
    await link(tx, stranger, found);
    tx.afterCommit(() => engine.wake.nudge("events"));
    return found;
  });
  // Not thrown inside: the wrong try must stay counted.
  if (customer === null) throw new ServiceError("not_found", "Code is not valid.");
  return {
    title: `Linked to ${customer.name}.`,
    tone: "success",
    text: "From now on you are known here: /server list shows your servers, /help what you can do, /account show what is linked.",
  };
}

export function alreadyKnown(principal: Principal): ServiceError {
  return new ServiceError(
    "conflict",
    principal.kind === "customer"
      ? `You are linked to ${principal.name} already. To belong to another customer, use /account unlink first.`
      : "You belong to the team, so you cannot be linked to a customer. Your ids stand under staff in ratatosk.yaml.",
  );
}

/** The audit trail knows. */
async function wrongTries(tx: Transaction, stranger: Stranger): Promise<number> {
  const [row] = await tx.sql<{ n: number }>(
    `SELECT count(*)::int AS n FROM audit_entries WHERE principal_id = $1 AND principal_kind = 'stranger'
       AND reason = 'code_not_valid' AND at > clock() - $2::int * interval '1 minute'`,
    [identityOf(stranger), LINK_CODE_MINUTES],
  );
  return row?.n ?? 0;
}

/** Too many tries are written down once in their time: the trail is not a stranger's to fill. */
async function refuse(tx: Transaction, stranger: Stranger, reason: string): Promise<null> {
  if (reason === TOO_MANY && (await isWritten(tx, stranger))) return null;
  await recordAudit(tx, {
    principal: actorOf(stranger),
    source: stranger.platform,
    action: LINK,
    subject: null,
    outcome: "denied",
    reason,
  });
  return null;
}

async function isWritten(tx: Transaction, stranger: Stranger): Promise<boolean> {
  const rows = await tx.sql(
    `SELECT 1 FROM audit_entries WHERE principal_id = $1 AND principal_kind = 'stranger' AND reason = $2
       AND at > clock() - $3::int * interval '1 minute' LIMIT 1`,
    [identityOf(stranger), TOO_MANY, LINK_CODE_MINUTES],
  );
  return rows.length > 0;
}

/** Uses the code up, or counts the try against it. */
async function redeem(tx: Transaction, typed: string): Promise<Customer | null> {
  const code = readLinkCode(typed);
  if (code === null) return null;
  const [row] = await tx.sql<Customer & { hash: Uint8Array }>(
    `SELECT c.id, c.ref, c.name, l.hash FROM link_codes l JOIN customers c ON c.id = l.customer_id
      WHERE l.selector = $1 AND l.used_at IS NULL AND l.expires_at > clock() AND l.failures < $2
        AND c.closed_at IS NULL FOR UPDATE OF l`,
    [code.selector, MOST_TRIES],
  );
  if (row === undefined) return null;
  const { hash, ...customer } = row;
  const isRight = isLinkCode(code, hash);
  await tx.sql(
    isRight
      ? `UPDATE link_codes SET used_at = clock() WHERE selector = $1`
      : `UPDATE link_codes SET failures = failures + 1 WHERE selector = $1`,
    [code.selector],
  );
  return isRight ? customer : null;
}

async function link(tx: Transaction, stranger: Stranger, customer: Customer): Promise<void> {
  const { platform, userId } = stranger;
  // What is left of a customer whose account is closed. Anybody else's would have made them known.
  const left = await tx.sql<RevokedIdentity>(
    `UPDATE identities i SET revoked_at = clock() FROM customers c
      WHERE c.id = i.customer_id AND c.closed_at IS NOT NULL AND i.revoked_at IS NULL AND i.platform = $1 AND i.user_id = $2
      RETURNING i.customer_id AS "customerId", i.platform, i.user_id AS "userId"`,
    [platform, userId],
  );
  await forgetCards(tx, left);
  const made = await tx.sql(
    `INSERT INTO identities (id, customer_id, platform, user_id, source) VALUES ($1, $2, $3, $4, 'code')
     ON CONFLICT (platform, user_id) WHERE revoked_at IS NULL DO NOTHING RETURNING id`,
    [newId(), customer.id, platform, userId],
  );
  // Another request of theirs was faster. The code stays good, because this throws.
  if (made.length === 0) {
    throw new ServiceError("conflict", "You have been linked already. See /account show.");
  }
  await recordEvent(tx, {
    type: "customer.identity.linked",
    serverId: null,
    customerId: customer.id,
    data: { customer: customer.ref, platform, userId },
  });
  await recordAudit(tx, {
    principal: actorOf(stranger),
    source: platform,
    action: LINK,
    subject: customer.ref,
    customerId: customer.id,
    outcome: "allowed",
  });
}

function actorOf(stranger: Stranger) {
  const id = identityOf(stranger);
  return { kind: "stranger", id, name: id } as const;
}

export interface Identity extends Stranger {
  id: string;
  source: "configuration" | "code";
  linkedAt: Date;
}

export function listIdentities(database: Queryable, customer: Pick<Customer, "id">): Promise<Identity[]> {
  return database.sql<Identity>(
    `SELECT id, platform, user_id AS "userId", source, linked_at AS "linkedAt" FROM identities
      WHERE customer_id = $1 AND revoked_at IS NULL ORDER BY linked_at, platform, user_id`,
    [customer.id],
  );
}

/** From now on a stranger's; what was shown to them there is not brought up to date any more. */
export async function unlink(tx: Transaction, customer: Customer, identity: Identity): Promise<void> {
  const { id, platform, userId } = identity;
  await tx.sql(`UPDATE identities SET revoked_at = clock() WHERE id = $1`, [id]);
  await forgetCards(tx, [{ customerId: customer.id, platform, userId }]);
  await recordEvent(tx, {
    type: "customer.identity.unlinked",
    serverId: null,
    customerId: customer.id,
    data: { customer: customer.ref, platform, userId },
  });
}
