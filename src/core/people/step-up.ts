/**
 * Whoever sits at a customer's unlocked chat is not yet the customer: before what hurts they show, not long ago, that they
 * also have the authenticator app.
 */
import type { Queryable, Transaction } from "../../database/client.ts";
import type { Principal } from "../access.ts";
import type { Source } from "../action.ts";
import { ServiceError } from "../errors.ts";
import type { Engine } from "../operations/engine.ts";
import { recordEvent } from "../operations/events.ts";
import type { Customer } from "./find.ts";
import { generateTotpSecret, totpStepOf } from "./totp.ts";

export const stepUpPolicies = ["off", "enrolled", "always"] as const;
/** `enrolled`: asked of customers who have set up an app. `always`: the others have to set one up first. */
export type StepUpPolicy = (typeof stepUpPolicies)[number];

export const STEP_UP_MINUTES = 15;
const MOST_TRIES = 5;
const TRIES_MINUTES = 10;
/** A code is one of a million, and three are good at any time: who may try for ever finds one. */
const MOST_TRIES_A_DAY = 20;
const DAY_MINUTES = 24 * 60;

interface Asker {
  database: Queryable;
  principal: Principal;
  source: Source;
  engine: Pick<Engine, "policies">;
}

/** Throws ServiceError `forbidden`, with what to do first. A console is the operator's, who becomes whom they like. */
export async function requireStepUp({ database, principal, source, engine }: Asker): Promise<void> {
  const policy = engine.policies.stepUp ?? "enrolled";
  if (principal.kind !== "customer" || source === "console" || policy === "off") return;
  const [row] = await database.sql<{ enrolled: boolean; fresh: boolean }>(
    `SELECT EXISTS (SELECT FROM customer_factors WHERE customer_id = $1 AND confirmed_at IS NOT NULL) AS enrolled,
       EXISTS (SELECT FROM identities WHERE customer_id = $1 AND revoked_at IS NULL AND platform || ':' || user_id = $2
         AND verified_at > clock() - $3::int * interval '1 minute') AS fresh`,
    [principal.customerId, principal.via ?? null, STEP_UP_MINUTES],
  );
  if (row?.fresh === true || (row?.enrolled !== true && policy === "enrolled")) return;
  throw new ServiceError(
    "forbidden",
    row?.enrolled === true
      ? `Show first that it is you: /account verify code:… with the code of your authenticator app. Nothing was done; ask again within ${STEP_UP_MINUTES} minutes after it.`
      : "This needs an authenticator app: set one up with /account secure. Nothing was done.",
    { facts: { stepUp: row?.enrolled === true ? "verify" : "enrol" } },
  );
}

export interface Factor {
  confirmed: boolean;
}

export async function findFactor(
  database: Queryable,
  customer: Pick<Customer, "id">,
): Promise<Factor | null> {
  const [row] = await database.sql<Factor>(
    `SELECT confirmed_at IS NOT NULL AS confirmed FROM customer_factors WHERE customer_id = $1`,
    [customer.id],
  );
  return row ?? null;
}

/** A new one counts once a code of it was seen. Throws `wrong_state` while another one is in use. */
export async function beginFactor(
  tx: Transaction,
  engine: Pick<Engine, "secrets">,
  customer: Customer,
): Promise<string> {
  // One after the other, also while there is no row of theirs to lock.
  await tx.sql(`SELECT id FROM customers WHERE id = $1 FOR UPDATE`, [customer.id]);
  const [old] = await tx.sql<{ secretId: string; confirmed: boolean }>(
    `SELECT secret_id AS "secretId", confirmed_at IS NOT NULL AS confirmed FROM customer_factors
      WHERE customer_id = $1`,
    [customer.id],
  );
  if (old?.confirmed === true) {
    throw new ServiceError(
      "wrong_state",
      "An authenticator app is set up already. To use another one, take this one out first: /account unsecure.",
    );
  }
  const plaintext = generateTotpSecret();
  const field = `customer_factors:${customer.id}:secret_id`;
  const secretId = await engine.secrets.store(tx, { kind: "totp", field, plaintext });
  if (old !== undefined) await engine.secrets.drop(tx, old.secretId);
  await tx.sql(
    `INSERT INTO customer_factors (customer_id, secret_id, failed_at) VALUES ($1, $2, '{}')
     ON CONFLICT (customer_id) DO UPDATE SET secret_id = excluded.secret_id, last_step = 0`,
    [customer.id, secretId],
  );
  return plaintext;
}

