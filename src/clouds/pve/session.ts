// Who we are to PVE: an API token, or a ticket that is taken with a password and renewed before its two hours are over.
import { ServiceError } from "../../core/errors.ts";
import type { HttpClient, HttpResponse } from "../http.ts";
import { createCircuit } from "./circuit.ts";
import { errorOf } from "./errors.ts";
import { encodeForm, FORM, unwrap } from "./form.ts";
import type { PveCloudOptions } from "./options.ts";
import { Ticket } from "./schema.ts";

// PVE::AccessControl: $ticket_lifetime = 3600 * 2
const RENEW_AFTER_MS = 60 * 60_000;

export interface Session {
  headers: Record<string, string>;
}

export interface PveSessions {
  /**
   * One call under our credential; the second time only with another ticket, because PVE looks at the credential before
   * anything else. `anyway`: also while calls fail at once because it was refused. Throws `unauthorized` then.
   */
  send(
    exchange: (session: Session) => Promise<HttpResponse>,
    options: { anyway: boolean },
  ): Promise<HttpResponse>;
  readonly secrets: readonly string[];
}

export function createSessions(options: PveCloudOptions, http: HttpClient, now: () => number): PveSessions {
  const { credential } = options;
  const circuit = createCircuit(options.name, now);
  if (credential.kind === "token") {
    const { tokenId, tokenSecret } = credential;
    const session = { headers: { Authorization: `PVEAPIToken=${tokenId}=${tokenSecret}` } };
    return {
      send: (exchange, how) => circuit.through(() => exchange(session), how),
      secrets: [tokenSecret],
    };
  }
  const tickets = createTickets(options, { credential, http, now });
  return {
    send: (exchange, how) => circuit.through(() => tickets.send(exchange), how),
    secrets: [credential.password],
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

function createTickets(options: PveCloudOptions, { credential, http, now }: TicketOptions) {
  const { username, password } = credential;
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
        secrets: [password, secret],
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
    return take(password);
  }

  async function get(): Promise<TicketSession> {
    if (current !== undefined && now() - current.takenAt < RENEW_AFTER_MS) return current;
    login ??= renew().finally(() => {
      login = undefined;
    });
    current = await login;
    return current;
  }

  return {
    async send(exchange: (session: Session) => Promise<HttpResponse>): Promise<HttpResponse> {
      const session = await get();
      const response = await exchange(session);
      // 9.2 says "Authentication failed!" of an old ticket, "invalid csrf token" of an old token beside it: either is taken anew.
      if (response.status !== 401) return response;
      // Another call may have taken a new one meanwhile.
      if (current === session) current = undefined;
      return exchange(await get());
    },
  };
}
