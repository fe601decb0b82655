// A call of PVE's API that becomes a WebSocket, under our credential.
import type { HttpClient, HttpResponse } from "../http.ts";
import { WebSocket } from "../web-socket.ts";
import { errorOf } from "./errors.ts";
import { encodeForm, type Parameters } from "./form.ts";
import type { PveCloudOptions } from "./options.ts";
import type { PveSessions, Session } from "./session.ts";

export interface SocketCall {
  /** Below /api2/json. */
  path: string;
  parameters: Parameters;
  timeoutMs: number;
  maxMessageBytes: number;
  /** Only while it is being opened. */
  signal: AbortSignal;
  /** Values that must not appear anywhere. */
  secrets: readonly string[];
}

interface Opener {
  options: PveCloudOptions;
  http: HttpClient;
  sessions: PveSessions;
}

/** Throws as a reading call. */
export function createSocketOpener({ options, http, sessions }: Opener) {
  return async ({ path, parameters, secrets, ...rest }: SocketCall): Promise<WebSocket> => {
    const label = `GET ${path}`;
    const url = `${options.url}/api2/json${path}?${encodeForm(parameters)}`;
    let opened: WebSocket | undefined;
    const exchange = async ({ headers }: Session): Promise<HttpResponse> => {
      const answer = await http.openSocket({ ...rest, url, label, headers });
      if (!(answer instanceof WebSocket)) return isOfVncTicket(answer) ? { ...answer, status: 403 } : answer;
      opened = answer;
      return switched;
    };
    const response = await sessions.send(exchange, { anyway: false });
    if (opened !== undefined) return opened;
    const hidden = [...sessions.secrets, ...secrets];
    throw errorOf({ cloud: options.name, label, changing: false, response, secrets: hidden });
  };
}

/**
 * "permission denied - invalid PVEVNC ticket" is a 401, too, and says nothing about our credential, which would be taken anew or
 * not used for a while because of it.
 */
function isOfVncTicket({ status, statusText, text }: HttpResponse): boolean {
  return status === 401 && /PVEVNC/u.test(`${statusText} ${text}`);
}

const switched: HttpResponse = {
  status: 101,
  statusText: "Switching Protocols",
  headers: {},
  text: "",
  requestId: undefined,
  date: undefined,
  retryAfterMs: undefined,
};