/**
 * Takes a code: false for a wrong or used one, and for any after too many wrong ones. The first good one puts the app in
 * use. Throws `wrong_state` when none is set up. A false answer must be committed, or the try is not counted.
 */
export async function takeCode(
  tx: Transaction,
  engine: Pick<Engine, "secrets">,
  { customer, code, via }: { customer: Customer; code: string; via: string | undefined },
): Promise<boolean> {
  const [row] = await tx.sql<{
    secretId: string;
    lastStep: bigint;
    confirmed: boolean;
    failures: number;
    failuresOfDay: number;
    now: number;
  }>(
    `SELECT secret_id AS "secretId", last_step AS "lastStep", confirmed_at IS NOT NULL AS confirmed, extract(epoch FROM clock())::float8 AS now,
       (SELECT count(*)::int FROM unnest(failed_at) AS t WHERE t > clock() - $2::int * interval '1 minute') AS failures,
       (SELECT count(*)::int FROM unnest(failed_at) AS t WHERE t > clock() - $3::int * interval '1 minute') AS "failuresOfDay"
     FROM customer_factors WHERE customer_id = $1 FOR UPDATE`,
    [customer.id, TRIES_MINUTES, DAY_MINUTES],
  );
  if (row === undefined) {
    throw new ServiceError("wrong_state", "No authenticator app is set up. Begin with /account secure.");
  }
  if (row.failures >= MOST_TRIES || row.failuresOfDay >= MOST_TRIES_A_DAY) return false;
  const secret = await engine.secrets.read(tx, row.secretId);
  const step = totpStepOf(code, secret, { nowSeconds: row.now, lastStep: Number(row.lastStep) });
  if (step === null) {
    await tx.sql(
      `UPDATE customer_factors SET failed_at = array_append(
         ARRAY(SELECT t FROM unnest(failed_at) AS t WHERE t > clock() - $2::int * interval '1 minute'), clock())
       WHERE customer_id = $1`,
      [customer.id, DAY_MINUTES],
    );
    return false;
  }
  if (!row.confirmed) await recordChange(tx, customer, true);
  await tx.sql(
    `UPDATE customer_factors SET last_step = $2, confirmed_at = COALESCE(confirmed_at, clock())
      WHERE customer_id = $1`,
    [customer.id, step],
  );
  await tx.sql(
    `UPDATE identities SET verified_at = clock()
      WHERE customer_id = $1 AND revoked_at IS NULL AND platform || ':' || user_id = $2`,
    [customer.id, via ?? null],
  );
  return true;
}

/** The customer's own systems hear of it, and so does our team: the chat account that did it may be somebody else's. */
async function recordChange(
  tx: Transaction,
  customer: Pick<Customer, "id" | "ref">,
  enrolled: boolean,
): Promise<void> {
  await recordEvent(tx, {
    type: "customer.factor.changed",
    serverId: null,
    customerId: customer.id,
    data: { customer: customer.ref, enrolled },
  });
}

export async function dropFactor(
  tx: Transaction,
  engine: Pick<Engine, "secrets">,
  customer: Pick<Customer, "id" | "ref">,
): Promise<boolean> {
  const [row] = await tx.sql<{ secretId: string; confirmed: boolean }>(
    `DELETE FROM customer_factors WHERE customer_id = $1
     RETURNING secret_id AS "secretId", confirmed_at IS NOT NULL AS confirmed`,
    [customer.id],
  );
  if (row === undefined) return false;
  if (row.confirmed) await recordChange(tx, customer, false);
  await engine.secrets.drop(tx, row.secretId);
  await tx.sql(`UPDATE identities SET verified_at = NULL WHERE customer_id = $1`, [customer.id]);
  return true;
}
