// Who we are to PVE: an API token, or a ticket that is taken with a password and renewed before its two hours are over.
import { ServiceError } from "../../core/errors.ts";
import type { HttpClient } from "../http.ts";
import { errorOf } from "./errors.ts";
import { encodeForm, FORM, unwrap } from "./form.ts";
import type { PveCloudOptions } from "./options.ts";
import { Ticket } from "./schema.ts";

// PVE::AccessControl: $ticket_lifetime = 3600 * 2
const RENEW_AFTER_MS = 60 * 60_000;
/** Every refused authentication is answered 3 s late, and a wrong one stays wrong: it is not asked for each poll. */
const REFUSED_PAUSE_MS = 10_000;

export interface Session {
  headers: Record<string, string>;
}

export interface PveSessions {
  /** Throws `unauthorized` at once for a while after PVE refused us. */
  get(): Promise<Session>;
  /** PVE refused this one. True when another one may be had. */
  refused(session: Session): boolean;
  readonly secrets: readonly string[];
}

export function createSessions(options: PveCloudOptions, http: HttpClient, now: () => number): PveSessions {
  const { credential } = options;
  if (credential.kind === "token") return tokenSessions(options, credential, now);
  return ticketSessions(options, { credential, http, now });
}

function tokenSessions(
  options: PveCloudOptions,
  { tokenId, tokenSecret }: Extract<PveCloudOptions["credential"], { kind: "token" }>,
  now: () => number,
): PveSessions {
  const session = { headers: { Authorization: `PVEAPIToken=${tokenId}=${tokenSecret}` } };
  const pause = createPause(options.name, now);
  return {
    get() {
      pause.check();
      return Promise.resolve(session);
    },
    refused() {
      pause.begin();
      return false;
    },
    secrets: [tokenSecret],
  };
}

function createPause(cloud: string, now: () => number) {
  let until = 0;
  return {
    begin() {
      until = now() + REFUSED_PAUSE_MS;
    },
    check() {
      if (now() >= until) return;
      throw new ServiceError(
        "unauthorized",
        "The cloud does not accept our credential, so nothing was done. The operators must check it in the configuration.",
        {
          facts: { cloud },
          staffDetail: `${cloud}: refused less than ${REFUSED_PAUSE_MS / 1000} s ago; not asked again yet.`,
        },
      );
    },
  };
}

interface TicketOptions {
  credential: Extract<PveCloudOptions["credential"], { kind: "password" }>;
  http: HttpClient;
  now: () => number;
}

interface TicketSession extends Session {
  ticket: string;
  takenAt: number;
}

function ticketSessions(options: PveCloudOptions, { credential, http, now }: TicketOptions): PveSessions {
  const { username, password } = credential;
  const pause = createPause(options.name, now);
  const secrets = [password];
  let current: TicketSession | undefined;
  let login: Promise<TicketSession> | undefined;

  async function take(secret: string): Promise<TicketSession> {
    const label = "POST /access/ticket";
    const response = await http.send({
      method: "POST",
      url: `${options.url}/api2/json/access/ticket`,
      label,
      // It makes nothing in PVE: after a lost answer another one is taken.
      changing: false,
      headers: FORM,
      body: encodeForm({ username, password: secret }),
    });
    const ticket = Ticket.safeParse(unwrap(response.text));
    if (response.status !== 200 || !ticket.success) {
      throw errorOf({
        cloud: options.name,
        label,
        changing: false,
        response,
        secrets: [...secrets, secret],
      });
    }
    return {
      ticket: ticket.data.ticket,
      takenAt: now(),
      headers: {
        Cookie: `PVEAuthCookie=${encodeURIComponent(ticket.data.ticket)}`,
        CSRFPreventionToken: ticket.data.CSRFPreventionToken,
      },
    };
  }

  /** A ticket that still holds serves as the password (a second factor is not asked again then). */
  async function renew(): Promise<TicketSession> {
    const age = current === undefined ? Number.POSITIVE_INFINITY : now() - current.takenAt;
    if (current !== undefined && age < 2 * RENEW_AFTER_MS) {
      try {
        return await take(current.ticket);
      } catch (error) {
        if (!(error instanceof ServiceError) || error.code !== "unauthorized") throw error;
      }
    }
    try {
      return await take(password);
    } catch (error) {
      if (error instanceof ServiceError && error.code === "unauthorized") pause.begin();
      throw error;
    }
  }

  return {
    async get() {
      if (current !== undefined && now() - current.takenAt < RENEW_AFTER_MS) return current;
      pause.check();
      login ??= renew().finally(() => {
        login = undefined;
      });
      current = await login;
      return current;
    },
    refused(session) {
      // Another call may have taken a new one meanwhile.
      if (current === session) current = undefined;
      return true;
    },
    secrets,
  };
}
