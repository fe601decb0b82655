// https://docs.openstack.org/nova/latest/reference/api-microversion-history.html
import { ServiceError } from "../../core/errors.ts";
import type { HttpClient } from "../http.ts";
import { errorOf } from "./errors.ts";
import { type Identity, jsonOf, secretsOf } from "./identity.ts";
import type { OpenStackCloudOptions } from "./options.ts";
import { NovaVersions } from "./schema.ts";

/** Tags at creation, our handle on a server whose answer was lost, came with this one (Pike). */
const FLOOR = 52;
/** The newest whose changes this client was written and tested for (Yoga). */
const PREFERRED = 90;

export interface Negotiation {
  /** "2.90". Throws `unsupported` when the cloud's newest is below the floor. */
  microversion(): Promise<string>;
  forget(): void;
}

export function createNegotiation(
  options: OpenStackCloudOptions,
  http: HttpClient,
  identity: Identity,
): Negotiation {
  let negotiated: Promise<string> | undefined;

  async function negotiate(): Promise<string> {
    const session = await identity.session();
    // Without the project id that some catalogues append.
    const root = identity.endpoint(session, "compute").replace(/(\/v2(?:\.\d)?)\/[^/]+$/u, "$1");
    const label = "compute GET / (versions)";
    const response = await http.send({
      method: "GET",
      url: `${root}/`,
      label,
      changing: false,
      headers: { Accept: "application/json", "X-Auth-Token": session.token },
    });
    // Version documents are also served as 300 Multiple Choices.
    if (response.status > 300) {
      const secrets = secretsOf(options.auth);
      throw errorOf({ cloud: options.name, label, changing: false, response, secrets });
    }
    const body = NovaVersions.safeParse(jsonOf(response.text));
    const entries = body.success ? [body.data.version, ...(body.data.versions ?? [])] : [];
    const max = Math.max(-1, ...entries.map((entry) => minorOf(entry?.version)));
    if (max >= FLOOR) return `2.${Math.min(max, PREFERRED)}`;
    throw new ServiceError(
      "unsupported",
      `The cloud's compute service is too old: it speaks up to ${max < 0 ? "an unknown version" : `2.${max}`}, and 2.${FLOOR} is needed to find a server again whose answer was lost.`,
      { facts: { cloud: options.name, max, floor: FLOOR } },
    );
  }

  return {
    microversion() {
      negotiated ??= negotiate().catch((error: unknown) => {
        negotiated = undefined;
        throw error;
      });
      return negotiated;
    },
    forget() {
      negotiated = undefined;
    },
  };
}

function minorOf(version: string | undefined): number {
  const match = /^2\.(\d+)$/u.exec(version ?? "");
  return match === null ? -1 : Number(match[1]);
}
