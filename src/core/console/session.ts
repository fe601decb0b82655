/** From a link to the screen of a server, and whether whoever looks at it still may. */
import type { Duplex } from "node:stream";
import { type Principal, requirePermission } from "../access.ts";
import type { Source } from "../action.ts";
import { recordAudit } from "../audit/record.ts";
import { isServiceError, ServiceError } from "../errors.ts";
import type { Engine } from "../operations/engine.ts";
import { recordEvent } from "../operations/events.ts";
import type { People } from "../people/identify.ts";
import { requireNotDueForDeletion, requireNotSuspended } from "../servers/allowed.ts";
import { findServer, type ServerRow } from "../servers/find.ts";
import { requireProcedure } from "../servers/procedure.ts";
import { type ConsoleLink, takeConsoleLink } from "./link.ts";

export const CONSOLE_ACTION = "server.console";
export const NO_CONSOLE = "This server's cloud has no screen that we can show.";

export interface ConsoleDeps {
  engine: Pick<Engine, "database" | "clouds" | "registry" | "wake">;
  people: Pick<People, "identify" | "parsePrincipal">;
}

/** Who looks at what. */
export interface ConsoleSession {
  id: string;
  link: ConsoleLink;
  principal: Principal;
  server: Pick<ServerRow, "id" | "publicId" | "name">;
}

export interface OpenedConsole {
  session: ConsoleSession;
  /** RFB (RFC 6143), both ways. */
  stream: Duplex;
  /** For its VNC authentication; for nobody but the page. */
  password: string;
}

/**
 * Uses the link up and connects. Throws ServiceError with a sentence for whoever holds it; what the cloud says in words is in
 * `staffDetail`. `admit` may refuse once it is known who it is, before the cloud is asked.
 */
export async function openConsole(
  deps: ConsoleDeps,
  { id, token, signal }: { id: string; token: string; signal: AbortSignal },
  admit: (principal: Principal) => void,
): Promise<OpenedConsole> {
  const { engine } = deps;
  const link = await takeConsoleLink(engine.database, token);
  let principal: Principal | null = null;
  try {
    principal = await holderOf(deps, link);
    const server = await serverOf(deps, link, principal);
    admit(principal);
    const open = requireProcedure(engine.clouds.get(server.cloudName), "console", NO_CONSOLE);
    const serverData = await dataOf(deps, server.id);
    const { externalId } = link;
    const remote = await open({ id, externalId, serverData, database: engine.database, signal });
    const session = { id, link, principal, server };
    try {
      await recordOpened(deps, session);
    } catch (error) {
      remote.stream.destroy();
      throw error;
    }
    return { session, ...remote };
  } catch (error) {
    await auditRefusal(deps, link, error, principal);
    throw error;
  }
}

/** Throws ServiceError with a sentence that says why not. */
export async function requireStillAllowed(deps: ConsoleDeps, { link }: ConsoleSession): Promise<void> {
  await serverOf(deps, link, await holderOf(deps, link));
}

/** As they are known now: whoever was unlinked, closed or taken out of the staff since is nobody. */
async function holderOf({ people, engine }: ConsoleDeps, link: ConsoleLink): Promise<Principal> {
  const principal = await whoNow(people, link);
  if (principal?.kind !== link.principalKind || principal.id !== link.principalId) {
    throw new ServiceError(
      "forbidden",
      "Whoever asked for this screen is no longer known here by that account.",
    );
  }
  requirePermission(principal, engine.registry.get(CONSOLE_ACTION));
  return principal;
}

async function whoNow(people: ConsoleDeps["people"], link: ConsoleLink): Promise<Principal | null> {
  const [platform, userId] = (link.via ?? "").split(":", 2);
  if ((platform === "slack" || platform === "discord") && userId !== undefined)
    return people.identify(platform, userId);
  try {
    return await people.parsePrincipal(`${link.principalKind}:${link.principalId}`);
  } catch (error) {
    if (isServiceError(error, "not_found", "invalid_input")) return null;
    throw error;
  }
}

/** The same server of the same customer, and in its cloud what it was. */
async function serverOf(
  { engine }: ConsoleDeps,
  link: ConsoleLink,
  principal: Principal,
): Promise<ServerRow> {
  const publicId = await publicIdOf(engine, link);
  const server = publicId === null ? null : await findOwn(engine, principal, publicId);
  if (server === null || server.customerId !== link.customerId) {
    throw new ServiceError("not_found", "This server is gone, or no longer yours to look at.");
  }
  if (server.externalId !== link.externalId) {
    throw new ServiceError(
      "drifted",
      "The server has got another system since. Ask for its screen with /server console.",
    );
  }
  requireNotSuspended(server, "shown");
  requireNotDueForDeletion(server, "shown");
  return server;
}

async function publicIdOf(
  { database }: Pick<Engine, "database">,
  { serverId }: ConsoleLink,
): Promise<string | null> {
  const [row] = await database.sql<{ publicId: string }>(
    `SELECT public_id AS "publicId" FROM servers WHERE id = $1`,
    [serverId],
  );
  return row?.publicId ?? null;
}

async function findOwn(
  { database }: Pick<Engine, "database">,
  principal: Principal,
  publicId: string,
): Promise<ServerRow | null> {
  try {
    return await findServer(database, principal, publicId);
  } catch (error) {
    if (isServiceError(error, "not_found")) return null;
    throw error;
  }
}

async function dataOf({ engine }: ConsoleDeps, serverId: string): Promise<Record<string, unknown>> {
  const [row] = await engine.database.sql<{ data: Record<string, unknown> }>(
    `SELECT provider_data AS data FROM servers WHERE id = $1`,
    [serverId],
  );
  return row?.data ?? {};
}

async function recordOpened(
  { engine }: ConsoleDeps,
  { link, principal, server }: ConsoleSession,
): Promise<void> {
  await engine.database.transaction(async (tx) => {
    await recordEvent(tx, {
      type: "server.console.opened",
      serverId: server.id,
      data: { by: principal.kind },
      staffData: { person: principal.name, source: link.source },
    });
    await recordAudit(tx, {
      principal,
      source: link.source,
      action: CONSOLE_ACTION,
      subject: server.publicId,
      customerId: link.customerId,
      outcome: "allowed",
      data: { opened: true },
    });
    tx.afterCommit(() => engine.wake.nudge("events"));
  });
}

/** Whoever came with a good link was told no: that is worth a line. */
async function auditRefusal(
  deps: ConsoleDeps,
  link: ConsoleLink,
  error: unknown,
  principal: Principal | null,
): Promise<void> {
  if (!(error instanceof ServiceError)) return;
  const source: Source = link.source;
  await recordAudit(deps.engine.database, {
    principal: principal ?? { kind: link.principalKind, id: link.principalId, name: link.principalId },
    source,
    action: CONSOLE_ACTION,
    subject: await publicIdOf(deps.engine, link),
    customerId: link.customerId,
    outcome: isServiceError(error, "forbidden", "not_found") ? "denied" : "refused",
    reason: error.code,
    data: { opened: false },
  });
}
